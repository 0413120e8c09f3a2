"""The LightningModule: step, loss, metrics, optimizer."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.config.targets import instantiate
from onecycle.config.hyperparameters import Hyperparameters
from onecycle.data.loader import Batch
from onecycle.models.resnet9 import parameter_groups
from onecycle.training.resizing import Resizing
from onecycle.training.schedule import Schedule, progress, set_learning_rate


class Classifier(pl.LightningModule):
    """Trains `network` on batches of images by a schedule that ends exactly on step `total_steps`.

    Sums of loss and correct answers stay on the device: `epoch_sums` and `window_sums`, float32 [3], are loss · n,
    correct and n since the epoch's start and since the last log.

    `resizing`: smaller training images to begin with, or None.
    `tta`: "flip" makes every evaluation also average the logits of image and mirror image (`test_logits`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        schedule: Schedule,
        hyperparameters: Hyperparameters,
        groups: Mapping[str, Mapping[str, float]],
        optimizer: Mapping[str, Any],
        total_steps: int,
        label_smoothing: float,
        resizing: Resizing | None,
        tta: str,
        compile_network: bool,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        # Only the network: a compiled LightningModule also traces its logging. A list hides the compiled twin from
        # state_dict, whose keys stay those of the plain network.
        self._callable = [torch.compile(self.network) if compile_network else self.network]
        self.schedule, self.point, self.groups, self.optimizer_config = (
            schedule,
            hyperparameters,
            groups,
            optimizer,
        )
        self.total_steps, self.label_smoothing, self.tta = total_steps, label_smoothing, tta
        self.resizing = resizing
        self.diverged, self.pruned = False, False
        self.fit_seconds, self.validation_seconds = 0.0, 0.0
        self._clock: float | None = None
        self.epoch_sums = torch.zeros(3)
        self.window_sums = torch.zeros(3)
        self.monitored: dict[str, float] | None = None
        self.test_logits: dict[str, Tensor] = {}
        self.test_labels = torch.zeros(0)
        self._evaluated: list[tuple[Tensor, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Float [n, 3, h, w] → logits [n, classes]."""
        return self._callable[0](images)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One parameter group for each kind that has parameters, with its factors of the rate and the decay."""
        groups = []
        for kind, parameters in parameter_groups(self.network).items():
            factors = self.groups.get(kind, {"lr": 1.0, "weight_decay": 1.0})
            if parameters:
                decay = self.point.weight_decay * factors["weight_decay"]
                groups.append(
                    {
                        "params": parameters,
                        "weight_decay": decay,
                        "lr_multiplier": factors["lr"],
                        "kind": kind,
                    }
                )
        settings = dict(self.optimizer_config)
        if settings.get("nesterov") and not self.point.momentum:
            settings["nesterov"] = False  # torch refuses it; without momentum the two are one
        point = self.point
        optimizer = instantiate(
            settings, torch.optim.Optimizer, params=groups, lr=point.peak_lr, momentum=point.momentum
        )
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def on_fit_start(self) -> None:
        """Move the sums to the device once, and start the clock."""
        self.epoch_sums, self.window_sums = self.epoch_sums.to(self.device), self.window_sums.to(self.device)
        self._clock = time.perf_counter()

    def on_fit_end(self) -> None:
        """Stop the clock."""
        self.fit_seconds, self._clock = self.elapsed(), None

    def elapsed(self) -> float:
        """Seconds of fit so far, those before an interruption included."""
        return self.fit_seconds + (time.perf_counter() - self._clock if self._clock else 0.0)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums, unless a checkpoint was loaded in the middle of it."""
        if not self.trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            self.epoch_sums.zero_()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make the images smaller where `resizing` says so: the step, and all callbacks, see only these."""
        if self.resizing is None or not self.trainer.training:
            return batch
        return batch._replace(images=self.resizing(batch.images, self._progress()))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set learning rate and momentum for the step about to be taken."""
        set_learning_rate(self.trainer.optimizers[0].param_groups, *self.current_rate())

    def current_rate(self) -> tuple[float, float]:
        """Learning rate and momentum of the step that is being taken, or will be taken next."""
        return self.schedule.at(self._progress(), self.point.momentum)

    def _progress(self) -> float:
        """Progress of the step that is being taken, or will be taken next."""
        return progress(min(self.global_step + 1, self.total_steps), self.total_steps)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's loss: cross-entropy, with label smoothing s: (1 − s)·CE + s·mean(−log p)."""
        logits = self(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        with torch.no_grad():
            correct = (logits.argmax(1) == batch.labels).sum()
            count = len(batch.labels)
            sums = torch.stack([loss.float() * count, correct, loss.new_full((), count)])
            self.epoch_sums.add_(sums)
            self.window_sums.add_(sums)
        return loss

    def on_validation_start(self) -> None:
        """Note when the evaluation starts: it is no training time."""
        self._validation_clock = time.perf_counter()

    def on_validation_end(self) -> None:
        """Add the evaluation's time, if it is inside a fit."""
        if self._clock is not None:
            self.validation_seconds += time.perf_counter() - self._validation_clock

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sum loss and correct answers of the monitored split."""
        logits = self(batch.images).float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        self._evaluated.append(
            (loss, (logits.argmax(1) == batch.labels).sum(), batch.labels.new_tensor(len(batch.labels)))
        )

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy under the monitored split's name."""
        sums = torch.stack([torch.stack([part.float() for part in step]) for step in self._evaluated]).sum(0)
        self._evaluated.clear()
        loss, correct, count = self.reduced(sums)
        self.monitored = {"loss": loss / count, "accuracy": correct / count}
        name = self.trainer.datamodule.monitored  # type: ignore[attr-defined]
        metrics = {f"{name}/{metric}": value for metric, value in self.monitored.items()}
        self.log_dict(metrics, logger=False, sync_dist=True)  # for callbacks that monitor one, as EarlyStopping does
        self.log_now(metrics)
        for logger in self.trainer.loggers:
            logger.save()

    def on_test_start(self) -> None:
        """Make cuDNN choose its convolutions by rule, not by trial: another trial could end in other last digits."""
        torch.backends.cudnn.benchmark = False

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the logits of the batch, plain and averaged with those of the mirror images."""
        plain = self(batch.images).float()
        views = [plain]
        if self.tta == "flip":
            views.append((plain + self(batch.images.flip(3)).float()) / 2)
        self._evaluated.append((batch.labels, *views))

    def on_test_epoch_end(self) -> None:
        """Join the kept logits in the order of the test images."""
        columns = [torch.cat(parts) for parts in zip(*self._evaluated, strict=True)]
        self._evaluated.clear()
        if self.trainer.world_size > 1:
            loader = self.trainer.datamodule.test_dataloader()  # type: ignore[attr-defined]
            order = self._gathered(loader.positions().to(columns[0].device)).argsort()
            columns = [self._gathered(column)[order] for column in columns]
        self.test_labels, *logits = columns
        self.test_logits = dict(zip(("plain", "tta"), logits, strict=False))

    def train_metrics(self) -> dict[str, float] | None:
        """Mean loss and accuracy of the last epoch's batches, as they were trained on; None before the first step."""
        loss, correct, count = self.reduced(self.epoch_sums)
        return {"loss": loss / count, "accuracy": correct / count} if count else None

    def test_metrics(self) -> dict[str, float]:
        """Accuracy and mean loss of the test images, and the accuracy with flip test-time augmentation beside them."""
        plain = self.test_logits["plain"]
        metrics = {
            "accuracy": accuracy(plain, self.test_labels),
            "loss": F.cross_entropy(plain.cpu().double(), self.test_labels.cpu()).item(),
        }
        if "tta" in self.test_logits:
            metrics["accuracy_tta"] = accuracy(self.test_logits["tta"], self.test_labels)
        return metrics

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what a resumed run needs to report all of itself, and what an evaluation needs beside the weights."""
        checkpoint["onecycle"] = {
            "sums": [self._of_ranks(self.epoch_sums).cpu(), self._of_ranks(self.window_sums).cpu()],
            "seconds": [self.elapsed(), self.validation_seconds],
            "normalization": [list(part) for part in self.trainer.datamodule.normalization],  # type: ignore[attr-defined]
        }
        for logger in self.trainer.loggers:
            logger.save()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums and the clocks."""
        saved = checkpoint["onecycle"]
        rank = self.trainer.global_rank
        self.epoch_sums, self.window_sums = (sums if sums.dim() == 1 else sums[rank].clone() for sums in saved["sums"])
        self.fit_seconds, self.validation_seconds = saved["seconds"]

    def log_now(self, metrics: Mapping[str, float]) -> None:
        """Hand numbers to the loggers at this step, past Lightning's own bookkeeping (0.4 ms a value)."""
        for logger in self.trainer.loggers:
            logger.log_metrics({**metrics, "epoch": self.epochs_done()}, step=self.global_step)

    def epochs_done(self) -> float:
        """Epochs trained so far, with the fraction of the current one."""
        return self.global_step / self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]

    def reduced(self, sums: Tensor) -> list[float]:
        """Sums over all ranks as Python numbers (the one place where the host waits for the device)."""
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        return [float(value) for value in sums.tolist()]

    def _of_ranks(self, sums: Tensor) -> Tensor:
        """The sums of this process, or one row of them for each rank: a resumed rank goes on with its own."""
        gather: Callable[[Tensor], Tensor] = self.all_gather  # type: ignore[assignment]
        return sums if self.trainer.world_size == 1 else gather(sums)

    def _gathered(self, column: Tensor) -> Tensor:
        """Rows of all ranks; the ranks' shares may differ by a few rows, which all_gather does not allow."""
        gather: Callable[[Tensor], Tensor] = self.all_gather  # type: ignore[assignment]
        counts = gather(torch.tensor(len(column), device=column.device)).view(-1).tolist()
        padded = F.pad(column, (0, 0) * (column.dim() - 1) + (0, max(counts) - len(column)))
        rows = gather(padded).view(len(counts), max(counts), *column.shape[1:])
        return torch.cat([rows[rank, :count] for rank, count in enumerate(counts)])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is the label's; NaN logits are wrong answers."""
    right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
    return right.sum().item() / len(labels)
