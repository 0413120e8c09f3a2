"""A study's page: figures, table, verdicts.

`python -m onecycle.studies.report` draws all pages again from the records.
"""

import base64
import json
import logging
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from onecycle.errors import ConfigError
from onecycle.runs import record as run
from onecycle.studies import claims, pages
from onecycle.studies import rows as table
from onecycle.studies.figures import curves as plots
from onecycle.studies.figures import draw as figures
from onecycle.studies.plan import PLAN, Plan, points, read_plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

REPORT = "report"
METRICS = (
    "val_accuracy",
    "test_accuracy",
    "test_accuracy_tta",
    "test_loss",
    "final_test_loss",
    "final_loss",
    "train_loss",
    "seconds_fit",
)


@dataclass(frozen=True)
class Report:
    """What is known of a study: its plan, its rows, the verdict on each claim, what could not be judged or drawn."""

    folder: Path
    plan: Plan
    rows: list[Mapping[str, Any]]
    verdicts: list[claims.Verdict]
    problems: list[str]

    @property
    def missing(self) -> int:
        """Runs of the plan that have no result."""
        own = sum("study" not in row for row in self.rows)
        return len(self.plan.points) - own

    @property
    def seconds(self) -> float:
        """What the runs took, all together."""
        return sum(row["seconds_total"] for row in self.rows if "study" not in row)


def build(folder: Path) -> Report:
    """Judge the claims and write report/ in a study's folder: page, figures, table.csv, verdicts.json, TensorBoard.

    Raises ConfigError where a claim or a figure does not fit the rows, one line each, behind a page with all the others
    and these lines.
    """
    plan = read_plan(folder)
    rows = table.entries(folder)
    target = folder / REPORT
    target.mkdir(exist_ok=True)
    if not rows:
        raise ConfigError([f"{folder}: no run is finished; run it: make study NAME={folder.name}"])
    verdicts, unjudged = judged(plan, rows)
    drawn, undrawn = figures.draw(plan.study, rows)
    report = Report(folder, plan, rows, verdicts, unjudged + undrawn)
    for name, figure in drawn.items():
        plots.save(figure, target, name)
    table.write_csv(target / "table.csv", pd.DataFrame(rows))
    entries = [verdict.as_dict() for verdict in report.verdicts]
    run.write_atomically(target / "verdicts.json", json.dumps(entries, indent=1, allow_nan=False) + "\n")
    run.write_atomically(target / "index.html", pages.study_page(report, _embedded(drawn, target), lines(report)))
    _write_tensorboard(target / "tensorboard", drawn, rows)
    for verdict in report.verdicts:
        log.info("%s: %s (%s)", verdict.verdict, verdict.text, verdict.reason)
    log.info("Page: %s", target / "index.html")
    if report.problems:
        raise ConfigError(report.problems)
    return report


def judged(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> tuple[list[claims.Verdict], list[str]]:
    """The verdict on every claim of a study, and a line for every claim that cannot be asked of the rows.

    Where only a part of the study was run, a claim about the other part is undecided.
    """
    # A study of records has no points of its own; the tiny scale has other values than the claims speak of.
    arms = {block["arm"] for block in plan.study.get("searches") or ()}
    whole = (
        plan.study["scale"] != "tiny"
        and {point.label for point in points(plan.study)} <= {row["label"] for row in rows}
        and arms <= {row.get("arm") for row in rows}
    )
    verdicts, problems = [], []
    for claim in plan.study.get("claims") or ():
        try:
            verdicts.append(claims.judge(rows, claim))
        except claims.NoRunError as error:
            if whole:
                problems.append(str(error))
            else:
                verdicts.append(claims.unmeasured(claim, f"cannot be measured: {str(error).partition(': ')[2]}"))
        except claims.ClaimError as error:
            problems.append(str(error))
    return verdicts, problems


def lines(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the page's table: a line for each point, with mean ± sd over its seeds."""
    axes = list(dict.fromkeys(key for point in report.plan.points for key in point.values if key != "seed"))
    axes = axes or ["study", "batch_size", "subset_size", "peak_lr"]
    known = table.plain_columns(pd.DataFrame(report.rows))
    axes += [name for name in ("coordinate", "decision") if name in known]
    metrics = [name for name in METRICS if name in known]
    header = [plots.label_of(axis) for axis in axes] + ["n"]
    header += [plots.label_of(metric) for metric in metrics]
    body = []
    for line in table.summary(pd.DataFrame(report.rows), axes, metrics).to_dict("records"):
        cells = [
            ""
            if table.is_missing(line[axis])
            else f"{line[axis]:g}"
            if isinstance(line[axis], float)
            else str(line[axis])
            for axis in axes
        ]
        cells.append(f"{line['n']}" + (f" ({line['diverged']} diverged)" if line["diverged"] else ""))
        cells += [mean_and_sd(line[metric], line[f"{metric}_sd"]) for metric in metrics]
        body.append(cells)
    return header, body


def mean_and_sd(mean: float, sd: float) -> str:
    """Return "87.54 ± 0.30"; without a spread the mean alone, and a dash where there is none."""
    if not math.isfinite(mean):
        return "–"
    digits = 0 if abs(mean) >= 1000 else 2 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if math.isfinite(sd) else "")


def _embedded(drawn: Mapping[str, "Figure"], target: Path) -> dict[str, str]:
    """Every figure as a data URL, so that the page is one file."""
    return {
        name: "data:image/png;base64," + base64.b64encode((target / f"{name}.png").read_bytes()).decode()
        for name in drawn
    }


def _write_tensorboard(folder: Path, drawn: Mapping[str, "Figure"], rows: Sequence[Mapping[str, Any]]) -> None:
    """The figures as images, and for each point mean and mean ± sd over its seeds as runs of their own."""
    from onecycle.studies.aggregates import write_aggregates

    shutil.rmtree(folder, ignore_errors=True)
    write_aggregates(folder, drawn, rows)


def build_index(studies: Path) -> Path:
    """Write index.html over all studies that have a report; returns its path."""
    entries = []
    for path in sorted(studies.glob(f"*/{REPORT}/verdicts.json")):
        folder = path.parents[1]
        if ".before-" in folder.name:
            continue
        plan = read_plan(folder)
        thumbnail = path.with_name("figure.png")
        picture = f"{folder.name}/{REPORT}/figure.png" if thumbnail.exists() else None
        entries.append((folder.name, plan.study["title"], json.loads(path.read_text()), picture))
    run.write_atomically(studies / "index.html", pages.index_page(entries))
    return studies / "index.html"


def main() -> None:
    """Command: python -m onecycle.studies.report [FOLDER]: every page below logs/studies again, without training."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    studies = Path(sys.argv[1] if len(sys.argv) > 1 else "logs/studies")
    folders = sorted(path.parent for path in studies.glob(f"*/{PLAN}") if ".before-" not in path.parent.name)
    if not folders:
        sys.exit(f"{studies}: holds no study yet; run one: make study NAME=lr_range_test")
    problems = []
    for folder in folders:
        try:
            build(folder)
        except ConfigError as error:
            problems += [f"{folder.name}: {line}" for line in error.problems]
    print(f"Index: {build_index(studies)}")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
