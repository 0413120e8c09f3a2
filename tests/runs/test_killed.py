import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Plan = list[tuple[str, float | str, int]]
PLACES: Plan = [
    ("SIGKILL", "validation", 1), ("SIGKILL", "validation", 2), ("SIGKILL", "flush", 3), ("SIGKILL", "replace", 4),
    ("SIGKILL", "serialize", 5), ("SIGKILL", "test", 1), ("SIGKILL", "record", 1), ("SIGHUP", "step", 7),
    ("SIGINT", "step", 3), ("SIGTERM", "validation", 2), ("SIGINT", "serialize", 2),
]  # fmt: skip


def killed(folder: Path, plan: Plan, *overrides: str) -> list[dict[str, Any]]:
    """What `killing` found for each entry of a plan."""
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), str(folder), json.dumps(plan), *overrides]
    places = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]  # with helpers.py
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def anywhere(number: int, seed: int) -> Plan:
    chance = random.Random(seed)
    signals = [*["SIGKILL"] * 4, "SIGTERM", "SIGINT"]
    return [(chance.choice(signals), chance.uniform(0.02, 0.98), -chance.randrange(1, 8)) for _ in range(number)]


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer.precision=32-true",), ("trainer.precision=bf16-mixed",), ("evaluation.every_n_epochs=0",),
        ("evaluation.every_n_epochs=2", "trainer.max_epochs=3"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_killed_anywhere_a_run_ends_as_if_it_had_not_been(overrides: tuple[str, ...], tmp_path: Path) -> None:
    found = killed(tmp_path, anywhere(5, seed=len("".join(overrides))), *overrides)
    assert len(found) == 5
    assert [entry for entry in found if entry["last"] or entry["differences"]] == []
    assert sum(entry["code"] != 0 for entry in found) >= 2  # stopped on their way, not after their end


@pytest.mark.parametrize("every", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_killed_anywhere_or_right_after_an_epoch_a_run_ends_as_if_it_had_not_been(every: int, tmp_path: Path) -> None:
    # 7 steps an epoch: the process ends before the eighth and the fifteenth.
    plan: Plan = [("SIGKILL", "step", 8), ("SIGTERM", "step", 8), ("SIGKILL", "step", 15), ("SIGKILL", 0.6, -4)]
    found = killed(tmp_path, plan, f"evaluation.every_n_epochs={every}", "trainer.max_epochs=3")
    assert [entry for entry in found if entry["last"] or entry["differences"]] == []
    assert [entry["code"] for entry in found[:3]] == [-9, 130, -9]  # the last one is killed by the clock, if in time


@pytest.mark.slow
def test_killed_while_it_evaluates_writes_or_tests_a_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    found = killed(tmp_path, PLACES)
    assert [entry for entry in found if entry["last"] or entry["differences"]] == []
    assert [entry["code"] for entry in found] == [-9] * 7 + [130] * 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere_two_hundred_times(tmp_path: Path) -> None:
    found = killed(tmp_path, anywhere(200, seed=3))
    assert [entry for entry in found if entry["last"] or entry["differences"]] == []
