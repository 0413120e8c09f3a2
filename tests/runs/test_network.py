"""A trained network as another program uses it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import composed_of, only_folder
from onecycle import load
from onecycle.config.targets import instantiate
from onecycle.config.validate import validated
from onecycle.data import sources
from onecycle.data.subsets import Smaller
from onecycle.training_run import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> Path:
    """A run that was sent elsewhere."""
    place = tmp_path_factory.mktemp("network")
    train(validated(composed_of(*drawn, f"output={place}", "data.side=16", "model.norm=ghost")), [])
    return Path(shutil.move(only_folder(place / "runs"), place / "elsewhere"))


def test_the_network_answers_as_in_the_test_whatever_the_type_of_the_images(
    folder: Path, drawn: list[str], tmp_path: Path
) -> None:
    model, record = load(folder), json.loads((folder / "result.json").read_text())
    source = instantiate(dict(composed_of(*drawn).data.source))
    images, labels = sources.load(Smaller(source, 16, tmp_path), tmp_path).test
    pixels = images.permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = model(pixels)
        torch.testing.assert_close(model(pixels.float() / 255), logits)
    assert not model.training
    assert len(model.classes) == logits.shape[1] == 10
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(record["test"]["accuracy"])
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert loss == pytest.approx(record["test"]["loss"], rel=1e-4)


def test_image_files_of_any_size_and_mode_get_probabilities_in_their_order(folder: Path, tmp_path: Path) -> None:
    model = load(str(folder))
    assert model.side == 16
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).resize((48, 32)).convert("L").save(tmp_path / "b.jpg")
    found = model.predict([tmp_path / "a.png", str(tmp_path / "b.jpg"), tmp_path / "a.png"], batch_size=2)
    with torch.inference_mode():
        expected = model(torch.from_numpy(values).permute(2, 0, 1)[None]).softmax(1)
    torch.testing.assert_close(found[[0, 2]], expected.expand(2, -1))
    assert found.shape == (3, 10)
    assert found.sum(1).tolist() == pytest.approx([1, 1, 1])
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(ValueError, match=r"c\.png.* cannot be read"):
        model.predict([tmp_path / "c.png"])


def test_neither_hydra_nor_lightning_is_imported(folder: Path) -> None:
    program = (
        f"import sys\nfrom onecycle import load\nload({str(folder)!r})\n"
        "print([name for name in ('hydra', 'lightning', 'pytorch_lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
