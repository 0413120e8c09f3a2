import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet
from picture import figure_of, legends, marked, problem_of, run, tick_texts

from onecycle.studies.figures.maps import FINER, finer


def series(arm: str, values: Any, **more: Any) -> dict[str, Any]:
    return run(arm=arm, curve=values, **more)


def lists(rows: list[dict[str, Any]], **settings: Any) -> Any:
    return figure_of(rows, kind="lists", column="curve", **settings)


def ys(axes: Any, label: str) -> list[list[float]]:
    return [y for _, y in marked(axes, label)]


def test_histories_are_columns_of_metrics_smoothed(tmp_path: Path) -> None:
    rows = []
    for seed, losses in enumerate(([3.0, 1.0, 2.0], [5.0, 3.0, math.nan])):
        folder = tmp_path / str(seed)
        folder.mkdir()
        lines = "".join(f"{step},{step / 2},{loss}\n" for step, loss in enumerate(losses, start=1))
        (folder / "metrics.csv").write_text("step,epoch,train/loss\n" + lines)
        status = "diverged" if seed else "finished"
        rows.append(run(arm="a", seed=seed, folder=str(folder), status=status))
    settings = {"kind": "histories", "x": "epoch", "y": "train/loss"}
    figure = figure_of(rows, **settings)
    axes = figure.axes[0]
    assert marked(axes, "_mean") == [([0.5, 1.0, 1.5], [3.0, 1.0, 2.0])]  # without the seed that diverged
    assert marked(axes, "_seed") == [([0.5, 1.0], [5.0, 3.0])]
    ((x, y),) = marked(axes, "_diverged")
    assert (x, y[0] > 0.9) == ([1.5], True)
    assert legends(figure) == [["a", "single seed", "diverged"]]
    assert ys(figure_of(rows, **settings, smooth=3).axes[0], "_mean") == [pytest.approx([2.0, 2.0, 1.5])]


def test_seeds_of_equal_length_are_a_mean_with_a_band_of_one_sd_within_the_limits() -> None:
    figure = lists([series("a", [1.0, 2.0, 3.0]), series("a", [3.0, 4.0, 3.0], seed=1)])
    assert marked(figure.axes[0], "_mean") == [([0.0, 0.5, 1.0], [2.0, 3.0, 3.0])]
    corners = np.asarray(figure.axes[0].collections[0].get_paths()[0].vertices, float)
    assert (corners[:, 1].min(), corners[:, 1].max()) == pytest.approx((2 - math.sqrt(2), 3 + math.sqrt(2)))
    assert legends(figure) == [["a", "mean ± 1 sd"]]
    pair = [series("a", [1.0, 2.0, 2.0, 50.0, 60.0]), series("a", [1.2, 2.2, 2.2, 90.0, 80.0])]
    axes = lists(pair, y_limits=[0.5, 3.0]).axes[0]
    corners = np.concatenate([np.asarray(path.vertices, float) for path in axes.collections[0].get_paths()])
    assert (corners[:, 0].max(), axes.get_ylim()) == (0.5, (0.5, 3.0))


def test_seeds_are_faint_where_it_is_said_or_where_they_differ_in_length() -> None:
    axes = lists([series("a", [1.0, 2.0]), series("a", [3.0, 4.0])], spread="seeds").axes[0]
    assert (ys(axes, "_seed"), len(axes.collections)) == ([[1.0, 2.0], [3.0, 4.0]], 0)
    axes = lists([series("a", [1.0, 2.0, 3.0]), series("a", [3.0, 4.0])]).axes[0]
    assert (ys(axes, "_seed"), len(axes.collections)) == ([[1.0, 2.0, 3.0], [3.0, 4.0]], 0)
    ((first, second, beyond),) = ys(axes, "_mean")
    assert (first, second, math.isnan(beyond)) == (2.0, 3.0, True)  # the mean goes as far as all


def test_a_logarithmic_axis_reaches_an_exact_zero_and_none_ends_a_curve() -> None:
    axes = lists([series("a", [0.0, 0.1, 1.0])], log_y=True).axes[0]
    assert (axes.get_yscale(), ys(axes, "_mean")) == ("symlog", [[0.0, 0.1, 1.0]])
    places = axes.transData.transform([(0, 0), (0, 0.1), (0, 1.0)])[:, 1]
    assert 0 < places[1] - places[0] < places[2] - places[1]
    assert lists([series("a", [0.1, 1.0])], log_y=True).axes[0].get_yscale() == "log"
    ended = lists([series("a", [2.0, 8.0, None])], direction="accuracy").axes[0]
    ((x, y),) = marked(ended, "_diverged")
    assert (x, y[0] < 0.1, ys(ended, "_mean")) == ([1.0], True, [[2.0, 8.0]])


def test_panels_and_numbers_are_ordered_by_size() -> None:
    rows = [
        series("a", [1.0, 2.0], batch_size=batch, subset_size=size) for batch in (512, 128) for size in (50000, 3125)
    ]
    figure = lists(rows, by="subset_size", panels="batch_size", labels={"label": "images"})
    assert [axes.get_title() for axes in figure.axes] == ["N = 128", "N = 512"]
    assert legends(figure) == [["images", "3,125", "50,000"]]
    assert "curve" in problem_of([series("a", [None])], kind="lists", column="curve")
    assert "-1" in problem_of([series("a", [-1.0])], kind="lists", column="curve", log_y=True)


def norms(names: list[str], values: list[float]) -> dict[str, Any]:
    return {"0": {"layers": names, "values": values}, "1": {"layers": names, "values": values}}


def test_layers_have_the_geometric_mean_of_the_seeds_and_gaps_where_a_network_has_none() -> None:
    names = ["prep", "layer1.residual.first", "head"]
    rows = [run(arm="plain", gradient_norms=norms([names[0], names[2]], [1.0, 3.0]))]
    rows += [
        run(arm="deep", seed=seed, gradient_norms=norms(names, [first, 2.0, 0.5]))
        for seed, first in enumerate((0.01, 1.0))
    ]
    figure = figure_of(rows, kind="layers", groups={"0": "at the start", "1": "at the end"})
    assert [axes.get_title() for axes in figure.axes] == ["at the start", "at the end"]
    plain, deep = ys(figure.axes[0], "_mean")
    assert (plain[0], math.isnan(plain[1]), plain[2]) == (1.0, True, pytest.approx(3.0))
    assert deep == pytest.approx([0.1, 2.0, 0.5])
    assert ys(figure.axes[0], "_seeds") == [pytest.approx([0.01, 2.0, 0.5]), pytest.approx([1.0, 2.0, 0.5])]
    assert figure.axes[0].get_yscale() == "log"
    assert tick_texts(figure.axes[1]) == ["prep", "layer1\nbranch\nfirst", "head"]
    assert "gradient norms" in problem_of([run(arm="a", gradient_norms=None)], kind="layers", groups={"0": "first"})


def surface(top: float, gap: float | None = 1.0) -> dict[str, Any]:
    """A row for each of four a: the loss rises along a from 0.1 to `top`, along b by a factor of two."""
    rows: list[list[Any]] = [[loss * 2**b for b in range(4)] for loss in np.geomspace(0.1, top / 8, 4)]
    rows[3][3] = top if gap else None
    return {"a": [-1.5, -0.5, 0.5, 1.5], "b": [-1.5, -0.5, 0.5, 1.5], "loss": rows}


def test_surfaces_share_one_logarithmic_scale_with_direction_1_across() -> None:
    rows = [run(arm="bn", seed=seed, surface=surface(10.0)) for seed in (0, 1)] + [
        run(arm="none", surface=surface(80.0))
    ]
    figure = figure_of(rows, kind="surfaces", title="Surfaces")
    left, right, bar = figure.axes
    assert ([left.get_title(), right.get_title()], figure.get_suptitle()) == (["bn", "none"], "Surfaces (single runs)")
    filled: list[Any] = [one for axes in (left, right) for one in axes.collections if isinstance(one, QuadContourSet)]
    assert len(filled) == 4  # filled contours and their lines
    assert all((one.levels[0], one.levels[-1]) == pytest.approx((0.1, 80.0), rel=0.2) for one in filled)
    x, y = np.asarray(filled[3].get_paths()[7].vertices, float).T
    assert np.ptp(x) < np.ptp(y)  # steep where the loss rises more quickly along direction 1
    given = surface(10.0)
    a, b, loss = finer(**given)
    assert (a[::FINER], b[::FINER]) == (pytest.approx(given["a"]), pytest.approx(given["b"]))
    assert loss[::FINER, ::FINER] == pytest.approx(np.array(given["loss"]))
    assert marked(left, "_centre") == [([0.0], [0.0])]
    assert set(tick_texts(bar, "y")) >= {"1", "10"}
    assert figure_of([run(arm="a", surface=surface(10.0, gap=None))], kind="surfaces").axes[0].collections


def test_parts_of_a_step_are_in_their_order_thin_ones_together_with_shares_in_the_bar_or_after_the_total() -> None:
    long = {"norm": 45.0, "convolution": 280.0, "optimizer": 3.0, "casts": 2.0, "data": 6.0}
    short = {"convolution": 20.0, "norm": 4.0, "optimizer": 0.2, "casts": 0.1, "data": 0.6}
    rows = [run(batch_size=size, breakdown_ms=parts) for size, parts in ((512, long), (128, short))]
    figure = figure_of(rows, kind="stacked", by="batch_size", prefix="N = ")
    assert legends(figure) == [["convolution", "norm", "data", "other, each below 2 %"]]
    bars: Any = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx(
        [2000 / 24.9, 28000 / 336, 400 / 24.9, 4500 / 336, 60 / 24.9, 600 / 336, 30 / 24.9, 500 / 336]
    )
    assert [bar.get_x() + bar.get_width() for bar in bars[6:]] == pytest.approx([100, 100])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if text] == ["80%", "83%", "16%", "13%", "24.9 ms", "336 ms"]
    assert tick_texts(figure.axes[0], "y") == ["N = 128", "N = 512"]
    published = {"V100": {"convolution": 6.0, "norm": 4.0}}
    axes: Any = figure_of(rows, kind="stacked", by="batch_size", reference=published).axes[0]
    assert (axes.patches[2].get_width(), tick_texts(axes, "y")) == (60.0, ["128", "512", "V100"])
    assert "breakdown_ms" in problem_of([run(arm="a", breakdown_ms=None)], kind="stacked", by="arm")
