import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from onecycle.data.augment import NO_AUGMENTATION, Canvas, Normalizer, random_draws
from onecycle.data.options import AugmentOptions

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
PIXELS = torch.from_numpy(IMAGES)
INDICES = torch.arange(40).flip(0)
NORMALIZED = (torch.from_numpy(IMAGES).float() - torch.tensor(MEAN)) / torch.tensor(STD)


def options(crop: int = 0, flip: str = "none", shift: int = 0, cutout: int = 0) -> AugmentOptions:
    return AugmentOptions.model_validate({"crop": crop, "flip": flip, "shift": shift, "cutout": cutout})


def draws_for(augmentation: AugmentOptions, count: int = 40, seed: int = 0) -> torch.Tensor:
    return random_draws(augmentation, count, 32, 32, torch.Generator().manual_seed(seed))


def run(augmentation: AugmentOptions, draws: torch.Tensor) -> torch.Tensor:
    canvas = Canvas(PIXELS, augmentation, CPU)
    return torch.cat(list(canvas.batches(INDICES, draws, [16, 24], Normalizer(MEAN, STD, CPU))))


def reference(index: int, a: AugmentOptions, draws: torch.Tensor, place: int) -> torch.Tensor:
    """One image at a time, with pad and slices: the definition that the gather must reproduce."""
    crop_y, crop_x, flip, shift_y, shift_x, cut_y, cut_x = draws[:, place].tolist()
    image = NORMALIZED[index].permute(2, 0, 1)
    if a.crop:
        y, x = crop_y + a.crop, crop_x + a.crop
        image = pad(image, (a.crop,) * 4, mode="reflect")[:, y : y + 32, x : x + 32]
    if flip:
        image = image.flip(2)
    if a.shift:
        y, x = shift_y + a.shift, shift_x + a.shift
        image = pad(image, (a.shift,) * 4)[:, y : y + 32, x : x + 32]
    if a.cutout:
        image = image.clone()
        image[:, cut_y : cut_y + a.cutout, cut_x : cut_x + a.cutout] = 0
    return image


@pytest.mark.parametrize(
    "a",
    [
        NO_AUGMENTATION, options(crop=4), options(flip="random"), options(shift=3), options(cutout=8),
        options(4, "random", 2, 8), options(4, "alternating", 2, 8),
    ],
)  # fmt: skip
def test_a_batch_equals_the_augmentations_done_one_image_at_a_time(a: AugmentOptions) -> None:
    draws = draws_for(a)
    batch = run(a, draws)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    expected = torch.stack([reference(int(i), a, draws, place) for place, i in enumerate(INDICES)])
    torch.testing.assert_close(batch, expected, rtol=0, atol=1e-5)


def test_every_image_has_its_own_draw_over_the_whole_range() -> None:
    a = options(4, "random", 2, 8)
    draws = draws_for(a, count=20_000)
    ranges = ((-4, 4), (-4, 4), (0, 1), (-2, 2), (-2, 2), (0, 24), (0, 24))
    for values, (low, high) in zip(draws, ranges, strict=True):
        counts = torch.bincount(values - low, minlength=high - low + 1)
        assert len(counts) == high - low + 1
        expected = 20_000 / len(counts)
        assert counts.min() > expected - 6 * expected**0.5
        assert counts.max() < expected + 6 * expected**0.5
    assert (torch.corrcoef(draws.double()) - torch.eye(7)).abs().max() < 0.05


def test_one_part_switched_off_leaves_the_draws_of_the_others() -> None:
    full, part = draws_for(options(4, "random", 0, 8)), draws_for(options(4, "random"))
    assert torch.equal(full[:5], part[:5])
