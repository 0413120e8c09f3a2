"""The short campaigns, and that the campaign sees what it is there for. The long one: make fuzz."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from fuzz import campaign, kinds, mutations, sealed, texts, trees
from fuzz.kinds import Kind, WrongError
from onecycle.config import saved
from onecycle.errors import LONGEST, one_line
from onecycle.runs import checkpoints
from onecycle.runs import fields as records
from onecycle.runs import record as run
from onecycle.runs.checkpoints import DamagedError

SHORT = {"record": 300, "config": 120, "image": 300, "checkpoint": 300}


@pytest.fixture(autouse=True)
def _torch_may_not_plan_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("name", campaign.NAMES)
def test_mutated_files_are_refused_as_documented_or_accepted_rightly(name: str, tmp_path: Path) -> None:
    tally = campaign.run(campaign.kind_named(name), SHORT[name], seed=0, failed=tmp_path)
    assert tally.failures == []
    assert tally.inputs == SHORT[name]
    assert tally.accepted + tally.refused == tally.inputs
    assert tally.accepted > 5  # mutations that only ever break a file would test nothing behind its first check
    assert tally.refused > tally.accepted


@pytest.mark.parametrize("name", campaign.NAMES)
def test_an_input_has_a_number_by_which_it_is_made_again(name: str) -> None:
    kind = campaign.kind_named(name)
    numbers = range(len(kind.corpus), len(kind.corpus) + 40)
    inputs = [kind.input(3, number) for number in numbers]
    assert [kind.input(3, number) for number in reversed(numbers)] == inputs[::-1]
    assert [kind.input(4, number) for number in numbers] != inputs
    assert len(set(inputs)) > 20
    assert kind.input(3, 0) == kind.corpus[0]


@pytest.mark.parametrize("operation", mutations.OPERATIONS)
def test_every_operation_changes_most_bytes_that_it_is_given(operation: mutations.Operation) -> None:
    rng, data = random.Random(0), bytes(range(200))
    assert sum(operation(rng, data, [b"other bytes" * 9]) != data for _ in range(50)) > 20
    assert isinstance(operation(rng, b"", [b""]), bytes)


def test_trees_are_changed_in_a_copy_and_written_with_what_json_cannot_write() -> None:
    tree = {"a": {"b": [1, 2.5, None]}, "c": "text"}
    before = json.dumps(tree)
    written = {trees.as_json(trees.mutated(random.Random(number), tree, texts.NUMBERS)) for number in range(300)}
    assert json.dumps(tree) == before
    assert len(written) > 150
    assert trees.as_json({"a": trees.Raw("NaN"), "b": trees.Doubled(c=1)}) == '{"a": NaN, "b": {"c": 1, "c": 1}}'


def planted(check: Callable[[Path], bool]) -> Kind:
    def mutate(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
        return b"%d" % rng.randrange(10)

    return Kind("planted", ".txt", (b"0",), mutate, check)


def asleep(path: Path) -> bool:
    time.sleep(30)
    return True


def crash(path: Path) -> bool:
    raise KeyError(path.read_text())


def accepting(path: Path) -> bool:
    kinds.must(path.read_text() not in "13579", "it is odd")
    return True


def executing(path: Path) -> bool:
    Path(kinds.MARKER).touch()
    return False


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (asleep, "HangError: took longer than 0.1 s"),
        (crash, "KeyError: '0' (raised in test_fuzz.py:"),
        (executing, "code in it was run"),
    ],
)
def test_a_hang_a_crash_and_code_that_is_run_are_seen_and_the_input_is_kept(
    check: Callable[[Path], bool], problem: str, tmp_path: Path
) -> None:
    tally = campaign.run(planted(check), 1, seed=5, failed=tmp_path, limit=0.1)
    (failure,) = tally.failures
    assert failure.startswith(f"{tmp_path / 'planted-5-0.txt'}: {problem}")
    assert (tmp_path / "planted-5-0.txt").read_bytes() == b"0"
    assert (tally.inputs, tally.accepted, tally.refused) == (1, 0, 0)


def test_a_wrong_acceptance_is_seen_among_right_ones(tmp_path: Path) -> None:
    tally = campaign.run(planted(accepting), 60, seed=0, failed=tmp_path)
    odd = sum(planted(accepting).input(0, number) in (b"1", b"3", b"5", b"7", b"9") for number in range(60))
    assert len(tally.failures) == odd > 10
    assert tally.accepted == 60 - odd
    assert {path.read_bytes() for path in tmp_path.iterdir()} <= {b"1", b"3", b"5", b"7", b"9"}


def test_a_crash_of_the_interpreter_is_reported_and_the_input_is_there(tmp_path: Path) -> None:
    program = (
        "import os, sys; from fuzz import campaign, kinds\n"
        "campaign.kind_named = lambda name: kinds.Kind(name, '.x', (b'deadly',), None, lambda path: os.abort())\n"
        "sys.exit(campaign.main())"
    )
    command = [sys.executable, "-c", program, "record", "--here", "--count", "1", "--failed", str(tmp_path)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, timeout=60)
    assert done.returncode < 0
    assert (tmp_path / "record-0-0.x").read_bytes() == b"deadly"


def test_the_command_prints_a_line_for_each_kind_and_ends_with_1_where_one_failed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fuzz.campaign", "record", "--count", "30", "--failed", str(tmp_path)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("record: 30 inputs, ")
    assert " 0 wrong, slowest " in done.stdout
    done = subprocess.run([*command[:3], "pictures"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "unknown: pictures" in done.stderr


# What the campaigns found, as the program answers it now.


@pytest.mark.parametrize(
    "schedule",
    [
        {"_target_": "onecycle.train.main"},
        {"_target_": "onecycle.runs.files.write_atomically", "path": "executed", "text": "x"},
        {"_target_": "torch.nn.Linear", "in_features": 10**6, "out_features": 10**6},
        {"_target_": "onecycle.training.schedule.Schedule", "peak_lr": 1.0},
    ],
    ids=lambda schedule: schedule["_target_"],
)
def test_a_saved_configuration_builds_nothing_but_a_curve_while_it_is_checked(
    schedule: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran: list[str] = []
    monkeypatch.setattr("onecycle.train.main", lambda: ran.append("main"))
    monkeypatch.setattr("onecycle.runs.files.write_atomically", lambda path, text: ran.append("write"))
    found = saved.problems(yaml.safe_load(texts.CONFIG_YAML) | {"schedule": schedule})
    assert ran == []
    assert any(line.startswith(f"schedule: _target_={schedule['_target_']}: ") for line in found), found


def test_what_a_file_says_reaches_the_terminal_as_printable_lines(tmp_path: Path) -> None:
    config = yaml.safe_load(texts.CONFIG_YAML) | {"name": "a\nb\x1b[2J\u202e" + "x" * 9000}
    (line,) = saved.problems(config)
    assert line.startswith(r"name=a\nb\x1b[2J\u202exxx")
    assert line.endswith("must be a name for a folder, up to 100 characters, none of / \\ $ ` ; | & < > * ? ! \" '")
    assert LONGEST < len(line) < LONGEST + 20
    assert line.isprintable()
    assert one_line("α×½ is printable") == "α×½ is printable"


def test_a_target_longer_than_a_files_name_is_unknown() -> None:
    config = yaml.safe_load(texts.CONFIG_YAML)
    config["optimizer"]["_target_"] = "torch.optim." + "x" * 5000
    (line,) = saved.problems(config)
    assert line.startswith("optimizer._target_=torch.optim.xxx")


@pytest.mark.parametrize("name", ["config", "image", "checkpoint"])
def test_what_was_once_answered_wrongly_stays_in_the_corpus_and_is_refused(name: str, tmp_path: Path) -> None:
    kind = campaign.kind_named(name)
    inputs = kinds.regressions(name)
    assert len(inputs) >= 3
    assert set(inputs) <= set(kind.corpus)
    for content in inputs:
        (tmp_path / "input").write_bytes(content)
        assert kind.check(tmp_path / "input") is False


@pytest.mark.parametrize("number", range(len(sealed.ARCHIVES)))
def test_a_forged_checkpoint_with_a_true_checksum_is_plain_or_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "forged.ckpt"
    path.write_bytes(sealed.sealed(sealed.ARCHIVES[number]))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    sealed.check(path)
    assert not any((tmp_path / "cwd").iterdir())


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "bomb.ckpt"
    weights = {"network.w": torch.ones(1).expand(10**12)}
    torch.save(sealed.contents() | {"state_dict": weights}, path)
    checkpoints.seal(path)
    with pytest.raises(DamagedError, match=r"^it has a tensor of 1,000,000,000,000 values without as many in"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    ("part", "value", "allowed"),
    [
        ("state_dict", [1], "a group of tensors"), ("state_dict", {"w": 1}, "a group of tensors"),
        ("global_step", float("inf"), "a whole number of at least 0"),
        ("global_step", -1, "a whole number of at least 0"),
        ("onecycle", None, "a group"), ("onecycle_run", ["seed"], "null or a group of plain values"),
    ],
)  # fmt: skip
def test_a_part_of_another_kind_is_named(part: str, value: Any, allowed: str, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "odd.ckpt"
    torch.save(sealed.contents() | {part: value}, path)
    checkpoints.seal(path)
    with pytest.raises(DamagedError, match=f"^its {part} is not {allowed}$"):
        checkpoints.load(path)


def test_the_reason_for_a_refused_pickle_is_one_line_without_torchs_advice(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "code.ckpt"
    torch.save(sealed.contents(sealed.Code(os.system, "touch executed")), path)
    checkpoints.seal(path)
    with pytest.raises(DamagedError, match=r"^UnpicklingError: Weights only load failed\.$"):
        checkpoints.load(path)


def test_the_honest_files_of_the_corpus_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(texts.RESULT_JSON)
    (tmp_path / "config.yaml").write_bytes(texts.CONFIG_YAML)
    assert (run.read_result(tmp_path) or {})["test"]["accuracy"] == 0.11
    assert saved.problems(saved.load(tmp_path / "config.yaml")) == []
    assert records.config(texts.CONFIG_YAML.decode())["seed"] == 0
    with pytest.raises(WrongError, match=r"^nothing$"):
        kinds.must(False, "nothing")
