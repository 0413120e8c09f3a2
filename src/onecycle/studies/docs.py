"""The studies as pages for the repository: `python -m onecycle.studies.docs [FOLDER] [DOCS]` writes docs/studies.md."""

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from onecycle.studies import pages, report
from onecycle.studies import rows as table
from onecycle.studies.figures import curves as plots
from onecycle.studies.plan import Plan, read_plan

MARKS = {"holds": "✔ holds", "does not hold": "✘ does not hold", "undecided": "? undecided"}


def write_docs(studies: Path, docs: Path) -> list[str]:
    """Write studies.md and figures/ in `docs` from the reports below `studies`; returns the names of the studies.

    Only complete studies of a real data set are shown. What is said there of others stays: a study that was run
    elsewhere, or whose records are gone, keeps its section.
    """
    sections, names = _earlier(docs / "studies.md"), []
    figures = docs / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for path in sorted(studies.glob(f"*/{report.REPORT}/verdicts.json")):
        folder = path.parents[1]
        if ".before-" in folder.name:
            continue
        plan, rows = read_plan(folder), table.entries(folder)
        if plan.study["scale"] == "tiny" or any(row["data_name"] == "synthetic" for row in rows):
            continue
        pictures = sorted(path.parent.glob("*.png"), key=lambda picture: (picture.stem != "figure", picture.stem))
        for picture in pictures:
            shutil.copyfile(picture, figures / f"{folder.name}_{picture.name}")
        newest = datetime.fromtimestamp(max((Path(row["folder"]) / "result.json").stat().st_mtime for row in rows))
        found = section(plan, rows, json.loads(path.read_text()), [p.name for p in pictures], newest)
        sections[folder.name] = found
        names.append(folder.name)
    text = f"# What the studies found\n\n{pages.INTERVALS}\n\n" + "\n".join(sections[name] for name in sorted(sections))
    (docs / "studies.md").write_text(text)
    return names


def _earlier(path: Path) -> dict[str, str]:
    """The sections of a studies.md by the name of their study, which their last line has."""
    parts = re.split(r"^(?=## )", path.read_text(), flags=re.MULTILINE)[1:] if path.exists() else []
    named = {re.search(r"`make study NAME=(\w+)`\s*$", part): part for part in parts}
    return {name[1]: part.rstrip("\n") + "\n" for name, part in named.items() if name}


def section(
    plan: Plan,
    rows: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    pictures: Sequence[str],
    newest: datetime,
) -> str:
    """One study: question, figures, verdicts, and how it was made."""
    study = plan.study
    lines = [f"## {study['title']}", "", str(study["question"]), "", f"Source of the claims: {study['source']}.", ""]
    lines += [f"![{study['title']}](figures/{study['name']}_{picture})" for picture in pictures]
    lines += ["", "| claim | verdict | measured |", "|---|---|---|"]
    lines += [f"| {_cell(v['text'])} | {MARKS[v['verdict']]} | {_cell(_measured(v))} |" for v in verdicts]
    if study.get("published"):
        lines += ["", _published(study["published"], rows)]
    if study.get("notes"):
        lines += ["", str(study["notes"])]
    minutes = sum(row["seconds_total"] for row in rows) / 60
    again = "" if not study.get("records_of") else " made before, by " + ", ".join(study["records_of"])
    lines += ["", f"{len(rows)} runs{again}, {_seeds(rows)}, {minutes:.1f} minutes on {rows[0]['machine']}, "
              f"{newest:%Y-%m-%d}: `make study NAME={study['name']}`", ""]  # fmt: skip
    return "\n".join(lines)


def _measured(verdict: Mapping[str, Any]) -> str:
    """What was measured and what is to be said of it, as sentences with one full stop each; a single one has none."""
    extra = [verdict[key] for key in ("if_not", "margin_from") if verdict.get(key)]
    return ". ".join(text.rstrip(".") for text in [verdict["reason"], *extra]) + "." * bool(extra)


def _published(published: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The published numbers in one line, ours behind them where we have them."""
    entries = [
        f"{text} → {value}" + (f", here {here}" if here else "")
        for text, value, here in pages.published_and_here(published, rows)
    ]
    return f"Published {plots.label_of(published['metric'])}: {'; '.join(entries)}. From: {published['source']}."


def _seeds(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often runs were repeated: "n = 3 seeds", or which seeds how many runs have where they differ."""
    runs = Counter(row["seed"] for row in rows if "seed" in row)
    groups: dict[int, list[Any]] = {}
    for seed, count in sorted(runs.items()):
        groups.setdefault(count, []).append(seed)
    if len(groups) < 2:
        return f"n = {len(runs)} seed{'s' if len(runs) != 1 else ''}"
    return ", ".join(f"{count * len(seeds)} with {_which(seeds)}" for count, seeds in groups.items())


def _which(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    row = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return "seeds " + (f"{seeds[0]}–{seeds[-1]}" if row else ", ".join(map(str, seeds)))


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def main() -> None:
    """Command: python -m onecycle.studies.docs [logs/studies] [docs]."""
    arguments = [Path(argument) for argument in sys.argv[1:]]
    studies, docs = [*arguments, *(Path("logs/studies"), Path("docs"))[len(arguments) :]][:2]
    names = write_docs(studies, docs)
    print(f"{docs / 'studies.md'}: {', '.join(names) or 'no complete study yet'}")


if __name__ == "__main__":
    main()
