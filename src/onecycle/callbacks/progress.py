"""What is shown and logged while a run trains."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from onecycle.runs.record import metrics_text

log = logging.getLogger("onecycle")

WIDE = 100  # columns of a terminal that has room for the speed beside the times


class TrainingLog(pl.Callback):
    """Logs the means since the last log every `trainer.log_every_n_steps` steps.

    Throughput counts training alone, not the evaluation of the monitored split. `latest` holds the last numbers.
    """

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}
        self._since = time.perf_counter()

    def on_train_epoch_start(self, *event: Any) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    on_validation_end: Any = on_train_epoch_start

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log before the evaluation, whose time would count as training time."""
        if trainer.training:
            self.on_train_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Log when it is time."""
        if trainer.global_step % trainer.log_every_n_steps == 0 or trainer.is_last_batch:  # type: ignore[attr-defined]
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the window so far; the last one may be partial."""
        loss, score, count = pl_module.reduced(pl_module.window_sums)
        if not count:
            return
        pl_module.window_sums.zero_()
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        group = trainer.optimizers[0].param_groups[0]
        self.latest = {
            "train/loss": loss / count, f"train/{pl_module.task.score}": score / count,
            "lr": group["lr"] / (group["lr_multiplier"] or 1.0),
            "momentum": group.get("momentum", group.get("betas", (0.0,))[0]),
            "images_per_second": count / seconds,
        }  # fmt: skip
        pl_module.log_now(self.latest)


class Progress(ProgressBar):
    """One line over the whole run, drawn `refresh_per_second` times at most, and one printed line for each epoch.

    train.log has the lines of the epochs also if the output is not a terminal.
    """

    def __init__(self, refresh_per_second: float) -> None:
        super().__init__()
        self._interval, self._drawn_at = 1 / refresh_per_second, 0.0
        self._bar: RichProgress | None = None

    def disable(self, *event: Any) -> None:
        """Close the bar, if it is open; Lightning calls this on all ranks but the first."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        console = Console()
        if not (console.is_terminal and trainer.is_global_zero):
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        # Drawn by us, not by a thread of its own: that would take time from a step on a small machine.
        self._bar = RichProgress(*columns, console=console, auto_refresh=False, speed_estimate_period=120)
        self._bar.start()
        self._task = self._bar.add_task("epoch 1", total=trainer.max_steps, completed=trainer.global_step, numbers="")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Draw the line when it is time."""
        if time.perf_counter() - self._drawn_at >= self._interval:
            self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Print the epoch's line, or write it to train.log alone."""
        if not pl_module.monitored:
            return
        name, numbers = trainer.datamodule.monitored, pl_module.monitored  # type: ignore[attr-defined]
        line = (
            f"epoch {pl_module.epochs_done():5.2f}   train {metrics_text(pl_module.train_metrics() or {})}   "
            f"{name} {metrics_text(numbers)}   {pl_module.elapsed():.0f} s"
        )
        log.debug("%s", line)
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last state and close the bar."""
        self._draw(trainer, pl_module)
        self.disable()

    on_exception: Any = disable

    def _draw(self, trainer: pl.Trainer, module: Any) -> None:
        if self._bar is None:
            return
        self._drawn_at = time.perf_counter()
        numbers = ""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TrainingLog) and callback.latest:
                loss, score, *_, speed = callback.latest.values()
                numbers = metrics_text({"loss": loss, module.task.score: score})
                if self._bar.console.width >= WIDE:
                    numbers += f"  {speed:,.0f} images/s"
        epochs = trainer.max_steps / trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        description = f"epoch {module.epochs_done():.1f}/{round(epochs, 1):g}"
        self._bar.update(
            self._task, completed=trainer.global_step, description=description, numbers=numbers, refresh=True
        )
