"""What a run tells its callbacks and loggers; TensorBoard and CSV in its folder, going on where it was interrupted."""

import csv
import functools
import io
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from onecycle.runs.record import write_atomically

log = logging.getLogger("onecycle")

# The Custom Scalars tab, in the order in which one looks at a run.
CHARTS = {
    "accuracy: training, validation and test": ["train/accuracy", "val/accuracy", "test/accuracy"],
    "loss: training, validation and test": ["train/loss", "val/loss", "test/loss"],
    "learning rate": ["lr"],
    "momentum": ["momentum"],
    "images per second": ["images_per_second"],
}


@dataclass(frozen=True)
class RunContext:
    """A run as its components see it."""

    folder: Path
    steps_done: int = 0  # step of the checkpoint from which it resumes
    key: Mapping[str, Any] = field(default_factory=dict)  # in which a run that resumes from its checkpoints must agree


class NeedsRun:
    """Base of callbacks and loggers that need to know their run: they are built from their YAML alone."""

    def attach(self, run: RunContext) -> None:
        """Take what is needed of `run`, before anything else is called."""
        raise NotImplementedError


def attach_all(components: Iterable[object], run: RunContext) -> None:
    """Give the run to those of the components that ask for it."""
    for component in components:
        if isinstance(component, NeedsRun):
            component.attach(run)


def harmless(write: Callable[..., None]) -> Callable[..., None]:
    """Decorator of a method that writes: only the first process does, and an OSError ends the output, not the run.

    The first error is logged as a warning, and the object, whose `broken` is then set, writes nothing after it.
    """

    @rank_zero_only
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


class TensorBoard(NeedsRun, TensorBoardLogger):
    """Lightning's TensorBoard logger, writing into the run's folder, with training and validation in one chart.

    A resumed run drops the events after the step of its checkpoint, so that no step has two points.
    """

    title, broken = "TensorBoard's file", False

    def __init__(self) -> None:
        """Do nothing: Lightning's constructor wants the folder."""

    def attach(self, run: RunContext) -> None:
        """Open the logger for the run's folder; a new run starts with the layout of the Custom Scalars tab."""
        purge_step = run.steps_done + 1 if run.steps_done else None
        super().__init__(run.folder, name="tensorboard", version="", default_hp_metric=False, purge_step=purge_step)
        if not run.steps_done:
            self._write_layout()

    @property
    def root_dir(self) -> str:
        """The run's folder, without the name: that keeps Lightning's ModelCheckpoint out of the run's checkpoints/."""
        return self.save_dir

    @harmless
    def _write_layout(self) -> None:
        self.experiment.add_custom_scalars(
            {"how the runs train": {title: ["Multiline", tags] for title, tags in CHARTS.items()}}
        )

    log_metrics = harmless(TensorBoardLogger.log_metrics)

    @harmless
    def log_hyperparams(self, params: Any, metrics: dict[str, Any] | None = None, step: int | None = None) -> None:
        """Write the configuration as text or, with the metrics of the end, as a session of the HParams tab.

        Without the list of hyperparameters that Lightning writes beside it, the tab compares the sessions of all runs,
        shows first what varies among them, and takes every scalar for a metric, in the order of the alphabet: the
        results of the test stand first there under a name of their own, end/accuracy for test/accuracy.
        """
        if metrics is None:
            lines = [f"    {name}: {value}" for name, value in params.items()]  # four spaces: code in Markdown
            self.experiment.add_text("configuration", "\n".join(lines), 0)
            return
        from torch.utils.tensorboard.summary import hparams

        self.log_metrics(
            {**metrics, **{f"end/{tag.rpartition('/')[2]}": value for tag, value in metrics.items()}}, step
        )
        params = {name: value if isinstance(value, int | float | str) else str(value) for name, value in params.items()}
        for session in hparams(params, metrics)[1:]:
            self.experiment._get_file_writer().add_summary(session, step)

    @harmless
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Write figures of matplotlib and images of Pillow under one name."""
        for image in images:
            if isinstance(image, Image.Image):
                self.experiment.add_image(key, np.asarray(image), step, dataformats="HWC")
            else:
                self.experiment.add_figure(key, image, step)

    def finalize(self, status: str) -> None:
        """Flush and stay open: the test's numbers come after the end of the fit, and belong into the same file."""
        self.save()

    @harmless
    def save(self) -> None:
        """Flush; Lightning's hparams.yaml is left out, as config.yaml holds all of it."""
        self.experiment.flush()


class Csv(NeedsRun, Logger):
    """metrics.csv in the run's folder: a row for each logged step, a column for each metric, empty if not measured.

    The file is replaced as a whole at every save. A resumed run keeps the rows up to the step of its checkpoint.
    """

    title, broken = "metrics.csv", False
    name, version = "csv", ""

    def attach(self, run: RunContext) -> None:
        """Choose the file, and read the rows of the steps that are done."""
        self.path = run.folder / "metrics.csv"
        self.rows: dict[int, dict[str, Any]] = {}
        if run.steps_done and self.path.exists():
            with self.path.open(newline="") as file:
                rows = csv.DictReader(file)
                self.rows = {step: row for row in rows if (step := int(row["step"])) <= run.steps_done}

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the step's row."""
        self.rows.setdefault(step or 0, {}).update(metrics)

    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        """Write nothing: config.yaml holds them."""

    @harmless
    def save(self) -> None:
        """Write all rows."""
        columns = list(dict.fromkeys(["step", "epoch", *(name for row in self.rows.values() for name in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for step, row in sorted(self.rows.items()):
            short = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            writer.writerow(short | {"step": step})
        write_atomically(self.path, text.getvalue())

    def finalize(self, status: str) -> None:
        """Write all rows."""
        self.save()


def log_image(loggers: Iterable[Logger], key: str, image: Any, step: int) -> None:
    """Give a figure of matplotlib or an image of Pillow to the loggers that take one, as those of W&B and MLflow do."""
    for logger in loggers:
        client: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_image"):
            logger.log_image(key, [image], step=step)
        elif hasattr(client, "log_figure"):
            write = client.log_image if isinstance(image, Image.Image) else client.log_figure
            write(logger.run_id, image, f"{key}.png")  # type: ignore[attr-defined]
