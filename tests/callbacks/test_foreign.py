"""Lightning's and users' own callbacks and loggers beside ours, as they come."""

import csv
from pathlib import Path
from typing import Any

import pytest

from foreign import Memory
from helpers import only_folder
from onecycle.config import validate
from onecycle.errors import ConfigError
from onecycle.runs import checkpoints
from onecycle.training_run import train

NAMES = {
    "images of the first training step, augmented", "confusion matrix on the test images",
    "worst mistakes on the test images",
}  # fmt: skip
FIGURES = "callbacks.figures={_target_:onecycle.callbacks.figures.Figures,mistakes:3}"


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "ALLOWED_TARGETS", (*validate.ALLOWED_TARGETS, "foreign"))


def test_foreign_loggers_and_callbacks_need_no_more_than_their_yaml(tmp_path: Path, tiny: Any) -> None:
    cfg = tiny(
        f"+logger.lightning={{_target_:lightning.pytorch.loggers.CSVLogger,save_dir:{tmp_path}/csv,name:a,version:b}}",
        "+logger.own={_target_:foreign.Memory,word:hello}",
        "+callbacks.counter={_target_:foreign.Counter,every:2}",
        "+callbacks.early={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:test/loss,patience:9}",
        FIGURES,
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
    assert {key for key, _ in own.images} == NAMES
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


LIGHTNING = "_target_:lightning.pytorch.callbacks."
SHORT, HELD_OUT = "trainer.max_steps=2", "data.val_size=64"  # an epoch has 4 steps


@pytest.mark.parametrize(
    ("name", "monitor", "words"),
    [
        ("EarlyStopping", "banana", []), ("ModelCheckpoint", "banana", []), ("EarlyStopping", "step", []),
        ("EarlyStopping", "test/f1", []), ("ModelCheckpoint", "train/loss", []), ("ModelCheckpoint", "val/loss", []),
        ("EarlyStopping", "test/loss", [HELD_OUT]), ("EarlyStopping", "val/loss", [HELD_OUT, SHORT]),
        ("EarlyStopping", "test/loss", ["evaluation.every_n_epochs=0"]),
        ("ModelCheckpoint", "val/loss", [HELD_OUT, "evaluation.every_n_epochs=0"]),
        ("EarlyStopping", "val/loss", ["+callbacks.counter={_target_:foreign.Counter,every:2}"]),
    ],
)  # fmt: skip
def test_a_monitor_that_the_run_does_not_log_is_a_line_and_leaves_no_folder(
    name: str, monitor: str, words: list[str], tmp_path: Path, tiny: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tiny(f"+callbacks.x={{{LIGHTNING}{name},monitor:{monitor}}}", *words), [])
    (line,) = caught.value.problems
    assert line.startswith(f"callbacks.x.monitor={monitor}: ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "words", "names"),
    [
        (
            "monitor:val/accuracy,mode:max,save_last:true,save_top_k:-1",
            [],
            ["epoch=0-step=4", "epoch=1-step=8", "last"],
        ),
        ("monitor:step,mode:max,save_top_k:1", [], ["epoch=1-step=8"]),
        ("save_last:null", [SHORT], ["epoch=0-step=2"]),  # as Lightning does at the end of an incomplete epoch
        ("monitor:val/loss", [SHORT], []),
        ("monitor:val/loss,save_last:true", [SHORT], ["last"]),
    ],
)
def test_lightning_s_checkpoint_writes_what_lightning_documents(
    options: str, words: list[str], names: list[str], tmp_path: Path, tiny: Any
) -> None:
    theirs = f"+callbacks.x={{{LIGHTNING}ModelCheckpoint,dirpath:{tmp_path}/theirs,{options}}}"
    assert train(tiny(theirs, HELD_OUT, *words), [])["status"] == "finished"
    assert sorted(path.stem for path in (tmp_path / "theirs").glob("*.ckpt")) == names


def test_a_metric_of_a_user_s_callback_can_be_monitored(tmp_path: Path, tiny: Any) -> None:
    cfg = tiny(
        "+callbacks.own={_target_:foreign.Logging}",
        f"+callbacks.stop={{{LIGHTNING}EarlyStopping,monitor:banana,stopping_threshold:5}}",
    )
    assert train(cfg, [])["steps"] == 5


def test_a_logger_without_a_name_is_given_that_of_the_run_s_folder(tmp_path: Path, tiny: Any) -> None:
    csv = f"_target_:lightning.pytorch.loggers.CSVLogger,save_dir:{tmp_path}/csv,name:null,version:b"
    train(tiny(f"+logger.lightning={{{csv}}}", "trainer.max_steps=1"), ["seed=0"], sweep=tmp_path / "sweep")
    assert (tmp_path / "csv" / only_folder(tmp_path / "sweep").name / "b" / "metrics.csv").exists()


def test_mlflow_gets_hyperparameters_metrics_and_figures(tmp_path: Path, tiny: Any) -> None:
    mlflow = pytest.importorskip("mlflow")
    for seed in (0, 1):
        train(
            tiny("logger=[default,mlflow]", FIGURES, f"output={tmp_path}", f"seed={seed}"), [], sweep=tmp_path / "sweep"
        )
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    found = mlflow.search_runs(experiment_names=["onecycle"], output_format="list")
    assert sorted(run.data.params["seed"] for run in found) == ["0", "1"]
    for run in found:
        names = {part.path for part in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
        assert names == {f"{name}.png" for name in NAMES}
        assert {"test/accuracy", "test/loss", "train/loss", "lr"} <= run.data.metrics.keys()


def test_each_run_of_a_process_is_a_run_of_wandb(tmp_path: Path, tiny: Any) -> None:
    wandb = pytest.importorskip("wandb")
    for seed in (0, 1):
        train(
            tiny("logger=[default,wandb]", FIGURES, f"output={tmp_path}", f"seed={seed}"), [], sweep=tmp_path / "sweep"
        )
    wandb.finish()
    folders = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    for folder in folders:
        assert len(list(folder.glob("files/media/images/*.png"))) == 3
        (events,) = folder.glob("*.wandb")
        assert b"test/accuracy" in events.read_bytes()
