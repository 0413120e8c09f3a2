import math
from typing import Any

import numpy as np
import pytest

from onecycle.studies.figures.curves import path, progress

# Two seeds a point; the third point diverged with one of them.
WAY = [(0.01, 0.01, 40.0), (0.02, 0.01, 50.0), (0.04, 0.01, math.nan), (0.02, 0.02, 60.0)]
ROWS: list[dict[str, Any]] = [
    {
        "arm": arm, "number": number, "seed": seed, "peak_lr": x, "weight_decay": y, "val_accuracy": z + seed + extra,
        "test_accuracy": z - 5, "status": "finished" if math.isfinite(z) else "diverged",
    }
    for arm, extra in (("search", 0.0), ("random", -10.0))
    for number, (x, y, z) in enumerate(WAY)
    for seed in (0, 1)
]  # fmt: skip


def named(axes: Any, label: str) -> list[Any]:
    return [line for line in axes.lines if line.get_label() == label]


def test_a_path_joins_the_points_in_their_order_and_rings_the_best() -> None:
    figure = path(ROWS[::-1], x="peak_lr", y="weight_decay", z="val_accuracy", panels="arm")
    first, second = figure.axes[:2]
    assert [axes.get_title() for axes in (first, second)] == ["random", "search"]
    (way,) = named(second, "_path")
    assert (list(way.get_xdata()), list(way.get_ydata())) == ([0.01, 0.02, 0.04, 0.02], [0.01, 0.01, 0.01, 0.02])
    (best,) = named(second, "_best")
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([0.02], [0.02])
    assert [text.get_text() for text in second.texts][:2] == ["start", "best, 60.5 %"]
    points = named(second, "_point")
    assert [isinstance(point.get_markerfacecolor(), str) for point in points] == [False, False, True, False]
    assert second.get_xscale() == second.get_yscale() == "log"


def test_points_that_follow_from_nothing_are_not_joined() -> None:
    figure = path(ROWS, x="peak_lr", y="weight_decay", z="val_accuracy", panels="arm", loose=["random"])
    assert [len(named(axes, "_path")) for axes in figure.axes[:2]] == [1, 0]
    assert [len(named(axes, "_point")) for axes in figure.axes[:2]] == [4, 4]


def test_markers_grow_with_a_column_and_small_ones_lie_on_large_ones() -> None:
    rows = [{**row, "momentum": (0.5, 0.9, 0.75, 0.97)[row["number"]]} for row in ROWS]
    figure = path(rows, x="peak_lr", y="weight_decay", z="val_accuracy", panels="arm", size="momentum")
    sizes = [point.get_markersize() for point in named(figure.axes[0], "_point")]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (13.0, 5.0)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["ρ = 0.5", "ρ = 0.9", "ρ = 0.97", "best", "diverged", "equal λα"]


def test_the_text_of_the_best_point_stands_where_no_point_is() -> None:
    figure = path(ROWS, x="peak_lr", y="weight_decay", z="val_accuracy", panels="arm")
    figure.draw_without_rendering()
    for axes in figure.axes[:2]:
        (text,) = (text for text in axes.texts if text.get_text().startswith("best"))
        box = text.get_window_extent()
        for point in named(axes, "_point"):
            across, up = axes.transData.transform(point.get_xydata())[0]
            assert not (box.x0 <= across <= box.x1 and box.y0 <= up <= box.y1)


def test_thin_lines_are_those_of_an_equal_product() -> None:
    axes = path(ROWS, x="peak_lr", y="weight_decay", z="val_accuracy", panels="arm").axes[0]
    products = [np.multiply(line.get_xdata(), line.get_ydata()) for line in named(axes, "_equal")]
    assert all(np.ptp(product) == pytest.approx(0, abs=1e-12) for product in products)
    assert np.diff(np.log([product[0] for product in products])) == pytest.approx(math.log(4))


def test_progress_shows_the_test_accuracy_of_what_is_best_on_held_out_images() -> None:
    rows = [
        {"arm": "a", "number": number, "seed": 0, "val_accuracy": val, "test_accuracy": test, "status": "finished"}
        for number, (val, test) in enumerate([(10.0, 11.0), (30.0, 25.0), (20.0, 90.0), (31.0, 24.0)])
    ]
    axes = progress(rows, y="test_accuracy", select_by="val_accuracy").axes[0]
    (line,) = named(axes, "_best")
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [11.0, 25.0, 25.0, 24.0]
    assert line.get_drawstyle() == "steps-post"


def test_points_without_an_order_are_a_level_at_their_best() -> None:
    rows = [
        {"arm": arm, "number": number, "peak_lr": lr, "seed": 0, "val_accuracy": val, "test_accuracy": test,
         "status": "finished"}
        for arm, number, lr, val, test in [
            ("a", 0, 0.1, 10.0, 11.0), ("a", 1, 0.2, 30.0, 25.0),
            ("grid", None, 0.1, 40.0, 38.0), ("grid", None, 0.4, 20.0, 50.0),
        ]
    ]  # fmt: skip
    figure = progress(rows, y="test_accuracy", select_by="val_accuracy", levels=["grid"])
    assert len(named(figure.axes[0], "_best")) == 1
    (level,) = named(figure.axes[0], "_level")
    assert list(level.get_ydata()) == [38.0, 38.0]
    legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a: 25.0 %", "grid, best of 2: 38.0 %"]


def test_lines_that_coincide_differ_in_their_dashes() -> None:
    axes = progress(ROWS, y="test_accuracy", select_by="val_accuracy").axes[0]
    first, second = named(axes, "_best")
    assert first.get_linestyle() != second.get_linestyle()


def test_a_diverged_point_is_not_the_best() -> None:
    axes = progress(ROWS, y="test_accuracy", select_by="val_accuracy").axes[0]
    search = named(axes, "_best")[1]
    assert list(search.get_ydata()) == [35.0, 45.0, 45.0, 55.0]


def test_columns_and_values_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no row has the column 'rate'"):
        path(ROWS, x="rate", y="weight_decay", z="val_accuracy")
    with pytest.raises(ValueError, match="no run has values of"):
        progress([{**row, "val_accuracy": math.nan} for row in ROWS], y="test_accuracy", select_by="val_accuracy")
