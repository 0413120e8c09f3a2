import pytest
import torch

from onecycle.data.augment import Normalizer
from onecycle.data.datamodule import Batch, BatchLoader
from onecycle.data.options import AugmentOptions
from onecycle.data.sources import Split

CPU = torch.device("cpu")
COUNT = 100
# Each image is one flat colour, its own number, so that a batch tells which images it holds.
IMAGES = torch.arange(COUNT, dtype=torch.uint8)[:, None, None, None].expand(COUNT, 32, 32, 3)
SPLIT = Split(IMAGES, torch.arange(COUNT))
AUGMENTATION = AugmentOptions(crop=4, flip="random", shift=0, cutout=8)


def loader(split: Split = SPLIT, dtype: torch.dtype = torch.float32, **arguments: object) -> BatchLoader:
    settings: dict = {"batch_size": 16, "seed": 0, "device": CPU, "shuffle": True, "augmentation": AUGMENTATION}
    return BatchLoader(split, Normalizer((0.0,) * 3, (1.0,) * 3, CPU, dtype), **(settings | arguments))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=True)
    )


def test_an_epoch_holds_each_image_at_most_once_in_full_batches() -> None:
    batches = list(loader())
    assert len(batches) == len(loader()) == 6
    labels = torch.cat([batch.labels for batch in batches])
    assert len(labels.unique()) == len(labels) == 96
    # The brightest pixel is the image's own value: cutout only darkens.
    values = torch.cat([batch.images.amax((1, 2, 3)) for batch in batches])
    assert torch.equal(values.long(), labels)


def test_epochs_differ_and_equal_seeds_repeat_them_whatever_the_global_random_state() -> None:
    first = loader()
    epochs = [list(first), list(first)]
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = loader()
    assert same(epochs[0], list(again))
    assert same(epochs[1], list(again))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not same(*epochs)
    assert not same(epochs[0], list(loader(seed=1)))


@pytest.mark.parametrize("taken", [0, 1, 4, 6])
def test_a_restored_state_continues_with_the_same_batches(taken: int) -> None:
    original = loader()
    list(original)
    iterator = iter(original)
    for _ in range(taken):
        next(iterator)
    state = original.state_dict()
    rest, following = list(iterator), list(original)
    restored = loader()
    restored.load_state_dict(state)
    if taken < 6:
        assert same(rest, list(restored))
    assert same(following, list(restored))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_every_batch_of_one_process_without_overlap(world_size: int, shuffle: bool) -> None:
    settings: dict = {"batch_size": 16 if shuffle else 24, "shuffle": shuffle, "world_size": world_size}
    ranks = [list(loader(**settings, rank=rank)) for rank in range(world_size)]
    for batch, *parts in zip(list(loader(**(settings | {"world_size": 1}))), *ranks, strict=True):
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


# 99 in 33s on 4 ranks: the last batch of 1 leaves three ranks nothing. 100 in 47s on 3: the last rank has more of the
# last batch than a smaller share of a full one would be. 5 on 4 and 1 on 2: some ranks have nothing of any batch.
@pytest.mark.parametrize(
    ("batch_size", "world_size"), [(48, 3), (33, 4), (47, 3), (46, 4), (10, 4), (46, 6), (5, 4), (1, 2), (100, 7)]
)
def test_positions_tell_where_each_ranks_images_stand_in_the_split(batch_size: int, world_size: int) -> None:
    ranks = [
        loader(shuffle=False, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for rank in ranks:
        batches = list(rank)
        assert len(batches) == len(rank)
        assert torch.equal(torch.cat([batch.labels for batch in batches]), rank.positions())
    assert sorted(torch.cat([rank.positions() for rank in ranks]).tolist()) == list(range(COUNT))


def test_alternating_flip_mirrors_an_image_in_every_other_epoch() -> None:
    ramp = torch.arange(32, dtype=torch.uint8)[None, None, :, None].expand(COUNT, 32, 32, 3)
    alternating = AugmentOptions(crop=0, flip="alternating", shift=0, cutout=0)
    flips = loader(split=Split(ramp, torch.arange(COUNT)), batch_size=50, augmentation=alternating)
    epochs = []
    for _ in range(4):
        mirrored = torch.empty(COUNT, dtype=torch.bool)
        for batch in flips:
            mirrored[batch.labels] = batch.images[:, 0, 0, 0] > batch.images[:, 0, 0, -1]
        epochs.append(mirrored)
    assert torch.equal(epochs[0], ~epochs[1])
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert 30 < epochs[0].sum() < 70


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_batches_of_another_type_are_those_of_float32_rounded_once(dtype: torch.dtype) -> None:
    constants = (13.7, 5.0, 80.1), (61.3, 7.7, 50.9)
    exact, rounded = loader(), loader()
    exact.normalizer, rounded.normalizer = Normalizer(*constants, CPU), Normalizer(*constants, CPU, dtype)
    for one, other in zip(exact, rounded, strict=True):
        assert other.images.dtype == dtype
        assert other.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(one.images.to(dtype), other.images)


def test_batches_that_are_kept_stay_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onecycle.data.datamodule.AHEAD", 16 * 32 * 32)  # one batch at a time
    for dtype in (torch.float32, torch.bfloat16):
        batches = iter(loader(dtype=dtype))
        first = next(batches)
        kept = first.images.clone()
        list(batches)
        assert torch.equal(first.images, kept)


def test_batches_are_the_same_however_many_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together, in_order = list(loader()), list(loader(shuffle=False, batch_size=24))
    for images in (1, 16, 40, 64):
        monkeypatch.setattr("onecycle.data.datamodule.AHEAD", images * 32 * 32)
        assert same(together, list(loader()))
        assert same(in_order, list(loader(shuffle=False, batch_size=24)))
