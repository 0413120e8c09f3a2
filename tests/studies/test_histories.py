import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from onecycle.studies.curves import moving_average
from onecycle.studies.figures.axes import round_numbers
from onecycle.studies.figures.curves import layers, surfaces, training_curves
from onecycle.studies.figures.networks import cubic, merged


def lines(axes: Axes, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def ys(line: Any) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def legends(figure: Figure) -> list[list[str]]:
    found = [child for axes in figure.axes for child in axes.get_children() if isinstance(child, Legend)]
    return [[legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())] for legend in found]


def series(label: str, values: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "x": list(range(len(values))), "y": values, **more}


def test_seeds_of_equal_length_are_a_mean_with_a_band_of_one_sd() -> None:
    axes = training_curves([series("a", [1.0, 2.0, 3.0]), series("a", [3.0, 4.0, 3.0])], y="test_loss").axes[0]
    assert [ys(line) for line in lines(axes, "_mean")] == [[2.0, 3.0, 3.0]]
    (band,) = axes.collections
    corners = np.asarray(band.get_paths()[0].vertices, float)
    assert corners[:, 1].max() == pytest.approx(3.0 + math.sqrt(2))
    assert corners[:, 1].min() == pytest.approx(2.0 - math.sqrt(2))
    assert not lines(axes, "_seed")


def test_seeds_at_other_places_are_interpolated() -> None:
    pair = [{"label": "a", "x": [0, 1, 2], "y": [0.0, 1.0, 2.0]}, {"label": "a", "x": [0, 2, 4], "y": [0.0, 4.0, 8.0]}]
    (mean,) = lines(training_curves(pair, y="test_loss").axes[0], "_mean")
    assert ys(mean) == [0.0, 1.5, 3.0]


def test_seeds_of_unequal_length_are_faint_and_their_mean_goes_as_far_as_all() -> None:
    axes = training_curves([series("a", [1.0, 2.0, 3.0]), series("a", [3.0, 4.0])], y="test_loss").axes[0]
    assert [ys(line) for line in lines(axes, "_mean")] == [[2.0, 3.0]]
    assert [ys(line) for line in lines(axes, "_seed")] == [[1.0, 2.0, 3.0], [3.0, 4.0]]
    assert not axes.collections


def test_a_diverged_seed_ends_in_a_cross_and_does_not_enter_the_mean() -> None:
    pair = [series("a", [2.0, 1.0, 1.0]), series("a", [2.0, 8.0, math.nan], diverged=True)]
    figure = training_curves(pair, y="train_loss")
    axes = figure.axes[0]
    assert [ys(line) for line in lines(axes, "_mean")] == [[2.0, 1.0, 1.0]]
    assert [ys(line) for line in lines(axes, "_seed")] == [[2.0, 8.0]]
    (cross,) = lines(axes, "_diverged")
    assert (cross.get_xdata(), ys(cross)[0] > 0.9) == ([2.0], True)
    assert sorted(legends(figure)) == [["", "a"], ["", "single seed", "diverged"]]


def test_a_seed_that_is_not_finite_from_some_place_on_ends_in_a_cross_there() -> None:
    pair = [series("a", [2.0, 1.0, 1.0]), series("a", [2.0, math.nan, math.nan])]
    axes = training_curves(pair, y="train_loss").axes[0]
    (cross,) = lines(axes, "_diverged")
    assert cross.get_xdata() == [1.0]


def test_the_band_is_drawn_only_where_its_mean_lies_within_the_limits() -> None:
    pair = [series("a", [1.0, 2.0, 2.0, 50.0, 60.0]), series("a", [1.2, 2.2, 2.2, 90.0, 80.0])]
    axes = training_curves(pair, y="loss", y_limits=[0.5, 3.0]).axes[0]
    (band,) = axes.collections
    corners = np.concatenate([np.asarray(path.vertices, float) for path in band.get_paths()])
    assert corners[:, 0].max() == 2.0
    assert axes.get_ylim() == (0.5, 3.0)


def test_the_legend_says_what_a_band_and_what_a_thin_line_is() -> None:
    pair = [series("a", [1.0, 2.0]), series("a", [3.0, 4.0])]
    assert ["", "mean ± 1 sd"] in legends(training_curves(pair, y="loss"))
    figure = training_curves(pair, y="loss", spread="seeds")
    assert ["", "single seed"] in legends(figure)
    assert [ys(line) for line in lines(figure.axes[0], "_seed")] == [[1.0, 2.0], [3.0, 4.0]]
    assert not figure.axes[0].collections


def test_an_exact_zero_is_a_gap_on_a_logarithmic_axis() -> None:
    axes = training_curves([series("a", [0.0, 0.1, 1.0])], y="deviation", log_y=True).axes[0]
    (mean,) = lines(axes, "_mean")
    assert ys(mean)[1:] == [0.1, 1.0]
    assert math.isnan(ys(mean)[0])
    assert axes.get_yscale() == "log"


def test_a_series_that_only_diverged_is_drawn_to_its_end() -> None:
    axes = training_curves([series("a", [2.0, 8.0], diverged=True)], y="accuracy").axes[0]
    assert [ys(line) for line in lines(axes, "_mean")] == [[2.0, 8.0]]
    (cross,) = lines(axes, "_diverged")
    assert (cross.get_xdata(), ys(cross)[0] < 0.1) == ([1.0], True)


def test_groups_are_panels_and_numbers_are_ordered_by_size() -> None:
    many = [series(size, [1.0], group=batch) for batch in ("512", "128") for size in ("50000", "3125")]
    figure = training_curves(many, y="test_loss", labels={"label": "training images", "group": "N = {}"})
    assert [axes.get_title() for axes in figure.axes] == ["N = 128", "N = 512"]
    assert legends(figure) == [["training images", "3,125", "50,000"]]


def test_the_moving_average_is_centred_and_keeps_its_level_at_the_ends() -> None:
    assert moving_average(np.array([0.0, 3.0, 6.0, 9.0]), 3) == pytest.approx([1.5, 3.0, 6.0, 7.5])
    assert moving_average(np.ones(5), 9) == pytest.approx(np.ones(5))
    assert moving_average(np.arange(6.0), 9) == pytest.approx([1.0, 1.5, 2.0, 3.0, 3.5, 4.0])
    (mean,) = lines(training_curves([series("a", [0.0, 3.0, 6.0])], y="loss", smooth=3).axes[0], "_mean")
    assert ys(mean) == pytest.approx([1.5, 3.0, 4.5])


def test_a_moving_average_over_an_even_number_is_centred_too() -> None:
    peak = np.zeros(9)
    peak[4] = 1.0
    assert moving_average(peak, 4) == pytest.approx(moving_average(peak, 5))
    assert moving_average(peak, 4)[::-1] == pytest.approx(moving_average(peak, 4))


def test_marks_are_lines_in_their_series_colour_with_texts_at_different_heights() -> None:
    pair = [{"label": name, "x": [0.001, 0.1, 10], "y": [2.0, 1.0, 3.0]} for name in ("a", "b")]
    marks = [{"label": "b", "x": 0.2, "text": "second"}, {"label": "a", "x": 0.1, "text": "lowest"}]
    axes = training_curves(pair, x="lr", y="loss", log_x=True, marks=marks).axes[0]
    assert [line.get_xdata() for line in lines(axes, "_mark")] == [[0.1, 0.1], [0.2, 0.2]]
    assert [text.get_text() for text in axes.texts] == ["lowest", "second"]
    assert axes.texts[0].get_color() == lines(axes, "_mean")[0].get_color()
    first, second = (text.get_window_extent() for text in axes.texts)
    assert not first.overlaps(second)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match=r"^training_curves: no series to draw$"):
        training_curves([], y="loss")
    with pytest.raises(ValueError, match=r"^training_curves: no finite value of loss in panel 'b'$"):
        training_curves([series("a", [1.0], group="a"), series("a", [math.nan], group="b")], y="loss")
    with pytest.raises(ValueError, match=r"^epoch=0 has no place on a logarithmic axis; set log_x: false$"):
        training_curves([series("a", [1.0, 2.0])], y="loss", log_x=True)


def test_layers_have_the_geometric_mean_of_the_seeds_a_panel_for_each_group() -> None:
    names = ["prep", "linear"]
    many = [
        {"label": "plain", "group": group, "layers": names, "values": [first, 1.0]}
        for group in ("at the start", "at the end")
        for first in (0.01, 1.0)
    ]
    figure = layers(many, y_label="gradient norm")
    assert [axes.get_title() for axes in figure.axes] == ["at the start", "at the end"]
    assert ys(lines(figure.axes[0], "_mean")[0]) == pytest.approx([0.1, 1.0])
    assert ys(lines(figure.axes[0], "_seeds")[0]) == [0.01, 1.0, 1.0, 1.0]
    assert figure.axes[0].get_yscale() == "log"
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == names
    assert not figure.axes[0].get_xticklabels()
    assert figure.get_supylabel() == "gradient norm"
    with pytest.raises(ValueError, match=r"^layers: no values to draw$"):
        layers([])


def test_layers_that_one_network_has_keep_their_place() -> None:
    assert merged([["prep", "linear"], ["prep", "residual", "linear", "end"]]) == ["prep", "residual", "linear", "end"]


def test_a_line_has_a_gap_at_layers_that_its_network_lacks() -> None:
    deep = {"label": "deep", "layers": ["prep", "layer1.residual.first", "head"], "values": [1.0, 2.0, 3.0]}
    figure = layers([deep, {"label": "plain", "layers": ["prep", "head"], "values": [1.0, 3.0]}])
    plain = ys(lines(figure.axes[0], "_mean")[1])
    assert (plain[0], plain[2]) == (1.0, pytest.approx(3.0))
    assert math.isnan(plain[1])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["prep", "layer1\nbranch\nfirst", "head"]
    assert {text.get_rotation() for text in figure.axes[0].get_xticklabels()} == {0.0}


def test_ticks_of_a_narrow_logarithmic_axis_are_round() -> None:
    assert round_numbers(0.12, 0.45) == [0.15, 0.2, 0.3]
    assert round_numbers(0.1, 10) == [0.1, 0.3, 1, 3, 10]


def test_a_finer_surface_goes_through_its_points_and_follows_a_parabola() -> None:
    places = np.linspace(-1.0, 1.0, 15)
    smooth = cubic(places**2, 8)
    assert smooth[::8] == pytest.approx(places**2)
    assert smooth[8:-8] == pytest.approx(np.linspace(-1.0, 1.0, 113)[8:-8] ** 2, abs=1e-9)
    plane = np.outer(np.arange(5.0), np.arange(4.0))
    assert cubic(plane, 2).shape == (9, 4)
    assert cubic(plane, 2)[1] == pytest.approx(0.5 * np.arange(4.0))


def test_surfaces_share_one_logarithmic_scale_and_mark_the_centre() -> None:
    a, b = [-1.0, 0.0, 1.0], [-1.0, 1.0]
    tops = {"bn": 1.0, "none": 10.0}
    panels = [
        {"label": name, "a": a, "b": b, "loss": [[top, 0.1, 1.0], [1.0, 0.1, None]]} for name, top in tops.items()
    ]
    figure = surfaces(panels, levels=5, title="Surfaces")
    left, right, bar = figure.axes
    assert [left.get_title(), right.get_title()] == ["bn", "none"]
    filled = [child for axes in (left, right) for child in axes.collections if isinstance(child, QuadContourSet)]
    assert all(one.levels == pytest.approx(np.geomspace(0.1, 10, 5)) for one in filled)
    assert len(filled) == 4  # filled contours and their lines
    assert left.get_aspect() == 1
    assert ys(lines(left, "_centre")[0]) == [0.0]
    figure.draw_without_rendering()
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0.1", "0.3", "1", "3", "10"]
    assert figure.get_supxlabel() == "direction 1 (filter norms)"


def test_a_surface_of_another_shape_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^surfaces: loss of 'bn' is \(1, 2\) with 2 finite values; it must have one row"
    ):
        surfaces([{"label": "bn", "a": [0, 1], "b": [0, 1], "loss": [[1.0, 2.0]]}])
    with pytest.raises(ValueError, match=r"^surfaces: no panels to draw$"):
        surfaces([])
