"""Runs that are interrupted exactly after the last step of an epoch: everything in their last checkpoint."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from helpers import only_folder, plain_values, record_of, rows
from onecycle.callbacks.divergence import Divergence
from onecycle.runs import checkpoints
from onecycle.training_run import train

EARLY = "+callbacks.early={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/loss,patience:1,min_delta:9}"
# 5 steps an epoch, 15 in all
RECIPES: dict[str, list[str]] = {
    "every epoch evaluated": ["ema={decay_per_step:0.9,every_n_steps:2}"],
    "every other": ["evaluation.every_n_epochs=2"],
    "none": ["evaluation.every_n_epochs=0"],
    "ends within an epoch": ["trainer.max_epochs=2.6"],
    "stops early, after step 10": [EARLY],
}


def last_checkpoint(folder: Path) -> Any:
    contents = checkpoints.read_checkpoint(folder / "checkpoints" / "last.ckpt")
    contents["onecycle"].pop("seconds")
    return plain_values(contents)


@pytest.mark.parametrize("recipe", RECIPES)
def test_interrupted_after_an_epoch_s_last_step_a_run_ends_with_the_same_checkpoint(
    recipe: str, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("batch_size=60", "data.val_size=20", "trainer.max_epochs=3", *RECIPES[recipe])
    train(cfg, [], sweep=tmp_path / "whole")
    whole = only_folder(tmp_path / "whole")
    original = Divergence.on_train_batch_end
    for step in (5, 10):
        with monkeypatch.context() as patch:

            def hook(self: Divergence, trainer: Any, *rest: Any, step: int = step) -> None:
                if trainer.global_step == step:
                    os.kill(os.getpid(), signal.SIGINT)
                original(self, trainer, *rest)

            patch.setattr(Divergence, "on_train_batch_end", hook)
            with pytest.raises(KeyboardInterrupt):
                train(cfg, [], sweep=tmp_path / str(step))
        folder = only_folder(tmp_path / str(step))
        assert checkpoints.newest(folder).step == step
        resumed = train(cfg, [], sweep=tmp_path / str(step))
        assert last_checkpoint(folder) == last_checkpoint(whole)
        assert rows(folder) == rows(whole)
        assert {part: resumed[part] for part in ("test", "train", "val", "steps")} == {
            part: record_of(whole)[part] for part in ("test", "train", "val", "steps")
        }


def test_the_record_s_training_loss_is_that_of_the_last_epoch(tmp_path: Path, tiny: Any) -> None:
    result = train(tiny("batch_size=64", "trainer.log_every_n_steps=5"), [])  # 5 steps an epoch
    last = [row for row in rows(only_folder(tmp_path / "runs")) if row["train/loss"]][-1]
    assert result["train"]["loss"] == pytest.approx(float(last["train/loss"]), rel=1e-5)
