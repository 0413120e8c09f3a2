"""A study's page and its TensorBoard events: `python -m onecycle.studies.report` draws all pages again."""

import base64
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from filelock import FileLock
from jinja2 import Environment, PackageLoader, select_autoescape

from onecycle.errors import ConfigError, make_output_harmless, problems_of
from onecycle.runs import record as run
from onecycle.runs.table import no_formula
from onecycle.studies import rows as table
from onecycle.studies.figures import draw, page_data
from onecycle.studies.figures.columns import label_of, mean_and_sd
from onecycle.studies.figures.drawing import save
from onecycle.studies.plan import PLAN, Plan, points, read_plan
from onecycle.studies.registration import registration_text
from onecycle.studies.responses import Runs
from onecycle.studies.sequential import alpha_of, looks_text
from onecycle.studies.verdicts import ALPHA, holm, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

REPORT = "report"
NOT_JUDGED = "not judged"
METRICS = (
    "val_accuracy", "test_accuracy", "test_accuracy_tta", "test_loss", "final_test_loss", "final_loss", "train_loss",
    "seconds_fit",
)  # fmt: skip
TAGS = ("train/loss", "train/accuracy", "test/loss", "test/accuracy", "val/loss", "val/accuracy")  # in TensorBoard
INTERVALS = (
    "In brackets is an effect's 90 % interval. The effect is taken of the mean over seeds and its interval from draws "
    "of these means, each with its own spread from seed to seed or, with one seed, with that which the study assumes; "
    "of an optimum or a blow-up half a step of the grid is added. A claim holds, or does not, where the whole interval "
    "says so. p is how often at most chance gives such a verdict to a claim of which the opposite is true."
)
TEMPLATES = Environment(
    loader=PackageLoader("onecycle.studies"), autoescape=select_autoescape(["html.j2"]), trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def build(folder: Path, plan: Plan | None = None) -> None:
    """Judge the claims and write report/ in a study's folder: page, figures, table.csv, verdicts.json, TensorBoard.

    plan: the study's; None reads it from the folder. Raises ConfigError for claims and figures that do not fit the
    rows, after a page with the others and these lines.
    """
    with FileLock(folder / ".report.lock"):  # equal commands at once draw one after the other
        _build(folder, plan or read_plan(folder), table.read(folder))


def _build(folder: Path, plan: Plan, rows: pd.DataFrame) -> None:
    target = folder / REPORT
    target.mkdir(exist_ok=True)
    if rows.empty:
        raise ConfigError([f"{folder}: no run is finished; run it: make study NAME={folder.name}"])
    judged, problems = verdicts(plan, rows, alpha_of(folder))
    drawn, undrawn = draw(plan.study, rows)
    problems += undrawn
    images = {}
    for name, figure in drawn.items():
        save(figure, target, name)
        # As a data URL, so that the page is one file.
        images[name] = "data:image/png;base64," + base64.b64encode((target / f"{name}.png").read_bytes()).decode()
    places = [os.path.relpath(run, folder.parent) for run in rows["folder"]]  # a study can be moved
    cells = rows[table.plain_columns(rows)].assign(folder=places).map(no_formula)
    cells.to_csv(target / "table.csv", index=False, float_format="%.6g")
    run.write_atomically(target / "verdicts.json", json.dumps(judged, indent=1, allow_nan=False) + "\n")
    warnings = list(problems)
    # The other rows are those of `records_of`.
    missing = len(plan.points) - sum(map(table.is_missing, table.cells(rows, "study")))
    if missing > 0:
        warnings.append(f"{missing} of {len(plan.points)} runs have no result yet: run the command again.")
    if table.DRAWN in set(rows["data_name"]):
        warnings.append("These runs saw drawn images: their accuracy says nothing about CIFAR.")
    header, body = summary_table(plan, rows)
    page = TEMPLATES.get_template("study.html.j2").render(
        facts(folder, plan, rows), warnings=warnings, verdicts=judged, images=images,
        data=page_data(rows, drawn, target, METRICS), intervals=INTERVALS, header=header, body=body,
        date=f"{datetime.now():%Y-%m-%d}", command=plan.command,
    )  # fmt: skip
    run.write_atomically(target / "index.html", page + "\n")
    write_aggregates(target / "tensorboard", drawn, rows)
    for verdict in judged:
        log.info("%s: %s (%s)", verdict["verdict"], verdict["text"], verdict["reason"])
    log.info("Page: %s", target / "index.html")
    if problems:
        raise ConfigError(problems)


def verdicts(plan: Plan, rows: pd.DataFrame, alpha: float = ALPHA) -> tuple[list[dict[str, Any]], list[str]]:
    """The verdict on every claim of a study, and a line for every claim that cannot be asked of the rows."""
    # A study of records has no points of its own; the tiny scale has other values than the claims speak of.
    arms = {block["arm"] for block in plan.study.get("searches") or ()}
    is_whole = (
        plan.study["scale"] != "tiny"
        and {point.label for point in points(plan.study)} <= set(rows["label"])
        and arms <= set(table.cells(rows, "arm"))
    )
    why = table.why_not_judged(rows)
    unfit = {"verdict": NOT_JUDGED, "reason": why, "if_not": "", "p": 1.0} if why else {}
    judged, problems = [], []
    for claim in plan.study.get("claims") or ():
        try:
            judged.append(judge(rows, claim, whole=is_whole, alpha=alpha) | unfit)
        except ConfigError as error:
            problems += error.problems
    survivors = holm([entry["p"] for entry in judged])
    return [entry | {"holm": survives} for entry, survives in zip(judged, survivors, strict=True)], problems


def facts(folder: Path, plan: Plan, rows: pd.DataFrame) -> dict[str, Any]:
    """What a page and a section of the docs both say of the study in `folder`."""
    published = plan.study.get("published")
    return {
        "registration": [*registration_text(folder, plan.study), *looks_text(folder)],
        "study": plan.study, "runs": len(rows), "machine": rows["machine"].iloc[0],
        "data_name": rows["data_name"].iloc[0], "minutes": minutes(rows),
        "published": published_and_here(published, rows) if published else [],
        "published_metric": label_of(published["metric"]) if published else "",
    }  # fmt: skip


def minutes(rows: pd.DataFrame) -> float:
    """In how many minutes the runs were made: those made at once count once."""
    starts = pd.to_datetime(rows["started"], utc=True, errors="coerce")
    spans = pd.DataFrame({"start": starts, "end": starts + pd.to_timedelta(rows["seconds_total"], "s")})
    if (spans := spans.dropna().sort_values("start")).empty:  # of an earlier version
        return float(rows["seconds_total"].sum() / 60)
    before = spans["end"].cummax().shift()
    own = spans["end"] - spans["start"].where(before.isna() | (before < spans["start"]), before)
    return float(own.dt.total_seconds().clip(lower=0).sum() / 60)


def published_and_here(published: Mapping[str, Any], rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Of each published entry its text, its numbers, and the mean of our runs that it is about, empty without any."""
    found = []
    for entry in published["rows"]:
        own = Runs(table.select(rows, entry["of"]) if entry.get("of") else rows.iloc[:0])
        numbers = own.numbers(entry.get("metric", published["metric"]))
        numbers = numbers[np.isfinite(numbers)]
        values = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
        here = f"{numbers.mean():.4g} (n = {len(numbers)})" if len(numbers) else ""
        found.append((entry["text"], " / ".join(f"{value:g}" for value in values), here))
    return found


def summary_table(plan: Plan, rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the page's table: a line for each point, with mean ± sample sd over its runs that finished."""
    axes = list(dict.fromkeys(key for point in plan.points for key in point.values if key != "seed"))
    axes = axes or ["study", "batch_size", "subset_size", "peak_lr"]
    known = table.plain_columns(rows)
    axes += [name for name in ("coordinate", "decision") if name in known]
    metrics = [name for name in METRICS if name in known]
    numbers_of = Runs(rows).numbers
    runs = pd.DataFrame({name: numbers_of(name) for name in metrics}).replace([np.inf, -np.inf], np.nan)
    runs["lost"] = (rows["status"] == "diverged").to_numpy()
    texts = [
        ["" if table.is_missing(cell) else table.value_text(cell) for cell in table.cells(rows, axis)] for axis in axes
    ]
    body = []
    for point, members in runs.groupby(pd.Series(list(zip(*texts, strict=True))), sort=False):
        lost = members["lost"].sum()
        numbers = [mean_and_sd(members[name].mean(), members[name].std()) for name in metrics]
        body.append([*point, f"{len(members)}" + f" ({lost} diverged)" * bool(lost), *numbers])
    return [*map(label_of, axes), "n", *map(label_of, metrics)], body


def write_aggregates(folder: Path, figures: Mapping[str, "Figure"], rows: pd.DataFrame) -> None:
    """Write events to `folder` anew: figures in the folder itself, one run each for mean, mean + sd and mean − sd.

    Mean and sample sd of a point's curves go over its seeds, at the steps at which all of them are finite.
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(name, figure, close=False)
    labels = rows["label"].str.replace(r",?seed=[^,]*", "", regex=True)
    for label, members in rows["folder"].groupby(labels, sort=False):
        target = folder / re.sub(r"[^\w=.,+-]+", "_", label or "all")
        runs = [pd.DataFrame(lines) for path in members if (lines := table.metric_lines(Path(path)))]
        if len(runs) < len(members):
            continue
        tables = [run.apply(pd.to_numeric, errors="coerce").groupby("step").last() for run in runs]
        steps = pd.concat(tables).replace([np.inf, -np.inf], np.nan).groupby(level=0)
        mean, sd, is_whole = steps.mean(), steps.std().fillna(0), steps.count() == len(runs)
        for suffix, sign in {"mean": 0, "plus sd": 1, "minus sd": -1}.items() if len(runs) > 1 else [("mean", 0)]:
            with SummaryWriter(str(target / suffix)) as writer:
                for tag in set(TAGS) & set(mean):
                    for step, value in (mean + sign * sd)[tag][is_whole[tag]].items():
                        writer.add_scalar(tag, value, int(step))


def study_folders(studies: Path, file: str) -> list[Path]:
    """The folders of studies that hold a file, without those that study.force=true moved aside."""
    return [
        folder for folder in sorted(studies.glob("*")) if (folder / file).exists() and ".before-" not in folder.name
    ]


def build_index(studies: Path) -> Path:
    """Write index.html over all studies that have a report; returns its path."""
    entries = [
        {
            "name": folder.name, "title": read_plan(folder).study["title"],
            "verdicts": json.loads((folder / REPORT / "verdicts.json").read_text()),
            "has_figure": (folder / REPORT / "figure.png").exists(),
        }
        for folder in study_folders(studies, f"{REPORT}/verdicts.json")
    ]  # fmt: skip
    run.write_atomically(studies / "index.html", TEMPLATES.get_template("index.html.j2").render(studies=entries) + "\n")
    return studies / "index.html"


def main(arguments: Sequence[str]) -> None:
    """Command: python -m onecycle.studies.report [FOLDER]: without training every page below logs/studies, or one."""
    make_output_harmless()
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    studies = Path(*arguments[:1] or ["logs/studies"])
    folders = [studies] if (studies / PLAN).exists() else study_folders(studies, PLAN)
    if not folders:
        sys.exit(f"{studies}: holds no study yet; run one: make study NAME=lr_range_test")
    problems = [f"{folder.name}: {line}" for folder in folders for line in problems_of(partial(build, folder))]
    print(f"Index: {build_index(folders[0].parent)}")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
