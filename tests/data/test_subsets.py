import numpy as np
import pytest

from onecycle.data.subsets import split_indices

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
SKEWED = np.repeat(np.arange(3), [100, 50, 7])


@pytest.mark.parametrize("size", [1, 9, 10, 137, 2500, 4999, 5000])
def test_class_counts_of_a_subset_differ_by_at_most_one(size: int) -> None:
    subset, _ = split_indices(LABELS, size, 0, seed=3)
    counts = np.bincount(LABELS[subset], minlength=10)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1
    assert len(np.unique(subset)) == size
    subset, _ = split_indices(SKEWED, 60, 0, seed=0)
    assert sorted(np.bincount(SKEWED[subset])) == [7, 26, 27]  # balanced as far as the classes reach


def test_smaller_subsets_lie_inside_larger_ones_whatever_is_held_out() -> None:
    previous: set[int] = set()
    for size, val_size in ((10, 0), (333, 1000), (1000, 17), (3999, 1000), (4983, 17)):
        subset = set(split_indices(LABELS, size, val_size, seed=1)[0].tolist())
        assert previous < subset
        previous = subset


def test_the_seed_alone_chooses_the_images() -> None:
    first, again, other = (split_indices(LABELS, 100, 0, seed)[0] for seed in (0, 0, 1))
    assert first.tolist() == again.tolist()
    assert set(first.tolist()) != set(other.tolist())
    assert first[:5].tolist() == [670, 3767, 3556, 4381, 4845]


def test_fractions_are_of_what_validation_leaves() -> None:
    assert len(split_indices(LABELS, 0.1, 1000, seed=0)[0]) == 400
    assert len(split_indices(LABELS, 1.0, 1000, seed=0)[0]) == 4000
    assert len(split_indices(LABELS, 1, 1000, seed=0)[0]) == 1


@pytest.mark.parametrize(
    ("subset_size", "val_size", "message"),
    [
        (5001, 0, "data.subset_size=5001: .* 5000"),
        (4001, 1000, "data.subset_size=4001: .* 4000"),
        (1.5, 0, "data.subset_size=1.5"),
        (None, 5000, "data.val_size=5000"),
        (None, -1, "data.val_size=-1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(subset_size: float | None, val_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_indices(LABELS, subset_size, val_size, seed=0)
