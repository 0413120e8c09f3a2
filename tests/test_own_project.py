"""docs/own-project.md: every file on the page is written as it stands there, and every command is run."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import composed_of, noise, only_folder, record_of, rows
from onecycle.config.validate import validated
from onecycle.evaluate import evaluate
from onecycle.training_run import train
from studying import ended, start

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own-project.md").read_text()
FILES = {
    found[1]: text
    for _, text in re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
    if (found := re.search(r"^# ((?:src|conf)/\S+\.(?:py|yaml))$", "\n".join(text.splitlines()[:2]), re.MULTILINE))
}
COMMANDS = re.findall(r'^make train ARGS="(.*)"$', PAGE, re.MULTILINE)
TINY = ["trainer=debug", "callbacks.progress=null", "callbacks.divergence.max_loss=1e9", "batch_size=32"]
GROUPS = {
    "model": ["model=resnet9_w4"],
    "data": ["data=synthetic", "data.source.train_size=320", "data.source.test_size=200"],
}


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's files, as if they lay in the package and in conf/, and with the data that they read."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for folder in (tmp_path / "src" / "onecycle").iterdir():
        package = importlib.import_module(f"onecycle.{folder.name}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    images, numbers = noise(0, 96, 32, 32, 3), np.arange(96)
    tags = np.stack([numbers % 2, numbers // 2 % 2, numbers % 3 == 0], 1).astype(np.uint8)
    for file, labels in {"images": numbers % 3, "tags": tags}.items():
        parts: Any = {f"{split}_images": images for split in ("train", "test")}
        parts |= {f"{split}_labels": labels for split in ("train", "test")}
        np.savez(tmp_path / f"{file}.npz", allow_pickle=False, classes=np.array(["sea", "sun", "sky"]), **parts)
    pairs = [(Image.fromarray(pixels), k % 10) for k, pixels in enumerate(images)]
    monkeypatch.setattr("torchvision.datasets.SVHN", lambda root, split, download: pairs)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removeprefix("src/").removesuffix(".py").replace("/", "."), None)


def cache_of(drawn: list[str]) -> str:
    return next(word for word in drawn if word.startswith("data.cache="))


def run(folder: Path, drawn: list[str], *words: str) -> dict[str, Any]:
    tiny = [*TINY, cache_of(drawn), "trainer.max_steps=4", f"output={folder / 'logs'}"]
    for group, small in GROUPS.items():
        tiny += [] if any(word.startswith(f"{group}=") for word in words) else small
    return train(validated(composed_of(f"hydra.searchpath=[{folder / 'conf'}]", *tiny, *words)), list(words))


def test_each_example_needs_one_python_file_and_one_yaml_file_at_most() -> None:
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE):
        assert section.count("```python") <= 2
    assert len(FILES) == 17
    assert len(COMMANDS) == 13


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_s_commands_train_with_the_page_s_files(command: str, own_files: Path, drawn: list[str]) -> None:
    record = run(own_files, drawn, *shlex.split(command))
    assert (record["status"], record["steps"]) == ("finished", 4)
    folder = only_folder(own_files / "logs" / "runs")
    if "task=multilabel" in command:
        assert record["data"]["classes"] == ["sea", "sun", "sky"]
        assert record["task"] == "onecycle.training.tasks.Multilabel"
    if "metrics=" in command:
        assert len([name for name in record["test"] if name.startswith("f1/")]) == 10
        value = record["test"]["f1/ring"]
        assert [row["test/f1/ring"] for row in rows(folder) if row["test/f1/ring"]] == [f"{value:.6g}"] * 1
        found = evaluate(
            composed_of(
                f"hydra.searchpath=[{own_files / 'conf'}]", f"run={folder}", "metrics=f1_by_class", "figures=false",
                cache_of(drawn), name="evaluate",
            )
        )  # fmt: skip
        assert found["test"] == record["test"]
    if "callbacks=" in command:
        assert (folder / "metrics.csv").exists()
    assert record_of(folder)["identity"] == record["identity"]


@pytest.mark.slow
def test_the_page_s_study_comes_to_its_report(own_files: Path) -> None:
    words = ["study=smoothing", "study.scale=tiny", "batch_size=32", f"hydra.searchpath=[{own_files / 'conf'}]"]
    done = ended(start(own_files / "logs", *words))
    assert done.returncode == 0, done.stdout
    page = (own_files / "logs" / "studies" / "smoothing" / "report" / "index.html").read_text()
    assert "Label smoothing of 0.2 adds at least 1 point." in page
