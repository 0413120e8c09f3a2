"""What a run was made with and on: versions, machine, memory."""

import contextlib
import ctypes
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import torch


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        **{name: version(name) for name in ("onecycle", "torch", "lightning")},
        "python": platform.python_version(),
        "git": _git_revision(),
        "host": platform.node(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """The processor's name, which Python itself does not know on Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    if not (Path(__file__).parents[3] / "pyproject.toml").exists():
        return None  # installed: a repository around it is another project's
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
        return done.stdout.strip() or None
    return None


def prepare(threads: int | None, processes: int = 1) -> None:
    """Make this process ready for a run: before images are decoded, and as if no run had been made in it before.

    threads: None for OMP_NUM_THREADS or, where that is not set, for this process's share, among `processes`, of the
    cores that the affinity and a container's CPU quota (cgroup) leave. Torch itself does not look at the quota.
    """
    share = max(1, joblib.cpu_count() // processes)
    if threads is None and "OMP_NUM_THREADS" not in os.environ and share < torch.get_num_threads():
        threads = share
    if threads:
        torch.set_num_threads(threads)
    if processes > 1:
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # else Lightning divides the cores itself
    keep_freed_memory()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()  # else Lightning's logger goes on with the run before


def keep_freed_memory() -> bool:
    """Let the allocator reuse large blocks instead of giving them back to the system; False where it is not glibc's.

    A step on the CPU allocates the same activations of several megabytes again and again. By default each one is
    mapped afresh, and its first touch costs a page fault for every 4 KiB: a fifth of a step of ResNet-9 at width 16.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        # malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD (the largest int), M_TOP_PAD
        return all(mallopt(parameter, value) for parameter, value in ((-3, 1 << 30), (-1, 2**31 - 1), (-2, 1 << 26)))
    return False


def peak_memory(device: torch.device) -> dict[str, int]:
    """The largest resident memory of this process so far, and the largest allocation on its GPU, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak
