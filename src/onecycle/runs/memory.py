"""How the process gets its memory, and how much of it."""

import contextlib
import ctypes
import resource
import sys

import psutil
import torch

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Let the allocator reuse large blocks instead of giving them back to the system; False where it is not glibc's.

    A step on the CPU allocates the same activations of several megabytes again and again. By default each one is
    mapped afresh, and its first touch costs a page fault for every 4 KiB: a fifth of a step of ResNet-9 at width 16.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        largest = 2**31 - 1  # mallopt takes an int
        settings = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: largest, _TOP_PAD: 1 << 26}
        return all(mallopt(parameter, value) for parameter, value in settings.items())
    return False


def peak_memory(device: torch.device) -> dict[str, int]:
    """The largest resident memory of this process so far, and the largest allocation on its GPU, in bytes."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if psutil.MACOS else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak
