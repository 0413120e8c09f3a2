import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import onecycle
from onecycle.runs.environment import environment, peak_memory, prepare

PROGRAM = """
import resource, torch
from onecycle.runs.environment import keep_freed_memory
torch.set_num_threads(1)
def page_faults():
    for number in range(80):
        if number == 60:  # only the settled state is counted
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(48 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = page_faults()
assert keep_freed_memory()
print(given_back, page_faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's allocator can be told")
def test_freed_memory_is_used_again_without_new_page_faults() -> None:
    # 20 times 48 MiB are 245,760 pages of 4 KiB; huge pages may make that fewer, but never a handful.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < 100
    assert given_back > 20 * max(kept, 10)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what runs now")
@pytest.mark.parametrize(
    ("busy", "own", "policy"), [(True, {}, "passive"), (True, {"GOMP_SPINCOUNT": "5"}, "None"), (False, {}, "None")]
)
def test_threads_wait_asleep_beside_other_work_unless_the_user_chose(
    busy: bool, own: dict[str, str], policy: str
) -> None:
    running = 1 + (os.cpu_count() or 1) * busy
    program = f"""if True:
        import os, pathlib
        pathlib.Path.read_text = lambda path: "0.00 0.00 0.00 {running}/100 1234"
        import onecycle
        print(os.environ.get("OMP_WAIT_POLICY"))"""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    variables = {name: value for name, value in os.environ.items() if name not in names} | own
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=variables)
    assert done.stdout.split() == [policy]


def test_the_machine_is_busy_while_every_core_has_work() -> None:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        assert onecycle.is_machine_busy() or not Path("/proc/loadavg").exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_peak_memory_is_that_of_this_process() -> None:
    block = torch.ones(64 << 20, dtype=torch.uint8)
    assert len(block) < peak_memory(torch.device("cpu"))["host"] < 1 << 40


@pytest.mark.parametrize("failure", [FileNotFoundError("git"), TimeoutError("git")], ids=["not installed", "too slow"])
def test_a_machine_without_git_has_no_revision(failure: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise failure

    monkeypatch.setattr(subprocess, "run", fail)
    assert environment()["git"] is None


@pytest.mark.parametrize(
    ("processes", "quota", "threads"), [(1, 1.0, 1), (1, 2.5, 3), (2, 3.0, 1), (1, None, 4), (3, None, 2)]
)
@pytest.mark.parametrize("version", [1, 2])
def test_threads_follow_a_containers_quota_of_cpu_time(
    version: int, processes: int, quota: float | None, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    period = 100_000
    times = [-1 if version == 1 else "max", period] if quota is None else [int(quota * period), period]
    if version == 1:
        files = dict(zip(("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"), times, strict=True))
    else:
        files = {"cpu.max": f"{times[0]} {times[1]}"}
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    real, exists = open, os.path.exists

    def moved(path: Any) -> Any:
        return str(path).replace("/sys/fs/cgroup", str(tmp_path))

    monkeypatch.setattr("builtins.open", lambda path, *rest, **named: real(moved(path), *rest, **named))
    monkeypatch.setattr(os.path, "exists", lambda path: exists(moved(path)))
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "sched_getaffinity", lambda number: set(range(6)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # what the test sets is taken back
    del os.environ["OMP_NUM_THREADS"]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        prepare(None, processes)
        assert torch.get_num_threads() == threads
        assert os.environ.get("OMP_NUM_THREADS") == (None if processes == 1 else str(threads))
        prepare(5, processes)  # what the configuration says is done
        assert torch.get_num_threads() == 5
        os.environ["OMP_NUM_THREADS"] = "5"  # as torch has read it
        prepare(None, processes)
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)
