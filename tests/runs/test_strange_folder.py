"""A run's folder that a stranger has prepared: weights and plain values are read from it, nothing is executed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import composed_of, only_folder
from onecycle.config.validate import validated
from onecycle.errors import ConfigError
from onecycle.evaluate import evaluate
from onecycle.runs.saved import resumed_config
from onecycle.train import train


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    train(validated(composed_of(*drawn, f"output={folder}", "logger=csv")), [], progress=False)
    return only_folder(folder / "runs")


@pytest.fixture
def here(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with nothing but a finished run `run`, whose configuration names places beside it."""
    shutil.copytree(honest, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    change("data.cache", str(tmp_path / "cache"))
    change("output", str(tmp_path / "logs"))
    return tmp_path


def change(key: str, value: Any) -> None:
    path = Path("run/config.yaml")
    config = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    path.write_text(yaml.safe_dump(config))


def refusals() -> list[str]:
    """What is said of the run when it is evaluated, and when it is resumed."""
    with pytest.raises(ConfigError) as evaluated:
        evaluate(composed_of("run=run", name="evaluate"))
    with pytest.raises(ConfigError) as resumed:
        resumed_config(composed_of("resume=run"), [])
    return [str(evaluated.value), str(resumed.value)]


CODE = {"_target_": "os.system", "command": "touch executed"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", CODE), ("data.source", CODE), ("callbacks.figures", CODE), ("model._partial_", True),
        ("name", "${oc.env:HOME}"), ("data.classes", ["a", "${oc.decode:x}"]),
    ],
)  # fmt: skip
def test_a_configuration_of_anything_but_components_and_values_is_refused(key: str, value: Any, here: Path) -> None:
    change(key, value)
    assert all(key in said for said in refusals())
    assert [path.name for path in here.iterdir()] == ["run"]


def test_what_is_of_this_package_and_no_component_is_not_built(here: Path) -> None:
    change("schedule", {"_target_": "onecycle.train.train"})
    with pytest.raises(ConfigError, match="schedule"):
        evaluate(composed_of("run=run", name="evaluate"))
    assert [path.name for path in here.iterdir()] == ["run"]


@pytest.mark.parametrize("place", ["config.yaml", "result.json", "checkpoints", "metrics.csv"])
def test_no_link_in_a_folder_is_followed_out_of_it(place: str, here: Path) -> None:
    (here / "run" / place).rename(here / "outside")
    (here / "run" / place).symlink_to(here / "outside")
    assert all(f"run/{place}: " in said for said in refusals())


def test_a_whole_run_is_evaluated_without_writing_elsewhere(here: Path) -> None:
    accuracy = evaluate(composed_of("run=run", "figures=false", name="evaluate"))["test"]["accuracy"]
    assert accuracy == yaml.safe_load(Path("run/result.json").read_text())["test"]["accuracy"]
    assert [path.name for path in here.iterdir()] == ["run"]
