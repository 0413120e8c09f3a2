"""Other tasks than classification, and metrics from elsewhere: what is computed, and whole runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multilabel_f1_score

from foreign import Drawn
from helpers import composed_of, only_folder, rows, warnings_of
from onecycle.config import validate
from onecycle.data.sources import load
from onecycle.errors import ConfigError
from onecycle.evaluate import evaluate
from onecycle.runs.identity import identity
from onecycle.runs.record import read_result, score_of, score_text
from onecycle.training.tasks import Classification, Multilabel, Regression, metric_values, metrics_for
from onecycle.training_run import train

Compose = Callable[..., Any]


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "ALLOWED_TARGETS", (*validate.ALLOWED_TARGETS, "foreign"))


def test_loss_and_score_of_each_task_are_what_their_definitions_say() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    tags, numbers = (logits.roll(1, 0) > 0).to(torch.uint8), logits.roll(1, 0) + 1
    p = logits.sigmoid()
    binary = -(tags * p.log() + (1 - tags) * (1 - p).log()).mean()
    torch.testing.assert_close(Multilabel().loss(logits, tags), binary)
    right = ((p > 0.5) == tags.bool()).double().mean().item()
    assert Multilabel().metrics(logits, tags) == pytest.approx({"accuracy": right, "loss": binary.item()}, rel=1e-5)
    gap = (logits - numbers).double()
    mae = gap.abs().mean().item()
    expected = {"mae": mae, "loss": (gap**2).mean().item()}
    assert Regression().metrics(logits, numbers) == pytest.approx(expected, rel=1e-5)
    sums = Regression().sums(Regression().summed_loss(logits, numbers), logits, numbers)
    assert sums.tolist() == pytest.approx([6 * (gap**2).mean().item(), 6 * mae, 6], rel=1e-5)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    # What a test reports is the sum of what an evaluation adds up, to the last bit.
    exact = Classification(0.2).summed_loss(logits.double(), labels).item() / 6
    assert Classification(0.2).metrics(logits, labels)["loss"] == exact
    assert exact == nn.functional.cross_entropy(logits.double(), labels).item()


def test_a_search_goes_by_the_accuracy_or_else_by_the_loss() -> None:
    assert score_of({"accuracy": 0.5, "loss": 9.0}) == 0.5
    assert score_of({"mae": 0.5, "loss": 0.25}) == -0.25
    assert (score_text(0.5), score_text(-0.25)) == ("50.00%", "loss 0.25")
    assert np.isnan(score_of({"mae": None, "loss": None}))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_run_of_another_task_learns_is_recorded_resumed_and_evaluated(
    task: str, tmp_path: Path, tiny: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    of = {"multilabel": "MultilabelF1Score,num_labels:2,average:macro", "regression": "R2Score"}[task]
    place = "classification" if task == "multilabel" else "regression"
    words = [
        f"task={task}", "~data.source", f"+data.source={{_target_:foreign.Drawn,task:{task}}}", "data.val_size=32",
        "schedule.peak_lr=0.1", "trainer.max_epochs=12", "data.augment={crop:0,flip:none,cutout:0,shift:0}",
        "callbacks.figures={_target_:onecycle.callbacks.figures.Figures,mistakes:3}",
        "+callbacks.final={_target_:onecycle.callbacks.probes.FinalLoss,images:8}",
        "+callbacks.recency={_target_:onecycle.callbacks.probes.Recency,average:2}",
        f"+metrics.own={{_target_:torchmetrics.{place}.{of}}}", "batch_size=16",
        "+callbacks.best={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/own,mode:max,patience:99}",
    ]  # fmt: skip
    record = train(tiny(*words), [], sweep=tmp_path / "sweep")
    folder = only_folder(tmp_path / "sweep")
    score = {"multilabel": "accuracy", "regression": "mae"}[task]
    assert (record["status"], record["task"]) == ("finished", f"onecycle.training.tasks.{task.capitalize()}")
    assert set(record["test"]) == {score, f"{score}_tta", "loss", "own"}
    assert set(record["val"]) == {score, "loss", "own"}
    assert set(record["train"]) == {score, "loss"}
    assert record["test"]["own"] > 0.5
    assert {f"final_{score}", "final_loss", "recency_gap"} <= record["measures"].keys()
    assert {"folder": str(folder), **(read_result(folder) or {})} == record
    logged = [float(row["val/own"]) for row in rows(folder) if row["val/own"]]
    assert len(logged) == 12  # after each epoch
    assert logged[-1] == pytest.approx(record["val"]["own"], rel=1e-5)
    assert [path.name for path in (folder / "figures").iterdir()] == ["training_images.png"]
    assert train(tiny(*words), [], sweep=tmp_path / "sweep") == record
    found = evaluate(
        composed_of(
            f"run={folder}", "allow=[foreign]", f"+data.source={{_target_:foreign.Drawn,task:{task}}}",
            f"data.cache={tmp_path}", words[-3], name="evaluate",
        )
    )  # fmt: skip
    assert found["test"] == record["test"]
    assert found["classes"] == {}
    assert warnings_of(caplog) == []


def test_metrics_are_given_probabilities_and_one_for_each_name_has_its_name() -> None:
    logits, names = torch.tensor([[0.4, -3.0], [0.2, 2.0], [-0.1, 0.3]]), ("sea", "sun")
    tags = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.uint8)
    part = {"_target_": "torchmetrics.classification.MultilabelF1Score", "num_labels": 2, "average": None}
    metrics = metrics_for(tags, Multilabel(), {"f1": part, "none": None}, names)
    expected = multilabel_f1_score((logits > 0).int(), tags, 2, average=None).tolist()
    for _ in range(2):  # nothing is left of an earlier evaluation
        found = metric_values(metrics, Multilabel().predictions(logits), tags, names)
        assert found == {"f1/sea": expected[0], "f1/sun": expected[1]}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task=multilabel"], "task._target_=onecycle.training.tasks.Multilabel: "),
        (["task=regression"], "task._target_=onecycle.training.tasks.Regression: "),
        (["task._target_=torch.nn.ReLU"], "task._target_=torch.nn.ReLU: "),
        (["task=multilabel", "label_smoothing=0.1"], "label_smoothing=0.1: "),
        (["metrics=macro_f1", "metrics.f1.num_classes=9"], "metrics.f1: "),
        (["metrics=macro_f1", "metrics.f1._target_=torch.nn.ReLU", "metrics.f1.average=macro"], "metrics.f1."),
        (["+metrics.accuracy={_target_:torchmetrics.classification.BinaryF1Score}"], "metrics.accuracy: "),
        (
            ["+metrics.matrix={_target_:torchmetrics.classification.MulticlassConfusionMatrix,num_classes:10}"],
            "metrics.matrix: ",
        ),
        (["~data.source", "+data.source={_target_:foreign.Drawn,task:wrong}"], "data.source: labels "),
    ],
)
def test_a_task_or_metric_that_does_not_fit_the_data_is_a_line_and_leaves_no_folder(
    words: list[str], line: str, tmp_path: Path, tiny: Compose
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tiny(*words), [])
    assert caught.value.problems[0].startswith(line)
    assert not [*(tmp_path / "runs").glob("*")]


def test_the_default_task_is_no_part_of_a_run_s_identity_and_another_one_is() -> None:
    def of(*words: str) -> str:
        return identity(validate.validated(composed_of("trainer.precision=32-true", *words)), {"name": "cifar10"})

    assert of() == of("~task") == of("task=classification") == of("+metrics={}")
    assert len({of(), of("task=multilabel"), of("task=regression")}) == 3
    assert of("metrics=macro_f1") != of()


def test_columns_of_labels_can_be_chosen_by_name(tiny: Compose, tmp_path: Path) -> None:
    dataset = load(Drawn("multilabel"), tmp_path)
    assert torch.equal(dataset.only(["red", "bright"]).train.labels, dataset.train.labels.flip(1))
