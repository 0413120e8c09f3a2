"""Class-balanced, nested choices of training images that depend on nothing but the labels and a seed."""

import numpy as np


def split_indices(
    labels: np.ndarray, subset_size: int | float | None, val_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training subset and of the held-out validation images.

    The images of every class are put in one random order. Subsets take them from the front, one class after the other,
    so that a smaller subset is contained in every larger one and the class counts differ by at most one while each
    class has images left. Validation takes them in the same way from the back, so that no subset contains any of them.

    labels: int64 [n]. subset_size: a count (int), a fraction of what validation leaves (float in (0, 1]), or None
    for all of it. Returns two int64 arrays; that of a full subset is sorted.

    Raises ValueError where the sizes do not fit the n images.
    """
    size = subset_count(subset_size, val_size, len(labels))
    available = len(labels) - val_size
    front_order, back_order = _orders(labels, seed)
    val = np.sort(back_order[:val_size])
    rest = front_order[~np.isin(front_order, val)]
    subset = rest[:size]
    return (np.sort(subset) if size == available else subset), val


def subset_count(subset_size: int | float | None, val_size: int, total: int) -> int:
    """Images in a subset of `total` images of which `val_size` are held out; raises as `split_indices` does."""
    if not 0 <= val_size < total:
        raise ValueError(f"data.val_size={val_size}: with {total} training images it must be 0 … {total - 1}")
    available = total - val_size
    if subset_size is None:
        return available
    size = max(1, round(subset_size * available)) if isinstance(subset_size, float) else subset_size
    if not 1 <= size <= available or (isinstance(subset_size, float) and not 0 < subset_size <= 1):
        raise ValueError(
            f"data.subset_size={subset_size}: a count must be 1 … {available}, a fraction above 0.0 and up to 1.0 "
            f"({available} training images are left beside validation)"
        )
    return size


def _orders(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All indices in the order in which subsets, and in which validation, take them."""
    # Raw Philox output is the same in every version of numpy; the methods built on it need not be.
    shuffle, front_ties, back_ties = np.random.Philox(key=seed).random_raw(3 * len(labels)).reshape(3, -1)
    by_class = np.lexsort((shuffle, labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    rank_from_back = counts[labels] - 1 - rank
    return np.lexsort((front_ties, rank)), np.lexsort((back_ties, rank_from_back))
