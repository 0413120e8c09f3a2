"""The studies as pages for the repository: `python -m onecycle.studies.docs [FOLDER] [DOCS]` writes docs/studies.md."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from onecycle.studies import report
from onecycle.studies import rows as table
from onecycle.studies.plan import read_plan
from onecycle.studies.verdicts import holm

FAMILY = (
    "† survives Holm's correction over the family of all {claims} claims of this page, of which {ps} have a p: one "
    "without counts as p = 1. A claim without p was judged before, by Student's interval (±) with one spread for all "
    "of its points; it is judged anew when its study is run again. Each section says whether design and claims were "
    "registered before the first run, and what was changed after how many runs. Sections that do not say so are older: "
    "their margins, metrics, sizes or seeds may have been chosen after runs had been seen."
)
CLAIM = re.compile(r"^\| .* \| [✔✘?–] ", re.MULTILINE)
P = re.compile(r"\| ([01]\.\d{4})(?: †)? \|$", re.MULTILINE)


def write_docs(studies: Path, docs: Path) -> list[str]:
    """Write studies.md and figures/ in `docs` from the reports below `studies`; returns the names of the studies.

    Only complete studies of a real data set are shown. What is said there of others stays: a study that was run
    elsewhere, or whose records are gone, keeps its section.
    """
    page = docs / "studies.md"
    parts = re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)[1:] if page.exists() else []
    # The last line of a section names its study.
    named = {re.search(r"`make study NAME=(\w+)`\s*$", part): part.rstrip("\n") + "\n" for part in parts}
    sections, names = {name[1] if name else "~": part for name, part in named.items()}, []  # "~": the last
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    for folder in report.study_folders(studies, f"{report.REPORT}/verdicts.json"):
        plan, rows = read_plan(folder), table.read(folder)
        if plan.study["scale"] == "tiny" or table.DRAWN in set(rows["data_name"]):
            continue
        target = folder / report.REPORT
        pictures = sorted(target.glob("*.png"), key=lambda picture: (picture.stem != "figure", picture.stem))
        for picture in pictures:
            shutil.copyfile(picture, docs / "figures" / f"{folder.name}_{picture.name}")
        newest = max((Path(run) / "result.json").stat().st_mtime for run in rows["folder"])
        sections[folder.name] = report.TEMPLATES.get_template("studies.md.j2").render(
            report.facts(folder, plan, rows), verdicts=json.loads((target / "verdicts.json").read_text()),
            pictures=[picture.name for picture in pictures], seeds=seeds_text(table.cells(rows, "seed")),
            date=f"{datetime.fromtimestamp(newest):%Y-%m-%d}",
        ) + "\n"  # fmt: skip
        names.append(folder.name)
    text = "\n".join(sections[name] for name in sorted(sections))
    family = FAMILY.format(claims=len(CLAIM.findall(text)), ps=len(P.findall(text)))
    page.write_text(f"# What the studies found\n\n{report.INTERVALS} {family}\n\n{with_holm(text)}")
    return names


def with_holm(text: str) -> str:
    """The sections with a † after each p that survives Holm's correction; a claim without a p is one of the family."""
    found = [float(p) for p in P.findall(text)]
    survivors = iter(holm([*found, *[1.0] * (len(CLAIM.findall(text)) - len(found))]))
    return P.sub(lambda match: f"| {match[1]}{' †' * next(survivors)} |", text)


def seeds_text(seeds: Sequence[Any]) -> str:
    """How often runs were repeated: "n = 3 seeds", or which seeds how many runs have where they differ."""
    runs = pd.Series(seeds, dtype=float).dropna().astype(int).value_counts().sort_index()
    if runs.nunique() < 2:
        return f"n = {len(runs)} seed{'s' if len(runs) != 1 else ''}"
    parts = []
    for _, group in runs.groupby(runs, sort=False):
        members = group.index.tolist()
        is_range = len(members) > 2 and members == list(range(members[0], members[-1] + 1))
        which = f"{members[0]}–{members[-1]}" if is_range else ", ".join(map(str, members))
        parts.append(f"{group.sum()} with seed{'s' if len(members) > 1 else ''} {which}")
    return ", ".join(parts)


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    folder, docs = [*given, *(Path("logs/studies"), Path("docs"))[len(given) :]][:2]
    print(f"{docs / 'studies.md'}: {', '.join(write_docs(folder, docs)) or 'no complete study yet'}")
