"""The table of a study: a pandas frame with one row a run, and the ways to choose and compare its rows.

A cell may hold a list or a mapping; missing is NaN or None. A column of whole numbers with a missing one is of floats
in pandas: print its values with `value_text`.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from onecycle.config.hyperparameters import Hyperparameters
from onecycle.runs.identity import settings
from onecycle.studies.plan import Point, finished_runs, read_plan
from onecycle.studies.search.coordinate import DECIDED, read_decisions

if TYPE_CHECKING:
    import pandas as pd  # imported where a frame is made: a study that is refused does not wait for it

Array = NDArray[np.float64]
Filter = Mapping[str, Any]  # {column: the value, or the list of values, that rows must have}

TOLERANCE = 1e-6  # relative: λ/N and the like are computed
BLOW_UP = 1.25  # a loss is blown up where it exceeds its minimum by a quarter and still rises
DRAWN = "synthetic"  # name of the drawn images' data set
GUESSES = 0.99  # of the loss of guessing: nothing is left of what was learnt
GUESSING = 1.2  # times the accuracy of guessing: no more is learnt
SMOOTHING = 11  # steps of the average of a range test's loss, in its numbers as in its figure


class UnmeasurableError(ValueError):
    """The rows cannot give what was asked of them; the message says why."""


class DivergedError(UnmeasurableError):
    """Runs that were asked for a number diverged."""


def read(folder: Path) -> "pd.DataFrame":
    """A row for each finished or diverged run of a study's plan, in its order, after those of its `records_of`."""
    import pandas as pd

    return pd.DataFrame(_entries(folder))


def _entries(folder: Path) -> list[dict[str, Any]]:
    plan, done, decided = read_plan(folder), finished_runs(folder), read_decisions(folder)
    found = []
    for name in plan.study.get("records_of") or ():
        found += [row | {"study": name} for row in _entries(folder.parent / name)]
    for point in plan.points:
        if settings(point.overrides) in done:
            path, result = done[settings(point.overrides)]
            row = row_of(point, path, result)
            row |= decided.get(tuple(point.values.get(name) for name in DECIDED), {})
            derive = DERIVED.get(plan.study.get("derive"))
            found.append(row | derive(path, row["chance"]) if derive else row)
    return found


def row_of(point: Point, folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """One run as flat columns; what a diverged run does not have is NaN."""
    diverged = result["status"] == "diverged"
    row = {"label": point.label, "folder": str(folder), "status": result["status"], "has_diverged": int(diverged)}
    row["started"] = result.get("started", "")
    row |= {key: value for key, value in result["hyperparameters"].items() if value is not None}
    row["one_minus_momentum"] = 1 - row["momentum"]
    row["lr_per_example"] = row["peak_lr"] / row["batch_size"]
    row["subset_size"] = result["data"]["train_size"]
    row["chance"] = 100 / (len(result["data"].get("classes", ())) or math.nan)
    for part in ("test", "train", "val"):
        for name, value in (result[part] or {}).items():
            number = _measure(name, value, diverged)
            row[f"{part}_{name}"] = 100 * number if name.startswith("accuracy") else number
    row |= {f"seconds_{name}": value for name, value in result["seconds"].items()}
    row |= {"data_name": result["data"]["name"], "machine": f"{result['device']} ({result['precision']})"}
    threads = result["environment"]["threads"]
    if result["device"] == "cpu":
        processor = result["environment"].get("processor", "cpu")
        row["machine"] = f"{processor}, {threads} thread{'s' * (threads != 1)} ({result['precision']})"
    row["threads"] = threads
    row |= {key: result[key] for key in ("epochs", "steps", "parameters", "images_per_second", "name")}
    for name, value in result.get("measures", {}).items():
        row[name] = _measure(name, value, diverged and isinstance(value, float))
    # The study's own values last: a subset given as a fraction stays what the axis says only if it is a count.
    return row | {key: value for key, value in point.values.items() if key not in row or key == "seed"}


def unmeasured(point: Hyperparameters, images: float) -> dict[str, Any]:
    """A run's record as far as it is known before the run."""
    return {
        "status": "finished", "name": "", "test": {}, "train": {}, "val": {}, "epochs": 0.0, "steps": 0,
        "parameters": 0, "data": {"name": "", "train_size": images}, "hyperparameters": point.coordinates(),
        "seconds": {}, "images_per_second": 0.0, "device": "cpu", "precision": "", "environment": {"threads": 1},
    }  # fmt: skip


def _measure(name: str, value: Any, diverged: bool) -> Any:
    """A measurement of a record, where null is a number that was not finite: such a loss is infinite."""
    return math.nan if diverged else value if value is not None else math.inf if "loss" in name else math.nan


def is_number(value: object) -> TypeGuard[float]:
    """Tell numbers, NaN and infinities among them, from bools and anything else."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_missing(value: object) -> bool:
    """Whether a cell is empty: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def same(left: Any, right: Any) -> bool:
    """Whether two cells hold the same value: whole numbers exactly, others within TOLERANCE; True is not 1."""
    if is_missing(left) or is_missing(right):
        return is_missing(left) and is_missing(right)
    if not (is_number(left) and is_number(right)):
        return is_number(left) == is_number(right) and bool(left == right)
    are_whole = isinstance(left, Integral) and isinstance(right, Integral)
    return left == right if are_whole else math.isclose(left, right, rel_tol=TOLERANCE)


def choices(wanted: Any) -> list[Any]:
    """The values that a filter's entry allows."""
    return list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]


def cells(frame: "pd.DataFrame", column: str) -> list[Any]:
    """The values of a column as Python's own; None for every row where there is no such column."""
    return frame[column].tolist() if column in frame else [None] * len(frame)


def chosen(frame: "pd.DataFrame", where: Filter | None) -> NDArray[np.bool_]:
    """Whether each row has, in every column of a filter, one of the values there; all of them have without one."""
    mask = np.ones(len(frame), bool)
    for column, wanted in (where or {}).items():
        found = [any(same(cell, value) for value in choices(wanted)) for cell in cells(frame, column)]
        mask &= np.array(found, bool)
    return mask


def select(frame: "pd.DataFrame", where: Filter | None) -> "pd.DataFrame":
    """The rows that a filter means; all of them without one."""
    return frame[chosen(frame, where)]


def levels(frame: "pd.DataFrame", column: str) -> list[Any]:
    """The different values of a column: numbers ascending, words by appearance; missing ones are left out."""
    found: list[Any] = []
    values = [value for value in cells(frame, column) if not is_missing(value)]
    are_numbers = all(map(is_number, values))
    for value in sorted(set(values)) if are_numbers else values:
        if not any(same(value, other) for other in (found[-1:] if are_numbers else found)):
            found.append(value)
    return found


def value_text(value: Any) -> str:
    """A value as a person would write it: 512 for 512.0, six digits of a fraction."""
    if not is_number(value):
        return str(value)
    return f"{value:.0f}" if abs(value) < 1e15 and float(value).is_integer() else f"{value:.6g}"


def filter_text(where: Filter | None) -> str:
    """A filter in words: "arm constant, batch_size 128 or 512"."""
    named = [f"{column} {' or '.join(map(value_text, choices(wanted)))}" for column, wanted in (where or {}).items()]
    return ", ".join(named) or "any point"


def plain_columns(frame: "pd.DataFrame") -> list[str]:
    """The columns that hold one number or word a run."""
    return [name for name in frame if not any(isinstance(value, dict | list) for value in frame[name])]


def metric_lines(folder: Path) -> list[dict[str, str]]:
    """The lines of a run's metrics.csv as texts by column; none where there is no file."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def history(folder: Path, *names: str) -> list[list[float]]:
    """Columns of a run's metrics.csv, over those lines that have them all."""
    lines = [line for line in metric_lines(folder) if all(line.get(name) for name in names)]
    return [[float(line[name]) for line in lines] for name in names]


def moving_average(values: Array, count: int) -> Array:
    """Centred average over `count` values, fewer at both ends; one more where it is even, to have a middle."""
    import pandas as pd

    window = max(1, min(count | 1, len(values) - 1 + len(values) % 2))
    average: Array = pd.Series(values).rolling(window, center=True, min_periods=1).mean().to_numpy()
    return average


def why_not_judged(frame: "pd.DataFrame") -> str:
    """Why runs decide nothing, whatever they measured: their images, or that they did no better than guessing."""
    if DRAWN in set(frame["data_name"]):
        return "drawn images"
    best = (frame["test_accuracy"] / frame["chance"]).max()  # NaN for records without names of classes
    if "lowest_loss" in frame:  # a range test ends where nothing is left of what was learnt
        best = (-np.log(frame["chance"] / 100) / frame["lowest_loss"]).max()
    return "nothing was learnt: no accuracy differs from guessing" if best < GUESSING else ""


def range_test(folder: Path, chance: float = math.nan) -> dict[str, float]:
    """Where the averaged loss of a range test is lowest, and the last LR before it blows up; NaN without a curve.

    chance: percentage of correct guesses. usable_lr: before the loss exceeds 1.25 times its lowest average or returns
    to within a hundredth of the loss of guessing, by itself and on average over the steps from there, or is not finite.
    usable_lr_log2: its logarithm, in which it varies evenly from run to run.
    """
    lrs, losses = history(folder, "lr", "train/loss")
    wrong = [step for step, loss in enumerate(losses) if not math.isfinite(loss)]
    sound = np.asarray(losses[: wrong[0] if wrong else None], float)
    if not len(sound):
        return dict.fromkeys(("lr_at_minimum", "usable_lr", "usable_lr_log2", "lowest_loss"), math.nan)
    curve = moving_average(sound, SMOOTHING)
    best = int(np.argmin(curve))
    limit = np.nanmin([BLOW_UP * curve[best], -GUESSES * math.log(chance / 100)])
    following = np.array([sound[step : step + SMOOTHING].mean() for step in range(best, len(sound))])
    beyond = np.flatnonzero((following > limit) & (sound[best:] > limit))
    last = best + int(beyond[0]) - 1 if len(beyond) else len(sound) - 1
    found = {"lr_at_minimum": lrs[best], "usable_lr": lrs[last], "lowest_loss": float(curve[best])}
    return found | {"usable_lr_log2": math.log2(lrs[last])}


DERIVED: dict[str | None, Callable[..., dict[str, float]]] = {"range_test": range_test}
