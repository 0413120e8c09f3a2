"""What the embedded images are worth as a data set; minutes of training."""

from pathlib import Path

import pytest

from helpers import composed_of
from onecycle.config.validate import validated
from onecycle.training_run import train


def error_after_five_epochs(images: int, folder: Path) -> float:
    overrides = [
        "experiment=baseline", "data=synthetic", f"data.subset_size={images}", f"data.cache={folder}",
        f"output={folder}", "callbacks.figures=null", "evaluation.every_n_epochs=0",
    ]  # fmt: skip
    return 1 - train(validated(composed_of(*overrides)), [])["test"]["accuracy"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_drawn_images_are_worth_learning_and_more_of_them_help(tmp_path: Path) -> None:
    all_images, tenth = (error_after_five_epochs(count, tmp_path) for count in (50_000, 5_000))
    assert all_images <= 0.15
    assert tenth >= 1.5 * all_images
