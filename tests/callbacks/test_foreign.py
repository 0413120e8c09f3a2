"""Lightning's and users' own callbacks and loggers beside ours, as they come."""

import csv
from pathlib import Path
from typing import Any

import pytest

from foreign import Memory
from onecycle.config import validate
from onecycle.runs import checkpoints
from onecycle.train import train


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "ALLOWED_TARGETS", (*validate.ALLOWED_TARGETS, "foreign"))


def test_foreign_loggers_and_callbacks_need_no_more_than_their_yaml(tmp_path: Path, tiny: Any) -> None:
    cfg = tiny(
        f"+logger.lightning={{_target_:lightning.pytorch.loggers.CSVLogger,save_dir:{tmp_path}/csv,name:a,version:b}}",
        "+logger.own={_target_:foreign.Memory,word:hello}",
        "+callbacks.counter={_target_:foreign.Counter,every:2}",
        "+callbacks.early={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:test/loss,patience:9}",
        "callbacks.figures={_target_:onecycle.callbacks.figures.Figures,mistakes:3}",
    )
    record = train(cfg, [])
    assert record["status"] == "finished"
    assert record["measures"] == {"counted": 5}
    (folder,) = (tmp_path / "runs").iterdir()
    with (folder / "metrics.csv").open() as ours, (tmp_path / "csv/a/b/metrics.csv").open() as theirs:
        rows, lightning = list(csv.DictReader(ours)), list(csv.DictReader(theirs))
    own = Memory.latest
    assert (own.word, own.run.folder, own.run.steps_done) == ("hello", folder, 0)
    assert own.hyperparameters["model.width"] == 4
    assert {key for key, _ in own.images} == {"training images", "confusion matrix", "worst mistakes"}
    for metric in set(rows[0]) - {"step", "epoch"}:  # of two values for a step the last one counts
        expected = {int(row["step"]): row[metric] for row in rows if row[metric]}
        assert 10 in expected
        assert {int(row["step"]): f"{float(row[metric]):.6g}" for row in lightning if row[metric]} == expected
        assert {step: f"{part[metric]:.6g}" for step, part in own.metrics if metric in part} == expected


@pytest.mark.parametrize("own_folder", [True, False])
def test_lightning_s_own_checkpoints_leave_ours_alone(own_folder: bool, tmp_path: Path, tiny: Any) -> None:
    place = f",dirpath:{tmp_path}/theirs" if own_folder else ""
    cfg = tiny(
        "+callbacks.best={_target_:lightning.pytorch.callbacks.ModelCheckpoint,monitor:test/loss,save_last:true"
        f"{place}}}",
        "callbacks.checkpoint.every_n_steps=3",
    )
    plain, kept = train(tiny(), [], sweep=tmp_path / "plain"), train(cfg, [], sweep=tmp_path / "kept")
    assert kept["test"] == plain["test"]
    (folder,) = (tmp_path / "kept").iterdir()
    assert checkpoints.newest(folder).step == 10
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    places = tmp_path / ("theirs" if own_folder else "")
    theirs = [path.name for path in places.rglob("*.ckpt") if path.parent != folder / "checkpoints"]
    assert "last.ckpt" in theirs


def test_without_our_bar_and_our_checkpoints_lightning_s_take_their_place(tmp_path: Path, tiny: Any) -> None:
    cfg = tiny(
        "callbacks.checkpoint=null", "+callbacks.best={_target_:lightning.pytorch.callbacks.ModelCheckpoint}",
        "+callbacks.bar={_target_:lightning.pytorch.callbacks.TQDMProgressBar,refresh_rate:2}",
        "logger=csv",
    )  # fmt: skip
    assert train(cfg, [], progress=False)["status"] == "finished"
    assert train(cfg, [])["status"] == "finished"
    for folder in (tmp_path / "runs").iterdir():
        assert list(folder.rglob("*.ckpt"))
