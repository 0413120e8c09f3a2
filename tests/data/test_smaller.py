"""Images that are made smaller once: their values, their cache, their limits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onecycle.data import sources
from onecycle.data.sources import Synthetic, load
from onecycle.data.subsets import Smaller, data_problems
from onecycle.training_run import train

SOURCE = Synthetic(train_size=60, test_size=20, seed=3)


def test_each_pixel_is_the_rounded_mean_of_its_area_and_the_cache_is_its_own(tmp_path: Path) -> None:
    whole = load(SOURCE, tmp_path)
    small = load(Smaller(SOURCE, 16, tmp_path), tmp_path)
    for before, after in ((whole.train, small.train), (whole.test, small.test)):
        means = before.pixels.reshape(-1, 16, 2, 16, 2, 3).double().mean((2, 4))
        assert torch.equal(after.pixels, means.round().byte())
        assert torch.equal(after.labels, before.labels)
    assert small.mean == pytest.approx(whole.mean, abs=0.3)
    assert small.std[0] < whole.std[0]
    assert (small.key, small.name) == ({**whole.key, "side": 16}, whole.name)
    assert small.fingerprint != whole.fingerprint
    assert len(list(tmp_path.glob("synthetic-*/header.json"))) == 2
    sources._loaded.clear()
    assert load(Smaller(SOURCE, 16, tmp_path), tmp_path).fingerprint == small.fingerprint
    assert load(Smaller(SOURCE, 20, tmp_path), tmp_path).train.pixels.shape == (60, 20, 20, 3)
    with pytest.raises(ValueError, match=r"^data\.side=33: .*32"):
        load(Smaller(SOURCE, 33, tmp_path), tmp_path)


def test_the_side_is_part_of_the_run_and_limits_what_is_drawn(tmp_path: Path, tiny: Any) -> None:
    runs = [train(tiny(*words), [], sweep=tmp_path / "sweep") for words in ([], ["data.side=16"], ["data.side=null"])]
    assert [len({run["identity"] for run in part}) for part in (runs, runs[::2])] == [2, 1]
    for words, keys in (
        (["data.side=16", "data.augment.crop=16"], ["data.augment.crop=16"]),
        (["data.side=16", "resizing=[[0,24]]"], ["resizing="]),
        (["data.side=40"], ["data.side=40"]),
    ):
        lines = data_problems(tiny(*words).model_dump())
        assert [line.startswith(key) for line, key in zip(lines, keys, strict=True)] == [True]
