"""How often the intervals of effects hold a known truth: a section of docs/studies.md.

Command: python tests/studies/covering.py [looks] [SIMULATIONS]. `test_coverage` holds the same numbers to their limits.
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from onecycle.studies.responses import Runs
from onecycle.studies.sequential import spending
from onecycle.studies.verdicts import LEVELS, SHARE, estimate, place_of, simulated

SEEDS = (2, 3, 5, 10)
A, B, C, D = ({"arm": arm} for arm in "abcd")
Point = tuple[dict[str, Any], float, float]  # its columns, the true mean of y and the sd from run to run
Case = tuple[str, dict[str, Any], Callable[[np.random.Generator], tuple[float, list[Point]]]]
RATES = np.arange(9.0)  # log2 of them


def arms(truth: float, means: str, sds: str = "1") -> Callable[[Any], tuple[float, list[Point]]]:
    """Arms a, b, … of given means and sds (the last one for all that follow)."""
    values, spreads = [float(one) for one in means.split()], [float(one) for one in sds.split()]
    spreads += spreads[-1:] * len(values)
    points = [({"arm": arm, "val": mean}, mean, sd) for arm, mean, sd in zip("abcdef", values, spreads, strict=False)]
    return lambda drawn: (truth, points)


def curves(
    truth: float, bests: list[float], blow_ups: list[float], noise: float = 0.02
) -> Callable[[np.random.Generator], tuple[float, list[Point]]]:
    """Losses over rates that are lowest at `bests` and pass 2 at `blow_ups`, in steps; how the grid lies is chance."""

    def drawn(generator: np.random.Generator) -> tuple[float, list[Point]]:
        offset, found = generator.uniform(-0.5, 0.5), []
        for number, (best, blow_up) in enumerate(zip(bests, blow_ups, strict=True)):
            for u in RATES - offset:
                height = min(1 + 0.1 * (u - best) ** 2, 1.6) if u < (best + blow_up) / 2 else 1.0
                loss = height + 2 * float(u > blow_up) + 0.1 * max(0.0, u - best) * float(u >= (best + blow_up) / 2)
                spread = noise * (1 + 9 * float(u > blow_up - 1))
                found.append(({"n": 2.0**number, "lr": 2.0 ** round(u + offset)}, loss, spread))
        return truth, found

    return drawn


def plane(power: float, steep: float, rates: int = 9, rows: int = 4) -> Any:
    """Accuracies over rates and rows with a ridge of a power through the middle; how the grid lies is chance."""

    def drawn(generator: np.random.Generator) -> tuple[float, list[Point]]:
        centre = (rates - 1) / 2 + generator.uniform(-0.5, 0.5)
        return power, [
            ({"n": 2.0**v, "lr": 2.0**u}, 80 - steep * (u - centre - power * (v - (rows - 1) / 2)) ** 2, 0.5 + (u == 0))
            for v in range(rows) for u in range(rates)
        ]  # fmt: skip

    return drawn


def contrast(along: float, noise: float) -> Any:
    z = np.array([[80 - 2.0 * (u - v) ** 2 - along * (u + v) ** 2 for u in range(-2, 3)] for v in range(-2, 3)])

    def sd(z: Any) -> float:
        return float(np.sqrt(np.mean([np.var(np.diagonal(z, k), ddof=1) for k in range(-3, 4)])))

    points = [({"n": 2.0**j, "lr": 2.0**i}, z[j, i], noise) for j in range(5) for i in range(5)]
    return lambda drawn: (sd(z) / sd(z[:, ::-1]), points)


ACC, LINE = {"metric": "y", "of": A}, {"x": "lr", "y": "y", "by": "n"}
RIVALS = {**ACC, "against": [B, C, D]}
PLANE = {"x": "lr", "y": "n", "z": "y"}
PAIR = {"x": "lr", "y": "y", "level": 2.0}
CASES: dict[str, Case] = {
    "share of 0.9 of runs": ("value", {**ACC, "metric": SHARE}, lambda drawn: (0.9, [(A, 0.9, 0.0)])),
    "share of 0.5 of runs": ("value", {**ACC, "metric": SHARE}, lambda drawn: (0.5, [(A, 0.5, 0.0)])),
    "value": ("value", ACC, arms(1.0, "1")),
    "difference, equal sd": ("difference", {**ACC, "against": B}, arms(0.0, "0 0")),
    "difference, sd 1 and 3": ("difference", {**ACC, "against": B}, arms(0.0, "0 0", "1 3")),
    "difference, sd 1 and 10": ("difference", {**ACC, "against": B}, arms(0.0, "0 0", "1 10")),
    "difference, three equal rivals": ("difference", RIVALS, arms(0.0, "0 0 0 0")),
    "difference, three rivals, 1 sd apart": ("difference", RIVALS, arms(-1.0, "0 1 0 -1")),
    "difference, three rivals, one ahead": ("difference", RIVALS, arms(-9.0, "0 9 0 0", "1 1 3 1")),
    "gap of 0": ("gap", {**ACC, "against": B}, arms(0.0, "0 0")),
    "gap of 1 sd": ("gap", {**ACC, "against": B}, arms(1.0, "0 1")),
    "gap of 9 sd": ("gap", {**ACC, "against": B}, arms(9.0, "0 9", "1 2")),
    "ratio": ("ratio", {**ACC, "against": B}, arms(0.8, "8 10", "0.5 1")),
    "spread of 0": ("spread", {"metric": "y", "of": {"arm": list("abcde")}}, arms(0.0, "0 0 0 0 0")),
    "spread of 2 sd": ("spread", {"metric": "y", "of": {"arm": list("abcde")}}, arms(2.0, "0 0.5 1 1.5 2")),
    "spread of 9 sd": ("spread", {"metric": "y", "of": {"arm": list("abcde")}}, arms(9.0, "0 0 9 0 0", "1 2 1 1")),
    "gap ratio 0.2": ("gap_ratio", {"metric": "y", "wide": [A, B], "narrow": [C, D]}, arms(0.2, "2 0 10 0")),
    "gap ratio 0": ("gap_ratio", {"metric": "y", "wide": [A, B], "narrow": [C, D]}, arms(0.0, "0 0 10 0")),
    "gap ratio, unsure divisor": (
        "gap_ratio", {"metric": "y", "wide": [A, B], "narrow": [C, D]}, arms(1.0, "1 0 1 0")
    ),
    "order of equals": ("order", {"metric": "y", "groups": [A, B, C]}, arms(0.0, "0 0 0")),
    "order": ("order", {"metric": "y", "groups": [A, B, C]}, arms(3.0, "0 3 9")),
    "blow-up spread 0": ("blow_up_spread", {**LINE, "level": 2.0}, curves(0.0, [2, 2, 2], [6, 6, 6])),
    "blow-up spread 1.3": ("blow_up_spread", {**LINE, "level": 2.0}, curves(1.3, [2, 2, 2], [6, 5.4, 4.7])),
    "blow-up slope -1": ("blow_up_slope", {**LINE, "level": 2.0}, curves(-1.0, [2, 2, 1], [6, 5, 4])),
    "blow-up slope -0.7": ("blow_up_slope", {**LINE, "level": 2.0}, curves(-0.7, [2, 2, 1], [6, 5.3, 4.6])),
    "optimum order, equal": ("optimum_order", LINE, curves(0.0, [2, 2, 2], [6, 6, 6])),
    "optimum order, noisy": ("optimum_order", LINE, curves(0.0, [2, 2, 2], [6, 6, 6], 0.1)),
    "optimum order -0.7": ("optimum_order", LINE, curves(-0.7, [4.4, 3.7, 3], [7, 7, 7])),
    "optimum distance 1.6": (
        "optimum_distance", {**PAIR, "where": {"n": 1}, "than": {"n": 2}}, curves(1.6, [2, 3], [6, 5.4])
    ),
    "optimum to blow-up": (
        "optimum_to_blow_up", {**PAIR, "of": {"n": 1}, "against": {"n": 2}}, curves(2**-1.6, [2, 3], [6, 5.4])
    ),
    **{
        f"ridge {power:g}, {name}": ("ridge_power", PLANE, plane(power, steep))
        for power in (0.0, 1.0, -1.0, 0.5) for name, steep in (("steep", 4.0), ("flat", 0.5))
    },
    "ridge 1, best rates at the edge": ("ridge_power", PLANE, plane(1.0, 4.0, rates=5, rows=6)),
    "ridge -1, best rates at the edge": ("ridge_power", PLANE, plane(-1.0, 0.5, rates=5, rows=6)),
    "ridge contrast 0.1": ("ridge_contrast", {**PLANE, "transform": "ratio"}, contrast(0.2, 1.0)),
    "ridge contrast 0": ("ridge_contrast", {**PLANE, "transform": "ratio"}, contrast(0.0, 1.0)),
    "ridge contrast 1": ("ridge_contrast", {**PLANE, "transform": "ratio"}, contrast(2.0, 1.0)),
    "selected difference": ("selected_difference", {**ACC, "against": B, "selected_by": "val"}, arms(2.0, "2 0")),
}  # fmt: skip


def misses(name: str, seeds: int, simulations: int) -> tuple[float, float, float]:
    """How often the truth of a case lies below its interval and above it, and the median width where it has ends."""
    effect, parameters, points_of = CASES[name]
    generator, found = np.random.default_rng([zlib.crc32(name.encode()), seeds]), []
    table = pd.DataFrame([{**columns, "y": 0.0} for columns, _, _ in points_of(generator)[1]])
    runs, ordinary = Runs(table), parameters.get("metric") != SHARE
    for _ in range(simulations):
        truth, points = points_of(generator)
        means, sd = np.array([point[1:] for point in points], float).T
        if ordinary:
            result = next(simulated(runs.replaced("y", means), sd, [seeds], effect, parameters, generator))
        else:
            lost = (generator.random(seeds) < truth).astype(int)
            result = estimate(pd.DataFrame({"arm": "a", "seed": range(seeds), SHARE: lost}), effect, parameters)
        low, high = result.interval
        found.append((truth < low - 1e-9, truth > high + 1e-9, high - low))
    below, above, width = np.array(found, float).T
    return float(below.mean()), float(above.mean()), float(np.median(width))


SCHEMES = ([2, 4, 6, 8], [2, 6, 11, 16, 20], [3, 5])  # seeds at each look
SEQUENTIAL = (
    "difference, equal sd", "difference, sd 1 and 3", "difference, three equal rivals", "gap of 0", "gap of 1 sd",
    "spread of 2 sd", "gap ratio 0.2", "order of equals", "blow-up slope -0.7", "optimum distance 1.6", "ridge 1, flat",
)  # fmt: skip


def false_decisions(name: str, looks: list[int], simulations: int) -> tuple[float, float]:
    """How often any look at a growing study lies above a truth that is the bound, and how often below it."""
    effect, parameters, points_of = CASES[name]
    generator, found = np.random.default_rng([zlib.crc32(name.encode()), *looks]), []
    runs = Runs(pd.DataFrame([{**columns, "y": 0.0} for columns, _, _ in points_of(generator)[1]]))
    places = [place_of(level) if level >= LEVELS[0] else None for level in spending(looks)]
    for _ in range(simulations):
        truth, points = points_of(generator)
        means, sd = np.array([point[1:] for point in points], float).T
        sides = [
            (truth < result.lows[place] - 1e-9, truth > result.highs[place] + 1e-9)
            for result, place in zip(
                simulated(runs.replaced("y", means), sd, looks, effect, parameters, generator), places, strict=True
            )
            if place is not None
        ]
        found.append(np.any(sides, axis=0))
    above, below = np.mean(found, axis=0)
    return float(above), float(below)


def mark(name: str) -> str:
    """A mark for the cases that take long, of which there are fewer simulations."""
    return " ‡" if name.startswith(("blow-up", "optimum", "ridge")) else ""


def section_of_looks(simulations: int) -> Iterator[str]:
    """The lines of the section about seeds that are added."""
    yield "### How often studies that add seeds decide falsely\n"
    yield (
        f"In percent of {simulations} simulated studies whose effect is the bound of their claim: those in which any "
        "look found it above and, after the comma, below: each is the share of false decisions of all looks together, "
        "for claims with a bound on that side, and should be at most 5. Seeds at each look in the head. ‡: of "
        f"{simulations // 4}.\n"
    )
    heads = [", ".join(map(str, looks)) for looks in SCHEMES]
    yield f"| effect | {' | '.join(heads)} |\n|---|{'---|' * len(SCHEMES)}"
    with ProcessPoolExecutor(2) as pool:
        counts = {name: simulations // (4 if mark(name) else 1) for name in SEQUENTIAL}
        jobs = {
            (name, str(looks)): pool.submit(false_decisions, name, looks, counts[name])
            for name in SEQUENTIAL for looks in SCHEMES
        }  # fmt: skip
        for name in SEQUENTIAL:
            sides = [jobs[name, str(looks)].result() for looks in SCHEMES]
            cells = [f"{100 * above:.1f}, {100 * below:.1f}" for above, below in sides]
            yield f"| {name}{mark(name)} | {' | '.join(cells)} |"
    yield f"\n{date.today()}: `python tests/studies/covering.py looks {simulations}`"


def section(simulations: int) -> Iterator[str]:
    """The lines of the section."""
    yield "## How often the intervals hold the truth\n"
    yield (
        f"In percent of {simulations} simulated studies of n seeds: 90 % intervals that hold the true effect and, in "
        "brackets, those that lie above it and below it, a false verdict each where the bound is the truth; "
        "then the median width. Runs vary normally, in most cases with sd 1. Limits of the largest or the smallest of "
        "several are careful where these are equal, and so are those of places on a grid, which get half a step more.\n"
    )
    yield f"| effect | {' | '.join(f'n = {n}' for n in SEEDS)} |\n|---|{'---|' * len(SEEDS)}"
    with ProcessPoolExecutor(2) as pool:
        jobs = {(name, n): pool.submit(misses, name, n, simulations) for name in CASES for n in SEEDS}
        for name in CASES:
            cells = []
            for n in SEEDS:
                above, below, width = jobs[name, n].result()
                cells.append(f"{100 * (1 - below - above):.0f} ({100 * above:.1f}, {100 * below:.1f}) {width:.2g}")
            yield f"| {name} | {' | '.join(cells)} |"
    yield f"\n{date.today()}: `python tests/studies/covering.py {simulations}`"


if __name__ == "__main__":
    of_looks = sys.argv[1:2] == ["looks"]
    count = int((sys.argv[1 + of_looks :] or ["400"])[0])
    for line in (section_of_looks if of_looks else section)(count):
        print(line, flush=True)
