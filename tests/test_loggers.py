from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from onecycle.runs.loggers import CHARTS, Csv, TensorBoard, flat, tensorboard_of


def text(folder: Path) -> str:
    return (folder / "metrics.csv").read_text()


def test_a_csv_has_a_row_a_step_and_a_column_a_metric(tmp_path: Path) -> None:
    logger = Csv(str(tmp_path), steps_done=0)
    logger.log_metrics({"lr": 0.1, "epoch": 0}, step=1)
    logger.log_metrics({"lr": 0.2, "epoch": 0}, step=2)
    logger.log_metrics({"val/accuracy": 2 / 3, "epoch": 0}, step=2)
    logger.log_metrics({"lr": 1e-12, "train/loss": float("nan")}, step=10)
    logger.log_hyperparams({"seed": 0})
    logger.save()
    assert text(tmp_path) == (
        "step,epoch,lr,val/accuracy,train/loss\n"
        "1,0,0.1,,\n"
        "2,0,0.2,0.666667,\n"
        "10,,1e-12,,nan\n"
    )  # fmt: skip


def test_csv_rows_are_in_the_order_of_steps_and_the_last_value_counts(tmp_path: Path) -> None:
    logger = Csv(str(tmp_path), steps_done=0)
    for step, value in ((10, 1.0), (2, 2.0), (None, 3.0), (2, 4.0)):
        logger.log_metrics({"loss": value}, step=step)
    logger.finalize("success")
    assert text(tmp_path) == "step,epoch,loss\n0,,3\n2,,4\n10,,1\n"


def test_a_resumed_csv_keeps_the_rows_up_to_its_checkpoint_unchanged(tmp_path: Path) -> None:
    first = Csv(str(tmp_path), steps_done=0)
    for step in range(1, 6):
        first.log_metrics({"lr": step / 3, "epoch": step // 3}, step=step)
    first.log_metrics({"val/loss": 0.25}, step=3)
    first.save()
    before = text(tmp_path).splitlines()
    resumed = Csv(str(tmp_path), steps_done=3)
    resumed.save()
    assert text(tmp_path).splitlines() == before[:4]
    resumed.log_metrics({"lr": 9.0, "epoch": 1}, step=4)
    resumed.log_metrics({"test/loss": 0.5}, step=4)
    resumed.save()
    assert text(tmp_path).splitlines() == [
        "step,epoch,lr,val/loss,test/loss",
        "1,0,0.333333,,",
        "2,0,0.666667,,",
        "3,1,1,0.25,",
        "4,1,9,,0.5",
    ]


def test_a_new_run_in_an_old_folder_starts_a_new_csv(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,lr\n1,0,0.1\n")
    logger = Csv(str(tmp_path), steps_done=0)
    logger.log_metrics({"lr": 0.2}, step=1)
    logger.save()
    assert text(tmp_path) == "step,epoch,lr\n1,,0.2\n"


def test_a_csv_that_is_gone_does_not_hinder_a_resumed_run(tmp_path: Path) -> None:
    logger = Csv(str(tmp_path), steps_done=5)
    logger.log_metrics({"lr": 0.2}, step=6)
    logger.save()
    assert text(tmp_path) == "step,epoch,lr\n6,,0.2\n"


def test_a_csv_takes_a_namespace_of_hyperparameters_and_ignores_it(tmp_path: Path) -> None:
    logger = Csv(str(tmp_path), steps_done=0)
    logger.log_hyperparams(Namespace(seed=0), metrics={"test/loss": 1.0})
    logger.save()
    assert text(tmp_path) == "step,epoch\n"
    assert (logger.name, logger.version) == ("csv", "")


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def test_tensorboard_events_lie_in_the_runs_folder_itself(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path), steps_done=0)
    for step, value in ((1, 0.5), (2, 0.25), (3, 0.125)):
        board.log_metrics({"train/loss": value, "lr": 2.0 * step}, step=step)
    board.save()
    assert [path.name.startswith("events.out.tfevents.") for path in tmp_path.iterdir()] == [True]
    assert scalars(tmp_path, "train/loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert scalars(tmp_path, "lr") == [(1, 2.0), (2, 4.0), (3, 6.0)]


def test_events_after_the_fit_go_into_the_same_file(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path), steps_done=0)
    board.log_metrics({"lr": 1.0}, step=1)
    board.finalize("success")
    board.log_metrics({"test/accuracy": 0.75}, step=1)
    board.finalize("success")
    assert len(list(tmp_path.iterdir())) == 1
    assert scalars(tmp_path, "test/accuracy") == [(1, 0.75)]


def test_the_layout_puts_the_splits_of_a_metric_into_one_chart(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path), steps_done=0)
    board.write_layout()
    board.save()
    (event,) = events(tmp_path).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    assert category.title == "training"
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts == CHARTS
    assert charts["accuracy"] == ["train/accuracy", "val/accuracy", "test/accuracy"]


def hparams(folder: Path, tag: str) -> plugin_data_pb2.HParamsPluginData:
    content = events(folder).SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_hyperparameters_and_their_metrics_are_one_session_of_hparams(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path), steps_done=0)
    board.log_metrics({"train/loss": 0.5}, step=7)
    parameters: dict[str, Any] = {"schedule.peak_lr": 0.4, "seed": 3, "model.norm": "batch", "trainer.compile": True}
    board.log_hyperparams(parameters, {"test/accuracy": 0.75, "test/loss": 0.5}, 7)
    board.finalize("success")
    experiment = hparams(tmp_path, "experiment").experiment
    assert {info.name for info in experiment.hparam_infos} == set(parameters)
    assert {info.name.tag for info in experiment.metric_infos} == {"test/accuracy", "test/loss"}
    session = hparams(tmp_path, "session_start_info").session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in session.hparams.items()}
    assert values == parameters
    assert hparams(tmp_path, "session_end_info").session_end_info.status == 1  # success
    assert scalars(tmp_path, "test/accuracy") == [(7, 0.75)]
    assert "hp_metric" not in events(tmp_path).Tags()["scalars"]
    assert not (tmp_path / "hparams.yaml").exists()


def test_hyperparameters_without_metrics_leave_no_stand_in_metric(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path), steps_done=0)
    board.log_hyperparams({"seed": 3})
    board.save()
    assert events(tmp_path).Tags()["scalars"] == []


def test_a_resumed_board_drops_the_points_behind_its_checkpoint(tmp_path: Path) -> None:
    first = TensorBoard(str(tmp_path), steps_done=0)
    first.write_layout()
    for step in range(1, 7):
        first.log_metrics({"lr": float(step)}, step=step)
    first.save()
    resumed = TensorBoard(str(tmp_path), steps_done=4)
    for step in range(5, 9):
        resumed.log_metrics({"lr": 10.0 * step}, step=step)
    resumed.save()
    assert scalars(tmp_path, "lr") == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 4.0),
        (5, 50.0),
        (6, 60.0),
        (7, 70.0),
        (8, 80.0),
    ]
    assert len(events(tmp_path).Tensors("custom_scalars__config__")) == 1


def test_the_board_is_found_among_the_loggers(tmp_path: Path) -> None:
    board, table = TensorBoard(str(tmp_path), steps_done=0), Csv(str(tmp_path), steps_done=0)
    assert tensorboard_of([table, board]) is board
    assert tensorboard_of([table]) is None
    assert tensorboard_of([]) is None


@pytest.mark.parametrize(
    ("nested", "expected"),
    [
        ({"a": {"b": {"c": 0.5}}, "d": 1}, {"a.b.c": 0.5, "d": 1}),
        ({"a": True, "b": None, "c": [1, 2], "d": "x"}, {"a": True, "b": "None", "c": "[1, 2]", "d": "x"}),
        ({"a": {}}, {}),
    ],
)
def test_a_nested_configuration_becomes_flat_names(nested: dict[str, Any], expected: dict[str, Any]) -> None:
    assert flat(nested) == expected
