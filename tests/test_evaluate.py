import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from onecycle.config.compose import CONF
from onecycle.data import synthetic
from onecycle.errors import ConfigError
from onecycle.evaluate import evaluate
from onecycle.runs.saved import saved_config
from onecycle.train import train
from onecycle.training.options import EmaOptions

Compose = Callable[..., Any]

RECIPES: dict[str, list[str]] = {
    "plain": ["model.width=8", "batch_size=32"],
    "averaged": ["ema={decay_per_step:0.9,every_n_steps:1}", "model.norm=ghost", "model.prep=whitening"],
    "two classes": ["data.classes=[disc,star]", "batch_size=16", "trainer.precision=bf16-mixed"],
}


def configured(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("evaluate", overrides=list(overrides))


def trained(tmp_path: Path, tiny: Compose, *overrides: str) -> Path:
    train(tiny(*overrides), [])
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recorded_accuracy_is_reproduced_exactly_from_the_runs_own_configuration(
    recipe: str, tmp_path: Path, tiny: Compose
) -> None:
    folder = trained(tmp_path, tiny, *RECIPES[recipe])
    record = json.loads((folder / "result.json").read_text())
    torch.manual_seed(99)
    evaluation = evaluate(configured(f"run={folder}"))
    assert evaluation["test"] == record["test"]
    images = sum(row["images"] for row in evaluation["classes"].values())
    right = sum(row["images"] * row["accuracy"] for row in evaluation["classes"].values())
    assert images == record["data"]["test_size"]
    assert right / images == pytest.approx(record["test"]["accuracy"])
    (written,) = folder.glob("evaluations/*/evaluation.json")
    assert json.loads(written.read_text())["test"] == record["test"]


def test_a_run_of_version_1_with_averaged_weights_is_evaluated(tmp_path: Path, tiny: Compose) -> None:
    folder = trained(tmp_path, tiny, "ema={decay_per_step:0.5,every_n_steps:2}")
    written = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(written.replace("decay_per_step: 0.5", "decay: 0.25"))
    assert "decay: 0.25" in (folder / "config.yaml").read_text()
    assert saved_config(folder).ema == EmaOptions(decay_per_step=0.5, every_n_steps=2)
    assert evaluate(configured(f"run={folder}"))["test"] == json.loads((folder / "result.json").read_text())["test"]


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
    tmp_path: Path, tiny: Compose
) -> None:
    folder = trained(tmp_path, tiny)
    some = ["star", "ring", "cross"]  # numbered otherwise in a folder of their own
    class_folders(tmp_path / "images", some, 200)
    cache = f"data.cache={tmp_path / 'cache'}"
    evaluation = evaluate(configured(f"run={folder}", "data=image_folder", f"data.root={tmp_path / 'images'}", cache))
    own = evaluate(configured(f"run={folder}", "checkpoint=last.ckpt"))
    # The same drawn images, once as files and once from the run's own set: every class's accuracy must agree.
    assert {name: evaluation["classes"][name]["accuracy"] for name in some} == {
        name: own["classes"][name]["accuracy"] for name in some
    }
    assert evaluation["data"] == "image_folder"


def test_foreign_classes_are_refused(tmp_path: Path, tiny: Compose) -> None:
    folder = trained(tmp_path, tiny)
    class_folders(tmp_path / "images", ["star"], 40)
    for split in ("train", "test"):
        (tmp_path / "images" / split / "star").rename(tmp_path / "images" / split / "zebra")
    with pytest.raises(ConfigError, match=r"none of its classes \(zebra\) is one of disc, ring"):
        evaluate(
            configured(
                f"run={folder}", "data=image_folder", f"data.root={tmp_path / 'images'}", f"data.cache={tmp_path}"
            )
        )


def test_folders_and_checkpoints_that_are_none_are_refused(tmp_path: Path, tiny: Compose) -> None:
    with pytest.raises(ConfigError, match="is not a run's folder"):
        evaluate(configured(f"run={tmp_path}"))
    folder = trained(tmp_path, tiny)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match=r"checkpoint=.*other.ckpt: cannot be read"):
        evaluate(configured(f"run={folder}", "checkpoint=other.ckpt"))
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"checkpoint=.*last.ckpt: cannot be read"):
        evaluate(configured(f"run={folder}"))
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ConfigError, match=r"checkpoint=.*last.ckpt: cannot be read"):
        evaluate(configured(f"run={folder}"))
