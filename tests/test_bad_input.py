"""Mistakes of a command line, of configurations and of folders, from the words to what is left behind.

The table is bad_input.yaml: kind → command (with `@ folder` the folder of bad_folders.py in which it runs) → every line
of its answer. In a line `@group@` is the list of a group's options, `@here@` the folder where the command runs, and
`[...]` any text.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bad_folders import FOLDERS
from onecycle.config.compose import CONF

TABLE = Path(__file__).with_name("bad_input.yaml")
NAMED = (
    "wrong type", "out of range", "fraction 0", "negative LR", "not a number", "huge number", "unknown key",
    "unknown option", "unknown precision", "contradiction", "missing part", "several at once", "no override",
    "shell-like", "path", "sweep", "study", "search", "evaluation", "data", "folder",
)  # fmt: skip
SECONDS = 2.0


class Case(NamedTuple):
    kind: str
    command: str  # train or evaluate
    words: list[str]
    folder: str  # of bad_folders, or empty
    lines: list[str]


def table() -> list[Case]:
    cases = []
    for kind, entries in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        for line, lines in entries.items():
            command, *words = shlex.split(line)
            folder = words[words.index("@") + 1 :] if "@" in words else []
            cases.append(Case(kind, command, words[: words.index("@")] if folder else words, "".join(folder), lines))
    return cases


CASES = table()
FORKED = [case for case in CASES if case.kind != "unreadable image"]
TORCH = [case for case in CASES if case.kind == "unreadable image"]


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


def answers(cases: list[Case], parent: Path, *options: str) -> list[dict[str, Any]]:
    """What refusing.py saw of each case, and whether its folder is as it was."""
    folders = made(cases, parent / "here")
    before = [tree(here) for here in folders]
    scratch = parent / "scratch"
    scratch.mkdir()
    program = [sys.executable, str(Path(__file__).with_name("refusing.py")), str(scratch), *options]
    given = json.dumps([[case.command, case.words, str(here)] for case, here in zip(cases, folders, strict=True)])
    done = subprocess.run(program, input=given, env=environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        answer | {"here": str(here), "unchanged": tree(here) == was}
        for answer, here, was in zip(found, folders, before, strict=True)
    ]


def expected(case: Case, here: str) -> list[str]:
    """Patterns of the lines."""
    options = {
        f"@{group}@": ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem != "base"))
        for group in ("callbacks", "data", "experiment", "hyperparameters", "logger", "model", "optimizer", "schedule",
                      "study", "trainer")
    }  # fmt: skip
    lines = case.lines
    for mark, text in (*options.items(), ("@here@", here)):
        lines = [line.replace(mark, text) for line in lines]
    return [re.escape(line).replace(re.escape("[...]"), ".*") for line in lines]


def wrong(case: Case, code: int, stdout: str, stderr: str, here: str) -> list[str]:
    """What is not right about an answer."""
    patterns, lines = expected(case, here), stderr.splitlines()
    fits = len(lines) == len(patterns) and all(map(re.fullmatch, patterns, lines))
    found = [] if fits else [f"said {lines}, not {case.lines}"]
    return found + [f"code {code}"] * (code != 2) + [f"printed {stdout}"] * bool(stdout)


def refused(cases: list[Case], parent: Path, *options: str) -> list[tuple[str, list[str], list[str]]]:
    """The cases that are not answered as they must be, and why."""
    bad = []
    for case, answer in zip(cases, answers(cases, parent, *options), strict=True):
        problems = wrong(case, answer["code"], answer["stdout"], answer["stderr"], answer["here"])
        problems += ["left something behind"] * (not answer["unchanged"])
        problems += [f"started {answer['started']}"] * bool(answer["started"])
        if not options:  # decoding holds a lock, which is removed again
            problems += [f"written {answer['written']}"] * bool(answer["written"])
            heavy = set(answer["heavy"]) - {"numpy", "optuna"}
            problems += [f"read {answer['read']}"] * (not case.folder and bool(answer["read"]))
            problems += [f"imported {heavy}"] * bool(heavy)
        if problems:
            bad.append((case.command, case.words, problems))
    return bad


def test_the_table_has_every_kind_and_no_case_twice() -> None:
    assert tuple(dict.fromkeys(case.kind for case in FORKED)) == NAMED
    assert len({(case.command, *case.words, case.folder) for case in CASES}) == len(CASES) >= 350
    assert all(case.lines and all("Traceback" not in line for line in case.lines) for case in CASES)


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_mistake_is_lines_and_code_2_and_nothing_is_read_written_started_or_left(part: int, tmp_path: Path) -> None:
    assert refused(FORKED[part::2], tmp_path) == []


def test_an_image_that_cannot_be_read_is_a_line_and_no_cache_and_no_run_is_left(tmp_path: Path) -> None:
    assert refused(TORCH, tmp_path, "torch") == []


def seconds_of(case: Case, here: Path) -> float:
    """The time of a new process, whose answer is right; the best of three, as others use this machine."""
    program = [sys.executable, "-m", f"onecycle.{case.command}", *case.words]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(
            program, cwd=here, env=environment(), capture_output=True, text=True, errors="surrogateescape", timeout=60
        )
        times.append(time.perf_counter() - began)
        assert wrong(case, done.returncode, done.stdout, done.stderr, str(here)) == [], case.words
        if times[-1] < SECONDS:
            break
    return min(times)


def slowest(cases: list[Case], parent: Path) -> tuple[float, list[str]]:
    return max((seconds_of(case, here), case.words) for case, here in zip(cases, made(cases, parent), strict=True))


def test_one_of_each_kind_is_answered_by_a_new_process_in_two_seconds(tmp_path: Path) -> None:
    first = {case.kind: case for case in reversed(FORKED)}
    some = [first[kind] for kind in ("wrong type", "several at once", "study", "search", "evaluation", "folder")]
    took, words = slowest(some, tmp_path)
    assert took < SECONDS, words


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_mistake_is_answered_by_a_new_process_in_two_seconds(tmp_path: Path) -> None:
    took, words = slowest(FORKED, tmp_path)
    assert took < SECONDS, words
