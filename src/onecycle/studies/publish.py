"""What studies give to others: `publish docs [FOLDER] [DOCS]` writes DOCS/studies.md, `publish bundle FOLDER` a zip."""

import json
import math
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from onecycle.errors import errors_shown, make_output_harmless
from onecycle.runs.record import RESULT
from onecycle.studies import report
from onecycle.studies import rows as table
from onecycle.studies.figures import draw
from onecycle.studies.figures.drawing import save
from onecycle.studies.plan import read_plan
from onecycle.studies.verdicts import holm

BLOCK = re.compile(r"<!-- generated: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
SECTION = re.compile(r"^## (.+)$|^\| (.+?) \| ([✔✘?–] [a-z ]+) \| (.+) \| .+ \| (.+) \| (.*) \|$", re.MULTILINE)
BUNDLED = ("*", "*/result.json", "*/config.yaml", "*/metrics.csv", "report/*")  # of a study's folder
NEW_PAGE = "# What the studies found\n\n<!-- generated: summary -->\n<!-- end -->\n"
WORDS = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided", "not judged": "not judged"}
LATEX = str.maketrans(
    {"λ": r"$\lambda$", "ρ": r"$\rho$", "α": r"$\alpha$", "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "–": "--"}
)


def write_docs(studies: Path, docs: Path) -> list[str]:
    """Write the generated blocks of studies.md, and figures/, in `docs`; returns the names of the studies.

    Other text stays, and so do blocks of studies whose records are elsewhere. A new study gets a section at the end.
    Only complete studies of a real data set are shown.
    """
    page, names = docs / "studies.md", []
    text = page.read_text() if page.exists() else NEW_PAGE
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    for folder in report.study_folders(studies, f"{report.REPORT}/verdicts.json"):
        plan, rows = read_plan(folder), table.read(folder)
        if plan.study["scale"] == "tiny" or table.DRAWN in set(rows["data_name"]):
            continue
        pictures = sorted((folder / report.REPORT).glob("*.png"), key=lambda path: (path.stem != "figure", path.stem))
        for picture in pictures:
            shutil.copyfile(picture, docs / "figures" / f"{folder.name}_{picture.name}")
        newest = max((Path(run) / RESULT).stat().st_mtime for run in rows["folder"])
        verdicts = json.loads((folder / report.REPORT / "verdicts.json").read_text())
        section = report.TEMPLATES.get_template("studies.md.j2").render(
            report.facts(folder, plan, rows), pictures=[picture.name for picture in pictures],
            verdicts=[entry | {"measured": effect_text(entry)} for entry in verdicts],
            date=f"{datetime.fromtimestamp(newest):%Y-%m-%d}",
        ) + "\n"  # fmt: skip
        is_known = f"<!-- generated: {folder.name}.verdicts -->" in text
        text = _with_blocks(text, dict(BLOCK.findall(section))) if is_known else f"{text}\n{section}"
        names.append(folder.name)
    page.write_text(_with_blocks(text, {"summary": summary(text)}))
    return names


def _with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    return BLOCK.sub(lambda one: f"<!-- generated: {one[1]} -->\n{blocks.get(one[1], one[2])}<!-- end -->", text)


def summary(text: str) -> str:
    """Every claim of the page, its verdict, and whether that survives Holm's correction; without p it counts as 1."""
    rows, anchor = [], ""
    for title, claim, verdict, effect, n, p in SECTION.findall(text):
        if title:
            anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        else:
            rows.append((f"| [{claim}](#{anchor}) | {verdict} | {effect} | {n} |", verdict[2:], p))
    counts = pd.Series([verdict for _, verdict, _ in rows], dtype=str).value_counts()
    texts = [f"{counts[name]} {word}" for name, word in WORDS.items() if name in counts]
    lines = ["", f"{len(rows)} claims: {', '.join(texts)}.", ""]
    lines += ["| claim | verdict | effect ± half width | n | Holm |", "|---|---|---|---|---|"]
    for (line, _, p), survives in zip(rows, holm([float(p or 1) for *_, p in rows]), strict=True):
        lines.append(f"{line} {'' if not p else 'yes' if survives else 'no'} |")
    return "\n".join([*lines, "", ""])


def effect_text(entry: Mapping[str, Any]) -> str:
    """A verdict's effect with half the width of its 90 % interval; with both ends where that is lopsided or open."""
    effect, half, low, high = (entry[key] for key in ("effect", "uncertainty", "low", "high"))
    if half is None or abs((low + high) / 2 - effect) > half / 2:
        reason: str = entry["reason"]
        return reason.rpartition(", ")[0] if reason.endswith(" was claimed") else reason
    decimals = max(0, 1 - math.floor(math.log10(half))) if half > 1e-6 * abs(effect) else None
    amount = f"{effect:.4g}" if decimals is None else f"{effect:z.{decimals}f} ± {half:.{decimals}f}"
    return f"{amount} {entry['unit']}"


def bundle(folder: Path) -> Path:
    """Write a study as NAME.zip beside its folder: all that its page is drawn from, the page, LaTeX and versions."""
    report.build(folder)
    plan, rows, target = read_plan(folder), table.read(folder), folder / report.REPORT
    for name, figure in draw(plan.study, rows)[0].items():
        save(figure, target, name, {"pdf": "CreationDate"})
    header, body = report.summary_table(plan, rows)
    latex = pd.DataFrame(body, columns=header).to_latex(index=False, escape=True).translate(LATEX)
    (target / "table.tex").write_text(latex)
    made_with = [json.loads((Path(run) / RESULT).read_text())["environment"] for run in rows["folder"]]
    versions: dict[str, Any] = {"runs": [one for place, one in enumerate(made_with) if one not in made_with[:place]]}
    versions["figures"] = {name: version(name) for name in ("onecycle", "matplotlib", "numpy", "pandas", "scipy")}
    (target / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    archive = folder.with_name(f"{folder.name}.zip")
    studies = [folder, *(folder.parent / name for name in plan.study.get("records_of") or ())]
    found = {path for study in studies for pattern in BUNDLED for path in study.glob(pattern) if path.is_file()}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(found):
            file.write(path, path.relative_to(folder.parent))
    return archive


def main(command: str = "docs", *given: str) -> None:
    """Command: see the module."""
    if command == "bundle":
        print(bundle(Path(*given)))
    else:
        folder, docs = [*map(Path, given), *(Path("logs/studies"), Path("docs"))[len(given) :]][:2]
        print(f"{docs / 'studies.md'}: {', '.join(write_docs(folder, docs)) or 'no complete study yet'}")


if __name__ == "__main__":
    make_output_harmless()
    with errors_shown():
        main(*sys.argv[1:])
