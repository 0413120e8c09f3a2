import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import composed_of, only_folder, record_of
from onecycle.config.validate import validated
from onecycle.data import synthetic
from onecycle.errors import ConfigError
from onecycle.evaluate import evaluate
from onecycle.runs.saved import saved_config
from onecycle.training_run import train

Compose = Callable[..., Any]

RECIPES: dict[str, list[str]] = {
    "plain": ["model.width=8", "batch_size=32"],
    "averaged": [
        "data.side=16",
        "ema={decay_per_step:0.9,every_n_steps:2}",
        "model.norm=ghost",
        "model.prep=whitening",
    ],
    "two classes": ["data.classes=[disc,star]", "batch_size=16", "trainer.precision=bf16-mixed"],
}


def evaluated(folder: Path, *words: str) -> dict[str, Any]:
    return evaluate(composed_of(f"run={folder}", *words, name="evaluate"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> Path:
    """A finished run; it is copied before it is changed."""
    output = tmp_path_factory.mktemp("plain")
    train(validated(composed_of(*drawn, f"output={output}", *RECIPES["plain"])), [])
    return only_folder(output / "runs")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recorded_accuracy_is_reproduced_exactly_from_the_runs_own_configuration(
    recipe: str, tmp_path: Path, plain: Path, tiny: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    if recipe != "plain":
        train(tiny(*RECIPES[recipe]), [])
    folder = only_folder(tmp_path / "runs") if recipe != "plain" else Path(shutil.copytree(plain, tmp_path / "run"))
    record = record_of(folder)
    torch.manual_seed(99)
    with caplog.at_level("INFO", "onecycle"):
        evaluation = evaluated(folder)
    assert evaluation["test"] == record["test"]
    assert "Reproduced: the recorded accuracy, exactly." in caplog.text
    images = sum(row["images"] for row in evaluation["classes"].values())
    right = sum(row["images"] * row["accuracy"] for row in evaluation["classes"].values())
    assert images == record["data"]["test_size"]
    assert right / images == pytest.approx(record["test"]["accuracy"])
    (written,) = folder.glob("evaluations/*/evaluation.json")
    assert json.loads(written.read_text())["test"] == record["test"]
    if recipe == "averaged":  # as version 0.1 wrote it
        text = (folder / "config.yaml").read_text()
        assert text.count("decay_per_step: 0.9\n  every_n_steps: 2") == 1
        (folder / "config.yaml").write_text(text.replace("decay_per_step: 0.9", "decay: 0.81"))
        average = saved_config(folder).ema
        assert average is not None
        assert (average.decay_per_step, average.every_n_steps) == (pytest.approx(0.9), 2)
        assert evaluated(folder)["test"] == record["test"]


def class_folders(root: Path, classes: list[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = synthetic.draw_images(count, 0, "test")
    for split in ("train", "test"):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = synthetic.CLASSES[label]
            if name in classes:
                (root / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(root / split / name / f"{index:04}.png")
    return images, labels


def test_another_data_set_is_measured_with_the_runs_own_normalisation_and_class_numbers(
    tmp_path: Path, plain: Path
) -> None:
    some = ["star", "ring", "cross"]  # numbered otherwise in a folder of their own
    class_folders(tmp_path / "images", some, 200)
    other = ["data=image_folder", f"data.root={tmp_path / 'images'}", f"data.cache={tmp_path / 'cache'}"]
    evaluation, own = evaluated(plain, *other), evaluated(plain, "checkpoint=last.ckpt")
    # The same drawn images, once as files and once from the run's own set: every class's accuracy must agree.
    for name in some:
        assert evaluation["classes"][name]["accuracy"] == own["classes"][name]["accuracy"]
    assert evaluation["data"] == "image_folder"


def test_foreign_classes_are_refused(tmp_path: Path, plain: Path) -> None:
    class_folders(tmp_path / "images", ["star"], 40)
    for split in ("train", "test"):
        (tmp_path / "images" / split / "star").rename(tmp_path / "images" / split / "zebra")
    with pytest.raises(ConfigError, match=r"none of its classes \(zebra\) is one of disc, ring"):
        evaluated(plain, "data=image_folder", f"data.root={tmp_path / 'images'}", f"data.cache={tmp_path}")


def test_folders_and_checkpoints_that_are_none_are_refused(tmp_path: Path, plain: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run's folder"):
        evaluated(tmp_path)
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match=r"checkpoint=.*other.ckpt: cannot be read"):
        evaluated(folder, "checkpoint=other.ckpt")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"checkpoint=.*last.ckpt: cannot be read"):
        evaluated(folder)
