"""Who may write into a run's folder: one process of a machine, one machine of several."""

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from onecycle.errors import ConfigError
from onecycle.runs import lock
from onecycle.runs import record as run
from onecycle.runs.lock import LostLeaseError, exclusive
from studying import record_of

# A process on another machine: without this one's locks, and with another name.
ELSEWHERE = """
import contextlib, socket, sys
from pathlib import Path
socket.gethostname = lambda: "elsewhere"
from onecycle.runs import lock
lock.EXPIRES, lock.RENEWAL, lock.CHECK_SECONDS = 1.5, 0.3, 0.0
lock.FileLock = lambda path, **named: contextlib.nullcontext()
folder = Path(sys.argv[1])
with lock.exclusive(folder) as check:
    print("held", flush=True)
    for line in sys.stdin:
        check()
        (folder / "written").write_text("by the first")
        print("wrote", flush=True)
"""


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("EXPIRES", 1.5), ("RENEWAL", 0.3), ("CHECK_SECONDS", 0.0)):
        monkeypatch.setattr(lock, name, value)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def opened(folder: Path) -> run.Run:
    return run.Run(folder, "ours", "0123456789ab", {"seed": 0}, [])


def test_one_process_of_a_machine_records_a_run_and_the_second_is_told_who_does(tmp_path: Path) -> None:
    with opened(tmp_path).recording():
        second = opened(tmp_path)
        holder = f"process {os.getpid()} on {platform.node()}"
        with pytest.raises(ConfigError, match=holder), second.recording():
            raise AssertionError("not reached")
        assert json.loads((tmp_path / run.RESULT).read_text())["status"] == "running"
    with opened(tmp_path).recording():  # the first has let go
        pass


def test_a_run_of_a_sweep_waits_for_the_process_that_trains_it_and_reads_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WAIT_SECONDS", 0.01)
    second = opened(tmp_path)

    def read() -> bool:
        with second.recording(wait=True):
            return second.done

    with ThreadPoolExecutor() as pool:
        with opened(tmp_path).recording():
            reading = pool.submit(read)
            time.sleep(0.3)
            assert not reading.done()
            record_of(tmp_path, [])  # finished
        assert reading.result(timeout=30)


def test_a_killed_holder_of_this_machine_is_no_obstacle(tmp_path: Path) -> None:
    program = (
        "import os, sys, signal; from pathlib import Path; from onecycle.runs.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -signal.SIGKILL
    assert (tmp_path / lock.LEASE).exists()
    began = time.monotonic()
    with exclusive(tmp_path):
        assert time.monotonic() - began < lock.RENEWAL / 2


@pytest.mark.usefixtures("short_leases")
def test_a_machine_that_renews_its_lease_keeps_the_run_and_is_named(
    tmp_path: Path, elsewhere: subprocess.Popen[str]
) -> None:
    with pytest.raises(ConfigError, match=f"process {elsewhere.pid} on elsewhere"), exclusive(tmp_path):
        raise AssertionError("not reached")


@pytest.mark.usefixtures("short_leases")
def test_a_stopped_machine_is_replaced_and_writes_no_more_when_it_wakes_up(
    tmp_path: Path, elsewhere: subprocess.Popen[str]
) -> None:
    elsewhere.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with exclusive(tmp_path) as check:
        assert time.monotonic() - began > 1
        (tmp_path / "written").write_text("by the second")
        elsewhere.send_signal(signal.SIGCONT)
        _, errors = elsewhere.communicate("\n", timeout=20)
        check()
    assert elsewhere.returncode == 1
    assert "LostLeaseError" in errors
    assert (tmp_path / "written").read_text() == "by the second"


@pytest.mark.usefixtures("short_leases")
def test_a_run_that_was_taken_over_leaves_the_record_alone(tmp_path: Path) -> None:
    theirs = {"schema": 1, "status": "running", "name": "theirs"}
    ours = opened(tmp_path)

    def train_on() -> None:
        with ours.recording():
            lease = (tmp_path / lock.LEASE).read_text()
            (tmp_path / "taken").write_text(lease.replace("token=", "token=0"))
            (tmp_path / "taken").replace(tmp_path / lock.LEASE)
            (tmp_path / run.RESULT).write_text(json.dumps(theirs))
            ours.finish("finished")

    with pytest.raises(LostLeaseError):
        train_on()
    assert run.read_result(tmp_path) == theirs


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_lease_alone_keeps_a_run(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(lock, "RENEWAL", 0.3)
    with exclusive(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"), exclusive(tmp_path):
            raise AssertionError("not reached")
        assert not [path for path in tmp_path.iterdir() if path.name not in (lock.LOCK, lock.LEASE)]
    with exclusive(tmp_path):
        pass


def test_a_folder_that_is_moved_away_stays_its_processs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with exclusive(folder) as check:
        folder.rename(tmp_path / "gone")
        check()
        folder.mkdir()
        check()
