"""Run folders that a stranger has prepared: weights and plain values are read from them, and nothing else happens."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers import composed_of, only_folder, record_of
from onecycle.config.targets import instantiate
from onecycle.config.validate import validated
from onecycle.data import sources
from onecycle.errors import ConfigError
from onecycle.evaluate import evaluate
from onecycle.runs.checkpoints import read_checkpoint, seal
from onecycle.runs.saved import saved_config
from onecycle.runs.trained import read_trained
from onecycle.training_run import train

CODE = {"_target_": "os.system", "command": "touch executed"}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    train(validated(composed_of(*drawn, f"output={folder}", "logger=csv")), [], progress=False)
    return only_folder(folder / "runs")


def change(key: str, value: Any) -> None:
    path = Path("run/config.yaml")
    config = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    path.write_text(yaml.safe_dump(config))


def change_record(**entries: Any) -> None:
    path = Path("run/result.json")
    record = yaml.safe_load(path.read_text())
    record["data"] |= entries
    path.write_text(json.dumps(record))


def change_checkpoint(edit: Callable[[dict[str, Any]], Any]) -> None:
    path = Path("run/checkpoints/last.ckpt")
    contents = read_checkpoint(path)
    edit(contents)
    torch.save(contents, path)
    seal(path)


class Executed:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def hard_link() -> None:
    Path("mine").touch()
    Path("run/metrics.csv").unlink()
    os.link("mine", "run/metrics.csv")


def waiting_file() -> None:
    Path("run/result.json").unlink()
    os.mkfifo("run/result.json")


CONFIG = Path("run/config.yaml")
REFUSED: dict[str, Callable[[], Any]] = {
    "code as network": lambda: change("model", CODE),
    "function as network": lambda: change("model", {"_target_": "onecycle.training_run.train"}),
    "huge network": lambda: change("model.channels", [8192] * 4),
    "code in YAML": lambda: CONFIG.write_text(
        CONFIG.read_text() + "extra: !!python/object/apply:os.system ['touch executed']\n"
    ),
    "large YAML": lambda: CONFIG.write_text("a: 1\n" + "# \n" * (1 << 20)),
    "code in checkpoint": lambda: change_checkpoint(lambda contents: contents.update(onecycle=Executed())),
    "pickled code": lambda: Path("run/checkpoints/last.ckpt").write_bytes(pickle.dumps(Executed())),
    "symbolic link": lambda: Path("run/evaluations").symlink_to(Path.cwd()),
    "hard link": hard_link,
    "waiting file": waiting_file,
}


def callbacks_and_loggers() -> None:
    lightning = "lightning.pytorch"
    change("callbacks.x", {"_target_": f"{lightning}.callbacks.OnExceptionCheckpoint", "dirpath": "executed"})
    change("callbacks.figures", CODE)
    change("logger", {"x": {"_target_": f"{lightning}.loggers.CSVLogger", "save_dir": "executed"}})


def twenty_processes() -> None:
    for key, value in {"devices": 20, "strategy": "ddp", "default_root_dir": "executed"}.items():
        change(f"trainer.{key}", value)


def forged_cache() -> None:
    """All labels changed, under a name and a checksum that fit."""
    change("data.cache", "run/cache")
    Path("run/cache").mkdir()
    sources._loaded.clear()
    source = yaml.safe_load(Path("run/config.yaml").read_text())["data"]["source"]
    dataset = sources.load(instantiate(source), Path(os.environ["ONECYCLE_CACHE"]))
    (entry,) = Path(os.environ["ONECYCLE_CACHE"]).glob(f"*-{next(iter(sources._loaded))}")
    arrays, header = sources._read(entry, dataset.key)
    arrays["test_labels"] = (arrays["test_labels"] + 1) % 10
    header["sha256"] = sources._fingerprint(arrays, header["description"])
    sources._write(Path("run/cache", entry.name), arrays, header)
    sources._loaded.clear()


def removes_others() -> None:
    state = {"dirpath": "/", "best_k_models": {str(Path("mine").absolute()): torch.tensor(1.0)}, "last_model_path": ""}
    change_checkpoint(lambda contents: contents.setdefault("callbacks", {}).update({"ModelCheckpoint{}": state}))


def names_with_escapes() -> None:
    names = record_of(Path("run"))["data"]["classes"]
    change_record(classes=[*names[:-2], "\x1b[31mred\r\n=1+1", "[/b]"])


HARMLESS: dict[str, Callable[[], Any]] = {
    "callbacks and loggers": callbacks_and_loggers,
    "twenty processes": twenty_processes,
    "forged cache": forged_cache,
    "removes others": removes_others,
    "names with escapes": names_with_escapes,
}


@pytest.fixture
def here(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[str]) -> Path:
    """The working folder, with nothing but a finished run `run`."""
    shutil.copytree(honest, tmp_path / "run")
    (cache,) = (word.partition("=")[2] for word in drawn if word.startswith("data.cache="))
    monkeypatch.setenv("ONECYCLE_CACHE", cache)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def others(here: Path) -> list[str]:
    return sorted(path.name for path in here.iterdir())


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_wants_more_than_to_be_read_is_refused(name: str, here: Path) -> None:
    REFUSED[name]()
    before = others(here)
    with pytest.raises(ConfigError, match=r"run|model"):
        evaluate(composed_of("run=run", "figures=false", name="evaluate"))
    assert others(here) == before
    assert not (here / "run" / "evaluations").is_dir() or name == "symbolic link"


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_a_training_would_build_or_read_is_not(name: str, here: Path) -> None:
    HARMLESS[name]()
    accuracy = evaluate(composed_of("run=run", "figures=false", name="evaluate"))["test"]["accuracy"]
    if name != "names with escapes":  # two classes less
        assert accuracy == record_of(here / "run")["test"]["accuracy"]
    assert others(here) == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED | HARMLESS)
def test_the_same_by_the_command(name: str, here: Path) -> None:
    (REFUSED | HARMLESS)[name]()
    before = others(here)
    command = [sys.executable, "-c", "from onecycle.cli import evaluate_command; evaluate_command()", "run=run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (2 if name in REFUSED else 0), done.stderr
    assert len(done.stderr.splitlines()) == (name in REFUSED)
    assert all(sign.isprintable() or sign == "\n" for sign in done.stdout + done.stderr)
    assert others(here) == before


def test_networks_of_another_package_are_built_where_the_user_names_it(here: Path) -> None:
    classes = len(record_of(here / "run")["data"]["classes"])
    Path("theirs.py").write_text(
        "import torch\nclass Net(torch.nn.Linear):\n    def __init__(self, classes): super().__init__(2, classes)\n"
    )
    sys.path.insert(0, str(here))
    try:
        change("model", {"_target_": "theirs.Net"})
        layer = torch.nn.Linear(2, classes).state_dict()
        weights = {f"network.{name}": value for name, value in layer.items()}
        change_checkpoint(lambda contents: contents.update(state_dict=weights))
        with pytest.raises(ConfigError, match="theirs"):
            read_trained(Path("run"))
        network = read_trained(Path("run"), allow=["theirs"]).network
        assert torch.equal(network.state_dict()["weight"], layer["weight"])
    finally:
        sys.path.remove(str(here))


@pytest.mark.parametrize(
    ("key", "value"), [("model", CODE), ("data.source", CODE), ("callbacks.figures", CODE), ("model._partial_", True)]
)
def test_a_configuration_to_resume_names_components_of_known_packages_and_known_options(
    key: str, value: Any, here: Path
) -> None:
    change(key, value)
    with pytest.raises(ConfigError, match=key):
        saved_config(Path("run"))
    assert others(here) == ["run"]
