"""From the records of a study to rows, one for each run."""

import csv
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onecycle.errors import ConfigError
from onecycle.runs import record as run
from onecycle.runs.files import write_atomically
from onecycle.runs.identity import settings
from onecycle.studies import curves
from onecycle.studies.search import decisions
from onecycle.studies.study import Point

log = logging.getLogger(__name__)

PLAN = "study.json"
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What study.json in a study's folder holds: the study at its scale, its runs and the command behind them."""

    study: dict[str, Any]
    points: list[Point]
    command: str


def write_plan(folder: Path, plan: Plan) -> None:
    """Note what a study consists of, before its first run."""
    runs = [{"label": p.label, "values": p.values, "overrides": list(p.overrides)} for p in plan.points]
    entries = {"study": plan.study, "command": plan.command, "runs": runs}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PLAN, json.dumps(entries, indent=1) + "\n")


def read_plan(folder: Path) -> Plan:
    """The plan in a study's folder; raises ConfigError where there is none."""
    try:
        entries = json.loads((folder / PLAN).read_text())
        runs = [Point(entry["label"], entry["values"], tuple(entry["overrides"])) for entry in entries["runs"]]
        return Plan(entries["study"], runs, entries["command"])
    except FileNotFoundError:
        raise ConfigError([f"{folder}: holds no study yet; run it: make study NAME={folder.name}"]) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{folder / PLAN}: is not a study's plan ({error})"]) from None


def records(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every run's folder and record below a study's folder; one that cannot be read counts as none, with a warning."""
    found = []
    for path in sorted(folder.glob(f"*/{run.RESULT}")):
        try:
            result = run.read_result(path.parent)
        except ConfigError as error:
            log.warning("%s: it counts as none.", error)
            continue
        if result:
            found.append((path.parent, result))
    return found


def finished(folder: Path) -> dict[tuple[str, ...], Path]:
    """The folder of every finished or diverged run by the overrides that can change a result.

    After a change of the program the same overrides may have two records: the newer one counts.
    """
    found: dict[tuple[str, ...], Path] = {}
    started: dict[tuple[str, ...], str] = {}
    for path, result in records(folder):
        key, start = settings(result["overrides"]), result.get("started", "")
        if result["status"] in run.DONE and start >= started.get(key, ""):
            found[key], started[key] = path, start
    return found


def rows(folder: Path) -> list[Row]:
    """A row for each finished or diverged run of the plan in `folder`, in the plan's order.

    A study that runs nothing itself has the rows of the studies that it names, from the folders beside it.
    """
    plan = read_plan(folder)
    borrowed = [
        row | {"study": name} for name in plan.study.get("records_of") or () for row in rows(folder.parent / name)
    ]
    done = finished(folder)
    derive = curves.DERIVED[plan.study["derive"]] if plan.study.get("derive") else None
    table, decided = borrowed, decisions.read(folder)
    for point in plan.points:
        path = done.get(settings(point.overrides))
        result = run.read_result(path) if path else None
        if path and result:
            row = row_of(point, path, result)
            row |= decided.get((point.values.get("arm"), point.values.get("number")), {})
            table.append(row | derive(path) if derive else row)
    return table


def row_of(point: Point, folder: Path, result: Mapping[str, Any]) -> Row:
    """One run as flat columns; what a diverged run does not have is NaN."""
    diverged = result["status"] == "diverged"
    row: Row = {"label": point.label, "folder": str(folder), "status": result["status"], "has_diverged": int(diverged)}
    row |= {key: value for key, value in result["hyperparameters"].items() if value is not None}
    row["one_minus_momentum"] = 1 - row["momentum"]
    row["lr_per_example"] = row["peak_lr"] / row["batch_size"]
    row["subset_size"] = result["data"]["train_size"]
    for part in ("test", "train", "val"):
        for name, value in (result[part] or {}).items():
            scale = 100 if name.startswith("accuracy") else 1
            row[f"{part}_{name}"] = math.nan if value is None or diverged else scale * value
    row |= {f"seconds_{name}": value for name, value in result["seconds"].items()}
    row |= {"data_name": result["data"]["name"], "machine": f"{result['device']} ({result['precision']})"}
    environment = result["environment"]
    row["threads"] = environment["threads"]
    if result["device"] == "cpu":
        threads = f"{row['threads']} thread{'s' * (row['threads'] != 1)}"
        row["machine"] = f"{environment.get('processor', 'cpu')}, {threads} ({result['precision']})"
    row |= {key: result[key] for key in ("epochs", "steps", "parameters", "images_per_second", "name")}
    for name, value in result.get("measures", {}).items():
        row[name] = math.nan if value is None or (diverged and isinstance(value, float)) else value
    # The study's own values last: a subset given as a fraction stays what the axis says only if it is a count.
    row |= {key: value for key, value in point.values.items() if key not in row or key in ("seed",)}
    return row


def columns(table: Sequence[Row]) -> list[str]:
    """The columns that hold one number or word a run, in order of appearance."""
    names: dict[str, None] = {}
    for row in table:
        names |= {name: None for name, value in row.items() if not isinstance(value, dict | list)}
    return list(names)


def write_csv(path: Path, table: Sequence[Row]) -> None:
    """Write the rows' plain columns, best readable first."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns(table), extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(_plain(row) for row in table)


def _plain(row: Row) -> Row:
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}


def summary(table: Iterable[Row], keys: Sequence[str], metrics: Sequence[str]) -> list[Row]:
    """One row for each combination of `keys`: n, and mean and sample sd of `metrics` over its finished runs."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in table:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    result = []
    for values, members in groups.items():
        line: Row = {**dict(zip(keys, values, strict=True)), "n": len(members)}
        line["diverged"] = sum(row["status"] == "diverged" for row in members)
        for metric in metrics:
            numbers = [row[metric] for row in members if math.isfinite(row.get(metric, math.nan))]
            mean = sum(numbers) / len(numbers) if numbers else math.nan
            line[metric] = mean
            line[f"{metric}_sd"] = (
                math.sqrt(sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)) if len(numbers) > 1 else math.nan
            )
        result.append(line)
    return result
