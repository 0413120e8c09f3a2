import pytest
import torch

from onecycle.runs.environment import choose, has_kernels

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("capability", "name"),
    [((7, 5), "16-mixed"), ((8, 0), "bf16-mixed"), ((12, 0), "bf16-mixed")],
)
def test_a_gpu_computes_bf16_from_capability_8_on(
    capability: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    chosen, reason = choose("auto", CUDA)
    assert chosen == name
    assert "Some GPU" in reason


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True), (None, None)])
def test_a_cpu_computes_bf16_with_avx512_or_amx_and_a_torch_that_cannot_tell_counts_as_no(
    avx512: bool | None, amx: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_is_avx512_bf16_supported", avx512), ("_is_amx_tile_supported", amx)):
        if value is None:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda value=value: value, raising=False)
    assert choose("auto", CPU)[0] == ("bf16-mixed" if avx512 or amx else "32-true")


def test_the_precision_that_is_asked_for_is_used_except_for_fp16_on_a_cpu() -> None:
    assert choose("auto", MPS)[0] == "32-true"
    for device in (CPU, CUDA, MPS):
        for name in ("16-mixed", "bf16-mixed", "32-true"):
            if (device, name) != (CPU, "16-mixed"):
                assert choose(name, device)[0] == name
    with pytest.raises(ValueError, match=r"trainer\.precision=16-mixed"):
        choose("16-mixed", CPU)


@pytest.mark.parametrize(
    ("capability", "compiled", "runs"),
    [
        ((7, 0), ["sm_75", "sm_80", "sm_90", "compute_120"], False),
        ((8, 6), ["sm_75", "sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_75", "sm_90a"], True),
        ((12, 1), ["sm_90", "compute_90"], True),
        ((9, 0), ["gfx942"], True),
    ],
)
def test_a_gpu_needs_kernels_of_its_major_version_or_earlier_ptx(
    capability: tuple[int, int], compiled: list[str], runs: bool
) -> None:
    assert has_kernels(capability, compiled) == runs
