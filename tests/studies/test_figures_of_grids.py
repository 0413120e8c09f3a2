import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from picture import figure_of, legends, marked, problem_of, run, tick_texts

from onecycle.studies.verdicts import judge

LRS, SIZES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), (128, 256, 512)
PAIR: dict[str, Any] = {"kind": "heat_map_pair", "x": "peak_lr", "y": "batch_size", "z": "test_accuracy"}


def cells(slope: float, noise: float = 0.0, seeds: int = 1) -> list[dict[str, Any]]:
    """Accuracies with their ridge through λ = 0.4 at N = 256, of the given slope; quadratic in log λ across it."""
    drawn = np.random.default_rng(0)
    return [
        run(peak_lr=lr, batch_size=size, seed=seed,
            test_accuracy=94 - (math.log(lr / 0.4) - math.log(size / 256) / slope) ** 2 + noise * drawn.normal())
        for lr in LRS for size in SIZES for seed in range(seeds)
    ]  # fmt: skip


def test_cells_show_the_means_over_seeds_in_a_readable_colour() -> None:
    rows = cells(1.0) + [{**row, "seed": 1, "test_accuracy": row["test_accuracy"] + 1} for row in cells(1.0)]
    figure = figure_of(rows, **PAIR, transform="ratio")
    for axes in figure.axes[:2]:
        shown = {text.get_text(): text.get_color() for text in axes.texts}
        assert len(axes.texts) == 42  # above each other the mean and the sd
        assert (shown["94.5"] == "white", shown["86.8"] == "white", "±0.7" in shown) == (False, True, True)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale(), tick_texts(axes, "y")) == ("log", "log", ["128", "256", "512"])
    ((xs, heights),) = marked(axes, "_ridge")  # whose dots lie beside the numbers
    boxes = [text.get_window_extent() for text in axes.texts]
    for x, y in axes.transData.transform(list(zip(xs, heights, strict=True))):
        assert not any(box.contains(x, y) for box in boxes)
    assert figure.get_suptitle() == "n = 2"


def test_the_claimed_slope_is_seen_at_45_degrees_and_upright_after_the_change_of_variables() -> None:
    lower_end = [{**row, "test_accuracy": max(row["test_accuracy"], 88.0) - 2 * row["peak_lr"]} for row in cells(1.0)]
    figure = figure_of(lower_end, **PAIR, transform="ratio")
    figure.draw_without_rendering()
    for axes, steps in zip(figure.axes[:2], ([1.0, 1.0], [0.0, 1.0]), strict=True):
        ((x, y),) = marked(axes, "_guide")
        way = np.diff(axes.transData.transform(list(zip(x, y, strict=True))), axis=0)[0]
        assert way / np.abs(way).max() == pytest.approx(steps, abs=1e-3)
    mesh: Any = next(one for one in figure.axes[0].collections if isinstance(one, QuadMesh))
    assert mesh.norm.inverse(mesh.norm(86.8)) == pytest.approx(86.8)
    shades = np.unique(mesh.norm(mesh.get_array().ravel()).round(3))
    assert (shades[0], shades[-1], len(shades) > 15) == (0.0, 1.0, True)  # none is clipped
    (alone, bar) = figure_of(cells(1.0), **PAIR, transform="none").axes
    assert (len(marked(alone, "_ridge")), bar.get_ylabel()) == (1, "test accuracy (%)")


@pytest.mark.parametrize(("transform", "slope", "power"), [("ratio", 1.0, -1), ("product", -1.0, 1)])
def test_the_right_panel_shears_the_cells_so_that_the_ridge_is_upright(
    transform: str, slope: float, power: int
) -> None:
    left, right = figure_of(cells(slope), **PAIR, transform=transform).axes[:2]
    across, sheared = (
        np.asarray(next(one for one in axes.collections if isinstance(one, QuadMesh)).get_coordinates(), float)
        for axes in (left, right)
    )
    assert across[0, :, 0] == pytest.approx(0.05 * 2.0 ** (np.arange(8) - 0.5))
    assert sheared[..., 0] == pytest.approx(across[..., 0] * across[..., 1] ** power)
    ((fit, _),) = marked(right, "_fit")
    assert np.ptp(np.log(fit)) < 1e-6
    ((xs, heights),) = marked(left, "_ridge")
    assert (xs[1], heights) == (pytest.approx(0.4), pytest.approx(SIZES))
    assert right.get_xlabel() == {"ratio": "λ / N", "product": "λ · N"}[transform]


def test_the_title_has_the_power_and_the_interval_of_the_claim() -> None:
    rows = cells(2.0, noise=0.05, seeds=3)
    claim = {"id": "power", "text": "λ ∝ N", "unit": "power", "effect": "ridge_power", "x": "peak_lr",
             "y": "batch_size", "z": "test_accuracy", "at_least": 0.6}  # fmt: skip
    verdict = judge(pd.DataFrame(rows), claim)
    title = figure_of(rows, **PAIR, transform="ratio").axes[0].get_title()
    assert rf"{{{verdict['effect']:.2f} \pm {verdict['uncertainty']:.2f}}}" in title
    flat = [{**row, "test_accuracy": 90.0} for row in rows]
    assert "no ridge" in figure_of(flat, **PAIR, transform="ratio").axes[0].get_title()


def test_diverged_and_missing_cells_are_hatched_and_the_legend_tells_them_apart() -> None:
    rows = [row for row in cells(1.0) if (row["peak_lr"], row["batch_size"]) != (0.05, 512)]
    for row in rows:
        if (row["peak_lr"], row["batch_size"]) == (3.2, 128):
            row |= {"status": "diverged", "test_accuracy": math.nan}
    figure = figure_of(rows, **PAIR, transform="ratio")
    for axes in figure.axes[:2]:
        (void,) = (one for one in axes.collections if one.get_label() == "_void")
        assert (void.get_hatch(), len(void.get_paths())) == ("////", 2)
        shown = [text.get_text() for text in axes.texts if text.get_text()]
        assert (len(marked(axes, "_diverged")[0][0]), len(shown), "1 of 1" in shown) == (1, 20, True)
    assert legends(figure) == [["best of each row, fit", "claimed slope", "diverged", "no run"]]
    assert figure.get_suptitle() == "single runs"
    rows = [{**row, "test_loss": 100 - row["test_accuracy"]} for row in cells(1.0)]  # which are best where lowest
    axes = figure_of(rows, **PAIR | {"z": "test_loss"}, transform="ratio").axes[0]
    ((xs, _),) = marked(axes, "_ridge")
    assert xs == pytest.approx([0.2, 0.4, 0.8])


def test_what_no_heat_map_can_show_is_said() -> None:
    assert "transform=log" in problem_of(cells(1.0), **PAIR, transform="log")
    assert "peak_lr" in problem_of([{**cells(1.0)[0], "peak_lr": 0.0}], **PAIR, transform="ratio")
    mixed = [{**row, "momentum": row["peak_lr"]} for row in cells(1.0)] + [{**cells(1.0)[0], "momentum": 0.5}]
    assert "momentum" in problem_of(mixed, **PAIR, transform="ratio")


# Two seeds a point; the third point diverged with both.
WAY = [(0.01, 0.01, 40.0), (0.02, 0.01, 50.0), (0.04, 0.01, math.nan), (0.02, 0.02, 60.0)]
STEPS = [
    run(arm=arm, number=number, seed=seed, peak_lr=x, weight_decay=y, val_accuracy=z + seed + extra,
        test_accuracy=z - 5, label=f"{arm},{number},seed={seed}", momentum=(0.5, 0.9, 0.75, 0.97)[number],
        status="finished" if math.isfinite(z) else "diverged")
    for arm, extra in (("search", 0.0), ("random", -10.0)) for number, (x, y, z) in enumerate(WAY) for seed in (0, 1)
]  # fmt: skip
PATH: dict[str, Any] = {"kind": "path", "x": "peak_lr", "y": "weight_decay", "z": "val_accuracy", "panels": "arm"}
PROGRESS: dict[str, Any] = {"kind": "progress", "y": "test_accuracy", "select_by": "val_accuracy"}


def test_a_path_joins_the_points_in_their_order_and_rings_the_best() -> None:
    figure = figure_of(STEPS[::-1], **PATH, loose=["random"], size="momentum")
    loose, joined = figure.axes[:2]
    assert [axes.get_title() for axes in (loose, joined)] == ["random\nbest: 50.5 %", "search\nbest: 60.5 %"]
    assert marked(joined, "_path") == [([0.01, 0.02, 0.04, 0.02], [0.01, 0.01, 0.01, 0.02])]
    assert marked(loose, "_path") == []
    assert marked(joined, "_best") == [([0.02], [0.02])]
    points: Any = joined.collections[0]
    assert np.sqrt(points.get_sizes()) == pytest.approx([13, 31 / 3, 23 / 3, 5])
    assert list(points.get_facecolors()[:, 3]) == [1.0, 1.0, 0.0, 1.0]
    assert legends(figure) == [["ρ = 0.5", "ρ = 0.9", "ρ = 0.97", "best", "diverged", "equal λα"]]
    products = [np.multiply(x, y) for x, y in marked(joined, "_equal")]
    assert np.diff(np.log([product[0] for product in products])) == pytest.approx(math.log(4))
    assert max(np.ptp(np.log(product)) for product in products) < 1e-9


def test_progress_shows_the_test_accuracy_of_what_is_best_on_held_out_images() -> None:
    rows = [run(arm="a", number=number, label=f"a,{number},seed=0", val_accuracy=val, test_accuracy=test)
            for number, (val, test) in enumerate([(10.0, 11.0), (30.0, 25.0), (20.0, 90.0), (31.0, 24.0)])]  # fmt: skip
    rows += [run(arm="grid", number=None, label=f"grid,{val},seed=0", val_accuracy=val, test_accuracy=test)
             for val, test in [(40.0, 38.0), (20.0, 50.0)]]  # fmt: skip
    figure = figure_of(rows, **PROGRESS, levels=["grid"])
    assert marked(figure.axes[0], "_best") == [([1, 2, 3, 4], [11.0, 25.0, 25.0, 24.0])]
    assert marked(figure.axes[0], "_level")[0][1] == [38.0, 38.0]
    assert legends(figure) == [["a: 24.0 %", "grid, best of 2: 38.0 %"]]


def test_a_diverged_point_is_not_the_best_and_lines_that_coincide_differ_in_their_dashes() -> None:
    axes = figure_of(STEPS, **PROGRESS).axes[0]
    assert marked(axes, "_best")[0][1] == [35.0, 45.0, 45.0, 55.0]
    first, second = (line for line in axes.lines if line.get_label() == "_best")
    assert first.get_linestyle() != second.get_linestyle()
    lost = [{**row, "val_accuracy": math.nan} for row in STEPS]
    assert "val_accuracy" in problem_of(lost, **PROGRESS)
    assert "val_accuracy" in problem_of(lost, **PATH)


def test_a_search_that_is_repeated_has_a_path_from_each_start_and_one_line_of_their_mean_progress() -> None:
    tried = {0: [(0.01, 10.0), (0.02, 30.0), (0.04, 20.0)], 1: [(0.4, 50.0), (0.2, 40.0)]}  # the second ends earlier
    rows = [run(arm="a", start=start, seed=start, number=number, peak_lr=x, weight_decay=0.01, val_accuracy=z,
                test_accuracy=z + 1, label=f"a,{x},seed={start}")
            for start, points in tried.items() for number, (x, z) in enumerate(points)]  # fmt: skip
    rows += [run(arm="grid", start=start, seed=start, number=None, peak_lr=x, weight_decay=0.01, val_accuracy=z,
                 test_accuracy=z, label=f"grid,{x},seed={start}")
             for start, x, z in [(0, 0.1, 20.0), (0, 0.2, 10.0), (1, 0.1, 5.0), (1, 0.2, 30.0)]]  # fmt: skip
    axes = figure_of(rows[:5], **PATH).axes[0]
    assert sorted(xs for xs, _ in marked(axes, "_path")) == [[0.01, 0.02, 0.04], [0.4, 0.2]]
    assert marked(axes, "_best") == [([0.4], [0.01])]
    axes = figure_of(rows, **PROGRESS, levels=["grid"]).axes[0]
    assert marked(axes, "_best") == [([1, 2, 3], [31.0, 41.0, 41.0])]  # 11 and 51, then 31 and 51
    assert marked(axes, "_level")[0][1] == [25.0, 25.0]  # the best of each start, by its own seed
