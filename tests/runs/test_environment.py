import subprocess
import sys
from typing import Any

import pytest
import torch

from onecycle.runs.environment import environment, peak_memory

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


def test_peak_memory_is_that_of_this_process() -> None:
    block = torch.ones(64 << 20, dtype=torch.uint8)
    assert len(block) < peak_memory(torch.device("cpu"))["host"] < 1 << 40


@pytest.mark.parametrize("failure", [FileNotFoundError("git"), TimeoutError("git")], ids=["not installed", "too slow"])
def test_a_machine_without_git_has_no_revision(failure: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise failure

    monkeypatch.setattr(subprocess, "run", fail)
    assert environment()["git"] is None
