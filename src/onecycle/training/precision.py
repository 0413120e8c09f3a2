"""The numerical precision that a device is fast in, and why."""

import re

import torch

from onecycle.errors import ConfigError

# The dtype of a convolution's input, to which autocast, or Lightning for weights that are bf16 themselves, converts it.
INPUTS = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}


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
