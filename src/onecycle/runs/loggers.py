"""TensorBoard and CSV in the run's own folder, both able to go on where an interrupted run stopped."""

import csv
import functools
import io
import logging
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from onecycle.runs.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

log = logging.getLogger("onecycle")

CHARTS = {
    "loss": ["train/loss", "val/loss", "test/loss"],
    "accuracy": ["train/accuracy", "val/accuracy", "test/accuracy"],
    "schedule": ["lr", "momentum"],
    "speed": ["images_per_second"],
}


def harmless(write: Callable[..., None]) -> Callable[..., None]:
    """A logger's method that never ends a run: what was trained is worth more than its curves.

    Where it cannot write, a warning says so once, and the logger, whose `broken` is then set, is silent from there on.
    """

    @functools.wraps(write)
    def written(self: Any, *arguments: Any, **named: Any) -> None:
        if self.broken:
            return
        try:
            write(self, *arguments, **named)
        except (OSError, ValueError) as error:
            reason = error if isinstance(error, OSError) else error.__cause__  # Lightning wraps what the board raises
            if not isinstance(reason, OSError):
                raise
            self.broken = True
            log.warning("%s cannot be written (%s): the run goes on without it.", self.title, reason)

    return written


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing straight into `folder`, with training and validation in one chart.

    steps_done: events behind this step are dropped, so that a resumed run leaves no double points; 0 for a new run.
    """

    title = "TensorBoard's file"

    def __init__(self, folder: str, steps_done: int) -> None:
        purge_step = steps_done + 1 if steps_done else None
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=purge_step)
        self.broken = False

    @rank_zero_only
    @harmless
    def write_layout(self) -> None:
        """Write the layout of the Custom Scalars tab."""
        charts = {title: ["Multiline", tags] for title, tags in CHARTS.items()}
        self.experiment.add_custom_scalars({"training": charts})

    @rank_zero_only
    @harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars."""
        super().log_metrics(metrics, step)

    @rank_zero_only
    @harmless
    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        """Write what HParams shows."""
        super().log_hyperparams(*arguments, **named)

    @rank_zero_only
    @harmless
    def write_image(self, name: str, image: "Tensor", step: int) -> None:
        """Write a picture, uint8 [3, h, w]."""
        self.experiment.add_image(name, image, step)

    @rank_zero_only
    @harmless
    def write_figure(self, name: str, figure: "Figure", step: int) -> None:
        """Write a figure."""
        self.experiment.add_figure(name, figure, step)

    def finalize(self, status: str) -> None:
        """Flush and stay open: the test's numbers come behind the fit's end, and belong into the same file."""
        self.save()

    @rank_zero_only
    @harmless
    def save(self) -> None:
        """Flush; Lightning's hparams.yaml is left out, as config.yaml says it all."""
        self.experiment.flush()


class Csv(Logger):
    """metrics.csv in `folder`: one row a logged step, one column a metric, empty where nothing was measured.

    The file is replaced whole at every save. A resumed run keeps the rows of its `steps_done`; 0 for a new run.
    """

    title = "metrics.csv"

    def __init__(self, folder: str, steps_done: int) -> None:
        super().__init__()
        self.broken = False
        self.path = Path(folder) / "metrics.csv"
        self.rows: dict[int, dict[str, Any]] = {}
        if steps_done and self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = {int(row["step"]): row for row in csv.DictReader(file) if int(row["step"]) <= steps_done}

    @property
    def name(self) -> str:
        """Name of the logger, as Lightning asks for it."""
        return "csv"

    @property
    def version(self) -> str:
        """No version: the run's folder is the version."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the step's row."""
        self.rows.setdefault(step or 0, {}).update(metrics)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    @harmless
    def save(self) -> None:
        """Write all rows."""
        columns = ["step", "epoch"]
        for row in self.rows.values():
            columns += [name for name in row if name not in columns]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for step in sorted(self.rows):
            writer.writerow({"step": step, **{k: _short(v) for k, v in self.rows[step].items() if k != "step"}})
        write_atomically(self.path, text.getvalue())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def tensorboard_of(loggers: list[Logger]) -> TensorBoard | None:
    """The TensorBoard logger among a trainer's loggers, if there is one."""
    return next((logger for logger in loggers if isinstance(logger, TensorBoard)), None)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config → {"schedule.peak_lr": 0.4, …}, lists as text, for TensorBoard's HParams."""
    result: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return result
