"""What a run is made with and on: versions, machine, memory, device and the precision that it is fast in."""

import contextlib
import ctypes
import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import torch

from onecycle.errors import ConfigError

# The dtype of a convolution's input, to which autocast, or Lightning for weights that are bf16 themselves, converts it.
INPUTS = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        **{name: version(name) for name in ("onecycle", "torch", "lightning")},
        "python": platform.python_version(),
        "git": _git_revision(),
        "host": platform.node(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        **({"tf32_in_cudnn": torch.backends.cudnn.allow_tf32} if torch.cuda.is_available() else {}),
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


def device_of(accelerator: str) -> torch.device:
    """The kind of device that Lightning will train on; raises ConfigError where it cannot."""
    current = torch.accelerator.current_accelerator(check_available=True)
    if accelerator == "cpu" or (accelerator == "auto" and current is None):
        return torch.device("cpu")
    if current is None or accelerator not in ("auto", "gpu", current.type):
        raise ConfigError([f"trainer.accelerator={accelerator}: there is none on this machine; take auto or cpu"])
    if current.type == "cuda" and not has_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list()):
        name, compiled = torch.cuda.get_device_name(), ", ".join(torch.cuda.get_arch_list())
        raise ConfigError(
            [f"trainer.accelerator={accelerator}: torch has kernels for {compiled}, not for {name}; take cpu"]
        )
    return current


def choose(requested: str, device: torch.device) -> tuple[str, str]:
    """Lightning's name of the precision, and the reason for it.

    requested: "auto", "16-mixed", "bf16-mixed", "bf16-true" or "32-true". Raises ValueError for 16-mixed on a CPU,
    where there is no fp16 autocast worth having.
    """
    if requested == "16-mixed" and device.type == "cpu":
        raise ValueError("trainer.precision=16-mixed: CPUs have no fast fp16; take auto, bf16-mixed or 32-true")
    if requested != "auto":
        return requested, "as configured"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        # From compute capability 8 on, bf16 is computed by the tensor cores; below, it is emulated.
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return "bf16-mixed", f"{name} computes bf16"
        return "16-mixed", f"{name} computes fp16 but not bf16; gradients are scaled"
    if device.type == "cpu":
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # missing where torch cannot tell
        if any(bool(getattr(torch.cpu, test, bool)()) for test in tests):
            return "bf16-mixed", "this CPU has AVX-512 bf16 or AMX instructions"
        return "32-true", "this CPU has no bf16 instructions"
    return "32-true", f"nothing faster is known to be safe on {device.type}"


def has_kernels(capability: tuple[int, int], compiled: list[str]) -> bool:
    """Whether a GPU runs code compiled for these architectures, as torch.cuda.get_arch_list() names them.

    Machine code (sm_75) runs on later minor versions of its major one, PTX (compute_75) on every later version.
    """
    for name in compiled:
        kind, _, digits = name.partition("_")
        if kind not in ("sm", "compute"):
            return True  # not CUDA's
        version = divmod(int(re.sub(r"\D", "", digits)), 10)
        if version <= capability and (kind == "compute" or version[0] == capability[0]):
            return True
    return not compiled
