import pytest
import torch

from onecycle.training import precision
from onecycle.training.precision import choose, cpu_has_bf16

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((6, 1), "16-mixed"),
        ((7, 0), "16-mixed"),
        ((7, 5), "16-mixed"),
        ((8, 0), "bf16-mixed"),
        ((8, 9), "bf16-mixed"),
        ((9, 0), "bf16-mixed"),
        ((12, 0), "bf16-mixed"),
    ],
)
def test_a_gpu_computes_bf16_from_capability_8_on(
    capability: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    chosen, reason = choose("auto", CUDA)
    assert chosen == name
    said = "Some GPU computes " + ("bf16" if name == "bf16-mixed" else "fp16 but not bf16; gradients are scaled")
    assert reason == said


@pytest.mark.parametrize(
    ("has_bf16", "expected"),
    [
        (True, ("bf16-mixed", "this CPU has AVX-512 bf16 or AMX instructions")),
        (False, ("32-true", "this CPU has no bf16 instructions")),
    ],
)
def test_a_cpu_computes_bf16_where_it_has_instructions_for_it(
    has_bf16: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has_bf16)
    assert choose("auto", CPU) == expected


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True), (True, True)])
def test_avx512_bf16_and_amx_are_both_enough(avx512: bool, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert cpu_has_bf16() == (avx512 or amx)


def test_a_torch_that_cannot_tell_counts_as_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert not cpu_has_bf16()
    assert choose("auto", CPU)[0] == "32-true"


def test_other_devices_train_in_fp32() -> None:
    assert choose("auto", MPS) == ("32-true", "nothing faster is known to be safe on mps")


@pytest.mark.parametrize(
    ("requested", "device"),
    [
        *((name, CPU) for name in ("bf16-mixed", "32-true")),
        *((name, device) for name in ("16-mixed", "bf16-mixed", "32-true") for device in (CUDA, MPS)),
    ],
)
def test_what_is_asked_for_is_what_is_used(requested: str, device: torch.device) -> None:
    assert choose(requested, device) == (requested, "as configured")


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^trainer\.precision=16-mixed: .*take auto, bf16-mixed or 32-true$"):
        choose("16-mixed", CPU)
