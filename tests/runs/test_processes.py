"""One run in several processes. Those that start processes take seconds each, most of it to import torch."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from helpers import only_folder, rows, weights
from onecycle import build
from onecycle.config.targets import instantiate
from onecycle.data.sources import load
from onecycle.errors import ConfigError
from onecycle.runs import processes
from onecycle.runs.trained import read_trained
from onecycle.training_run import train

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true", "trainer.threads=1"]
ONE = ["trainer=cpu", "trainer.precision=32-true", "trainer.threads=1"]
# 203 test images in batches of 67, 67, 67 and 2: no share is as large as the other, and every one is counted once.
SHARED = [
    "data.source.test_size=203", "evaluation.batch_size=67", "trainer.log_every_n_steps=1", "schedule.peak_lr=0.1",
    "data.val_size=31",
]  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [float(row["train/loss"]) for row in rows(folder) if row["train/loss"]]


def test_a_process_knows_its_place_from_whoever_started_it() -> None:
    ranks = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
    srun = {"SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"}
    assert processes.place({"TORCHELASTIC_RUN_ID": "none", **ranks}) == processes.Place(3, 1, 4, "torchrun")
    assert processes.place({processes.OWN: "17", **ranks}) == processes.Place(3, 1, 4, "this program")
    assert processes.place(srun) == processes.Place(2, 0, 8, "srun")
    assert processes.place(srun | {"SLURM_JOB_NAME": "interactive"}) is None
    assert processes.place({name: value for name, value in srun.items() if name != "SLURM_STEP_ID"}) is None  # sbatch
    assert processes.place(srun | {"SLURM_NTASKS": "1"}) is None  # one run of a sweep
    assert processes.place(ranks) is None  # nobody's that we know


def test_what_srun_says_becomes_what_torch_reads_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    for name in variables:
        monkeypatch.setenv(name, "")  # so that what is set here is undone
        monkeypatch.delenv(name)
    srun = {
        "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0", "SLURM_NODEID": "2",
        "SLURM_NODELIST": "gpu[07-09,12]", "SLURM_JOB_ID": "1234567", "SLURM_JOB_NAME": "train",
    }  # fmt: skip
    for name, value in srun.items():
        monkeypatch.setenv(name, value)
    found = processes.place(os.environ)
    assert found is not None
    processes._adopt_srun(found)
    assert {name: os.environ[name] for name in variables} == {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "NODE_RANK": "2", "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(15_000 + 4567),
    }  # fmt: skip
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    processes._adopt_srun(found)
    assert os.environ["MASTER_ADDR"] == "10.0.0.1"


TWO_OF_TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("trainer", "environment", "refused"),
    [
        ({"devices": 2}, {}, None),
        ({"devices": [0, 3]}, {}, None),
        ({"devices": 2, "num_nodes": 2}, {}, "trainer.num_nodes=2"),
        ({"devices": 1}, TWO_OF_TORCHRUN, "trainer.devices=1"),
        ({"devices": 2, "sync_batchnorm": True}, {}, "trainer.sync_batchnorm=true"),
    ],
)
def test_who_starts_the_processes_follows_from_the_configuration(
    trainer: dict[str, Any],
    environment: dict[str, str],
    refused: str | None,
    tiny: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    overrides = [f"{'+' * (key == 'sync_batchnorm')}trainer.{key}={value}" for key, value in trainer.items()]
    cfg = tiny("trainer.accelerator=cpu", *overrides)
    if refused is None:
        assert processes.must_be_started(cfg)
        return
    with pytest.raises(ConfigError, match=refused):
        processes.must_be_started(cfg)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path, tiny: Any) -> None:
    smooth = ["model.norm=group", "model.norm_groups=4", *SHARED]
    alone = train(tiny(*ONE, *smooth, f"output={tmp_path / 'one'}"), [])
    together = train(tiny(*TWO, *smooth, f"output={tmp_path / 'two'}"), [])
    one, two = (only_folder(tmp_path / name / "runs") for name in ("one", "two"))
    assert len(losses(one)) == together["steps"] == 8
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-3, atol=1e-5)
    for split in ("test", "val", "train"):
        assert together[split]["loss"] == pytest.approx(alone[split]["loss"], rel=1e-4)
        size = together["data"][f"{split}_size"] if split != "train" else 256
        assert together[split]["accuracy"] * size == pytest.approx(round(together[split]["accuracy"] * size), abs=1e-4)
    # One of each, as by one process; every step once.
    assert sorted(path.name for path in two.iterdir() if "events" not in path.name) == sorted(
        path.name for path in one.iterdir() if "events" not in path.name
    )
    assert len(list(two.glob("events*"))) == len(list(one.glob("events*")))
    assert [row["step"] for row in rows(two)] == [row["step"] for row in rows(one)]
    assert {"folder": str(two), **json.loads((two / "result.json").read_text())} == together


@pytest.mark.slow
def test_batch_norm_of_two_processes_sees_halves_of_the_batch_and_saves_what_it_is_tested_with(
    tmp_path: Path, tiny: Any
) -> None:
    cfg = tiny(*TWO, *SHARED, "model.norm=batch", "evaluation.tta=flip")
    record = train(cfg, [])
    folder = only_folder(tmp_path / "runs")
    source = instantiate(cfg.data.source)
    dataset = load(source, Path(cfg.data.cache))
    datamodule = build.build_datamodule(cfg, dataset)
    network = build.build_classifier(cfg, datamodule, 8).network.train()
    batch = next(iter(datamodule.train_dataloader()))
    halves = zip(batch.images.chunk(2), batch.labels.chunk(2), strict=True)
    with torch.no_grad():
        expected = [F.cross_entropy(network(images), labels).item() for images, labels in halves]
        whole = F.cross_entropy(network(batch.images), batch.labels).item()
    assert losses(folder)[0] == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert losses(folder)[0] != pytest.approx(whole, rel=1e-5)
    # The last step moves the statistics of each process; the record must be about those of the first, which are saved.
    classifier, test = build.for_testing(read_trained(folder), dataset)
    build.build_evaluator("cpu", "32-true", folder, figures=False).test(classifier, test, verbose=False)
    alone, together = classifier.test_metrics(), record["test"]
    assert together.keys() == alone.keys() == {"accuracy", "accuracy_tta", "loss"}
    assert together == pytest.approx(alone, rel=1e-6)


def test_a_dropped_connection_stops_a_run_unless_it_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    assert processes.stop_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)  # as nohup leaves it
    assert processes.stop_signals() == [signal.SIGINT, signal.SIGTERM]
