"""A run's checkpoint → accuracy, per-class table, figures: `onecycle-evaluate run=logs/runs/…`."""

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from onecycle.config.schema import TrainOptions
from onecycle.config.validate import evaluation_errors, validated
from onecycle.errors import ConfigError
from onecycle.runs.record import new_folder, read_result, write_atomically
from onecycle.runs.saved import saved_config, saved_errors

log = logging.getLogger("onecycle")


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Rebuild a run's network from its own configuration and measure it; returns the record of the evaluation.

    config: a composed conf/evaluate.yaml. On the run's own data and device the recorded accuracy is reproduced
    exactly. With `config.data` the network is measured on another data set of the same classes, normalised with the
    constants that it was trained with.

    Raises ConfigError for a folder that holds no run, a checkpoint that cannot be read, or foreign classes.
    """
    errors = evaluation_word_errors(config)
    if errors:
        raise ConfigError(errors)
    folder = Path(config.run)
    recorded = read_result(folder)
    from onecycle import build  # only now: rejected words must not wait seconds for torch
    from onecycle.runs import checkpoints, environment, summary

    summary.silence_libraries()
    saved = saved_config(folder)
    environment.prepare(saved.trainer.threads)
    with build.value_errors_as_config_errors():
        own = build.choose_precision(_own_config(config, saved, recorded or {}))
        _, dataset = build.load_dataset(own, keep=bool(config.data))
        checkpoint = folder / checkpoints.FOLDER / config.checkpoint
        checkpoint = checkpoint if checkpoint.exists() else Path(config.checkpoint)
        classifier, datamodule = build.restore(own, dataset, checkpoint, _class_names(folder, recorded))
        output = new_folder(folder / "evaluations", dataset.name)
        trainer = build.build_evaluator(own, output, figures=config.figures)
    trainer.test(classifier, datamodule, verbose=False)
    evaluation = {
        "run": str(folder), "checkpoint": str(checkpoint), "data": dataset.name, "fingerprint": dataset.fingerprint,
        "test_size": len(classifier.test_labels), "precision": own.trainer.precision,
        "test": classifier.test_metrics(), "classes": summary.per_class(classifier, datamodule.classes),
    }  # fmt: skip
    write_atomically(output / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
    summary.show_evaluation(evaluation, output, None if config.data else recorded)
    return evaluation


def evaluation_word_errors(config: DictConfig) -> list[str]:
    """What is wrong with a composed evaluation configuration, and with the run that it names; a line each."""
    lines = evaluation_errors(config)
    if any(line.startswith("run") for line in lines):
        return lines
    lines += saved_errors(Path(config.run))
    if not lines and config.data:
        from onecycle.data.subsets import training_counts  # imports numpy

        try:
            training_counts(OmegaConf.to_container(config.data.source, resolve=True))  # type: ignore[arg-type]
        except ValueError as error:
            lines += str(error).splitlines()
    return lines


def _own_config(config: DictConfig, saved: TrainOptions, recorded: dict[str, Any]) -> TrainOptions:
    """The run's configuration with the data, the device and the precision of the evaluation."""
    values = saved.model_dump(exclude_unset=True)
    if config.data:
        values["data"] |= OmegaConf.to_container(config.data, resolve=True)
    accelerator = config.accelerator or ("cpu" if recorded.get("device") == "cpu" else "auto")
    values["trainer"] |= {"accelerator": accelerator, "precision": config.precision or saved.trainer.precision}
    return validated(values)


def _class_names(folder: Path, record: dict[str, Any] | None) -> list[str]:
    """Names of the classes that the run was trained on, in the order of its logits."""
    if record is None or "classes" not in record.get("data", {}):
        raise ConfigError([f"{folder}: the run has not been finished; finish it with onecycle-train resume={folder}"])
    return list(record["data"]["classes"])
