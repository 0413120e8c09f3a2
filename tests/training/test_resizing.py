import pytest
import torch

from onecycle.training.resizing import Resizing

SIDES = Resizing([[0, 8], [0.5, 12], [0.75, 16]])


@pytest.mark.parametrize(("t", "side"), [(0.0, 8), (0.49999, 8), (0.5, 12), (0.74, 12), (0.75, 16), (1.0, 16)])
def test_a_side_holds_from_its_progress_on(t: float, side: int) -> None:
    assert SIDES(torch.zeros(2, 3, 16, 16), t).shape == (2, 3, side, side)


def test_images_of_that_side_already_are_passed_on_untouched() -> None:
    images = torch.randn(2, 3, 16, 16)
    assert SIDES(images, 0.9) is images


def test_half_the_side_weighs_the_pixels_around_each_new_one() -> None:
    # A triangle of width 2 over the old pixels around each new centre: 1, 3, 3, 1 eighths, less beyond the border.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    small = Resizing([[0, 4]])(ramp, 0.0)
    expected = torch.tensor([(0 * 3 + 1 * 3 + 2 * 1) / 7, 2.5, 4.5, (5 * 1 + 6 * 3 + 7 * 3) / 7])
    torch.testing.assert_close(small[0, 0], expected.expand(4, 4))
    assert small.is_contiguous(memory_format=torch.channels_last)
