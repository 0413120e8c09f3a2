import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onecycle.errors import ConfigError
from onecycle.runs import lease, lock
from onecycle.runs import record as run
from onecycle.runs.lease import Lease, LostLeaseError

HOLDER = """
import sys, time
from pathlib import Path
from onecycle.runs import lease
folder = Path(sys.argv[1])
lease._machine = lambda: "elsewhere"
with lease.Lease(folder, alone=True, expires=1.0).held() as held:
    print("held", flush=True)
    for line in sys.stdin:
        held.check()
        (folder / "written").write_text("by the first")
        print("wrote", flush=True)
"""


class Clock:
    """Time that passes only where a test says so; `wait` lets others act while it passes."""

    def __init__(self, meanwhile: Callable[[], Any] = lambda: None) -> None:
        self.now, self.meanwhile = 0.0, meanwhile

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_machine", lambda: "another")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_lease_that_is_renewed_is_not_taken_and_its_holder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Lease(tmp_path, alone=True, clock=Clock())
    holder.take()
    on_another_machine(monkeypatch)
    clock = Clock(meanwhile=holder._renew)
    with pytest.raises(ConfigError, match=rf"another process is training this run \(process {os.getpid()} on "):
        Lease(tmp_path, alone=True, clock=clock).take(clock.wait)
    assert clock.now == 10.0  # one renewal is enough to know
    holder._renew()
    assert files(tmp_path) == [".lease-1"]


def test_a_lease_whose_holder_stopped_is_taken_after_it_has_expired_and_the_holder_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Clock()
    holder = Lease(tmp_path, alone=True, clock=stopped)
    holder.take()
    on_another_machine(monkeypatch)
    clock = Clock()
    taker = Lease(tmp_path, alone=True, clock=clock)
    taker.take(clock.wait)
    assert 60 < clock.now <= 80
    assert files(tmp_path) == [".lease-2"]
    stopped.now = 29.0
    holder.check()  # fresh by its own clock: it may not have noticed, but it cannot write for much longer
    stopped.now = 100.0
    with pytest.raises(LostLeaseError, match="taken over by another process"):
        holder.check()
    assert files(tmp_path) == [".lease-2"]
    taker.check()


def test_what_a_process_of_this_machine_left_behind_is_taken_at_once(tmp_path: Path) -> None:
    Lease(tmp_path, alone=True, clock=Clock()).take()
    clock = Clock()
    again = Lease(tmp_path, alone=True, clock=clock)
    again.take(clock.wait)
    assert (again.number, clock.now) == (2, 0.0)


def test_without_locks_even_a_lease_of_this_machine_is_watched(tmp_path: Path) -> None:
    Lease(tmp_path, alone=False, clock=Clock()).take()
    clock = Clock()
    Lease(tmp_path, alone=False, clock=clock).take(clock.wait)
    assert clock.now > 60


def test_a_lease_that_was_given_back_is_taken_at_once_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(tmp_path, alone=True).held():
        pass
    on_another_machine(monkeypatch)
    clock = Clock()
    Lease(tmp_path, alone=True, clock=clock).take(clock.wait)
    assert clock.now == 0
    assert json.loads((tmp_path / ".lease-2").read_text())["released"] is False


def test_of_many_that_want_an_expired_lease_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lease(tmp_path, alone=True, expires=0.3).take()
    on_another_machine(monkeypatch)
    outcomes: list[Any] = []
    barrier = threading.Barrier(8)

    def want() -> None:
        barrier.wait(timeout=60)
        try:
            with Lease(tmp_path, alone=False, expires=0.3).held() as held:
                outcomes.append(held.number)
                time.sleep(1.5)
                held.check()
        except ConfigError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [2]
    assert len(outcomes) == 8


def test_a_stopped_process_that_wakes_up_behind_a_takeover_does_not_write(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as first:  # fmt: skip  # noqa: E501
        assert first.stdin is not None
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "wrote\n"
        with pytest.raises(ConfigError, match="another process is training this run"):
            Lease(tmp_path, alone=True, expires=1.0).take()
        first.send_signal(signal.SIGSTOP)
        with Lease(tmp_path, alone=True, expires=1.0).held() as second:
            (tmp_path / "written").write_text("by the second")
            first.send_signal(signal.SIGCONT)
            _, errors = first.communicate("\n", timeout=20)
            second.check()
    assert first.returncode == 1
    assert "LostLeaseError" in errors
    assert (tmp_path / "written").read_text() == "by the second"


def test_a_run_that_was_taken_over_leaves_the_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(lease, "_now", lambda: clock.now)
    ours = run.Run(tmp_path, "ours", "abc", {"seed": 0}, [])

    def train_on() -> None:
        with ours.recording():
            (tmp_path / ".lease-2").write_text("{}")
            (tmp_path / run.RESULT).write_text('{"schema": 1, "status": "running", "name": "theirs"}')
            clock.now = 100.0
            ours.finish("finished")

    with pytest.raises(LostLeaseError):
        train_on()
    assert run.read_result(tmp_path) == {"schema": 1, "status": "running", "name": "theirs"}


def test_a_file_system_without_locks_does_not_keep_a_run_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    ours = run.Run(tmp_path, "ours", "abc", {"seed": 0}, [])
    with ours.recording():
        ours.finish("finished")
    assert json.loads((tmp_path / run.RESULT).read_text())["status"] == "finished"


def test_a_folder_that_was_moved_away_is_held_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    ours = Lease(folder, alone=True, expires=0.0)
    ours.take()
    folder.rename(tmp_path / "gone")
    ours.check()
    with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        Lease(folder, alone=False, expires=0.2).take(lambda seconds: ours.check())
