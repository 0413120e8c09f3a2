"""Runs whose folders vanish, whose files cannot be written, and whose clock jumps while they train."""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter

from onecycle.callbacks.figures import Figures
from onecycle.data import sources
from onecycle.errors import StorageError, storage_errors_named
from onecycle.runs import checkpoints
from onecycle.runs import record as run
from onecycle.runs.loggers import RunContext
from onecycle.runs.saved import read_saved
from onecycle.train import train
from onecycle.training.classifier import Classifier

Compose = Callable[..., Any]


def only_folder(parent: Path) -> Path:
    (folder,) = (path for path in parent.iterdir() if path.is_dir())
    return folder


def at_step(number: int, disturbance: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `disturbance` happen right before the number-th training step."""
    step, steps = Classifier.training_step, [0]

    def hooked(self: Classifier, *arguments: Any) -> Any:
        steps[0] += 1
        if steps[0] == number:
            disturbance()
        return step(self, *arguments)

    monkeypatch.setattr(Classifier, "training_step", hooked)


def weights(sweep: Path) -> dict[str, torch.Tensor]:
    state = checkpoints.load(only_folder(sweep) / "checkpoints" / "last.ckpt")["state_dict"]
    assert isinstance(state, dict)
    return state


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def assert_same_training(sweep: Path, other: Path) -> None:
    ours, theirs = weights(sweep), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    first, second = (run.read_result(only_folder(folder)) for folder in (sweep, other))
    assert first is not None
    assert second is not None
    assert (first["status"], first["test"], first["identity"]) == ("finished", second["test"], second["identity"])


def test_data_that_vanish_while_a_run_trains_are_not_missed(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_loaded", {})  # as in a process of its own
    cfg = tiny(f"data.cache={tmp_path / 'cache'}")
    train(cfg, [], sweep=tmp_path / "calm")
    at_step(2, lambda: shutil.rmtree(tmp_path / "cache"), monkeypatch)
    train(cfg, [], sweep=tmp_path / "disturbed")
    assert not (tmp_path / "cache").exists()
    assert_same_training(tmp_path / "disturbed", tmp_path / "calm")


def test_a_run_whose_folder_is_moved_away_still_leaves_weights_configuration_and_record(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(), [], sweep=tmp_path / "calm")
    at_step(2, lambda: only_folder(tmp_path / "disturbed").rename(tmp_path / "gone"), monkeypatch)
    train(tiny(), [], sweep=tmp_path / "disturbed")
    assert_same_training(tmp_path / "disturbed", tmp_path / "calm")
    assert read_saved(only_folder(tmp_path / "disturbed"))["seed"] == 0


def test_a_board_on_a_full_disk_costs_a_run_nothing_but_its_curves(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny(), [], sweep=tmp_path / "calm")
    written, records = RecordWriter.write, [0]

    def full(self: RecordWriter, data: bytes) -> None:
        records[0] += 1
        if records[0] > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    train(tiny(), [], sweep=tmp_path / "disturbed")
    assert records[0] > 4
    assert_same_training(tmp_path / "disturbed", tmp_path / "calm")
    (warning,) = warnings_of(caplog)
    assert "TensorBoard" in warning


def test_a_csv_that_cannot_be_written_costs_a_run_nothing_but_its_curves(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny(), [], sweep=tmp_path / "calm")

    def replaced() -> None:
        path = only_folder(tmp_path / "disturbed") / "metrics.csv"
        path.unlink(missing_ok=True)
        path.mkdir()

    at_step(1, replaced, monkeypatch)
    train(tiny(), [], sweep=tmp_path / "disturbed")
    assert_same_training(tmp_path / "disturbed", tmp_path / "calm")
    (warning,) = warnings_of(caplog)
    assert "metrics.csv" in warning


def test_figures_that_cannot_be_written_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "figures").write_text("a file")
    figures = Figures(mistakes=4)
    figures.attach(RunContext(tmp_path))
    for name in ("one", "two"):
        figures._write(name, lambda path: path.write_text("drawn"))
    (warning,) = warnings_of(caplog)
    assert "figures/" in warning


def test_a_clock_that_jumps_back_leaves_true_durations_and_the_same_result(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(), [], sweep=tmp_path / "calm")
    now = time.time
    at_step(3, lambda: monkeypatch.setattr(time, "time", lambda: now() - 86_400), monkeypatch)
    started = time.perf_counter()
    record = train(tiny("callbacks.checkpoint.every_n_minutes=0.0001"), [], sweep=tmp_path / "disturbed")
    took = time.perf_counter() - started
    assert_same_training(tmp_path / "disturbed", tmp_path / "calm")
    assert all(0 <= seconds <= took for seconds in record["seconds"].values())


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "Cannot be written")])
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_run_goes_on_from_the_one_before(
    code: int, words: str, tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("callbacks.checkpoint.every_n_steps=1")
    train(cfg, [], sweep=tmp_path / "calm")
    flush, flushed = checkpoints._flush, [0]

    def refused(path: Path) -> None:
        flushed[0] += 1
        if flushed[0] == 5:  # the file of the third checkpoint: each flushes itself, then its folder
            raise OSError(code, os.strerror(code))
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_flush", refused)
        with (
            pytest.raises(StorageError, match=f"^{words}: .* and run it again.$"),
            storage_errors_named("run it again"),
        ):
            train(cfg, [], sweep=tmp_path / "disturbed")
    folder = only_folder(tmp_path / "disturbed")
    record = run.read_result(folder)
    assert record is not None
    assert record["status"] == "failed"
    assert checkpoints.newest(folder).step == 2
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    train(cfg, [], sweep=tmp_path / "disturbed")
    assert_same_training(tmp_path / "disturbed", tmp_path / "calm")


def test_a_sweep_that_cannot_have_a_folder_for_its_run_is_one_line(tmp_path: Path, tiny: Compose) -> None:
    (tmp_path / "sweep").write_text("a file")
    with pytest.raises(StorageError, match=r"^Cannot be written: .*sweep"), storage_errors_named("run it again"):
        train(tiny(), [], sweep=tmp_path / "sweep")
