from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.plugins import Precision

from onecycle import build
from onecycle.runs.loggers import RunContext

Fit = Callable[..., pl.Trainer]

EVERY_STEP = {"_target_": "onecycle.callbacks.checkpoint.Checkpoint", "every_n_minutes": 1e-9}


@pytest.fixture
def fit(tiny: Any, tmp_path: Path) -> Fit:
    """Return a function that trains with the given callbacks, without record and loggers: 10 steps, 2 epochs.

    folder: where a checkpoint is written after each step, and from where the run goes on if there is one.
    number_format: one of Lightning's that no configuration takes.
    """

    def fitted(
        *callbacks: pl.Callback, overrides: tuple[str, ...] = (), folder: str | None = None, plugin: Any = None,
        number_format: str | None = None,
    ) -> pl.Trainer:  # fmt: skip
        cfg = tiny("evaluation.every_n_epochs=0", "callbacks.training_log=null", *overrides)
        parts = cfg.callbacks | {"checkpoint": EVERY_STEP if folder else None}
        cfg = cfg.model_copy(update={"logger": None, "callbacks": parts})
        cfg, dataset = build.load_dataset(cfg)
        if number_format:
            cfg = cfg.model_copy(update={"trainer": cfg.trainer.model_copy(update={"precision": number_format})})
        datamodule = build.build_datamodule(cfg, dataset)
        steps = build.total_steps(cfg, datamodule)
        classifier = build.build_classifier(cfg, datamodule, steps)
        place = tmp_path / (folder or "")
        trainer = build.build_trainer(cfg, place, steps, progress=False)
        build.attach(trainer, RunContext(place))
        trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
        if isinstance(plugin, Precision):
            trainer.strategy.precision_plugin = plugin
        checkpoint = place / "checkpoints" / "last.ckpt"
        trainer.fit(classifier, datamodule, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
        return trainer

    return fitted
