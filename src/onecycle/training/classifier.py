"""The LightningModule: optimizer, training step, and the metrics of every split."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from onecycle.config.hyperparameters import Hyperparameters
from onecycle.config.targets import instantiate, takes
from onecycle.data.datamodule import Batch, DataModule
from onecycle.models.resnet9 import parameter_groups
from onecycle.training.gpu import GraphedSteps, can_be_graphed, warm_up
from onecycle.training.schedule import Schedule
from onecycle.training.tasks import Task, metric_values


class Classifier(pl.LightningModule):
    """Trains `network` for a task on batches of images, by a schedule that ends exactly on step `total_steps`.

    `epoch_sums` and `window_sums`, float32 [3] on the device, are `Task.sums` since the start of the epoch and since
    the last log. `metrics`: further ones, of torchmetrics, of the validation and of the test images.

    `resizing`: the sides of the training images (see `resized`), or None. `tta`: "flip" makes a test also average the
    logits of image and mirror image (`test_logits`).
    """

    def __init__(
        self, network: nn.Module, *, schedule: Schedule, hyperparameters: Hyperparameters, total_steps: int,
        groups: Mapping[str, Mapping[str, float]], optimizer: Mapping[str, Any], task: Task,
        resizing: Sequence[Sequence[float]] | None, tta: str, compile_network: bool | str,
        cuda_graph: bool, metrics: Mapping[str, Metric] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        # Only the network is compiled: of the module, the logging would be traced too. The list keeps the compiled
        # network out of state_dict, whose keys stay those of the plain one.
        mode = compile_network if isinstance(compile_network, str) else None
        run: Any = torch.compile(self.network, dynamic=False, mode=mode) if compile_network else self.network
        self._callable, self.is_compiled = [run], bool(compile_network)
        self.schedule, self.point, self.resizing = schedule, hyperparameters, resizing
        self.groups, self.optimizer_config = groups, optimizer
        self.total_steps, self.task, self.tta = total_steps, task, tta
        self.metrics = dict(metrics or {})
        self.diverged, self.pruned = False, False
        self.fit_seconds, self.validation_seconds, self.warm_up_seconds = 0.0, 0.0, 0.0
        self._fit_start: float | None = None
        self._graphs: GraphedSteps | None = None
        self.cuda_graph, self._has_stepped = cuda_graph, False
        self.epoch_sums, self.window_sums, self.test_labels = torch.zeros(3), torch.zeros(3), torch.zeros(0)
        self.monitored: dict[str, float] | None = None
        self.test_logits: dict[str, Tensor] = {}
        self._evaluated: list[tuple[Tensor, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Float [n, 3, h, w] → logits [n, outputs], one for each class or number; only training is compiled."""
        return (self._callable[0] if self.training else self.network)(images)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One parameter group for each kind that has parameters, with its factors of the rate and the decay."""
        groups = []
        for kind, parameters in parameter_groups(self.network).items():
            factors = self.groups.get(kind, {"lr": 1.0, "weight_decay": 1.0})
            decay = self.point.weight_decay * factors["weight_decay"]
            if parameters:
                groups.append(
                    {"params": parameters, "weight_decay": decay, "lr_multiplier": factors["lr"], "kind": kind}
                )
        settings = dict(self.optimizer_config)
        if not self.point.momentum and "nesterov" in settings:
            settings["nesterov"] = False  # torch refuses it; without momentum the two are one
        arguments = {"params": groups, "lr": self.point.peak_lr}
        if takes(settings, "momentum"):
            arguments["momentum"] = self.point.momentum
        return instantiate(settings, torch.optim.Optimizer, "optimizer", **arguments)

    def on_fit_start(self) -> None:
        """Move the sums to the device once, warm it up, and start the clock."""
        started = time.perf_counter()
        self.epoch_sums, self.window_sums = self.epoch_sums.to(self.device), self.window_sums.to(self.device)
        warm_up(self, self.trainer)
        if self.cuda_graph and can_be_graphed(self, self.trainer):
            self._graphs = GraphedSteps(self, self.trainer.optimizers[0])
        self._fit_start = self._now()
        self.warm_up_seconds = self._fit_start - started

    def on_train_epoch_end(self) -> None:
        """Stop the clock after the last step and its evaluation: writing the last checkpoint is no training."""
        if self.global_step >= self.total_steps:
            self.on_fit_end()

    def on_fit_end(self) -> None:
        """Stop the clock, if it still runs, and free the graphs' memory."""
        self._graphs = None
        if self._fit_start is not None:
            self.fit_seconds, self._fit_start = self.fit_seconds + self._now() - self._fit_start, None

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def elapsed(self) -> float:
        """Seconds of fit so far, those before an interruption included."""
        return self.fit_seconds + (time.perf_counter() - self._fit_start if self._fit_start else 0.0)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums; Lightning does not call this where a checkpoint was loaded in the middle of one."""
        self.epoch_sums.zero_()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make training images smaller where `resizing` says so: the step and all callbacks see only these."""
        return self.at_size(batch, self._progress()) if self.trainer.training else batch

    def at_size(self, batch: Batch, progress: float) -> Batch:
        """The batch with images of the side that `resizing` gives for this progress of training."""
        return batch._replace(images=resized(batch.images, self.resizing, progress)) if self.resizing else batch

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set learning rate and momentum, or Adam's first beta, for the step about to be taken."""
        optimizer, t = self.trainer.optimizers[0], self._progress()
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.lr(t) * group["lr_multiplier"]
            if "momentum" in group:
                group["momentum"] = self.schedule.momentum(t, self.point.momentum)
            elif "betas" in group:  # its own, unless the schedule cycles momentum
                first, *others = optimizer.defaults["betas"]
                group["betas"] = (self.schedule.momentum(t, first), *others)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's loss, as the task says; a graphed step has also changed the weights."""
        return self._graphs.step(batch) if self._graphs and self._has_stepped else self.loss_of(batch)

    def backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        """As Lightning does it, unless the step has."""
        if loss.requires_grad:
            super().backward(loss, *arguments, **options)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """As Lightning does it; a graphed step writes over the gradients of the one before."""
        if not (self._graphs and self._has_stepped):
            optimizer.zero_grad()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """As Lightning does it, unless the closure does all of it; the first step makes the optimizer's state."""
        if self._graphs and self._has_stepped:
            assert optimizer_closure is not None
            optimizer_closure()
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._has_stepped = True

    def loss_of(self, batch: Batch) -> Tensor:
        """The loss of a batch in training, added to the sums."""
        logits = self(batch.images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # as autocast would
        loss = self.task.loss(logits, batch.labels)
        with torch.no_grad():
            sums = self.task.sums(loss.float() * len(batch.labels), logits, batch.labels)
            self.epoch_sums.add_(sums)
            self.window_sums.add_(sums)
        return loss

    def _progress(self) -> float:
        # Step k of 1..T is applied at k/T, as in cifar10-fast, whose optimizer counts a step before it reads the
        # schedule: the first one is above the start of the curve, and the last one ends it exactly.
        return min((self.global_step + 1) / self.total_steps, 1.0)

    def train_metrics(self) -> dict[str, float] | None:
        """Mean loss and score of the last epoch's batches, as they were trained on; None before the first step."""
        return self._means(self.epoch_sums)

    def on_validation_start(self) -> None:
        """Note the time: evaluation within a fit is no training time."""
        self._validation_start = time.perf_counter()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sum loss and score of the monitored split; only further metrics need all logits."""
        logits = self(batch.images).float()
        sums = self.task.sums(self.task.summed_loss(logits, batch.labels), logits, batch.labels)
        self._evaluated.append((sums[None], batch.labels, logits) if self.metrics else (sums[None],))

    def on_validation_epoch_end(self) -> None:
        """Log loss, score and metrics under the monitored split's name."""
        sums, *answers = (torch.cat(parts) for parts in zip(*self._evaluated, strict=True))
        self._evaluated.clear()
        self.monitored = self._means(sums.sum(0)) or {}
        if answers:
            labels, logits = self._of_all_ranks(answers, "val")
            self.monitored |= self.measured(logits, labels)
        metrics = {f"{self._data.monitored}/{metric}": value for metric, value in self.monitored.items()}
        self.log_dict(metrics, logger=False, sync_dist=True)  # for callbacks that monitor one, as EarlyStopping does
        self.log_now(metrics)
        for logger in self.trainer.loggers:
            logger.save()
        if self._fit_start is not None:
            self.validation_seconds += time.perf_counter() - self._validation_start

    def on_test_start(self) -> None:
        """Let cuDNN choose its convolutions by rule: by trial, the last digits could change between two tests."""
        torch.backends.cudnn.benchmark = False

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits of the batch, plain and averaged with those of the mirror images."""
        plain = self(batch.images).float()
        tta = [(plain + self(batch.images.flip(3)).float()) / 2] if self.tta == "flip" else []
        self._evaluated.append((batch.labels, plain, *tta))

    def on_test_epoch_end(self) -> None:
        """Join the kept logits, of all ranks, in the order of the test images."""
        columns = [torch.cat(parts) for parts in zip(*self._evaluated, strict=True)]
        self._evaluated.clear()
        self.test_labels, *logits = self._of_all_ranks(columns, "test")
        self.test_logits = dict(zip(("plain", "tta"), logits, strict=False))

    def _of_all_ranks(self, columns: list[Tensor], kind: Literal["val", "test"]) -> list[Tensor]:
        if self.trainer.world_size == 1:
            return columns
        loader = self._data.val_dataloader() if kind == "val" else self._data.test_dataloader()
        shares: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(shares, [loader.positions(), *(column.cpu() for column in columns)])
        positions, *columns = (torch.cat(parts) for parts in zip(*shares, strict=True))
        return [column[positions.argsort()] for column in columns]

    def measured(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """The further metrics of all images."""
        return metric_values(self.metrics, self.task.predictions(logits.cpu().double()), labels, self._data.classes)

    def test_metrics(self) -> dict[str, float]:
        """Score and mean loss of the test images, the score with flip test-time augmentation, further metrics."""
        task, plain, labels = self.task, self.test_logits["plain"], self.test_labels
        found = task.metrics(plain, labels)
        if "tta" in self.test_logits:
            found[f"{task.score}_tta"] = task.metrics(self.test_logits["tta"], labels)[task.score]
        return found | (self.measured(plain, labels) if self.metrics else {})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what a resumed run needs to report all of itself, and what an evaluation needs besides the weights."""
        sums: Any = [self.epoch_sums, self.window_sums]
        if self.trainer.world_size > 1:  # each rank goes on with its own sums: row `rank` of [ranks, 3]
            sums = self.all_gather(sums)
        checkpoint["onecycle"] = {
            "sums": [part.cpu() for part in sums],
            "seconds": [self.elapsed(), self.validation_seconds],
            "normalization": [list(part) for part in self._data.normalization],
        }
        for logger in self.trainer.loggers:
            logger.save()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums and the clocks."""
        saved, rank = checkpoint["onecycle"], self.trainer.global_rank
        self.epoch_sums, self.window_sums = (sums if sums.dim() == 1 else sums[rank].clone() for sums in saved["sums"])
        self.fit_seconds, self.validation_seconds = saved["seconds"]

    def log_now(self, metrics: Mapping[str, float]) -> None:
        """Hand numbers to the loggers at this step, without Lightning's own bookkeeping (0.4 ms a value)."""
        for logger in self.trainer.loggers:
            logger.log_metrics({**metrics, "epoch": self.epochs_done()}, step=self.global_step)

    def epochs_done(self) -> float:
        """Epochs trained so far, with the fraction of the current one."""
        return self.global_step / self._data.steps_per_epoch

    def reduced(self, sums: Tensor) -> list[float]:
        """Sums over all ranks as Python numbers (the one place where the host waits for the device)."""
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        return [float(value) for value in sums.tolist()]

    @property
    def _data(self) -> DataModule:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _means(self, sums: Tensor) -> dict[str, float] | None:
        loss, score, count = self.reduced(sums)
        return {"loss": loss / count, self.task.score: score / count} if count else None


@torch.no_grad()
def resized(images: Tensor, sides: Sequence[Sequence[float]], t: float) -> Tensor:
    """Float [n, c, h, w] at progress t in [0, 1] → smaller ones, bilinear with antialiasing.

    `sides`: pairs of progress and side, the first at progress 0; each side holds from its progress on. A whole number
    is in pixels, a float up to 1.0 a fraction of height and width.

    Source: Howard 2018, "Training Imagenet in 3 hours for 25 minutes" (fast.ai): progressive resizing.
    """
    side = [side for start, side in sides if start <= t][-1]
    shape = [side, side] if isinstance(side, int) else [round(side * length) for length in images.shape[-2:]]
    if list(images.shape[-2:]) == shape:
        return images
    smaller = F.interpolate(images.float(), shape, mode="bilinear", antialias=True)  # CPUs have no kernel for bf16
    return smaller.to(images.dtype, memory_format=torch.channels_last)
