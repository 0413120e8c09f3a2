"""A run's folder that a stranger has prepared: to evaluate or resume it executes nothing of it, and writes nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from onecycle.callbacks.divergence import Divergence
from onecycle.config.checks import CONF
from onecycle.errors import ConfigError
from onecycle.train import train
from test_bad_input import environment, tree

EVIL = {"_target_": "os.system", "command": "touch marker"}
WRITER = {
    "_target_": "onecycle.runs.record._LogFile",
    "filename": "marker",
    "mode": "w",
}  # its constructor opens a file
CHECKPOINTS = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "save_last": True}
BOARD = {"_target_": "lightning.pytorch.loggers.WandbLogger"}

# What is put into config.yaml: key, value, and what the refusal says.
PLANTED: dict[str, tuple[str, Any, str]] = {
    "os.system": ("model", EVIL, r"model\._target_=os\.system: must be in onecycle"),
    "eval": ("model", {"_target_": "builtins.eval", "source": "open('marker', 'w')"}, r"builtins\.eval: must be in"),
    "data source": ("data.source", EVIL, r"data\.source\._target_=os\.system: must be in"),
    "schedule": ("schedule", EVIL, r"schedule\._target_=os\.system: must be in"),
    "optimizer": ("optimizer", EVIL, r"optimizer\._target_=os\.system: must be in"),
    "trainer": ("trainer", EVIL, r"trainer\._target_=os\.system: must be in"),
    "callback": ("callbacks.evil", EVIL, r"callbacks\.evil\._target_=os\.system: must be in"),
    "figures": ("callbacks.figures", EVIL, r"callbacks\.figures\._target_=os\.system: must be in"),
    "logger": ("logger.evil", EVIL, r"logger\.evil\._target_=os\.system: must be in"),
    "no component": ("hyperparameters.evil", EVIL, r"hyperparameters\.evil\._target_=os\.system: must be in"),
    "nested": ("model.activations", [{"deep": EVIL}], r"model\.activations\[0\]\.deep\._target_=os\.system: must be"),
    "walking": ("model._target_", "onecycle.runs.record.os.system", r"must be a class in onecycle"),
    "walking through torch": ("model._target_", "torch.nn.modules.module.torch.hub.load", r"must be a class|leads to"),
    "function": ("model._target_", "onecycle.studies.report.build", r"has no class build"),
    "look-alike": ("model._target_", "оnecycle.models.resnet9.ResNet9", r"must be in onecycle"),
    "list for a target": ("model._target_", ["os", "system"], r"_target_=\['os', 'system'\]: must be in"),
    "partial": ("model._partial_", True, r"model\._partial_: is not allowed in a run's config"),
    "partial of a stranger": ("model", {**EVIL, "_partial_": True}, r"model\._partial_: is not allowed"),
    "positional arguments": ("model._args_", ["touch marker"], r"model\._args_: is not allowed"),
    "recursive": ("model._recursive_", True, r"model\._recursive_: is not allowed"),
    "convert": ("callbacks._convert_", "all", r"callbacks\._convert_: is not allowed"),
    "interpolation": ("name", "${oc.env:HOME}", r"name=\$\{oc\.env:HOME\}: must be a value"),
    "interpolated target": ("model._target_", "os.${nowhere}", r"must be a value; a run's config\.yaml is resolved"),
    "interpolation in a list": ("data.classes", ["a", "${oc.decode:x}"], r"data\.classes\[1\]=.*must be a value"),
    "schedule that opens a file": ("schedule", WRITER, r"must be a class derived from onecycle\.schedule\.Schedule"),
    "name upwards": ("name", "../../marker", r"name=\.\./\.\./marker: must be a name for a folder"),
    "source's name upwards": ("data.source.name", "../../marker", r"source\.name=.*: must be a name for a folder"),
    "callback that writes elsewhere": ("callbacks.mine", {**CHECKPOINTS, "dirpath": ".."}, r"must not lead out"),
    "callback that writes at a path": ("callbacks.mine", {**CHECKPOINTS, "dirpath": "/tmp"}, r"must not lead out"),
    "logger that writes elsewhere": ("logger.mine", {**BOARD, "save_dir": "../.."}, r"must not lead out"),
    "logger that sends": ("logger.mine", {**BOARD, "base_url": "http://localhost:1"}, r"must not lead out"),
    "folder of a callback": ("callbacks.checkpoint.folder", "elsewhere", r"checkpoint\.folder=elsewhere: is "),
}  # fmt: skip

# Refused only where it would be made.
LATE = {"source that opens a file": ("data.source", WRITER, r"must be a class with key and decode")}

# What replaces the text of config.yaml, and what is said of it.
TEXTS: dict[str, tuple[Callable[[str], str], str]] = {
    "alias": (lambda text: "evil: &x {_target_: os.system}\nmodel: *x\n", r"config\.yaml: it has aliases"),
    "python tag": (
        lambda text: text + "x: !!python/object/apply:os.system [touch marker]\n",
        r"constructor for the tag",
    ),
    "too large": (lambda text: text + "#" * (1 << 20), r"it has more than 1048576 bytes"),
    "too deep": (lambda text: text + "x: " + "[" * 60 + "]" * 60, r"it is nested too deeply"),
    "key twice": (lambda text: text + "seed: 1\nseed: 2\n", r"duplicate key"),
}

# Where a link out of the folder, or something that is no file, is put.
PLACES = (
    "config.yaml", "result.json", "train.log", "metrics.csv", ".lock", "checkpoints", "checkpoints/last.ckpt",
    "figures", "evaluations", "anything",
)  # fmt: skip


def compose_tiny(folder: Path, *words: str) -> Any:
    tiny = (
        "experiment=debug", f"output={folder}", f"data.cache={folder / 'cache'}", "data.source.train_size=64",
        "data.source.test_size=20", "batch_size=16", "trainer.detect_anomaly=false", "callbacks.progress=null",
        "callbacks.figures=null", "logger=csv",
    )  # fmt: skip
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("train", overrides=[*tiny, *words])


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("honest")
    train(compose_tiny(folder), [], progress=False)
    (run,) = (folder / "runs").iterdir()
    return run


Commands = tuple[tuple[str, str], ...]
Prepared = list[tuple[str, Path, str]]  # an attack's name, where the command runs, what is said


def plant(name: str, here: Path) -> str:
    """Put an attack into the run in `here`; what its refusal must say."""
    path = here / "run" / "config.yaml"
    if name in TEXTS:
        change, said = TEXTS[name]
        path.write_text(change(path.read_text()))
        return said
    key, value, said = {**PLANTED, **LATE}[name]
    config = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node[parent] = node.get(parent) or {}
        node = node[parent]
    node[last] = value
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    return said


def link(place: str, here: Path) -> str:
    """Put a link out of the folder at a place of the run in `here`."""
    path, outside = here / "run" / place, here / "outside"
    if path.is_dir():
        path.rename(outside)
    elif path.exists():
        outside.write_bytes(path.read_bytes())
        path.unlink()
    else:
        outside.write_text("precious")
    path.symlink_to(outside if place != "anything" else "../outside")
    return re.escape(f"run/{place}: is a symbolic link out of the run's folder; remove it")


def prepared(honest: Path, parent: Path, attacks: dict[str, Callable[[str, Path], str]]) -> Prepared:
    found = []
    for number, (name, attack) in enumerate(attacks.items()):
        here = parent / str(number)
        shutil.copytree(honest, here / "run")
        found.append((name, here, attack(name, here)))
    return found


def not_refused(attacks: Prepared, scratch: Path, commands: Commands, *options: str) -> list[tuple[str, Any]]:
    """The attacks that a command does not answer with exit code 2 and a line, or that changed or started anything."""
    bad = []
    for command, word in commands:
        before = [tree(here) for _, here, _ in attacks]
        cases = json.dumps([[command, [word], str(here)] for _, here, _ in attacks])
        program = [sys.executable, str(Path(__file__).with_name("refusing.py")), str(scratch), *options]
        done = subprocess.run(program, input=cases, env=environment(), capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        for (name, here, said), answer, was in zip(attacks, answers, before, strict=True):
            told = answer["stderr"]
            right = answer["code"] == 2 and re.search(said, told) and "Traceback" not in told
            if not right or answer["started"] or answer["written"] or tree(here) != was:
                bad.append((f"{command}: {name}", answer))
    return bad


BOTH = (("evaluate", "run=run"), ("train", "resume=run"))


def test_nothing_that_stands_in_a_configuration_is_executed(honest: Path, tmp_path: Path) -> None:
    attacks = prepared(honest, tmp_path / "here", dict.fromkeys([*PLANTED, *TEXTS], plant))
    (tmp_path / "scratch").mkdir()
    assert len(attacks) >= 37
    assert not_refused(attacks, tmp_path / "scratch", BOTH) == []


def test_a_source_of_data_that_is_none_is_not_made(honest: Path, tmp_path: Path) -> None:
    attacks = prepared(honest, tmp_path / "here", {"source that opens a file": plant})
    (tmp_path / "scratch").mkdir()
    assert not_refused(attacks, tmp_path / "scratch", BOTH, "torch") == []


def test_no_link_in_a_folder_is_followed_out_of_it(honest: Path, tmp_path: Path) -> None:
    attacks = prepared(honest, tmp_path / "here", dict.fromkeys(PLACES, link))
    (tmp_path / "scratch").mkdir()
    assert not_refused(attacks, tmp_path / "scratch", BOTH) == []


def test_what_is_neither_a_file_nor_a_folder_is_refused(honest: Path, tmp_path: Path) -> None:
    def pipe(name: str, here: Path) -> str:
        os.mkfifo(here / "run" / name)
        return re.escape(f"run/{name}: is neither a file nor a folder; remove it")

    attacks = prepared(honest, tmp_path / "here", {"evaluations": pipe, "checkpoints/previous.ckpt.part": pipe})
    (tmp_path / "scratch").mkdir()
    assert not_refused(attacks, tmp_path / "scratch", BOTH) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data", {"classes": {"_target_": "os.system"}}, "is not a run's record"),
        ("status", "os.system", "is not a run's record"),
        ("test", "__import__('os').system('touch marker')", "is not a run's record"),
        ("overrides", {"_target_": "os.system"}, "is not a run's record"),
        ("schema", 99, "is not a record of schema 1"),
    ],
)
def test_a_record_that_is_none_is_refused(key: str, value: Any, said: str, honest: Path, tmp_path: Path) -> None:
    def change(name: str, here: Path) -> str:
        path = here / "run" / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        return said

    (tmp_path / "scratch").mkdir()
    attacks = prepared(honest, tmp_path / "here", {key: change})
    assert not_refused(attacks, tmp_path / "scratch", BOTH[:1]) == []


def test_the_honest_folder_is_evaluated_and_its_own_data_folder_is_not_written_to(honest: Path, tmp_path: Path) -> None:
    shutil.copytree(honest, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["cache"], config["output"] = str(tmp_path / "named" / "cache"), str(tmp_path / "named")
    path.write_text(yaml.safe_dump(config))
    program = [sys.executable, "-m", "onecycle.evaluate", "run=run", "figures=false"]
    done = subprocess.run(program, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Reproduced: the recorded accuracy, exactly." in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_link_in_the_folder_of_a_sweeps_run_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*arguments: Any) -> None:
        raise RuntimeError("killed")

    cfg = compose_tiny(tmp_path, "callbacks.checkpoint.every_n_steps=1")
    with monkeypatch.context() as patch:
        patch.setattr(Divergence, "on_train_batch_end", crash)
        with pytest.raises(RuntimeError, match="killed"):
            train(cfg, [], sweep=tmp_path / "sweep", progress=False)
    (folder,) = (tmp_path / "sweep").iterdir()
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (folder / "metrics.csv").unlink(missing_ok=True)
    (folder / "metrics.csv").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"metrics\.csv: is a symbolic link out of the run's folder"):
        train(cfg, [], sweep=tmp_path / "sweep", progress=False)
    assert outside.read_text() == "precious"
