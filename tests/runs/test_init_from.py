"""A training that starts from the weights of an earlier run: docs/using-a-run.md, "Fine-tune a run"."""

import itertools
import logging
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from helpers import composed_of, noise, only_folder, record_of, same, weights
from onecycle import load
from onecycle.cli import training_word_errors
from onecycle.config.schema import TrainOptions
from onecycle.config.validate import validated
from onecycle.errors import ConfigError
from onecycle.runs.checkpoints import read_checkpoint, seal
from onecycle.runs.saved import read_saved, resumed_config, with_run_folders
from onecycle.training_run import train

PAGE = (Path(__file__).parents[2] / "docs" / "using-a-run.md").read_text()
STILL = ["schedule.peak_lr=1e-30", "trainer.max_steps=1", "model.norm=group", "model.norm_groups=2"]
Tiny = Callable[..., TrainOptions]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> Path:
    """A run, on images of its own normalisation."""
    place = tmp_path_factory.mktemp("first")
    train(validated(composed_of(*drawn, f"output={place}", *STILL[2:], "seed=3")), [])
    return only_folder(place / "runs")


def begun(config: TrainOptions, **arguments: Any) -> tuple[dict[str, Any], Path]:
    record = train(config, [], **arguments)
    return record, only_folder(Path(config.output) / "runs")


def test_a_run_starts_with_all_weights_and_the_normalisation_of_one_with_the_same_classes(
    first: Path, tiny: Tiny, tmp_path: Path
) -> None:
    record, folder = begun(tiny(*STILL, "data.source.train_size=400", f"init_from={first}"))
    assert same(weights(folder), weights(first))
    assert record["test"] == record_of(first)["test"]  # the same test images, seen as by the first run
    assert torch.equal(load(folder).mean, load(first).mean)
    assert read_checkpoint(first / "checkpoints" / "last.ckpt")["global_step"] > 1


def test_other_classes_get_a_head_of_the_seed_also_where_their_number_is_the_same(
    first: Path, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = record_of(first)["data"]["classes"]
    halves = [f"data.classes=[{','.join(part)}]" for part in (names[:5], names[5:])]
    words = [*STILL, "data.subset_size=64", "data.source.train_size=640"]
    _, half = begun(tiny(*words, halves[0], "seed=5", f"output={tmp_path / 'a'}"))
    with caplog.at_level(logging.INFO, logger="onecycle"):
        _, folder = begun(tiny(*words, halves[1], f"init_from={half}", f"output={tmp_path / 'b'}"))
    _, plain = begun(tiny(*words, halves[1], f"output={tmp_path / 'c'}"))
    found, before = weights(folder), weights(half)
    head = {name for name in found if name.startswith("network.head.")}
    assert all(torch.equal(found[name], before[name]) != (name in head) for name in found if found[name].numel() > 1)
    assert head
    assert all(torch.equal(found[name], weights(plain)[name]) for name in head)
    (line,) = (one.message for one in caplog.records if one.message.startswith("init_from="))
    assert line.endswith("from the seed: head.")
    assert f": {len(found) - 1} of {len(found)} tensors" in line


def test_layers_that_do_not_fit_are_named_and_a_network_that_shares_none_is_refused(
    first: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="onecycle"):
        _, folder = begun(tiny(*STILL, "model.residual=[1]", f"init_from={first}"))
    (line,) = (one.message for one in caplog.records if one.message.startswith("init_from="))
    own, other = weights(folder).keys(), weights(first).keys()
    assert f"{len(own & other)} of {len(own)} tensors" in line
    assert all((f"{name}." in line or f"{name}," in line) for name in _layers(other - own) | _layers(own - other))
    with pytest.raises(ConfigError, match="init_from"):
        begun(tiny("model=torchvision_resnet18", "hyperparameters.groups.bias.lr=1", f"init_from={first}"))


def _layers(names: Any) -> set[str]:
    return {name.removeprefix("network.").rpartition(".")[0] for name in names}


def test_the_identity_is_that_of_the_checkpoint_wherever_it_lies(first: Path, tiny: Tiny, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(first, tmp_path / "moved"))
    words = ["trainer.max_steps=2", *STILL[2:]]
    overrides = [f"init_from={first}", "seed=1"]
    start = train(tiny(*words, *overrides), overrides, sweep=tmp_path / "sweep")
    folder = only_folder(tmp_path / "sweep")
    changed = (folder / "result.json").stat().st_mtime_ns
    overrides = [f"init_from={moved / 'checkpoints' / 'last.ckpt'}", "seed=1"]
    assert train(tiny(*words, *overrides), overrides, sweep=tmp_path / "sweep") == start
    assert only_folder(tmp_path / "sweep") == folder
    assert (folder / "result.json").stat().st_mtime_ns == changed
    assert train(tiny(*words, "seed=1"), ["seed=1"], sweep=tmp_path / "sweep")["identity"] != start["identity"]
    path = moved / "checkpoints" / "last.ckpt"
    contents = read_checkpoint(path)
    contents["state_dict"]["network.head.weight"] += 1
    torch.save(contents, path)
    seal(path)
    assert train(tiny(*words, *overrides), overrides, sweep=tmp_path / "sweep")["identity"] != start["identity"]


def test_a_run_is_resumed_where_its_beginning_was_moved_but_not_from_another(
    first: Path, tiny: Tiny, tmp_path: Path
) -> None:
    class StopError(RuntimeError):
        pass

    moved = Path(shutil.copytree(first, tmp_path / "moved"))
    whole, _ = begun(tiny(*STILL[2:], f"init_from={first}", f"output={tmp_path / 'whole'}"))
    config = tiny(*STILL[2:], f"init_from={first}", "callbacks.checkpoint.every_n_steps=1", "trainer.max_steps=4")
    record, folder = begun(config)
    assert record["steps"] == 4
    assert read_saved(folder)["init_sha256"] == (first / "checkpoints" / "last.ckpt").read_bytes()[-64:].decode()

    def again(*words: str) -> TrainOptions:
        resume = f"resume={folder}"
        composed = composed_of(f"output={tmp_path}", resume, *words)
        return resumed_config(OmegaConf.create(OmegaConf.to_container(composed)), [resume, *words])  # type: ignore[arg-type]

    (folder / "result.json").write_text((folder / "result.json").read_text().replace('"finished"', '"running"', 1))
    assert again(f"init_from={moved}").init_from == str(moved)
    assert train(again(f"init_from={moved}"), [])["test"] == record["test"]
    (folder / "result.json").write_text((folder / "result.json").read_text().replace('"finished"', '"running"', 1))
    for word in ("init_from=null", f"init_from={only_folder(tmp_path / 'whole' / 'runs')}"):
        with pytest.raises(ConfigError, match=re.escape(word.replace("=null", "=None"))):
            train(again(word), [])
    assert whole["status"] == "finished"


def test_a_folder_that_is_no_finished_run_is_refused_among_the_words(
    first: Path, drawn: list[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "nowhere", tmp_path / "empty", first / "result.json"):
        (line,) = training_word_errors(composed_of(*drawn, f"init_from={wrong}"), False)
        assert line.startswith(str(wrong))
    for right in (first, first / "checkpoints" / "last.ckpt"):
        assert training_word_errors(composed_of(*drawn, f"init_from={right}"), False) == []
    assert with_run_folders(["init_from=last", f"output={first.parents[1]}"])[0] == f"init_from={first}"


def test_a_damaged_checkpoint_is_an_error_of_the_configuration(first: Path, tiny: Tiny, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(first, tmp_path / "moved"))
    path = moved / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-70] + b"x" * 70)
    with pytest.raises(ConfigError, match=re.escape(f"init_from={path}: cannot be read")):
        train(tiny(*STILL, f"init_from={moved}"), [])
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_the_page_s_commands_train(
    drawn: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, name in itertools.product(("train", "test"), ("cat", "cow", "dog")):
        (tmp_path / "my_images" / split / name).mkdir(parents=True)
        for number, pixels in enumerate(noise(len(name), 40, 32, 32, 3)):
            Image.fromarray(pixels).save(tmp_path / "my_images" / split / name / f"{number}.png")
    folders, own = ["data=image_folder", "data.root=my_images"], [word for word in drawn if "source" not in word]
    small = ["experiment=quick", "trainer=debug", "trainer.max_steps=2", *own[1:]]
    train(validated(composed_of(*small, "data=synthetic", "data.source.train_size=320", "name=first")), [])
    first = only_folder(Path("logs/runs"))
    commands = re.findall(r'^make train ARGS="(.*)"$', PAGE, re.MULTILINE)
    assert len(commands) == 2
    for number, command in enumerate(commands):
        words = shlex.split(command.replace("logs/runs/FOLDER", str(first)))
        words += [] if set(folders) & set(words) else folders
        words += [] if "batch_size=32" in words else ["batch_size=32"]
        config = validated(composed_of(*small, *words, f"output=logs{number}"))
        with caplog.at_level(logging.INFO, logger="onecycle"):
            record = train(config, [])
        assert (record["status"], record["steps"]) == ("finished", 2)
        line = [one.message for one in caplog.records if one.message.startswith("init_from=")][-1]
        assert re.fullmatch(r".*: (\d+) of (\d+) tensors from the checkpoint \w{12}; from the seed: head\.", line)
