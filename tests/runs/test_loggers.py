from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from onecycle.runs.loggers import CHARTS, Csv, RunContext, TensorBoard, attach_all, log_image


def table(folder: Path, steps_done: int = 0) -> Csv:
    logger = Csv()
    attach_all([logger], RunContext(folder, steps_done))
    return logger


def board(folder: Path, steps_done: int = 0) -> TensorBoard:
    logger = TensorBoard()
    attach_all([logger], RunContext(folder, steps_done))
    return logger


def text(folder: Path) -> str:
    return (folder / "metrics.csv").read_text()


def test_a_csv_has_a_row_a_step_in_order_and_a_column_a_metric_and_the_last_value_counts(tmp_path: Path) -> None:
    logger = table(tmp_path)
    logger.log_metrics({"lr": 1e-12, "train/loss": float("nan")}, step=10)
    logger.log_metrics({"lr": 0.1, "epoch": 0}, step=1)
    logger.log_metrics({"lr": 0.2, "epoch": 0}, step=2)
    logger.log_metrics({"val/accuracy": 2 / 3, "lr": 0.3}, step=2)
    logger.log_metrics({"lr": 3.0})
    logger.log_hyperparams({"seed": 0}, metrics={"test/loss": 1.0})
    logger.finalize("success")
    assert text(tmp_path) == (
        "step,epoch,lr,train/loss,val/accuracy\n"
        "0,,3,,\n"
        "1,0,0.1,,\n"
        "2,0,0.3,,0.666667\n"
        "10,,1e-12,nan,\n"
    )  # fmt: skip


def test_a_resumed_csv_keeps_the_rows_up_to_its_checkpoint_unchanged(tmp_path: Path) -> None:
    first = table(tmp_path)
    for step in range(1, 6):
        first.log_metrics({"lr": step / 3, "epoch": step // 3}, step=step)
    first.log_metrics({"val/loss": 0.25}, step=3)
    first.save()
    before = text(tmp_path).splitlines()
    resumed = table(tmp_path, steps_done=3)
    resumed.save()
    assert text(tmp_path).splitlines() == before[:4]
    resumed.log_metrics({"lr": 9.0, "epoch": 1, "test/loss": 0.5}, step=4)
    resumed.save()
    assert text(tmp_path).splitlines() == [
        "step,epoch,lr,val/loss,test/loss", "1,0,0.333333,,", "2,0,0.666667,,", "3,1,1,0.25,", "4,1,9,,0.5",
    ]  # fmt: skip


@pytest.mark.parametrize(("steps_done", "there"), [(0, True), (5, False)])
def test_a_new_run_and_one_whose_csv_is_gone_start_a_new_csv(steps_done: int, there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "metrics.csv").write_text("step,epoch,lr\n1,0,0.1\n")
    logger = table(tmp_path, steps_done)
    logger.log_metrics({"lr": 0.2}, step=6)
    logger.save()
    assert text(tmp_path) == "step,epoch,lr\n6,,0.2\n"


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def test_all_events_are_in_one_file_in_the_run_s_folder_also_those_after_the_fit(tmp_path: Path) -> None:
    logger = board(tmp_path)
    for step, value in ((1, 0.5), (2, 0.25), (3, 0.125)):
        logger.log_metrics({"train/loss": value, "lr": 2.0 * step}, step=step)
    logger.finalize("success")
    logger.log_metrics({"test/accuracy": 0.75}, step=3)
    logger.finalize("success")
    assert [path.name.startswith("events.out.tfevents.") for path in tmp_path.iterdir()] == [True]
    assert scalars(tmp_path, "train/loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert scalars(tmp_path, "lr") == [(1, 2.0), (2, 4.0), (3, 6.0)]
    assert scalars(tmp_path, "test/accuracy") == [(3, 0.75)]


def test_the_layout_puts_the_splits_of_a_metric_into_one_chart(tmp_path: Path) -> None:
    board(tmp_path).save()
    (event,) = events(tmp_path).Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    assert {chart.title: list(chart.multiline.tag) for chart in category.chart} == CHARTS


def hparams(folder: Path, tag: str) -> plugin_data_pb2.HParamsPluginData:
    content = events(folder).SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_hyperparameters_and_their_metrics_are_one_session_of_hparams(tmp_path: Path) -> None:
    logger = board(tmp_path)
    parameters: dict[str, Any] = {"schedule.peak_lr": 0.4, "seed": 3, "model.norm": "batch", "trainer.compile": True}
    logger.log_hyperparams({"schedule.peak_lr": 0.4, "ema": None})  # without metrics: the configuration's text
    logger.log_hyperparams(parameters, {"test/accuracy": 0.75, "test/loss": 0.5}, 7)
    logger.finalize("success")
    (text,) = events(tmp_path).Tensors("configuration/text_summary")
    assert text.tensor_proto.string_val[0].decode().split() == ["schedule.peak_lr:", "0.4", "ema:", "None"]
    assert "_hparams_/experiment" not in events(tmp_path).Tags()["tensors"]  # TensorBoard finds what varies by itself
    session = hparams(tmp_path, "session_start_info").session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in session.hparams.items()}
    assert values == parameters
    assert hparams(tmp_path, "session_end_info").session_end_info.status == 1  # success
    assert scalars(tmp_path, "test/accuracy") == scalars(tmp_path, "end/accuracy") == [(7, 0.75)]
    assert "hp_metric" not in events(tmp_path).Tags()["scalars"]
    assert not (tmp_path / "hparams.yaml").exists()


def test_a_resumed_board_drops_the_points_after_its_checkpoint(tmp_path: Path) -> None:
    first = board(tmp_path)
    for step in range(1, 7):
        first.log_metrics({"lr": float(step)}, step=step)
    first.save()
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / "events.out.tfevents.0000000001")  # files are read in the order of their seconds
    resumed = board(tmp_path, steps_done=4)
    for step in range(5, 9):
        resumed.log_metrics({"lr": 10.0 * step}, step=step)
    resumed.save()
    assert scalars(tmp_path, "lr") == [(step, step * (1.0 if step < 5 else 10.0)) for step in range(1, 9)]
    assert len(events(tmp_path).Tensors("custom_scalars__config__")) == 1


def test_images_go_to_the_loggers_that_take_them(tmp_path: Path) -> None:
    loggers = [table(tmp_path), board(tmp_path)]
    log_image(loggers, "picture", Image.new("RGB", (4, 2)), 0)
    log_image(loggers, "figure", Figure(figsize=(1, 1), dpi=50), 3)
    loggers[1].save()
    shown = events(tmp_path)
    assert {tag: [(event.step, event.width) for event in shown.Images(tag)] for tag in shown.Tags()["images"]} == {
        "picture": [(0, 4)], "figure": [(3, 50)],
    }  # fmt: skip
