import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from onecycle.data.augment import NO_AUGMENTATION, Augmentation, Canvas, Draws, Normalizer, draw
from onecycle.data.sources import channel_statistics, pack

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
PIXELS = torch.from_numpy(pack(IMAGES))
INDICES = torch.arange(40).flip(0)
NORMALIZED = (torch.from_numpy(IMAGES).float() - torch.tensor(MEAN)) / torch.tensor(STD)


def draws_for(augmentation: Augmentation, count: int = 40, seed: int = 0) -> Draws:
    return draw(augmentation, count, 32, 32, torch.Generator().manual_seed(seed))


def run(augmentation: Augmentation, draws: Draws) -> torch.Tensor:
    canvas = Canvas(PIXELS, augmentation, CPU)
    return canvas.gather(canvas.places(INDICES, draws), Normalizer(MEAN, STD, CPU))


def reference(index: int, a: Augmentation, d: Draws, place: int) -> torch.Tensor:
    """One image at a time, with pad and slices: the definition that the gather must reproduce."""
    image = NORMALIZED[index].permute(2, 0, 1)
    if a.crop:
        y, x = int(d.crop_y[place]) + a.crop, int(d.crop_x[place]) + a.crop
        image = pad(image, (a.crop,) * 4, mode="reflect")[:, y : y + 32, x : x + 32]
    if d.flip[place]:
        image = image.flip(2)
    if a.shift:
        y, x = int(d.shift_y[place]) + a.shift, int(d.shift_x[place]) + a.shift
        image = pad(image, (a.shift,) * 4)[:, y : y + 32, x : x + 32]
    if a.cutout:
        y, x = int(d.cut_y[place]), int(d.cut_x[place])
        image = image.clone()
        image[:, y : y + a.cutout, x : x + a.cutout] = 0
    return image


@pytest.mark.parametrize(
    "a",
    [
        NO_AUGMENTATION,
        Augmentation(4, "none", 0, 0),
        Augmentation(0, "random", 0, 0),
        Augmentation(0, "none", 3, 0),
        Augmentation(0, "none", 0, 8),
        Augmentation(4, "random", 2, 8),
    ],
)
def test_a_batch_equals_the_augmentations_done_one_image_at_a_time(a: Augmentation) -> None:
    draws = draws_for(a)
    batch = run(a, draws)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    expected = torch.stack([reference(int(i), a, draws, place) for place, i in enumerate(INDICES)])
    torch.testing.assert_close(batch, expected, rtol=0, atol=1e-5)


def test_every_image_has_its_own_draw_over_the_whole_range() -> None:
    a = Augmentation(4, "random", 2, 8)
    d = draws_for(a, count=20_000)
    for values, low, high in (
        (d.crop_y, -4, 4), (d.crop_x, -4, 4), (d.flip, 0, 1), (d.shift_y, -2, 2), (d.shift_x, -2, 2),
        (d.cut_y, 0, 24), (d.cut_x, 0, 24),
    ):  # fmt: skip
        counts = torch.bincount(values - low, minlength=high - low + 1)
        assert len(counts) == high - low + 1
        expected = 20_000 / len(counts)
        assert counts.min() > expected - 6 * expected**0.5
        assert counts.max() < expected + 6 * expected**0.5
    pairs = torch.stack([d.crop_y.double(), d.crop_x.double(), d.flip.double(), d.cut_y.double(), d.cut_x.double()])
    correlation = torch.corrcoef(pairs) - torch.eye(5)
    assert correlation.abs().max() < 0.05


def test_cutout_zeroes_exactly_its_square_in_every_image() -> None:
    a = Augmentation(0, "none", 0, 8)
    zeros = (run(a, draws_for(a)) == 0).all(1).sum((1, 2))
    assert (zeros == 64).all()


def test_one_part_switched_off_leaves_the_draws_of_the_others() -> None:
    full, part = draws_for(Augmentation(4, "random", 0, 8)), draws_for(Augmentation(4, "random", 0, 0))
    for name in ("crop_y", "crop_x", "flip"):
        assert torch.equal(getattr(full, name), getattr(part, name))


def test_statistics_are_those_of_the_images() -> None:
    mean, std = channel_statistics(IMAGES)
    np.testing.assert_allclose(mean, IMAGES.reshape(-1, 3).mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, IMAGES.reshape(-1, 3).std(0), rtol=1e-12)
    flat_images = np.full((3, 32, 32, 3), 7, dtype=np.uint8)
    assert channel_statistics(flat_images) == ([7.0] * 3, [1.0] * 3)


def test_packing_keeps_every_byte() -> None:
    assert np.array_equal(pack(IMAGES).view(np.uint8).reshape(40, 32, 32, 4)[..., :3], IMAGES)
