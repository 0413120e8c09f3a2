"""The step of StepLoop beside Lightning's own: the same calls, numbers and counts."""

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch import Tensor, nn

from onecycle.data.loader import Batch
from onecycle.training.loop import HOOKS, StepLoop

STEPS = 7


class Batches:
    """Three batches an epoch; of ours, or plain pairs as a DataLoader gives them."""

    def __init__(self, ours: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batches = [(torch.randn(8, 4, generator=generator), torch.arange(8) % 3) for _ in range(3)]
        self.kind: Any = (lambda pair: Batch(*pair)) if ours else tuple

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (self.kind(batch) for batch in self.batches)


class Module(pl.LightningModule):
    """Notes its hooks, and logs through self.log, as a module of a user's own may."""

    def __init__(self, calls: list[Any], result: str = "loss") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.calls, self.result = nn.Linear(4, 3), calls, result

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        self.calls.append(("module on_train_batch_start", batch_idx))
        return -1 if self.result == "skip" and batch_idx == 1 else None

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, labels = batch
        self.calls.append(("training_step", batch_idx, type(batch).__name__))
        loss = nn.functional.cross_entropy(self.layer(images), labels)
        self.log("step_loss", loss, on_step=True, on_epoch=True)
        if self.result == "none" and batch_idx == 1:
            return None
        return {"loss": loss, "more": 1} if self.result == "dict" else loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        gradient = self.layer.weight.grad
        self.calls.append(("module on_before_optimizer_step", None if gradient is None else gradient.tolist()))


class Recorder(pl.Callback):
    """Notes all hooks of a step with what they are given, and the loop's counts at that moment."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def note(self, name: str, trainer: pl.Trainer, *arguments: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        counts = (loop.batch_progress.state_dict(), loop.automatic_optimization.optim_progress.state_dict())
        shown: list[Any] = [
            a.tolist() if isinstance(a, Tensor) else a for a in arguments if isinstance(a, Tensor | int)
        ]
        shown += [{k: float(v) for k, v in a.items()} for a in arguments if isinstance(a, dict)]
        self.calls.append((name, trainer.lightning_module._current_fx_name, trainer.global_step, shown, repr(counts)))


def recording(name: str) -> Any:
    return lambda self, trainer, module, *arguments: self.note(name, trainer, *arguments)


for hook in HOOKS:
    setattr(Recorder, hook, recording(hook))


def train(loop: type, *, ours: bool = True, result: str = "loss", **settings: Any) -> tuple[Any, ...]:
    calls: list[Any] = []
    module, steps = settings.pop("module", Module)(calls, result), settings.pop("steps", STEPS)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=steps, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, callbacks=[Recorder(calls), pl.Callback()],
        log_every_n_steps=1, **settings,
    )  # fmt: skip
    trainer.fit_loop.epoch_loop = loop(trainer, max_steps=steps)
    trainer.fit(module, Batches(ours))
    state = trainer.fit_loop.state_dict()
    return calls, module.layer.weight.detach(), dict(trainer.callback_metrics), repr(state), trainer


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("result", ["loss", "dict", "none", "skip"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_does_what_lightnings_does_in_the_same_order(ours: bool, result: str, precision: str) -> None:
    lean, theirs = (
        train(loop, ours=ours, result=result, precision=precision) for loop in (StepLoop, _TrainingEpochLoop)
    )
    assert lean[4].fit_loop.epoch_loop._plain
    assert lean[0] == theirs[0]
    assert len(lean[0]) > 30
    assert torch.equal(lean[1], theirs[1])
    assert lean[2].keys() == theirs[2].keys() >= {"step_loss_step", "step_loss_epoch"}
    assert all(torch.equal(lean[2][name], theirs[2][name]) for name in lean[2])
    assert lean[3] == theirs[3]


class Replaced(Module):
    """Does a part of the step itself."""

    def optimizer_zero_grad(self, *arguments: Any) -> None:
        self.calls.append("own zero_grad")
        super().optimizer_zero_grad(*arguments)


class Carrying(Module):
    """Moves its batches itself."""

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.calls.append("own transfer")
        return batch


class Scheduled(Module):
    """With one of torch's schedulers."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_clip_val": 0.01},
        {"profiler": "simple"},
        {"module": Replaced},
        {"module": Carrying},
        {"module": Scheduled},
    ],
)
def test_what_is_not_plain_gets_lightnings_step(settings: dict[str, Any]) -> None:
    lean, theirs = (train(loop, **settings) for loop in (StepLoop, _TrainingEpochLoop))
    assert not lean[4].fit_loop.epoch_loop._plain
    assert lean[0] == theirs[0]
    assert torch.equal(lean[1], theirs[1])


def test_gradients_that_are_accumulated_get_lightnings_step() -> None:
    lean, theirs = (train(loop, accumulate_grad_batches=2, steps=4) for loop in (StepLoop, _TrainingEpochLoop))
    assert lean[0] == theirs[0]
    assert torch.equal(lean[1], theirs[1])
    assert lean[3] == theirs[3]


def test_an_optimizer_that_looks_twice_sees_two_losses() -> None:
    class Twice(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            closure()
            return super().step(closure)

    class Looking(Module):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return Twice(self.parameters(), lr=0.1)

    lean, theirs = (train(loop, module=Looking) for loop in (StepLoop, _TrainingEpochLoop))
    assert lean[4].fit_loop.epoch_loop._plain
    assert [call for call in lean[0] if call[0] == "training_step"][:2] == [("training_step", 0, "Batch")] * 2
    assert lean[0] == theirs[0]
    assert torch.equal(lean[1], theirs[1])


def test_an_optimizer_that_does_not_look_at_all_is_an_error() -> None:
    class Blind(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return None

    class Unseen(Module):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return Blind(self.parameters(), lr=0.1)

    with pytest.raises(RuntimeError, match=r"Blind\.step\(\) did not call the closure"):
        train(StepLoop, module=Unseen)


class Stopping(Module):
    """Asks for an end in the middle of an epoch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.calls.append(("module on_train_batch_end", batch_idx, float(outputs["loss"])))
        if self.global_step == 4:
            self.trainer.should_stop = True


class Evaluating(Module):
    """With a validation in the middle of an epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.calls.append(("validation_step", batch_idx, self.global_step))

    def val_dataloader(self) -> Batches:
        return Batches(ours=True)


@pytest.mark.parametrize("module", [Stopping, Evaluating])
def test_a_stop_and_a_validation_amid_an_epoch_are_as_lightnings(module: type) -> None:
    lean, theirs = (train(loop, module=module, val_check_interval=2) for loop in (StepLoop, _TrainingEpochLoop))
    assert lean[4].fit_loop.epoch_loop._plain
    assert lean[4].global_step == (4 if module is Stopping else STEPS)
    assert lean[0] == theirs[0]
    assert ("validation_step", 0, 2) in lean[0] or module is Stopping
    assert torch.equal(lean[1], theirs[1])
    assert lean[3] == theirs[3]
