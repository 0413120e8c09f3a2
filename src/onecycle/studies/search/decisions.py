"""What a search has decided at each of its points: the file path.csv in the study's folder, written as it goes."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from onecycle.errors import storage_errors_named
from onecycle.runs.record import write_atomically
from onecycle.studies.plan import column
from onecycle.studies.search.coordinate import BETTER, START, Step, point_text

PATH = "path.csv"
COLUMNS = ("arm", "number", "coordinate", "point", "mean_score", "seeds", "decision", "reason")


class Decisions:
    """The decisions of all searches of a study, in the order in which they are made, in `folder`/path.csv.

    mean_score: in [0, 1], empty where a run of the point diverged. seeds: how many runs it is the mean of.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []

    def add(self, arm: str, step: Step, seeds: int) -> None:
        """Append one and write them all; a search that goes on decides the same again."""
        line = {
            "arm": arm, "number": step.number, "point": point_text(step.values),
            "coordinate": "" if step.decision == START else column(step.coordinate),
            "mean_score": f"{step.score:.6g}" if math.isfinite(step.score) else "", "seeds": seeds,
            "decision": step.decision, "reason": reason(step),
        }  # fmt: skip
        self.lines.append(line)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self.lines)
        with storage_errors_named("run this again"):
            write_atomically(self.folder / PATH, text.getvalue())


def reason(step: Step) -> str:
    """Why a search decided so: "52.10 % against 51.30 %"."""
    score, beside = (f"{100 * share:.2f} %" for share in (step.score, step.beside))
    if step.decision == START:
        return "the first point"
    if not math.isfinite(step.score):
        return "it diverged"
    if not math.isfinite(step.beside):
        return f"{score}, every point before it diverged"
    text = f"{score} against {beside}"
    is_small = step.decision != BETTER and step.beside < step.score <= step.beside + step.min_gain
    return f"{text}, which is less than {100 * step.min_gain:.2f} % better" if is_small else text


def read(folder: Path) -> dict[tuple[Any, Any], dict[str, str]]:
    """Coordinate and decision by arm and number of a point; empty where no search was made."""
    try:
        with (folder / PATH).open(newline="", encoding="utf-8") as file:
            return {
                (line["arm"], int(line["number"])): {name: line[name] for name in ("coordinate", "decision")}
                for line in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
