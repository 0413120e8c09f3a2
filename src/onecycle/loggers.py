"""TensorBoard and CSV in the run's own folder, both able to go on where an interrupted run stopped."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from onecycle.run import write_atomically

CHARTS = {
    "loss": ["train/loss", "val/loss", "test/loss"],
    "accuracy": ["train/accuracy", "val/accuracy", "test/accuracy"],
    "schedule": ["lr", "momentum"],
    "speed": ["images_per_second"],
}


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing straight into `folder`, with training and validation in one chart.

    steps_done: events behind this step are dropped, so that a resumed run leaves no double points; 0 for a new run.
    """

    def __init__(self, folder: str, steps_done: int) -> None:
        purge_step = steps_done + 1 if steps_done else None
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=purge_step)

    @rank_zero_only
    def write_layout(self) -> None:
        """Write the layout of the Custom Scalars tab."""
        charts = {title: ["Multiline", tags] for title, tags in CHARTS.items()}
        self.experiment.add_custom_scalars({"training": charts})

    def finalize(self, status: str) -> None:
        """Flush and stay open: the test's numbers come behind the fit's end, and belong into the same file."""
        self.save()

    def save(self) -> None:
        """Flush; Lightning's hparams.yaml is left out, as config.yaml says it all."""
        self.experiment.flush()


class Csv(Logger):
    """metrics.csv in `folder`: one row a logged step, one column a metric, empty where nothing was measured.

    The file is replaced whole at every save. A resumed run keeps the rows of its `steps_done`; 0 for a new run.
    """

    def __init__(self, folder: str, steps_done: int) -> None:
        super().__init__()
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
