"""What a study gives to others: docs/studies.md, and an archive of one study.

`python -m onecycle.studies.publish docs [FOLDER] [DOCS]` writes the generated blocks of DOCS/studies.md from the
reports below FOLDER; `python -m onecycle.studies.publish bundle FOLDER` writes FOLDER.zip.
"""

import json
import math
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd

from onecycle.errors import ConfigError
from onecycle.runs.record import RESULT
from onecycle.studies import report
from onecycle.studies import rows as table
from onecycle.studies.figures import draw
from onecycle.studies.figures.drawing import SHEET
from onecycle.studies.plan import read_plan
from onecycle.studies.verdicts import holm

START = "# What the studies found\n\n<!-- generated: summary -->\n<!-- end -->\n"
BLOCK = re.compile(r"<!-- generated: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
SECTION = re.compile(r"^## (.+)$|^\| (.+?) \| ([✔✘?–] [a-z ]+) \| (.+) \| .+ \| (.+) \| (.*) \|$", re.MULTILINE)
# Of a study's folder: its plan and searches, what figures and tables are made of, the page.
BUNDLED = ("*", "*/result.json", "*/config.yaml", "*/metrics.csv", "report/*")
LIBRARIES = ("onecycle", "torch", "lightning", "numpy", "scipy", "pandas", "matplotlib")
WORDS = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided", "not judged": "not judged"}
LATEX = str.maketrans(
    {"λ": r"$\lambda$", "ρ": r"$\rho$", "α": r"$\alpha$", "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "–": "--"}
)


def write_docs(studies: Path, docs: Path) -> list[str]:
    """Write the generated blocks of studies.md, and figures/, in `docs`; returns the names of the studies.

    Text between the blocks is left as it is, and so are blocks of studies that were run elsewhere or whose records are
    gone. A study that the page does not have yet gets a section at its end. Only complete studies of a real data set
    are shown.
    """
    page, names = docs / "studies.md", []
    text = page.read_text() if page.exists() else START
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    for folder in report.study_folders(studies, f"{report.REPORT}/verdicts.json"):
        plan, rows = read_plan(folder), table.read(folder)
        if plan.study["scale"] == "tiny" or report.DRAWN in set(rows["data_name"]):
            continue
        target = folder / report.REPORT
        pictures = sorted(target.glob("*.png"), key=lambda picture: (picture.stem != "figure", picture.stem))
        for picture in pictures:
            shutil.copyfile(picture, docs / "figures" / f"{folder.name}_{picture.name}")
        newest = max((Path(run) / RESULT).stat().st_mtime for run in rows["folder"])
        verdicts = json.loads((target / "verdicts.json").read_text())
        section = report.TEMPLATES.get_template("studies.md.j2").render(
            report.facts(plan, rows), pictures=[picture.name for picture in pictures],
            verdicts=[entry | {"measured": effect_text(entry), "claimed": bounds_text(entry)} for entry in verdicts],
            seeds=seeds_text(table.cells(rows, "seed")), date=f"{datetime.fromtimestamp(newest):%Y-%m-%d}",
        ) + "\n"  # fmt: skip
        is_known = f"<!-- generated: {folder.name}.verdicts -->" in text
        text = _with_blocks(text, dict(BLOCK.findall(section))) if is_known else f"{text}\n{section}"
        names.append(folder.name)
    page.write_text(_with_blocks(text, {"summary": summary(text)}))
    return names


def _with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    return BLOCK.sub(lambda one: f"<!-- generated: {one[1]} -->\n{blocks.get(one[1], one[2])}<!-- end -->", text)


def summary(text: str) -> str:
    """Every claim of the page with its verdict, and whether that survives Holm's correction over all of them.

    A claim without p was judged by another method and counts with p = 1.
    """
    rows, where = [], ""
    for title, claim, verdict, effect, n, p in SECTION.findall(text):
        if title:
            where = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        else:
            rows.append((f"[{claim}](#{where})", verdict, effect, n, p))
    survivors = holm([float(p or 1) for *_, p in rows])
    counts = pd.Series([verdict[2:] for _, verdict, *_ in rows], dtype=str).value_counts()
    texts = [f"{counts[name]} {word}" for name, word in WORDS.items() if name in counts]
    lines = [f"{len(rows)} claims: {', '.join(texts)}.", ""]
    lines += ["| claim | verdict | effect ± half width | n | Holm |", "|---|---|---|---|---|"]
    for (claim, verdict, effect, n, p), survives in zip(rows, survivors, strict=True):
        lines.append(f"| {claim} | {verdict} | {effect} | {n} | {'' if not p else 'yes' if survives else 'no'} |")
    return "\n" + "\n".join(lines) + "\n\n"


def effect_text(entry: Mapping[str, Any]) -> str:
    """A verdict's effect with half the width of its 90 % interval, or its ends where it is lopsided."""
    effect, half, unit, low, high = (entry[key] for key in ("effect", "uncertainty", "unit", "low", "high"))
    if effect is None:
        return str(entry["reason"])
    if half is None or abs((low + high) / 2 - effect) > half / 2:
        low, high = "−∞" if low is None else f"{low:.3g}", "∞" if high is None else f"{high:.3g}"
        return f"{effect:.3g} ({low} to {high}) {unit}".rstrip()
    decimals = max(0, 1 - math.floor(math.log10(half))) if half > 1e-6 * abs(effect) else None
    return (f"{effect:.4g}" if decimals is None else f"{effect:z.{decimals}f} ± {half:.{decimals}f}") + f" {unit}"


def bounds_text(entry: Mapping[str, Any]) -> str:
    """What was claimed of the effect."""
    least, most = (None if bound is None else f"{bound:g}" for bound in (entry["at_least"], entry["at_most"]))
    return f"at most {most}" if least is None else f"at least {least}" if most is None else f"{least} to {most}"


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


def bundle(folder: Path) -> Path:
    """Write a study beside its folder as NAME.zip: design, records, table, figures, page, LaTeX and versions.

    Without checkpoints and TensorBoard's events. In a copy `python -m onecycle.studies.report FOLDER` draws the page.
    """
    report.build(folder)
    plan, rows, target = read_plan(folder), table.read(folder), folder / report.REPORT
    with matplotlib.style.context(SHEET):
        for name, figure in draw(plan.study, rows)[0].items():
            figure.savefig(target / f"{name}.pdf", metadata={"CreationDate": None})
    header, body = report.summary_table(plan, rows)
    latex = pd.DataFrame(body, columns=header).to_latex(index=False, escape=True).translate(LATEX)
    (target / "table.tex").write_text(latex)
    records = [json.loads((Path(run) / RESULT).read_text()) for run in rows["folder"]]
    made_with = {json.dumps(record["environment"], sort_keys=True): record["environment"] for record in records}
    versions = {"runs": [*made_with.values()], "figures": {name: version(name) for name in LIBRARIES}}
    (target / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    archive = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in (folder.name, *(plan.study.get("records_of") or ())):
            study = folder.parent / name
            paths = sorted({path for pattern in BUNDLED for path in study.glob(pattern) if path.is_file()})
            for path in paths:
                file.write(path, path.relative_to(folder.parent))
    return archive


def main(command: str, *given: str) -> None:
    """Command: see the module."""
    if command == "bundle":
        print(bundle(Path(*given)))
    else:
        folder, docs = [*map(Path, given), *(Path("logs/studies"), Path("docs"))[len(given) :]][:2]
        print(f"{docs / 'studies.md'}: {', '.join(write_docs(folder, docs)) or 'no complete study yet'}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:] or ["docs"])
    except ConfigError as error:
        sys.exit("\n".join(error.problems))
