"""A run's checkpoint → accuracy, per-class table, figures: `onecycle-evaluate run=logs/runs/…`."""

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.config import checks as config
from onecycle.config import saved
from onecycle.config.rules import names
from onecycle.data import room
from onecycle.errors import ConfigError, config_errors_shown
from onecycle.runs import record as run
from onecycle.runs.files import write_atomically
from onecycle.train import run_as_command, show_messages

log = logging.getLogger("onecycle")


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Rebuild a run's network from its own configuration and measure it; returns the record of the evaluation.

    On the run's own data and device the recorded accuracy is reproduced exactly. With `cfg.data` the network is
    measured on another data set of the same classes, normalised with the constants it was trained with.

    Raises ConfigError for a folder that holds no run, a checkpoint that cannot be read, or foreign classes.
    """
    found = problems(cfg)
    if found:
        raise ConfigError(found)
    folder = Path(cfg.run)
    before = run.read_config(folder)
    recorded = run.read_result(folder)
    own = OmegaConf.create(before)
    from onecycle import build as assembly
    from onecycle.runs import summary as closing

    closing.quiet()
    other = bool(cfg.data)
    with assembly.value_errors_as_config_errors(), _missing_keys_named(folder):
        if other:
            own.data = OmegaConf.merge(own.data, cfg.data)
            own.data.source = cfg.data.source
        else:
            own = saved.without_its_places(own)
        own.trainer.accelerator = cfg.accelerator
        own.trainer.precision = cfg.precision or own.trainer.precision
        own = assembly.choose_precision(own)
        _, dataset, _ = assembly.load_dataset(own, keep=other)
        classifier, datamodule = assembly.restore(own, dataset, _checkpoint(cfg), _class_names(folder, recorded))
        output = folder / "evaluations" / f"{datetime.now():%Y-%m-%d_%H%M%S}_{dataset.name}"
        trainer = assembly.build_evaluator(own, output, figures=cfg.figures)
    output.mkdir(parents=True)
    trainer.test(classifier, datamodule, verbose=False)
    evaluation = {
        "run": str(folder), "checkpoint": str(_checkpoint(cfg)),
        "data": dataset.name, "fingerprint": dataset.fingerprint,
        "test_size": len(classifier.test_labels), "precision": own.trainer.precision,
        "test": classifier.test_metrics(), "classes": closing.per_class(classifier, datamodule.classes),
    }  # fmt: skip
    write_atomically(output / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
    closing.show_evaluation(evaluation, output, None if other else recorded)
    return evaluation


def problems(cfg: DictConfig, sweeping: bool = False) -> list[str]:
    """What is wrong with a composed evaluation configuration, and with the run that it names; a line each."""
    found = config.evaluation_problems(cfg)
    if any(line.startswith("run") for line in found):
        return found
    folder = Path(cfg.run)
    not_read = run.folder_problems(folder)
    # A run of an older version may lack keys that are new.
    own = [] if not_read else [ln for ln in saved.problems(run.read_config(folder)) if " is missing: " not in ln]
    found += not_read + [f"{folder / run.CONFIG}: {line}" for line in own]
    if not found and cfg.data:
        try:
            room.training_counts(config.plain(cfg.data)["source"])
        except ValueError as error:
            found += str(error).splitlines()
    return found


@contextlib.contextmanager
def _missing_keys_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"{folder / run.CONFIG}: does not describe a run ({reason})"]) from error


def _checkpoint(cfg: DictConfig) -> Path:
    inside = Path(cfg.run) / "checkpoints" / cfg.checkpoint
    return inside if inside.exists() else Path(cfg.checkpoint)


def _class_names(folder: Path, record: dict[str, Any] | None) -> list[str]:
    """Names of the classes that the run was trained on, in the order of its logits."""
    data = (record or {}).get("data")
    if record is None or not isinstance(data, dict) or "classes" not in data:
        raise ConfigError([f"{folder}: the run has not been finished; finish it with onecycle-train resume={folder}"])
    if not names(data["classes"]):
        raise ConfigError([f"{folder / run.RESULT}: data.classes must be a list of at least two different class names"])
    return list(data["classes"])


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="evaluate")
def hydra_job(cfg: DictConfig) -> float:
    """One evaluation; returns the test accuracy."""
    show_messages()
    with config_errors_shown() if HydraConfig.get().mode == RunMode.RUN else contextlib.nullcontext():
        return float(evaluate(cfg)["test"]["accuracy"])


def main() -> None:
    """Console entry."""
    run_as_command(hydra_job, "evaluate", problems)


if __name__ == "__main__":
    main()
