import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from picture import bars, figure_of, legends, marked, problem_of, run, tick_texts

from onecycle.studies.figures import draw
from onecycle.studies.figures.curves import response_curves

# Two sizes, three learning rates; of the small set at the highest rate one of two seeds diverged.
LRS = [0.05, 0.2, 0.8]
LOSSES: dict[int, list[tuple[float, float]]] = {
    50000: [(1.0, 1.2), (0.8, 0.8), (1.5, 1.7)],
    3125: [(2.0, 2.2), (1.0, 1.4), (0.5, math.nan)],
}
ROWS = [
    run(peak_lr=lr, subset_size=size, batch_size=128, seed=seed, final_loss=loss,
        status="diverged" if math.isnan(loss) else "finished")
    for size, points in LOSSES.items() for lr, seeds in zip(LRS, points, strict=True) for seed, loss in enumerate(seeds)
]  # fmt: skip
CURVES: dict[str, Any] = {"kind": "curves", "x": "peak_lr", "y": "final_loss", "by": "subset_size"}
ARMS = [run(arm=arm, seed=seed, test_accuracy=mean + step)
        for arm, mean in (("plain", 93.0), ("tta", 94.0)) for seed, step in enumerate((-0.1, 0.0, 0.1))]  # fmt: skip


def test_curves_have_means_sample_sds_single_seeds_and_a_ring_at_the_best_point_of_a_whole_line() -> None:
    figure = figure_of(ROWS, **CURVES)
    axes = figure.axes[0]
    colours: Any = [line.get_color() for line in axes.lines if line.get_label() == "_line"]
    assert colours == ["#63cb5f", "#46085c"]  # of numbers from light to dark
    (x, small, spans), (_, large, _) = bars(axes)
    assert (x, small, large) == (LRS, pytest.approx([2.1, 1.2, 0.5]), pytest.approx([1.1, 0.8, 1.6]))
    sd = 0.2 / math.sqrt(2)
    assert np.array(spans[0]) == pytest.approx(np.array([[0.05, 2.1 - sd], [0.05, 2.1 + sd]]))
    assert [len(part) for part in spans] == [2, 2, 0]  # none for a single seed
    assert marked(axes, "_seeds")[0] == ([0.05, 0.05, 0.2, 0.2], [2.0, 2.2, 1.0, 1.4])
    assert (axes.get_xscale(), tick_texts(axes)) == ("log", ["0.05", "0.2", "0.8"])
    # No line leads to the point where a run diverged, and it is no optimum.
    (_, small), (_, large) = marked(axes, "_line")
    assert (small[:2], math.isnan(small[2]), large) == (pytest.approx([2.1, 1.2]), True, pytest.approx([1.1, 0.8, 1.6]))
    assert marked(axes, "_optimum") == [([0.2], [pytest.approx(1.2)]), ([0.2], [pytest.approx(0.8)])]
    highest = figure_of(ROWS, **CURVES, direction="accuracy").axes[0]
    assert [x for x, _ in marked(highest, "_optimum")] == [[0.05], [0.8]]
    assert not marked(figure_of(ROWS, **CURVES, optimum=False).axes[0], "_optimum")
    assert legends(figure) == [["training images", "3,125", "50,000", "optimum", "mean ± sd", "diverged, no value"]]
    single = [run(peak_lr=lr, test_loss=1.0) for lr in LRS]
    assert legends(figure_of(single, kind="curves", x="peak_lr", y="test_loss")) == [["optimum"]]


def test_crosses_of_diverged_runs_stand_in_a_strip_beyond_the_limits_without_ticks() -> None:
    rows = [*ROWS, run(peak_lr=0.8, subset_size=9, final_loss=math.inf), run(peak_lr=0.2, subset_size=9, final_loss=1)]
    axes: Any = figure_of(rows, **CURVES, y_limits=[0.7, 2.5]).axes[0]
    low, high = axes.get_ylim()
    (strip,) = (patch for patch in axes.patches if patch.get_label() == "_strip")
    assert (low, strip.get_y(), strip.get_y() + strip.get_height()) == pytest.approx((0.7, 2.5, high))
    (_, (first,)), (_, (second,)) = marked(axes, "_diverged")
    assert first > second > (2.5 - low) / (high - low)  # in heights of the axes
    assert max(axes.get_yticks()) <= 2.5
    assert [text.get_text() for text in axes.texts] == ["", "1 of 2, else 0.5"]
    for more in ({"y": "test_accuracy"}, {"direction": "accuracy"}):  # at the lower edge where more is better
        rows = [{**row, "test_accuracy": row["final_loss"]} for row in ROWS]
        axes = figure_of(rows, **CURVES | more).axes[0]
        ((x, (height,)),) = marked(axes, "_diverged")
        assert (x, height < 0.1, [text.get_text() for text in axes.texts]) == ([0.8], True, ["1 of 2"])


def test_panels_share_the_y_axis_and_labels_replace_texts() -> None:
    rows = ROWS + [{**row, "batch_size": 1024, "final_loss": row["final_loss"] + 3} for row in ROWS]
    labels = {"peak_lr": "rate", "3125": "few", "subset_size": "images"}
    figure = figure_of(rows, **CURVES, panels="batch_size", title="Two sizes", labels=labels)
    assert [axes.get_title() for axes in figure.axes] == ["N = 128", "N = 1,024"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert (figure.get_suptitle(), figure.get_supxlabel()) == ("Two sizes (n = 2)", "rate")
    assert legends(figure)[0][:3] == ["images", "few", "50,000"]


def test_runs_of_one_seed_that_differ_in_a_setting_are_no_repetitions() -> None:
    rows = [run(peak_lr=0.1, momentum=momentum, test_loss=1.0) for momentum in (0.9, 0.95)]
    settings = {"kind": "curves", "x": "peak_lr", "y": "test_loss"}
    assert "differ in momentum" in problem_of(rows, **settings)
    assert len(bars(figure_of(rows, **settings, by="momentum").axes[0])) == 2
    rows = [run(arm="a", peak_lr=lr, test_loss=1.0) for lr in LRS]
    assert "differ in peak_lr" in problem_of(rows, kind="arms", y="test_loss")


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        ({"peak_lr": 1.0}, {"x": "lr"}, "'lr'"), ({"peak_lr": 0.0}, {}, "peak_lr=0"), ({"peak_lr": "x"}, {}, "'x'"),
        ({"peak_lr": 1.0}, {"direction": "up"}, "direction=up"), ({"peak_lr": 1.0}, {"colour": "red"}, "'colour'"),
        ({"peak_lr": math.nan}, {}, "peak_lr"), ({"peak_lr": 1.0}, {"kind": "pie"}, "kind=pie"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_line(row: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    settings = {"kind": "curves", "x": "peak_lr", "y": "test_loss", **settings}
    problem = problem_of([run(test_loss=2.0, **row)], **settings)
    assert problem.startswith("study.figures[0]")
    assert words in problem
    assert "\n" not in problem


def test_arms_far_from_zero_are_dots_and_others_bars_unless_it_is_said() -> None:
    axes = figure_of(ARMS, kind="arms", y="test_accuracy").axes[0]
    assert tick_texts(axes, "y") == ["plain", "tta"]
    assert bars(axes)[0][:2] == ([pytest.approx(93.0), pytest.approx(94.0)], [0, 1])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first arm on top
    assert marked(axes, "_seeds")[0][0] == pytest.approx([92.9, 93.0, 93.1, 93.9, 94.0, 94.1])
    assert [text.get_text() for text in axes.texts] == ["93.0 ± 0.1  (n = 3)", "94.0 ± 0.1  (n = 3)"]
    mixed = [*ARMS, run(arm="none", test_accuracy=10.0)]
    cases: Any = (
        (ARMS, {}, []), (mixed, {}, [93, 94, 10]), (ARMS, {"form": "bars"}, [93, 94]), (mixed, {"form": "dots"}, []),
    )  # fmt: skip
    for rows, more, widths in cases:
        drawn: Any = figure_of(rows, kind="arms", y="test_accuracy", **more).axes[0]
        assert [bar.get_width() for bar in drawn.patches] == pytest.approx(widths)
        assert (drawn.get_xlim()[0] == 0) == bool(widths)
    assert "form=pie" in problem_of(ARMS, kind="arms", y="test_accuracy", form="pie")


def test_arms_of_computed_numbers_are_told_apart_to_nine_digits() -> None:
    rows = [run(lr=lr, seed=seed, test_accuracy=90.0) for seed, lr in enumerate((0.1 / 384, 0.2 / 768, 0.1))]
    axes = figure_of(rows, kind="arms", y="test_accuracy", by="lr").axes[0]
    assert tick_texts(axes, "y") == ["0.00026", "0.1"]
    assert len(marked(axes, "_seeds")[0][0]) == 2


def test_published_values_are_diamonds_and_a_diverged_arm_has_a_cross() -> None:
    rows = [*ARMS, *(run(arm="lost", seed=seed, test_accuracy=93.5, status=status)
                     for seed, status in enumerate(["diverged", "finished"]))]  # fmt: skip
    figure = figure_of(rows, kind="arms", y="test_accuracy", reference={"tta": 94.6, "another": 90.0})
    assert marked(figure.axes[0], "_published") == [([94.6], [1.0])]
    ((x, y),) = marked(figure.axes[0], "_diverged")
    assert (x[0] < 0.1, y) == (True, [2.0])
    assert figure.axes[0].texts[2].get_text() == "93.5  (1 of 2)"
    assert legends(figure) == [["single run", "diverged", "published"]]


def test_published_values_of_a_study_are_marked_where_a_figure_shows_their_metric() -> None:
    published = {"metric": "final_loss", "rows": [
        {"text": "a", "value": 0.9, "of": {"subset_size": 50000, "peak_lr": 0.2}},
        {"text": "b", "value": 0.8, "of": {"subset_size": 50000}}, {"text": "c", "value": [1, 2]},
        {"text": "d", "value": 94.5, "metric": "test_accuracy", "of": {"arm": "tta"}},
    ]}  # fmt: skip
    figures = [CURVES, {"kind": "arms", "y": "test_accuracy", "where": {"arm": ["plain", "tta"]}}]
    drawn, problems = draw({"figures": figures, "published": published}, pd.DataFrame(ROWS + ARMS))
    assert problems == []
    assert marked(drawn["figure"].axes[0], "_published") == [([0.2], [0.9])]
    rows = pd.DataFrame(ROWS + [{**row, "batch_size": 512} for row in ROWS])
    of = {"subset_size": 50000, "peak_lr": 0.2, "batch_size": 512}
    axes = response_curves(
        rows, x="peak_lr", y="final_loss", by="subset_size", panels="batch_size", published=[(of, 0.9)]
    ).axes
    assert [marked(panel, "_published") for panel in axes[:2]] == [[], [([0.2], [0.9])]]
    assert legends(drawn["figure"])[0][-1] == "published"
    assert marked(drawn["figure_2"].axes[0], "_published") == [([94.5], [1.0])]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([70.5, 70.52], "70.5 ± <0.1  (n = 2)"), ([1394.4], "1,394"), ([0.25], "0.250"),
        ([1.0, 1.5], "1.250 ± 0.354  (n = 2)"),
    ],
)  # fmt: skip
def test_numbers_have_the_decimals_of_their_size(values: list[float], text: str) -> None:
    rows = [run(arm="a", seed=seed, speed=value) for seed, value in enumerate(values)]
    assert [one.get_text() for one in figure_of(rows, kind="arms", y="speed").axes[0].texts] == [text]


def test_scatter_has_means_and_deviations_in_both_directions() -> None:
    rows = [{**row, "seconds_fit": 10.0 * (1 + row["seed"]) + (row["arm"] == "tta")} for row in ARMS]
    rows.append(run(arm="tta", seed=3, seconds_fit=60.0, test_accuracy=math.nan, status="diverged"))
    figure = figure_of(rows, kind="scatter", x="seconds_fit", y="test_accuracy")
    axes = figure.axes[0]
    (x, y, spans), (tta, _, _) = bars(axes)
    assert (x, y, tta) == ([20.0], [pytest.approx(93.0)], [21.0])
    assert [x for x, _ in spans[0]] == pytest.approx([10.0, 30.0])
    assert marked(axes, "_seeds")[0] == ([10.0, 20.0, 30.0], pytest.approx([92.9, 93.0, 93.1]))
    ((x, (height,)),) = marked(axes, "_diverged")
    assert (x, height < 0.1) == ([60.0], True)
    assert legends(figure) == [["plain", "tta", "one seed", "mean ± sd", "diverged"]]


def test_a_dollar_in_a_title_is_a_dollar() -> None:
    figure = figure_of(ARMS, kind="arms", y="test_accuracy", title=r"$\q$")
    figure.draw_without_rendering()
    assert figure.get_suptitle() == r"$\q$ (n = 3)"
