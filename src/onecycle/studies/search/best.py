"""The best run of a search as an experiment that is ready to be used."""

from pathlib import Path

import yaml

from onecycle.config.compose import CONF
from onecycle.runs import record as run
from onecycle.runs.identity import relevant

# Groups whose choice the file replaces whole: a component's keys would otherwise mix with those of the default one.
REPLACED = ("model", "schedule", "hyperparameters", "optimizer")


def experiment(folder: Path, found_by: str) -> str:
    """The text of a conf/experiment file that trains as the run in `folder` did, name and seed aside.

    found_by: what its first lines say of it.
    """
    config = relevant(run.read_config(folder))
    del config["seed"]
    config.get("callbacks", {}).pop("pruning", None)
    record = run.read_result(folder) or {}
    data = record["data"]["name"]
    # Where the data lie is the user's own: the group of the same source says so.
    groups = {"data": data if (CONF / "data" / f"{data}.yaml").exists() else "image_folder", **dict.fromkeys(REPLACED)}
    parts = (
        {"defaults": [{f"override /{group}": choice} for group, choice in groups.items()]},
        {"name": "best", **config},
    )
    head = (
        f"# @package _global_\n# {found_by}\n"
        "# Command: onecycle-train experiment=best        (this file as conf/experiment/best.yaml)\n"
    )
    return head + "\n".join(yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for part in parts)
