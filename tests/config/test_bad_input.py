"""Errors of a command line, of configurations and of folders, from the words to what is left behind.

The table is bad_input.txt: a command (with `@ folder` the folder of bad_folders.py in which it runs) and, after `->`,
the keys and values with which the lines of its answer begin; without `->` that is the last word alone.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bad_folders import FOLDERS

TABLE = Path(__file__).with_name("bad_input.txt")


class Case(NamedTuple):
    command: str  # train or evaluate
    words: list[str]
    folder: str  # of bad_folders, or empty
    starts: list[str]


def read_table() -> list[Case]:
    cases = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            said, _, starts = line.partition("  ->  ")
            command, *words = shlex.split(said)
            folder = words[words.index("@") + 1] if "@" in words else ""
            words = words[: words.index("@")] if folder else words
            cases.append(Case(command, words, folder, starts.split(" | ") if starts else words[-1:]))
    return cases


CASES = read_table()


def environment() -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("ONECYCLE_")}
    return own | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}


def tree(here: Path) -> dict[str, tuple[int, int]]:
    return {ascii(str(path)): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in here.rglob("*")}


def made(cases: list[Case], parent: Path) -> list[Path]:
    """A folder for each case to run in."""
    folders = []
    for number, case in enumerate(cases):
        here = parent / str(number)
        here.mkdir(parents=True)
        if case.folder:
            FOLDERS[case.folder](here)
        folders.append(here)
    return folders


def wrong(case: Case, answer: dict[str, Any]) -> list[str]:
    """What is not right about an answer."""
    lines = answer["stderr"].splitlines()
    fits = len(lines) == len(case.starts) and all(map(str.startswith, lines, case.starts))
    found = [] if fits else [f"said {lines}, not {case.starts}"]
    return found + [f"code {answer['code']}"] * (answer["code"] != 2) + ["printed"] * bool(answer["stdout"])


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2))])
def test_an_error_is_lines_and_code_2_and_nothing_is_imported_written_started_or_left(
    part: int, tmp_path: Path
) -> None:
    cases = CASES[part::3]
    folders = made(cases, tmp_path / "here")
    before = [tree(here) for here in folders]
    (tmp_path / "scratch").mkdir()
    program = [sys.executable, str(Path(__file__).with_name("refusing.py")), str(tmp_path / "scratch")]
    given = json.dumps([[case.command, case.words, str(here)] for case, here in zip(cases, folders, strict=True)])
    done = subprocess.run(program, input=given, env=environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    bad = []
    for case, line, here, was in zip(cases, done.stdout.splitlines(), folders, before, strict=True):
        answer = json.loads(line)
        problems = wrong(case, answer) + ["left something"] * (tree(here) != was)
        problems += [f"{what} {answer[what]}" for what in ("written", "started", "heavy") if answer[what]]
        if problems:
            bad.append((case.command, case.words, problems))
    assert bad == []
