"""`onecycle-runs` shows all runs below logs/ as a table, those that were started last at its end.

  onecycle-runs sort=accuracy status=finished     the best last; with sort=-accuracy the best first
  onecycle-runs where=width=16,seed=0             runs whose configuration or row has these values
  onecycle-runs compare=A,B                       the keys in which two runs differ, and their results
  onecycle-runs clean=failed                      remove failed runs, or those of another status; asks first
  onecycle-runs format=csv                        all columns, for other programs; or format=json
  onecycle-runs output=elsewhere                  runs below another folder

A run is interrupted where its process was stopped before the end,
and damaged where its record cannot be read.
"""

import contextlib
import csv
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onecycle.config.types import Options
from onecycle.config.validate import did_you_mean, flat, options_of
from onecycle.errors import ConfigError, one_line, plain_command
from onecycle.runs.lock import EXPIRES, LEASE, BusyError, exclusive
from onecycle.runs.record import RESULT, read_result
from onecycle.runs.saved import read_saved

if TYPE_CHECKING:
    import pandas as pd

SHOWN = {
    "run": "run", "status": "status", "data": "data", "peak_lr": "λ", "momentum": "ρ", "weight_decay": "α",
    "batch_size": "N", "val_accuracy": "validation", "accuracy": "accuracy", "seconds": "seconds", "age": "age",
}  # fmt: skip
# Where a configuration has what a record has only at its end.
PLACES = {
    "peak_lr": "schedule.peak_lr", "momentum": "hyperparameters.momentum",
    "weight_decay": "hyperparameters.weight_decay", "batch_size": "batch_size",
}  # fmt: skip


class _Words(Options):
    output: str = "logs"
    sort: str = "started"
    status: Literal["", "running", "interrupted", "finished", "diverged", "pruned", "failed", "damaged"] = ""
    where: str = ""
    compare: str = ""
    clean: Literal["", "interrupted", "diverged", "pruned", "failed", "damaged"] = ""
    format: Literal["text", "csv", "json"] = "text"


def all_runs(folder: Path) -> list[dict[str, Any]]:
    """One flat row for each run in or below a folder, in the order in which they were started.

    run: its folder, relative; accuracy, val_accuracy: fractions; age: seconds since its start; hyperparameters as in
    its record. What a run does not have is None, and where its record cannot be read, `error` says why.
    """
    found = []
    for place, inner, files in os.walk(folder):
        if RESULT in files:
            inner.clear()  # a run holds no other run
            found.append(_row(Path(place), folder))
    return sorted(found, key=lambda row: (row["started"] or "", row["run"]))


def records(folder: str | Path = "logs") -> "pd.DataFrame":
    """`all_runs` as a data frame: a row for each run in or below a folder; what a run does not have is missing."""
    import pandas as pd

    return pd.DataFrame(all_runs(Path(folder)))


def _row(folder: Path, top: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"status": "damaged"}
    try:
        record = read_result(folder) or record
    except ConfigError as error:
        record["error"] = str(error)
    parts = {name: record.get(name) or {} for name in ("test", "val", "data", "seconds", "hyperparameters")}
    row = {
        "run": str(folder.relative_to(top)), "folder": str(folder), "name": record.get("name"),
        "status": record["status"], "started": record.get("started") or None, "age": None,
        "data": parts["data"].get("name"), **dict.fromkeys(PLACES), **parts["hyperparameters"],
        "accuracy": parts["test"].get("accuracy"), "val_accuracy": parts["val"].get("accuracy"),
        "loss": parts["test"].get("loss"), "seconds": parts["seconds"].get("total") or None,
        "tags": record.get("tags") or [], "overrides": record.get("overrides") or [], "error": record.get("error"),
    }  # fmt: skip
    with contextlib.suppress(TypeError, ValueError):
        row["age"] = time.time() - datetime.fromisoformat(row["started"]).timestamp()
    if row["status"] == "running":
        lease = folder / LEASE  # whoever trains the run renews it
        row["status"] = "interrupted"
        with contextlib.suppress(OSError):
            row["status"] = "running" if time.time() - lease.stat().st_mtime < EXPIRES else "interrupted"
    if row["peak_lr"] is None:
        config = _configuration(row)
        row |= {name: config.get(key) for name, key in PLACES.items()}
    return row


def _configuration(row: Mapping[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(ConfigError):
        return flat(read_saved(Path(row["folder"])))
    return {}


def _has(values: Mapping[str, Any], key: str, text: str) -> bool:
    """Whether a key, or else one that ends with it, has the value that a text names, or a list with it."""

    def is_it(value: Any) -> bool:
        if isinstance(value, list):
            return any(map(is_it, value))
        with contextlib.suppress(ValueError):
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(text) == value
        return ("null" if value is None else str(value).lower()) == text.lower()

    keys = [key] if key in values else [name for name in values if name.endswith(f".{key}")]
    return any(is_it(values[name]) for name in keys)


def ordered(rows: Sequence[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """The rows by a column, upwards, or downwards after a "-"; those without a value come at the lower end."""
    name = column.removeprefix("-")
    known = [key for key in rows[0] if not isinstance(rows[0][key], list)] if rows else [name]
    if name not in known:
        raise ConfigError([f"sort={column}: must be one of {', '.join(known)}{did_you_mean(name, known)}"])
    return sorted(rows, key=lambda row: (row[name] is not None, row[name]), reverse=column.startswith("-"))


def print_table(columns: Iterable[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table, on the `console`; without names of columns one of texts."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", show_header=bool(columns))
    for name in columns:
        is_text = name in ("", "class", "run", "status", "data", "key", "path")
        wraps = name in ("run", "key", "path")
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not wraps)
    for row in rows:
        table.add_row(*map(one_line, row))
    console().print(table)


def console() -> Any:
    """A terminal as wide as it is, or 200 columns elsewhere, where no path is folded; names and paths are no markup."""
    from rich.console import Console

    return Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 200)


def show_runs(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the columns of SHOWN that are not empty, in a narrow terminal those that vary, then what failed."""
    names = [name for name in SHOWN if any(row[name] is not None for row in rows)]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < 120 and len(rows) > 1:
        names = [name for name in names if name == "status" or len({row[name] for row in rows}) > 1]
    print_table([SHOWN[name] for name in names], [[_cell(name, row[name]) for name in names] for row in rows], title)
    for row in rows:
        if row["error"]:
            print(one_line(f"{row['run']}: {row['error'][:300]}"))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "age":
        units = ((86400, "d"), (3600, "h"), (60, "min"), (0, "s"))
        return next(f"{value / (unit or 1):.0f} {word}" for unit, word in units if value >= unit or not unit)
    style = ".2%" if name.endswith("accuracy") else ".1f" if name == "seconds" else ".4g"
    return f"{value:{style}}" if isinstance(value, float) else str(value)


def _compare(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Print the keys in which the configurations of two runs differ, then their results."""
    pair = []
    for name in names:
        found = [row for row in rows if name.rstrip("/") in (row["run"], row["folder"])]
        found = found or [row for row in rows if name in row["run"]]
        if len(found) != 1 or len(names) != 2:
            raise ConfigError([f"compare={','.join(names)}: must be two runs; {name} is in the name of {len(found)}"])
        pair += found
    first, second = map(_configuration, pair)
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    lines = [[key, str(first.get(key, "")), str(second.get(key, ""))] for key in keys]
    for key in ("status", "accuracy", "val_accuracy", "loss", "seconds", "started"):
        lines.append([key, *(_cell(key, row[key]) for row in pair)])
    print_table(["key", *(row["run"] for row in pair)], lines)


def _clean(rows: Sequence[dict[str, Any]], status: str) -> None:
    """Ask, then remove the runs of a status, except those that have another one by now, or are trained."""
    show_runs(rows, f"{len(rows)} runs, {status}")
    agreed = ""
    with contextlib.suppress(EOFError):
        agreed = input(f"Remove these {len(rows)} folders? [y/N] ") if rows else ""
    for row in rows if agreed.strip().lower() in ("y", "yes") else ():
        folder = Path(row["folder"])
        try:
            with exclusive(folder):
                # Under the lock, whose lease is now ours, an interrupted run looks like one that is trained.
                if _row(folder, folder)["status"] in (status, "running" if status == "interrupted" else status):
                    shutil.rmtree(folder)
                    print(f"removed {folder}")
        except BusyError as busy:
            print(f"{busy}: it stays")


def no_formula(cell: Any) -> Any:
    """A cell that no spreadsheet calculates: a text that would be a formula is quoted."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def main() -> None:
    """Do what the words of the command line say; ends with 2 for one that it does not know."""
    with plain_command(__doc__):
        options = options_of(_Words, sys.argv[1:])
        wanted = [pair.partition("=") for pair in options.where.split(",") if pair]
        status = options.clean or options.status
        rows = [row for row in all_runs(Path(options.output)) if row["status"] == status or not status]
        if wanted:
            rows = [row for row in rows if all(_has(row | _configuration(row), key, text) for key, _, text in wanted)]
        rows = ordered(rows, options.sort)
        if options.compare:
            _compare(rows, options.compare.split(","))
        elif options.clean:
            _clean(rows, options.clean)
        elif options.format == "json":
            print(json.dumps(rows, indent=1))
        elif options.format == "csv":
            writer = csv.DictWriter(sys.stdout, dict.fromkeys(key for row in rows for key in row), lineterminator="\n")
            writer.writeheader()
            for row in rows:
                texts = {key: " ".join(row[key]) for key in ("tags", "overrides")}
                writer.writerow({key: no_formula(value) for key, value in (row | texts).items()})
        else:
            show_runs(rows, f"{len(rows)} runs below {options.output}")
