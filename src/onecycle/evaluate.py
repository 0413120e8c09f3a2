"""A run's checkpoint → accuracy, per-class table, figures: `onecycle-evaluate run=logs/runs/…`."""

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle import config, run
from onecycle.faults import ConfigError
from onecycle.train import run_as_command, show_messages

log = logging.getLogger("onecycle")


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Rebuild a run's network from its own configuration and measure it; returns the record of the evaluation.

    On the run's own data and device the recorded accuracy is reproduced exactly. With `cfg.data` the network is
    measured on another data set of the same classes, normalised with the constants it was trained with.

    Raises ConfigError for a folder that holds no run, a checkpoint that cannot be read, or foreign classes.
    """
    folder = Path(cfg.run)
    saved = OmegaConf.create(run.read_config(folder))
    recorded = run.read_result(folder)
    problems = config.evaluation_problems(cfg, saved) or saved_problems(folder, saved)
    if problems:
        raise ConfigError(problems)
    from onecycle import assembly, closing

    closing.quiet()
    other = bool(cfg.data)
    with assembly.user_mistakes(), _missing_keys_named(folder):
        if other:
            saved.data = OmegaConf.merge(saved.data, cfg.data)
            saved.data.source = cfg.data.source
        saved.trainer.accelerator = cfg.accelerator
        saved.trainer.precision = cfg.precision or saved.trainer.precision
        saved = assembly.choose_precision(saved)
        _, dataset, _ = assembly.load_dataset(saved)
        classifier, datamodule = assembly.restore(saved, dataset, _checkpoint(cfg), _class_names(folder, recorded))
        output = folder / "evaluations" / f"{datetime.now():%Y-%m-%d_%H%M%S}_{dataset.name}"
        trainer = assembly.build_evaluator(saved, output, figures=cfg.figures)
    output.mkdir(parents=True)
    trainer.test(classifier, datamodule, verbose=False)
    evaluation = {
        "run": str(folder), "checkpoint": str(_checkpoint(cfg)),
        "data": dataset.name, "fingerprint": dataset.fingerprint,
        "test_size": len(classifier.test_labels), "precision": saved.trainer.precision,
        "test": classifier.test_metrics(), "classes": closing.per_class(classifier, datamodule.classes),
    }  # fmt: skip
    run.write_atomically(output / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
    closing.show_evaluation(evaluation, output, None if other else recorded)
    return evaluation


def saved_problems(folder: Path, saved: DictConfig) -> list[str]:
    """What a run could not have been configured with; a run of an older version may lack keys that are new."""
    try:
        config.check(saved)
    except ConfigError as error:
        return [f"{folder / run.CONFIG}: {line}" for line in error.problems if " is missing: " not in line]
    return []


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
    if record is None or "classes" not in record.get("data", {}):
        raise ConfigError([f"{folder}: the run has not been finished; finish it with onecycle-train resume={folder}"])
    return list(record["data"]["classes"])


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="evaluate")
def hydra_job(cfg: DictConfig) -> float:
    """One evaluation; returns the test accuracy."""
    show_messages()
    if OmegaConf.is_missing(cfg, "run"):
        raise ConfigError(["run: name a run's folder: onecycle-evaluate run=logs/runs/…"])
    return float(evaluate(cfg)["test"]["accuracy"])


def main() -> None:
    """Console entry."""
    run_as_command(hydra_job)


if __name__ == "__main__":
    main()
