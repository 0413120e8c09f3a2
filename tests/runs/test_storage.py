"""Runs whose folders vanish, whose files cannot be written, and whose clock jumps while they train."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from helpers import composed_of, only_folder, record_of, same, warnings_of, weights
from onecycle.callbacks.figures import Figures
from onecycle.config.validate import validated
from onecycle.data import sources
from onecycle.errors import StorageError, storage_errors_named
from onecycle.runs import checkpoints
from onecycle.runs.loggers import RunContext
from onecycle.runs.saved import read_saved
from onecycle.training.classifier import Classifier
from onecycle.training_run import train

Compose = Callable[..., Any]


def at_step(number: int, disturbance: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `disturbance` happen right before the number-th training step."""
    step, steps = Classifier.training_step, [0]

    def hooked(self: Classifier, *arguments: Any) -> Any:
        steps[0] += 1
        if steps[0] == number:
            disturbance()
        return step(self, *arguments)

    monkeypatch.setattr(Classifier, "training_step", hooked)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> Path:
    """The folder of an undisturbed run."""
    sweep = tmp_path_factory.mktemp("calm")
    train(validated(composed_of(*drawn, f"output={sweep}")), [], sweep=sweep)
    return only_folder(sweep)


def assert_same_training(ours: Path, theirs: Path) -> None:
    assert same(weights(ours), weights(theirs))
    first, second = record_of(ours), record_of(theirs)
    assert (first["status"], first["test"], first["identity"]) == ("finished", second["test"], second["identity"])


def vanished_cache(folder: Path, patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "cache")


def moved_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    only_folder(folder / "disturbed").rename(folder / "gone")


def full_board(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def full(self: RecordWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(RecordWriter, "write", full)


def unwritable_csv(folder: Path, patch: pytest.MonkeyPatch) -> None:
    path = only_folder(folder / "disturbed") / "metrics.csv"
    path.unlink(missing_ok=True)
    path.mkdir()


def earlier_clock(folder: Path, patch: pytest.MonkeyPatch) -> None:
    now = time.time
    patch.setattr(time, "time", lambda: now() - 86_400)


@pytest.mark.parametrize(
    ("disturb", "named"),
    [(vanished_cache, ()), (moved_folder, ()), (full_board, ("TensorBoard",)), (unwritable_csv, ("metrics.csv",)),
     (earlier_clock, ())],
)  # fmt: skip
def test_what_happens_while_a_run_trains_changes_no_bit_of_its_result(
    disturb: Callable[[Path, pytest.MonkeyPatch], None], named: tuple[str, ...], calm: Path, tmp_path: Path,
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(sources, "_loaded", {})  # as in a process of its own
    cfg = tiny(f"data.cache={tmp_path / 'cache'}", "callbacks.checkpoint.every_n_minutes=0.0001")
    at_step(2, lambda: disturb(tmp_path, monkeypatch), monkeypatch)
    started = time.perf_counter()
    record = train(cfg, [], sweep=tmp_path / "disturbed")
    took = time.perf_counter() - started
    assert_same_training(only_folder(tmp_path / "disturbed"), calm)
    assert (tmp_path / "cache").exists() == (disturb is not vanished_cache)
    assert read_saved(only_folder(tmp_path / "disturbed"))["seed"] == 0
    if disturb is not moved_folder:  # with which the board's file may be missed, or not
        assert [word in said for word, said in zip(named, warnings_of(caplog), strict=True)] == [True] * len(named)
    assert all(0 <= seconds <= took for seconds in record["seconds"].values())


def test_figures_that_cannot_be_written_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "figures").write_text("a file")
    figures = Figures(mistakes=4)
    figures.attach(RunContext(tmp_path))
    for name in ("one", "two"):
        figures._write(name, lambda path: path.write_text("drawn"))
    (warning,) = warnings_of(caplog)
    assert "figures/" in warning


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "Cannot be written")])
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_run_goes_on_from_the_one_before(
    code: int, words: str, calm: Path, tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("callbacks.checkpoint.every_n_steps=1")
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
    assert record_of(folder)["status"] == "failed"
    assert checkpoints.newest(folder).step == 2
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    train(cfg, [], sweep=tmp_path / "disturbed")
    assert_same_training(folder, calm)


def test_a_sweep_that_cannot_have_a_folder_for_its_run_is_one_line(tmp_path: Path, tiny: Compose) -> None:
    (tmp_path / "sweep").write_text("a file")
    with pytest.raises(StorageError, match=r"^Cannot be written: .*sweep"), storage_errors_named("run it again"):
        train(tiny(), [], sweep=tmp_path / "sweep")
