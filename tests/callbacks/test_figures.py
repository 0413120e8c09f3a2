from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from helpers import record_of
from onecycle.callbacks.figures import confusion_figure, mistakes_figure, training_picture
from onecycle.training_run import train

CLASSES = ("cat", "dog", "ship")
# True classes, and the logits of: right, wrong by little, right, wrong by much, right.
LABELS = torch.tensor([0, 0, 1, 1, 2])
LOGITS = torch.tensor([[4.0, 0, 0], [0, 0.5, 0], [0, 4, 0], [9, 0, 0], [0, 0, 4]])


def test_the_confusion_matrix_shows_each_class_in_percent_of_its_own_images() -> None:
    figure = confusion_figure(LOGITS, LABELS, CLASSES)
    axes = figure.axes[0]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    # (column, row): cats half right, dogs half taken for cats, ships all right
    assert shown == {(0, 0): "50", (1, 0): "50", (0, 1): "50", (1, 1): "50", (2, 2): "100"}
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    assert "n = 5" in axes.get_title()
    many = confusion_figure(torch.eye(100), torch.arange(100), tuple(map(str, range(100))))
    assert max(many.get_size_inches()) < 17
    assert not many.axes[0].texts


def test_mistakes_are_shown_worst_first_with_their_own_pictures() -> None:
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 8, 8, 3)
    figure = mistakes_figure(LOGITS, LABELS, images, CLASSES, count=9)
    titled = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in titled] == ["cat 100%\nis dog", "dog 45%\nis cat"]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in titled] == [3, 1]  # type: ignore[index]
    faultless = mistakes_figure(torch.eye(3), torch.arange(3), images, CLASSES, count=4)
    assert "The 0 worst mistakes" in faultless.get_suptitle()


def test_the_picture_has_the_colours_of_the_images_row_by_row_two_pixels_apart() -> None:
    mean, std = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
    colours = torch.randint(0, 256, (20, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    scale, offset = (torch.tensor(part).view(3, 1, 1) for part in (std, mean))
    picture = np.asarray(training_picture((colours - offset) / scale, mean, std))
    assert picture.shape == (10, 16 * 7 - 2, 3)
    for place, image in ((picture[:4, :5], 0), (picture[:4, 105:], 15), (picture[6:, 7:12], 17)):
        assert np.array_equal(place, colours[image].permute(1, 2, 0))
    assert (picture[4:6] == 255).all()


def test_a_run_leaves_its_figures_as_files_and_in_tensorboard(tmp_path: Path, tiny: Any, drawn: list[str]) -> None:
    train(tiny("callbacks.figures={_target_:onecycle.callbacks.figures.Figures,mistakes:4}"), ["seed=0", "ema=null"])
    (folder,) = (tmp_path / "runs").iterdir()
    sizes = {path.name: Image.open(path).size for path in (folder / "figures").iterdir()}
    assert set(sizes) == {"training_images.png", "confusion_matrix.png", "worst_mistakes.png"}
    assert sizes["training_images.png"] == (2 * (16 * 34 - 2), 2 * (4 * 34 - 2))
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    test = record_of(folder)["test"]
    assert {name: events.Scalars(f"end/{name}")[0].value for name in test} == pytest.approx(test)
    assert {"train/accuracy", "test/accuracy", "lr", "momentum", "images_per_second"} <= set(events.Tags()["scalars"])
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert session["peak_lr"].number_value == record_of(folder)["hyperparameters"]["peak_lr"]
    assert session["ema"].string_value == "null"
    assert "configuration/text_summary" in events.Tags()["tensors"]
    assert set(events.Tags()["images"]) == {
        "images of the first training step, augmented", "confusion matrix on the test images",
        "worst mistakes on the test images",
    }  # fmt: skip
