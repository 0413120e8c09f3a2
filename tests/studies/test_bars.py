import math
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from onecycle.studies.figures.curves import arms, stacked
from onecycle.studies.figures.style import OKABE_ITO


def run(**columns: Any) -> dict[str, Any]:
    return {"status": "finished", "seed": 0, **columns}


def lines(axes: Axes, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def means(axes: Axes) -> list[tuple[list[float], list[float]]]:
    found: list[Any] = [container.lines[0] for container in axes.containers if isinstance(container, ErrorbarContainer)]
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in found]


def patches(axes: Axes) -> list[Any]:
    return list(axes.patches)


def legend(figure: Figure) -> list[str]:
    (only,) = figure.legends
    return [text.get_text() for text in only.get_texts()]


def tick_texts(axes: Any) -> list[str]:
    axes.get_figure().draw_without_rendering()
    return [label.get_text() for label in axes.get_yticklabels()]


ARMS = [run(arm=arm, seed=seed, test_accuracy=mean + step)
        for arm, mean in (("plain", 93.0), ("tta", 94.0)) for seed, step in enumerate((-0.1, 0.0, 0.1))]  # fmt: skip


def test_arms_far_from_zero_are_dots_with_deviation_seeds_and_numbers() -> None:
    axes = arms(ARMS, y="test_accuracy", order=["tta"]).axes[0]
    assert tick_texts(axes) == ["tta", "plain"]
    assert means(axes) == [([pytest.approx(94.0)], [0.0]), ([pytest.approx(93.0)], [1.0])]
    assert axes.get_xlim()[0] > 90
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first arm on top
    assert [list(line.get_xdata()) for line in lines(axes, "_seeds")][1] == pytest.approx([92.9, 93.0, 93.1])
    assert [text.get_text() for text in axes.texts] == ["94.0 ± 0.1  (n = 3)", "93.0 ± 0.1  (n = 3)"]
    assert not axes.patches


def test_arms_are_bars_from_zero_where_the_values_reach_down_to_it() -> None:
    axes = arms([*ARMS, run(arm="none", test_accuracy=10.0)], y="test_accuracy").axes[0]
    assert [bar.get_width() for bar in patches(axes)] == pytest.approx([93.0, 94.0, 10.0])
    assert axes.get_xlim()[0] == 0


def test_published_values_are_hollow_diamonds_or_lines_with_their_text() -> None:
    figure = arms(ARMS, y="test_accuracy", reference={"tta": 94.6, "target": 94.0})
    axes = figure.axes[0]
    (diamond,) = lines(axes, "_published")
    assert (diamond.get_marker(), diamond.get_xdata(), diamond.get_ydata()) == ("D", [94.6], [1])
    assert diamond.get_markerfacecolor() == "none"
    assert lines(axes, "_reference")[0].get_xdata() == [94.0, 94.0]
    assert "target" in [text.get_text() for text in axes.texts]
    assert legend(figure) == ["single run", "published"]


def test_a_diverged_arm_has_a_cross_and_says_so() -> None:
    rows = [run(arm="a", test_loss=0.3), run(arm="b", test_loss=math.nan, status="diverged")]
    axes = arms(rows, y="test_loss").axes[0]
    (cross,) = lines(axes, "_diverged")
    assert cross.get_ydata() == [1.0]
    assert cross.get_xdata()[0] > 0.9
    assert [text.get_text() for text in axes.texts] == ["0.300", "diverged"]


def test_the_whole_deviation_lies_within_the_axes() -> None:
    rows = [run(arm="a", seed=seed, images_per_second=value) for seed, value in enumerate((1100.0, 1700.0))]
    rows += [run(arm="b", images_per_second=500.0)]
    axes = arms(rows, y="images_per_second").axes[0]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 1400 + 600 / math.sqrt(2)
    wide = [run(arm="a", seed=seed, test_accuracy=value) for seed, value in enumerate((10.0, 90.0))]
    assert arms(wide, y="test_accuracy").axes[0].get_xlim()[0] < 50 - 80 / math.sqrt(2)


def test_up_to_three_seeds_are_drawn_as_open_points_more_are_faint() -> None:
    axes = arms(ARMS, y="test_accuracy").axes[0]
    assert [seed.get_markerfacecolor() for seed in lines(axes, "_seeds")] == ["white", "white"]
    many = [run(arm="a", seed=seed, test_accuracy=90.0 + seed) for seed in range(4)]
    figure = arms(many, y="test_accuracy")
    assert lines(figure.axes[0], "_seeds")[0].get_alpha() == 0.55
    assert legend(figure) == ["one seed"]


def test_the_form_may_be_chosen_so_that_figures_agree() -> None:
    bars = arms(ARMS, y="test_accuracy", form="bars").axes[0]
    assert [bar.get_width() for bar in patches(bars)] == pytest.approx([93.0, 94.0])
    assert bars.get_xlim()[0] == 0
    mixed = [*ARMS, run(arm="none", test_accuracy=10.0)]
    assert not arms(mixed, y="test_accuracy", form="dots").axes[0].patches
    with pytest.raises(ValueError, match=r"^arms: form=pie: must be bars or dots$"):
        arms(ARMS, y="test_accuracy", form="pie")  # type: ignore[arg-type]


def test_numbers_have_the_decimals_of_their_size_and_ticks_their_separators() -> None:
    near = [run(arm="a", seed=seed, test_accuracy=70.5 + 0.02 * seed) for seed in (0, 1)]
    assert [text.get_text() for text in arms(near, y="test_accuracy").axes[0].texts] == ["70.5 ± <0.1  (n = 2)"]
    fast = [run(arm="a", images_per_second=1394.4), run(arm="b", images_per_second=300.0)]
    axes: Any = arms(fast, y="images_per_second").axes[0]
    assert [text.get_text() for text in axes.texts] == ["1,394", "300"]
    axes.get_figure().draw_without_rendering()
    assert "1,000" in [label.get_text() for label in axes.get_xticklabels()]


def test_parts_below_two_percent_of_every_bar_are_one_and_those_without_room_stand_behind_the_total() -> None:
    long = {"convolution": 280.0, "norm": 45.0, "optimizer": 3.0, "casts": 2.0, "data": 6.0}
    short = {"convolution": 20.0, "norm": 4.0, "optimizer": 0.2, "casts": 0.1, "data": 0.6}
    figure = stacked({"N = 512": long, "N = 128": short})
    axes = figure.axes[0]
    assert legend(figure) == ["convolution", "norm", "data", "other, each below 2 %"]
    assert [bar.get_width() for bar in patches(axes)] == pytest.approx([280.0, 45.0, 6.0, 5.0, 20.0, 4.0, 0.6, 0.3])
    assert [text.get_text() for text in axes.texts] == ["83%", "13%", "336 ms", "80%", "24.9 ms (norm 16%)"]


def test_stacked_parts_are_in_the_fixed_order_with_their_shares() -> None:
    figure = stacked({"N = 128": {"other": 1.0, "norm": 3.0, "convolution": 6.0}, "N = 512": {"convolution": 20.0}})
    axes = figure.axes[0]
    assert [bar.get_width() for bar in patches(axes)] == [6.0, 3.0, 1.0, 20.0, 0.0, 0.0]
    assert [bar.get_x() for bar in patches(axes)][:3] == [0.0, 6.0, 9.0]
    assert [to_hex(bar.get_facecolor()).upper() for bar in patches(axes)][:2] == [OKABE_ITO[0], OKABE_ITO[4]]
    assert legend(figure) == ["convolution", "norm", "other"]
    assert [text.get_text() for text in axes.texts] == ["60%", "30%", "10 ms", "100%", "20 ms"]
    assert tick_texts(axes) == ["N = 128", "N = 512"]
    with pytest.raises(ValueError, match=r"^stacked: no parts to draw$"):
        stacked({})
