"""What one does with a finished run: predict, export, and the Python API, as docs/using-a-run.md shows them."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import composed_of, only_folder, record_of
from onecycle import cli, load, predict, training_run
from onecycle.config.validate import validated
from onecycle.export import ExportOptions, export

PAGE = (Path(__file__).parents[1] / "docs" / "using-a-run.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> Path:
    """A run that was sent elsewhere."""
    place = tmp_path_factory.mktemp("use")
    training_run.train(validated(composed_of(*drawn, f"output={place}", "model=resnet9_w4")), ["seed=0"])
    return Path(shutil.move(only_folder(place / "runs"), place / "elsewhere"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (6, 40, 32, 3), dtype=np.uint8)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for k, pixels in enumerate(values):
        Image.fromarray(pixels).save(tmp_path / "photos" / ("deep" if k > 3 else "") / f"{k}.png")
    return tmp_path / "photos"


def command(main: Any, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_predictions_are_those_of_the_loaded_network_and_name_their_run(
    folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "answers.csv"
    code = command(predict.main, monkeypatch, f"run={folder}", pictures, f"csv={table}")
    rows = list(csv.DictReader(table.open()))
    model = load(folder / "checkpoints" / "last.ckpt")
    expected = model.predict([row["path"] for row in rows])
    assert code == 0
    assert [Path(row["path"]).name for row in rows] == [f"{k}.png" for k in range(6)]
    found = torch.tensor([[float(row[name]) for name in model.classes] for row in rows])
    torch.testing.assert_close(found, expected)
    assert [row["class"] for row in rows] == [model.classes[k] for k in expected.argmax(1)]
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected.amax(1).tolist())
    assert {row["run"] for row in rows} == {record_of(folder)["identity"]}


def test_unreadable_files_are_named_and_the_others_answered(
    folder: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_text("no image")
    monkeypatch.chdir(pictures)
    assert command(predict.main, monkeypatch, f"run={folder}", "images=*.png") == 1
    shown = capsys.readouterr()
    assert "broken.png" in shown.err
    assert all(f"{k}.png" in shown.out for k in range(4))
    assert "4.png" not in shown.out  # deeper than the pattern


def test_an_image_and_its_mirror_image_get_the_same_answer_with_flip(folder: Path, pictures: Path) -> None:
    model, first = load(folder), pictures / "0.png"
    Image.open(first).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(pictures / "mirror.png")
    ((_, plain, _),) = model.answers([first, pictures / "mirror.png"])
    ((_, flipped, _),) = model.answers([first, pictures / "mirror.png"], flip=True)
    assert not torch.allclose(plain[0], plain[1], atol=1e-4)
    torch.testing.assert_close(flipped[0], flipped[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("words", ["nothing.png", "flip=maybe .", "device=tpu .", "csv=x", "run=x ."])
def test_what_predict_cannot_do_ends_with_2(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(predict.main, monkeypatch, f"run={folder}", *words.split()) == 2


@pytest.mark.parametrize(("kind", "suffix"), [("torch_export", "pt2"), ("safetensors", "safetensors")])
def test_an_exported_network_answers_as_the_run(folder: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    path, difference = export(ExportOptions(run=str(folder), format=kind, output=str(tmp_path)))  # type: ignore[arg-type]
    assert path == tmp_path / f"{record_of(folder)['name']}.{suffix}"
    assert difference < 1e-5
    card = (tmp_path / "README.md").read_text()
    assert record_of(folder)["identity"] in card
    assert f"value: {record_of(folder)['test']['accuracy']}" in card


@pytest.mark.slow
def test_an_onnx_file_has_its_classes_and_any_number_of_images(folder: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path, difference = export(ExportOptions(run=str(folder), format="onnx", output=str(tmp_path)))
    session, model = onnxruntime.InferenceSession(path), load(folder)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == list(model.classes)
    assert notes["identity"] == record_of(folder)["identity"]
    images = torch.rand(5, 3, model.side, model.side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4)
    assert difference < 1e-4


def test_the_page_of_the_python_api_runs(
    drawn: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((50, 40, 3), np.uint8)).save("cat.png")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    small = [word for word in drawn if not word.startswith("experiment=")]
    plain = cli.train_by_words
    monkeypatch.setattr(cli, "train_by_words", lambda *words: plain(*words, *small))
    names: dict[str, Any] = {"images": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}
    exec(code, names)
    assert names["logits"].shape == (2, 10)
    assert names["runs"]["accuracy"].tolist() == [names["record"]["test"]["accuracy"]]
    assert record_of(Path(names["record"]["folder"]))["overrides"][1] == "seed=3"
    assert len(capsys.readouterr().out.splitlines()) == 4  # what the page prints, and nothing else


def test_every_wrong_word_of_the_api_is_a_line() -> None:
    with pytest.raises(ValueError, match="batch_sise") as error:
        cli.train_by_words("batch_sise=3", "trainer.max_epochs=-1")
    assert len(str(error.value).splitlines()) == 2
    with pytest.raises(ValueError, match="sweeps"):
        cli.train_by_words("-m", "seed=0,1")


def test_reading_runs_imports_no_torch(tmp_path: Path) -> None:
    code = f"import sys, onecycle; frame = onecycle.records({str(tmp_path)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
