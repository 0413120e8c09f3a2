"""Lightning's training loop, with a step that does no more than the run asks for."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from onecycle.data.loader import Batch

HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip
# Where a module replaces one of these, or a data module one of the transfers, the step is Lightning's.
PARTS = ("optimizer_step", "optimizer_zero_grad", "backward", "configure_gradient_clipping", "clip_gradients")
TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device")


class StepLoop(_TrainingEpochLoop):
    """An epoch of Lightning's Trainer whose step calls only the hooks that somebody has written.

    Lightning calls some eighty methods a step, most of them empty. On a CPU the matrix work drives all that out of
    the caches, and it takes 1.4 ms at each step: this one does the same in the same order in 0.7 ms. A run that asks
    for more than one device's plain step (several devices, gradients that are accumulated, clipped or scaled, manual
    optimization, torch's schedulers, a profiler, a replaced part of the step) gets Lightning's own. Which it is, and
    which hooks there are, is looked at when an epoch starts.
    """

    _plain = False

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Look at what the run asks for."""
        super().on_run_start(data_fetcher)
        self._plain = is_plain(self.trainer) and not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
        self._hooks = {name: _written(self.trainer, name) for name in HOOKS}
        step = self.trainer.lightning_module.training_step
        self._takes_index = is_param_in_hook_signature(step, "batch_idx", min_args=2)

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """One step, from fetching the batch to its last hook."""
        trainer, progress = self.trainer, self.batch_progress
        if not self._plain or self.restarting:
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        index = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        module = trainer.lightning_module
        if isinstance(batch, Batch) and batch.labels.device == trainer.strategy.root_device:  # as our loader's are
            batch = module.on_after_batch_transfer(batch, 0)
        else:
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        if self._call("on_train_batch_start", batch, index) == -1:
            progress.increment_by(0, is_last_batch=True)
            progress.increment_processed()
            raise StopIteration
        progress.increment_started()
        outputs = self._optimize(module, batch, index)
        progress.increment_processed()
        self._call("on_train_batch_end", outputs, batch, index)
        trainer._logger_connector.on_batch_end()
        progress.increment_completed()
        trainer._logger_connector.update_train_step_metrics()

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """What is left at the end of a step: nothing, unless there is something to evaluate or a signal to obey."""
        trainer = self.trainer
        asked = self._skip_next_val or trainer.should_stop or trainer.received_sigterm
        if not self._plain or asked or self._should_check_val_fx(data_fetcher):
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    def _optimize(self, module: pl.LightningModule, batch: Any, index: int) -> dict[str, Any]:
        """Forward, backward and the optimizer's step; returns the loss, and what the module returned beside it."""
        optimizer = self.trainer.optimizers[0]
        counts = self.automatic_optimization.optim_progress.optimizer
        outputs: dict[str, Any] | None = None

        @torch.enable_grad()
        def closure() -> Tensor | None:
            nonlocal outputs
            module._current_fx_name = "training_step"
            with self.trainer.precision_plugin.train_step_context():
                output = module.training_step(*((batch, index) if self._takes_index else (batch,)))
            module._current_fx_name = None
            loss, outputs = _loss_and_outputs(output)
            counts.zero_grad.increment_ready()
            self._call("on_before_zero_grad", optimizer)
            counts.zero_grad.increment_started()
            optimizer.zero_grad()
            counts.zero_grad.increment_completed()
            if loss is not None:
                self._call("on_before_backward", loss)
                loss.backward()
                self._call("on_after_backward")
            self._call("on_before_optimizer_step", optimizer)
            return outputs.get("loss")

        counts.step.increment_ready()
        optimizer.step(closure=closure)  # type: ignore[arg-type]
        if outputs is None:
            raise RuntimeError(
                f"{type(optimizer).__name__}.step() did not call the closure that computes the gradients"
            )
        counts.step.increment_completed()
        return outputs

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the callbacks' hooks and then the module's own; returns what the module's returned."""
        result = None
        hooks, own = self._hooks[name]
        if hooks or own:
            module = self.trainer.lightning_module
            module._current_fx_name = name  # self.log() wants to know who calls
            for hook in hooks:
                hook(*arguments)
            if own:
                result = own(*arguments)
            module._current_fx_name = None
        return result


def _loss_and_outputs(output: Any) -> tuple[Tensor | None, dict[str, Any]]:
    """The loss to go back from, and what hooks are told of the step. Raises Lightning's error for anything else."""
    if isinstance(output, Tensor):
        return output, {"loss": output.detach()}
    result = ClosureResult.from_training_step_output(output)
    if result.closure_loss is None:
        Closure.warning_cache.warn("training_step returned no loss: nothing was learnt from its batch")
    return result.closure_loss, {} if result.loss is None else result.asdict()


def is_plain(trainer: pl.Trainer) -> bool:
    """Whether a step is that of one device and one optimizer, with nothing that Lightning adds or a user replaced."""
    module, plugin = trainer.lightning_module, trainer.precision_plugin
    data = getattr(trainer, "datamodule", None)
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(plugin) in (Precision, MixedPrecision)
        and getattr(plugin, "scaler", None) is None
        and type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]
        and module.automatic_optimization
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and not trainer.lr_scheduler_configs
        and len(trainer.optimizers) == 1
        and not isinstance(trainer.optimizers[0], LightningOptimizer)
        and not any(_overrides(module, pl.LightningModule, name) for name in PARTS + TRANSFERS)
        and not (data and any(_overrides(data, DataHooks, name) for name in (*TRANSFERS, "on_after_batch_transfer")))
    )


def _written(trainer: pl.Trainer, name: str) -> tuple[list[Callable[..., Any]], Callable[..., Any] | None]:
    """The hooks of that name that are not Lightning's empty ones: those of the callbacks, and the module's."""
    module = trainer.lightning_module
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    hooks: list[Callable[..., Any]] = [
        partial(getattr(callback, name), trainer, module)
        for callback in callbacks
        if _overrides(callback, pl.Callback, name)
    ]
    return hooks, getattr(module, name) if _overrides(module, pl.LightningModule, name) else None


def _overrides(part: object, base: type, name: str) -> bool:
    """Whether a hook of `part` is another one than that of its base."""
    hook = getattr(part, name)
    return getattr(hook, "__func__", hook) is not getattr(base, name)
