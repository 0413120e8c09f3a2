import math

import pytest

from onecycle.studies.selection import DivergedError, UnmeasurableError, levels, mean, measured, same, select, words

ROWS = [
    {"arm": "a", "lr": 0.1 / 128, "n": 128, "cutout": True, "status": "finished", "acc": 80.0},
    {"arm": "a", "lr": 0.2 / 256, "n": 256, "cutout": False, "status": "finished", "acc": 90.0},
    {"arm": "b", "lr": 0.4, "n": 128, "cutout": None, "status": "diverged", "acc": math.nan},
    {"arm": "c", "lr": 0.4, "status": "finished", "acc": math.nan},
]


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (0.1 + 0.2, 0.3, True), (1.0, 1 + 0.9e-6, True), (1.0, 1 + 2e-6, False), (128, 128.0, True),
        (5_000_000, 5_000_001, False), (True, 1, False), (True, True, True), ("0.4", 0.4, False), (None, None, True),
        (None, 0.0, False), (math.nan, math.nan, False), (math.inf, math.inf, True),
    ],
)  # fmt: skip
def test_cells_are_the_same_within_a_millionth(left: object, right: object, equal: bool) -> None:
    assert same(left, right) is equal
    assert same(right, left) is equal


@pytest.mark.parametrize(
    ("where", "places"),
    [
        ({}, [0, 1, 2, 3]), ({"arm": "a"}, [0, 1]), ({"arm": ["b", "c"]}, [2, 3]), ({"lr": 0.00078125}, [0, 1]),
        ({"arm": "a", "n": [128, 512]}, [0]), ({"cutout": True}, [0]), ({"cutout": None}, [2, 3]), ({"n": None}, [3]),
        ({"lr": 0.4000001}, [2, 3]), ({"lr": 0.401}, []),
    ],
)  # fmt: skip
def test_a_filter_means_the_rows_with_its_values(where: dict[str, object], places: list[int]) -> None:
    assert select(ROWS, where) == [ROWS[place] for place in places]


def test_levels_ascend_and_join_what_differs_by_rounding() -> None:
    assert levels(ROWS, "lr") == [0.00078125, 0.4]
    assert levels(ROWS, "n") == [128, 256]
    assert levels(ROWS, "arm") == ["a", "b", "c"]
    assert levels(ROWS, "acc") == [80.0, 90.0]


def test_a_filter_is_put_into_words() -> None:
    assert words({"arm": "constant 3", "lr": [0.00078125, 1.0]}) == "arm constant 3, lr 0.00078125 or 1"
    assert words({}) == words(None) == "any point"


def test_a_mean_is_over_the_rows_of_its_filter() -> None:
    assert mean(ROWS, "acc", {"arm": "a"}) == 85.0


def test_a_substitute_stands_for_a_diverged_run() -> None:
    assert measured(ROWS, "acc", {"arm": ["a", "b"]}, substitute=10.0) == [80.0, 90.0, 10.0]
    assert measured([{"loss": math.inf, "status": "finished"}], "loss", None, substitute=9.0) == [9.0]


def test_a_finite_number_of_a_diverged_run_counts() -> None:
    assert measured([{"usable_lr": 3.0, "status": "diverged"}], "usable_lr", {}) == [3.0]


@pytest.mark.parametrize(
    ("where", "kind", "reason"),
    [
        ({"arm": "b"}, DivergedError, "every run at arm b diverged"),
        ({"arm": ["a", "b"]}, DivergedError, "a run at arm a or b diverged"),
        ({"arm": "c"}, UnmeasurableError, "acc was not measured in every run at arm c"),
        ({"arm": "d"}, UnmeasurableError, "no run at arm d"),
    ],
)
def test_what_cannot_be_averaged_is_said(where: dict[str, object], kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind) as caught:
        mean(ROWS, "acc", where)
    assert str(caught.value) == reason
