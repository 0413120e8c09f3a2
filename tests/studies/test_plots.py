import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from onecycle.studies.figures.curves import curves, scatter
from onecycle.studies.figures.style import LABELS, colours, plain


def run(**columns: Any) -> dict[str, Any]:
    return {"status": "finished", "seed": 0, **columns}


def lines(axes: Axes, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def bars(axes: Axes) -> list[Any]:
    # errorbar names its container, not the line in it
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def means(axes: Axes) -> list[tuple[list[float], list[float]]]:
    found: list[Any] = [container.lines[0] for container in bars(axes)]
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in found]


def legends(figure: Figure) -> list[list[str]]:
    found = [*figure.legends, *(child for axes in figure.axes for child in axes.get_children())]
    legends = [legend for legend in found if isinstance(legend, Legend)]
    return [[legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())] for legend in legends]


def tick_texts(axes: Any, which: str = "x") -> list[str]:
    axes.get_figure().draw_without_rendering()
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


# Two sizes, three learning rates; of the small set at the highest rate one of two seeds diverged.
LRS = (0.05, 0.2, 0.8)
LOSSES: dict[int, list[tuple[float, float | None]]] = {
    50000: [(1.0, 1.2), (0.8, 0.8), (1.5, 1.7)],
    3125: [(2.0, 2.2), (1.0, 1.4), (0.5, None)],
}
ROWS = [
    run(peak_lr=lr, subset_size=size, batch_size=128, seed=seed, final_loss=math.nan if loss is None else loss)
    | ({"status": "diverged"} if loss is None else {})
    for size, points in LOSSES.items()
    for lr, seeds in zip(LRS, points, strict=True)
    for seed, loss in enumerate(seeds)
]


def test_a_line_goes_through_the_means_of_the_seeds_with_their_sample_sd() -> None:
    axes = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size").axes[0]
    small, large = means(axes)
    assert small == (list(LRS), pytest.approx([2.1, 1.2, 0.5]))
    assert large == (list(LRS), pytest.approx([1.1, 0.8, 1.6]))
    segments = bars(axes)[0].lines[2][0].get_segments()
    sd = 0.2 / math.sqrt(2)
    assert segments[0] == pytest.approx(np.array([[0.05, 2.1 - sd], [0.05, 2.1 + sd]]))
    assert [segment.size for segment in segments] == [4, 4, 0]  # none for a single seed


def test_each_seed_is_a_faint_dot_where_there_are_several() -> None:
    axes = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size").axes[0]
    small = lines(axes, "_seeds")[0]
    assert list(small.get_ydata()) == [2.0, 2.2, 1.0, 1.4]
    assert small.get_alpha() == 0.4


def test_a_diverged_run_is_a_cross_at_the_upper_edge_for_losses_and_at_the_lower_for_accuracies() -> None:
    upper = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size")
    (cross,) = lines(upper.axes[0], "_diverged")
    assert (cross.get_marker(), cross.get_xdata()) == ("X", [0.8])
    assert cross.get_ydata()[0] > 0.9
    assert cross.get_transform() == upper.axes[0].get_xaxis_transform()
    rows = [{**row, "test_accuracy": row["final_loss"]} for row in ROWS]
    (cross,) = lines(curves(rows, x="peak_lr", y="test_accuracy", by="subset_size").axes[0], "_diverged")
    assert cross.get_ydata()[0] < 0.1


def test_crosses_at_one_place_stand_above_each_other_clear_of_the_data() -> None:
    rows = [
        *ROWS,
        run(peak_lr=0.8, subset_size=9, final_loss=math.nan),
        run(peak_lr=0.2, subset_size=9, final_loss=2.2),
    ]
    axes = curves(rows, x="peak_lr", y="final_loss", by="subset_size").axes[0]
    heights = [float(cross.get_ydata()[0]) for cross in lines(axes, "_diverged")]
    assert len(heights) == len(set(heights)) == 2
    low, high = axes.get_ylim()
    assert (2.2 - low) / (high - low) < min(heights)


def test_no_line_leads_to_a_point_where_a_seed_diverged_and_its_cross_says_how_many() -> None:
    axes = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size").axes[0]
    small, large = ([float(y) for y in line.get_ydata()] for line in lines(axes, "_line"))
    assert small[:2] == pytest.approx([2.1, 1.2])
    assert math.isnan(small[2])
    assert large == pytest.approx([1.1, 0.8, 1.6])
    assert [text.get_text() for text in axes.texts] == ["1 of 2"]
    beyond = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size", y_limits=[0.7, 2.5]).axes[0]
    assert [text.get_text() for text in beyond.texts] == ["1 of 2, else 0.5"]


def test_crosses_have_a_strip_beyond_the_values_and_their_limits_without_ticks() -> None:
    rows = [*ROWS, run(peak_lr=0.2, subset_size=9, final_loss=math.nan)]
    axes: Any = curves(rows, x="peak_lr", y="final_loss", by="subset_size", y_limits=[0.0, 2.5]).axes[0]
    low, high = axes.get_ylim()
    assert low == 0.0
    (strip,) = (patch for patch in axes.patches if patch.get_label() == "_strip")
    assert (strip.get_y(), strip.get_y() + strip.get_height()) == pytest.approx((2.5, high))
    for cross in lines(axes, "_diverged"):
        assert low + cross.get_ydata()[0] * (high - low) > 2.5
    assert max(axes.get_yticks()) <= 2.5
    without = curves(ROWS[:2], x="peak_lr", y="final_loss", y_limits=[0.0, 2.5]).axes[0]
    assert without.get_ylim() == (0.0, 2.5)
    assert not without.patches


def test_one_run_a_point_is_said_in_the_legend() -> None:
    rows = [run(peak_lr=lr, test_loss=1.0) for lr in LRS]
    assert legends(curves(rows, x="peak_lr", y="test_loss")) == [["", "optimum", "mean, n = 1"]]


def test_the_ring_is_at_the_best_point_without_a_diverged_run() -> None:
    axes = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size").axes[0]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in lines(axes, "_optimum")] == [
        (0.2, pytest.approx(1.2)),
        (0.2, pytest.approx(0.8)),
    ]
    highest = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size", direction="accuracy").axes[0]
    assert [ring.get_xdata()[0] for ring in lines(highest, "_optimum")] == [0.05, 0.8]
    assert not lines(curves(ROWS, x="peak_lr", y="final_loss", by="subset_size", optimum=False).axes[0], "_optimum")


def test_the_legend_has_its_title_the_values_by_size_and_the_marks() -> None:
    figure = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size")
    assert sorted(legends(figure)) == [
        ["", "optimum", "mean ± sd, n = 2", "diverged, no value"],
        ["training images", "3,125", "50,000"],
    ]


def test_ticks_are_the_grids_own_values_in_plain_numbers() -> None:
    axes = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size").axes[0]
    assert axes.get_xscale() == "log"
    assert tick_texts(axes) == ["0.05", "0.2", "0.8"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (LABELS["peak_lr"], LABELS["final_loss"])


def test_ticks_that_have_no_room_are_thinned_evenly() -> None:
    rows = [run(peak_lr=0.1 * 1.2**step, test_loss=1.0) for step in range(12)]
    texts = tick_texts(curves(rows, x="peak_lr", y="test_loss").axes[0])
    assert texts[:2] == ["0.1", plain(0.1 * 1.2**2)]
    assert len(texts) == 6


def test_panels_share_the_y_axis_and_are_titled_in_the_fields_notation() -> None:
    rows = ROWS + [{**row, "batch_size": 1024, "final_loss": row["final_loss"] + 3} for row in ROWS]
    figure = curves(rows, x="peak_lr", y="final_loss", by="subset_size", panels="batch_size", title="Two sizes")
    assert [axes.get_title() for axes in figure.axes] == ["N = 128", "N = 1,024"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert figure.get_suptitle() == "Two sizes"
    assert figure.get_supylabel() == LABELS["final_loss"]
    own = curves(
        rows, x="peak_lr", y="final_loss", panels="batch_size", by="subset_size", labels={"batch_size=": "{}/step"}
    )
    assert [axes.get_title() for axes in own.axes] == ["128/step", "1,024/step"]


def test_labels_replace_the_texts_of_axes_and_values() -> None:
    rows = [run(arm=arm, peak_lr=lr, test_loss=lr) for arm in ("bn", "none") for lr in LRS]
    labels = {"peak_lr": "rate", "bn": "batch norm", "arm": "normalisation"}
    figure = curves(rows, x="peak_lr", y="test_loss", by="arm", labels=labels)
    assert figure.axes[0].get_xlabel() == "rate"
    assert ["normalisation", "batch norm", "none"] in legends(figure)


def test_lines_have_the_colours_of_their_values() -> None:
    axes = curves(ROWS, x="peak_lr", y="final_loss", by="subset_size").axes[0]
    drawn = [to_hex(container.lines[0].get_color()) for container in bars(axes)]
    assert drawn == colours([3125, 50000])


def test_runs_of_one_seed_that_differ_in_a_setting_are_refused() -> None:
    rows = [run(peak_lr=0.1, momentum=momentum, test_loss=1.0) for momentum in (0.9, 0.95)]
    with pytest.raises(ValueError, match=r"peak_lr=0.1: runs of one point and one seed differ in momentum"):
        curves(rows, x="peak_lr", y="test_loss")
    assert len(means(curves(rows, x="peak_lr", y="test_loss", by="momentum").axes[0])) == 2


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {"x": "peak_lr"}, "curves: no rows to draw"),
        ([run(peak_lr=1, a=2)], {"x": "lr"}, "curves: no row has the column 'lr'; there are status, seed, peak_lr, a"),
        ([run(peak_lr=0.0, a=2)], {"x": "peak_lr"}, "peak_lr=0 has no place on a logarithmic axis; set log_x: false"),
        ([run(peak_lr="x", a=2)], {"x": "peak_lr"}, "column 'peak_lr' holds 'x', which is no number"),
        (
            [run(peak_lr=1.0, a=2, n=1), run(peak_lr=1.0, a=None, n=2)],
            {"x": "peak_lr", "panels": "n"},
            "curves: no run of n=2 has values of peak_lr and a",
        ),
        ([run(peak_lr=1.0, a=2)], {"x": "peak_lr", "direction": "up"}, "direction=up: must be loss or accuracy"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(rows: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        curves(rows, y="a", **settings)
    assert "\n" not in str(error.value)


ARMS = [run(arm=arm, seed=seed, test_accuracy=mean + step)
        for arm, mean in (("plain", 93.0), ("tta", 94.0)) for seed, step in enumerate((-0.1, 0.0, 0.1))]  # fmt: skip


def test_scatter_has_means_and_deviations_in_both_directions_and_names_beside() -> None:
    rows = [{**row, "seconds_fit": 10.0 * (1 + row["seed"]) + (row["arm"] == "tta")} for row in ARMS]
    figure = scatter(rows, x="seconds_fit", y="test_accuracy", by="arm")
    axes = figure.axes[0]
    assert means(axes) == [([20.0], [pytest.approx(93.0)]), ([21.0], [pytest.approx(94.0)])]
    across = bars(axes)[0].lines[2][0].get_segments()[0]
    assert across[:, 0] == pytest.approx([10.0, 30.0])
    assert [text.get_text() for text in axes.texts] == ["plain", "tta"]
    assert legends(figure) == [["", "one seed", "mean ± sd"]]


def test_scatter_joins_the_points_of_an_arm_and_keeps_names_apart() -> None:
    rows = [run(arm=arm, epochs=epochs, seconds_fit=epochs, test_accuracy=90 + epochs / 10 + index / 100)
            for index, arm in enumerate(("first arm", "second arm")) for epochs in (20, 10)]  # fmt: skip
    rows += [run(arm="first arm", epochs=30, seconds_fit=30.0, test_accuracy=math.nan, status="diverged")]
    figure = scatter(rows, x="seconds_fit", y="test_accuracy", by="arm", points="epochs", connect=True)
    axes = figure.axes[0]
    assert list(lines(axes, "_line")[0].get_ydata()) == [91.0, 92.0]
    assert lines(axes, "_diverged")[0].get_xdata() == [30.0]
    first, second = (text.get_window_extent() for text in axes.texts)
    assert not first.overlaps(second)


def test_without_by_scatter_draws_every_run() -> None:
    rows = [{**row, "seconds_fit": row["seed"]} for row in ARMS]
    assert len(means(scatter(rows, x="seconds_fit", y="test_accuracy").axes[0])) == 6
