"""A run's checkpoint → accuracy, per-class table, figures: `onecycle-evaluate run=logs/runs/…`."""

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from onecycle.config.validate import evaluation_errors
from onecycle.data.options import SOURCES
from onecycle.errors import ConfigError, problems_of, reason_of
from onecycle.runs.record import new_folder, write_atomically
from onecycle.runs.saved import description

log = logging.getLogger("onecycle")


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Build a run's network with its weights and measure it on test images; returns the record of the evaluation.

    config: a composed conf/evaluate.yaml. On the run's own data and device the recorded accuracy is reproduced exactly.
    With `config.data.source` the network is measured on another data set of the same classes, normalised with the
    constants that it was trained with. The run may be a stranger's: see `read_trained`.

    Raises ConfigError for a folder that holds no run, a checkpoint that cannot be read, or foreign classes.
    """
    errors = evaluation_word_errors(config)
    if errors:
        raise ConfigError(errors)
    folder = Path(config.run)
    from onecycle import build  # only now: rejected words must not wait seconds for torch
    from onecycle.config.targets import instantiate
    from onecycle.data.sources import load
    from onecycle.data.subsets import Smaller
    from onecycle.runs import environment, summary
    from onecycle.runs.trained import read_trained

    summary.silence_libraries()
    environment.prepare(threads=None)
    with build.value_errors_as_config_errors():
        run = read_trained(folder, config.checkpoint, config.allow)
        accelerator = config.accelerator or ("cpu" if run.record.get("device") == "cpu" else "auto")
        chosen, _ = environment.choose(config.precision or run.record["precision"], environment.device_of(accelerator))
        metrics = OmegaConf.to_container(config.get("metrics") or OmegaConf.create(), resolve=True)
        source, cache = instantiate(_source(config), ("key", "decode"), "data.source"), Path(config.data.cache)
        side = config.data.side or run.description.side
        dataset = load(Smaller(source, side, cache) if side else source, cache)
        classifier, datamodule = build.for_testing(run, dataset, dict(metrics))  # type: ignore[arg-type]
        output: Path | None = None
        try:
            output = new_folder(folder / "evaluations", dataset.name)
        except ConfigError as error:  # the table is worth having all the same
            log.warning("Neither evaluation.json nor figures are written: %s", error)
        figures = config.figures and output is not None
        trainer = build.build_evaluator(accelerator, chosen, output or folder, figures=figures)
    trainer.test(classifier, datamodule, verbose=False)
    evaluation = {
        "run": str(folder), "checkpoint": str(run.checkpoint), "data": dataset.name, "fingerprint": dataset.fingerprint,
        "test_size": len(classifier.test_labels), "precision": chosen,
        "test": classifier.test_metrics(), "classes": summary.per_class(classifier, datamodule.classes),
    }  # fmt: skip
    try:
        if output:
            write_atomically(output / "evaluation.json", json.dumps(evaluation, indent=1) + "\n")
    except OSError as error:
        log.warning("%s/evaluation.json cannot be written (%s).", output, reason_of(error))
    same = dataset.fingerprint == run.record["data"].get("fingerprint")
    summary.show_evaluation(evaluation, output, run.record["test"] if same else None)
    return evaluation


def evaluation_word_errors(config: DictConfig) -> list[str]:
    """What is wrong with a composed evaluation configuration, and with the run that it names; a line each."""
    lines = evaluation_errors(config)
    if any(line.startswith("run") for line in lines):
        return lines
    lines += problems_of(lambda: description(Path(config.run)))
    if not lines:
        from onecycle.data.subsets import training_counts  # imports numpy

        try:
            training_counts(_source(config))
        except ValueError as error:
            lines += str(error).splitlines()
    return lines


def _source(config: DictConfig) -> dict[str, Any]:
    """The data set to evaluate on: the one named in `config.data`, or the run's, but in the user's own folder."""
    if config.data.get("source"):
        return dict(OmegaConf.to_container(config.data.source, resolve=True))  # type: ignore[arg-type]
    source = description(Path(config.run)).source
    if source["_target_"] not in SOURCES:
        raise ConfigError([f"data: the run's data set is of the class {source['_target_']}; choose it with data=…"])
    return {**source, "root": config.data.root} if "root" in source else source
