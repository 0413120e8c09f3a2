import math
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from onecycle.studies.figures.curves import heat_map_pair, ridge, ridge_power
from onecycle.studies.verdicts import judge

LRS, SIZES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), (128, 256, 512)


def rows(slope: float, noise: float = 0.0, seeds: int = 1) -> list[dict[str, Any]]:
    """Accuracies with their ridge through λ = 0.4 at N = 256, of the given slope; quadratic in log λ across it."""
    drawn = np.random.default_rng(0)
    return [
        {"peak_lr": lr, "batch_size": size, "seed": seed, "status": "finished",
         "test_accuracy": 94 - (math.log(lr / 0.4) - math.log(size / 256) / slope) ** 2 + noise * drawn.normal()}
        for lr in LRS for size in SIZES for seed in range(seeds)
    ]  # fmt: skip


def draw(table: list[dict[str, Any]], transform: Any = "ratio", **settings: Any) -> Figure:
    return heat_map_pair(table, x="peak_lr", y="batch_size", z="test_accuracy", transform=transform, **settings)


def mesh(figure: Figure, panel: int) -> QuadMesh:
    (found,) = (child for child in figure.axes[panel].collections if isinstance(child, QuadMesh))
    return found


@pytest.mark.parametrize("slope", [1.0, -1.0, 2.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_power_of_a_known_ridge_is_found(slope: float, noise: float) -> None:
    points = ridge(rows(slope, noise, seeds=3), "peak_lr", "batch_size", "test_accuracy")
    assert [y for _, y in points] == list(SIZES)
    assert 1 / ridge_power(points) == pytest.approx(slope, abs=0.05 * abs(slope))


def test_the_ridge_lies_between_grid_points_where_the_parabola_says() -> None:
    points = ridge(rows(slope=1.5), "peak_lr", "batch_size", "test_accuracy")
    assert [x for x, _ in points] == pytest.approx([0.4 * 2 ** (step / 1.5) for step in (-1, 0, 1)])


def test_losses_have_their_ridge_at_the_minimum() -> None:
    table = [{**row, "test_loss": -row["test_accuracy"]} for row in rows(1.0)]
    expected = ridge(table, "peak_lr", "batch_size", "test_accuracy")
    assert ridge(table, "peak_lr", "batch_size", "test_loss") == pytest.approx(np.array(expected))
    assert ridge(table, "peak_lr", "batch_size", "test_loss", direction="accuracy") == []


def test_a_row_whose_best_is_at_the_edge_is_left_out() -> None:
    table = [row for row in rows(1.0) if row["batch_size"] != 512 or row["peak_lr"] <= 0.8]
    assert [y for _, y in ridge(table, "peak_lr", "batch_size", "test_accuracy")] == [128, 256]


def test_beside_a_diverged_cell_the_best_cell_itself_counts() -> None:
    table = rows(1.0)
    for row in table:
        if (row["batch_size"], row["peak_lr"]) == (256, 0.8):
            row |= {"status": "diverged", "test_accuracy": math.nan}
    assert (0.4, 256) in ridge(table, "peak_lr", "batch_size", "test_accuracy")


def test_a_flat_map_has_no_ridge() -> None:
    table = [{**row, "test_accuracy": 90.0} for row in rows(1.0)]
    points = ridge(table, "peak_lr", "batch_size", "test_accuracy")
    assert points == []
    assert math.isnan(ridge_power(points))
    assert math.isnan(ridge_power([(0.1, 128)]))
    assert draw(table).axes[0].get_title() == "no ridge inside the grid\nclaimed: λ ∝ N$^{1}$"


def test_an_upright_ridge_has_the_power_zero() -> None:
    assert ridge_power([(0.1, 128), (0.1, 256), (0.1, 512)]) == pytest.approx(0.0, abs=1e-12)


def test_the_power_is_the_least_squares_slope_of_log_x_on_log_y() -> None:
    points = [(1.0, 1.0), (2.0, 5.0), (6.0, 4.0), (8.0, 20.0)]
    xs, ys = np.log(np.array(points)).T
    expected = np.sum((ys - ys.mean()) * (xs - xs.mean())) / np.sum((ys - ys.mean()) ** 2)
    assert ridge_power(points) == pytest.approx(expected)


def test_the_title_has_the_power_and_the_interval_of_the_claim() -> None:
    table = rows(2.0, noise=0.05, seeds=3)
    claim = {"id": "power", "text": "λ ∝ N", "unit": "power", "effect": "ridge_power", "x": "peak_lr",
             "y": "batch_size", "z": "test_accuracy", "at_least": 0.6}  # fmt: skip
    verdict = judge(table, claim)
    first, second = draw(table).axes[0].get_title().splitlines()
    assert first == rf"best λ ∝ N$^{{{verdict.effect:.2f} \pm {verdict.uncertainty:.2f}}}$"
    assert second == "claimed: λ ∝ N$^{1}$"


def test_numbers_stand_clear_of_the_dots_of_the_ridge_and_above_its_line() -> None:
    figure = draw(rows(1.0))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (dots,) = (line for line in axes.lines if line.get_label() == "_ridge")
    (fit,) = (line for line in axes.lines if line.get_label() == "_fit")
    for spot in axes.transData.transform(np.asarray(dots.get_xydata(), float)):
        for text in axes.texts:
            box = text.get_window_extent()
            assert not (box.x0 <= spot[0] <= box.x1 and box.y0 <= spot[1] <= box.y1)
    assert all(text.get_zorder() > max(dots.get_zorder(), fit.get_zorder()) for text in axes.texts)


def test_cells_show_the_means_over_seeds_in_a_readable_colour() -> None:
    table = rows(1.0) + [{**row, "seed": 1, "test_accuracy": row["test_accuracy"] + 1} for row in rows(1.0)]
    figure = draw(table)
    for panel in (0, 1):
        texts = figure.axes[panel].texts
        assert len(texts) == 21
        best, worst = (next(text for text in texts if text.get_text() == value) for value in ("94.5", "86.8"))
        assert best.get_color() != "white"
        assert worst.get_color() == "white"
    assert {text.get_position(): text.get_text() for text in figure.axes[0].texts}[(0.4, 256)] == "94.5"


def test_the_right_panel_shears_cells_and_texts() -> None:
    for transform, power in (("ratio", -1), ("product", 1)):
        figure = draw(rows(1.0), transform)
        left, right = (np.asarray(mesh(figure, panel).get_coordinates(), float) for panel in (0, 1))
        assert left.shape == (4, 8, 2)
        assert left[0, :, 0] == pytest.approx(0.05 * 2.0 ** (np.arange(8) - 0.5))
        assert right[..., 1] == pytest.approx(left[..., 1])
        assert right[..., 0] == pytest.approx(left[..., 0] * left[..., 1] ** power)
        assert (0.4 * 256.0**power, 256) in {text.get_position() for text in figure.axes[1].texts}
        assert figure.axes[1].get_xlabel() == {"ratio": "λ / N", "product": "λ · N"}[transform]


def test_the_fitted_ridge_is_upright_in_the_right_coordinates() -> None:
    left, right = draw(rows(1.0)).axes[:2]
    assert left.get_title() == "best λ ∝ N$^{1.00}$\nclaimed: λ ∝ N$^{1}$"
    assert right.get_title() == "upright where λ ∝ N$^{1}$"
    (fit,) = (line for line in right.lines if line.get_label() == "_fit")
    assert np.ptp(np.log(np.asarray(fit.get_xdata(), float))) < 1e-6
    (points,) = (line for line in left.lines if line.get_label() == "_ridge")
    assert np.asarray(points.get_xdata(), float) == pytest.approx([0.2, 0.4, 0.8])
    assert draw(rows(-1.0), "product").axes[0].get_title() == "best λ ∝ N$^{-1.00}$\nclaimed: λ ∝ N$^{-1}$"


def test_diverged_and_missing_cells_are_hatched_and_the_legend_tells_them_apart() -> None:
    table = [row for row in rows(1.0) if (row["peak_lr"], row["batch_size"]) != (0.05, 512)]
    table[-1] |= {"status": "diverged", "test_accuracy": math.nan}
    figure = draw(table, title="Heat")
    for axes in figure.axes[:2]:
        assert [patch.get_hatch() for patch in axes.patches] == ["////"] * 2
        assert len([line for line in axes.lines if line.get_label() == "_diverged"]) == 1
        assert len(axes.texts) == 19
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "best of each row, fit",
        "diverged",
        "no run",
    ]


def test_axes_are_logarithmic_with_the_grids_values() -> None:
    figure = draw(rows(1.0))
    figure.draw_without_rendering()
    left = figure.axes[0]
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in left.get_yticklabels()] == ["128", "256", "512"]


def test_an_unknown_transform_and_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^heat_map_pair: transform=log: must be ratio or product$"):
        draw(rows(1.0), "log")
    with pytest.raises(ValueError, match=r"^peak_lr=0 has no place on a logarithmic axis"):
        draw([{**rows(1.0)[0], "peak_lr": 0.0}])
    with pytest.raises(ValueError, match=r"^heat_map_pair: no row has the column 'loss'"):
        heat_map_pair(rows(1.0), x="peak_lr", y="batch_size", z="loss", transform="ratio")
