"""result.json and config.yaml."""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from fuzz import mutations, trees
from fuzz.kinds import CORPUS, Kind, must, must_be_readable, regressions
from fuzz.trees import Raw
from onecycle.config import saved
from onecycle.errors import ConfigError
from onecycle.runs import fields as records
from onecycle.runs import record as run
from onecycle.studies.plan import Point
from onecycle.studies.rows import row_of

DONE = ("finished", "diverged", "pruned")
POINT = Point("a point", {}, ())
NUMBERS = tuple(map(Raw, ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "1E+2", "01", "0x1", "1_0")))
RECORDS = (
    b"", b" ", b"{}", b"[]", b"null", b"1", b'{"schema": 1}', b'{"schema": 2}', b'{"schema": 1.0}', b'{"schema": true}',
    b"\xef\xbb\xbf{}", b'{"schema": 1, "schema": 2}', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{\0}\0",
    b'{"schema": 2, "a": "\\ud800"}', b'{"schema": 1, "status": "finished"}',
)  # fmt: skip


def _mutated_record(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = rng.choice(corpus) if rng.random() < 0.2 else corpus[0]
    if rng.random() < 0.7:
        try:
            data = trees.as_json(trees.mutated(rng, json.loads(data), NUMBERS)).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            return mutations.mutated(rng, data, corpus)
        if rng.random() < 0.8:
            return data
    return mutations.mutated(rng, data, corpus)


def nodes(node: Any) -> Iterator[Any]:
    """A tree's nodes and the keys of its groups."""
    waiting = [node]
    while waiting:
        yield (node := waiting.pop())
        if isinstance(node, Mapping):
            waiting += [*node, *node.values()]
        elif isinstance(node, list):
            waiting += node


def check_record(path: Path) -> bool:
    """An accepted record can be written again, counts what can be counted, and makes a row of a study's table."""
    folder = path.parent
    path.replace(folder / run.RESULT)
    try:
        record = run.read_result(folder)
    except ConfigError as error:
        for line in error.problems:
            must_be_readable(line)
        return False
    must(record is not None and type(record["schema"]) is int and record["schema"] == 1, "its schema is not 1")
    assert record is not None
    must(json.loads(json.dumps(record, allow_nan=False)) == record, "it is not the same when it is written again")
    json.dumps(record, ensure_ascii=False).encode()
    must(record.get("status", "running") in ("running", "failed", *DONE), "its status is unknown")
    if record.get("status") in DONE:
        accuracy = record["test"]["accuracy"]
        must(type(accuracy) in (int, float) and 0 <= accuracy <= 1, f"its accuracy is {accuracy}")
        for value in (record["steps"], record["parameters"], record["data"]["train_size"]):
            must(type(value) is int and 0 <= value < 2**63, f"{value} is no count")
        must(type(record["name"]) is str and set(map(type, record["overrides"])) <= {str}, "a text is none")
        row = row_of(POINT, folder, record)
        must(math.isfinite(row["lr_per_example"]), "its learning rate is not finite")
    return True


TARGETS = (
    "os.system", "builtins.eval", "onecycle", "onecycle.", "onecycle..run", "onecycle.runs.record.Run",
    "onecycle.errors.ConfigError",
    "onecycle.runs.record.write_atomically", "onecycle.runs.checkpoints.replace_last", "onecycle.train.main",
    "onecycle.train.os.system",
    "onecycle.config.checks.Path",
    "torch.nn.Linear", "torch.nn.Module", "torch.optim.SGD", "torch.optim.Adam", "torch.load",
    "torch.hub.load", "torch.nn.modules.torch.load", "lightning.pytorch.Trainer", "lightning.pytorch.callbacks.Timer",
    "onecycle.training.schedule.Knots", "onecycle.training.schedule.Schedule", "onecycle.training.schedule.os.system",
    "onecyclé.x", "onecycle.\0",
    "onecycle.data.sources.Cifar", "onecycle.data.class_folders.ImageFolder", "onecycle.training.schedule.Constant ",
)  # fmt: skip
YAML_VALUES = (
    "${oc.env:HOME}", "${seed}", "${", "???", "${oc.eval:1}", "!!python/object/apply:os.system ['touch executed']",
    *TARGETS, *({"_target_": target} for target in TARGETS), {"_target_": "torch.nn.Linear", "in_features": 10**6,
    "out_features": 10**6}, {"_target_": "onecycle.runs.record.write_atomically", "path": "executed", "text": "x"},
    *map(Raw, (
        "!!python/object/apply:os.system ['touch executed']", "!!python/name:os.system", "&a [*a]", "*a", "&a 1",
        ".nan",
        ".inf", "-.inf", "2001-01-01", "!!binary aGk=", "!!set {a, b}", "{<<: {a: 1}}", "{<<: [1]}", "!!int a", "1:30",
        "0x10", "0o7", "1_000", "1e3", "~", "yes", "{? [a] : b}", "{1: 2}", "{null: 1}", "{.nan: 1}", "!a b", "| x",
        "'",
        "{a: 1, a: 2}", "!!str 1", "!!omap [a: 1]", "1e999", "9" * 5000, "[" * 200, "{a: " * 200, "@", "`", "%", "\t",
    )),
)  # fmt: skip
LINES = (
    "---", "...", "--- !!python/object:os.system", "%YAML 9.9", "%TAG ! tag:x,2000:", "a: &a [x, x]", "b: [*a, *a]",
    "<<: {a: 1}", "? a", "? [a, b]\n: c", "\t", "  - x", "seed: 1", "data:", "_target_: os.system", "\x85", "\ufeff",
    "_recursive_: true", "model: !!python/module:os", "#", "? " * 300, "- " * 300,
    "schedule: {_target_: onecycle.train.main}",
)  # fmt: skip
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
CONFIGS = (
    b"", b"\n", b"a", b"a: 1", b"- 1", LAUGHS.encode(), b"a: &a {b: *a}", b"[" * 5000, b"{a: " * 5000, b"? " * 5000,
    b"\xff\xfea\0", b"a: !!python/object/apply:os.system ['touch executed']", b"? [a, b]\n: c", b"a: 2001-01-01",
    b"<<: [{a: 1}]", b"a: '\\", b"a: ${b}\nb: ${a}", b"x: " + b"9" * 100_000, b"a: \"\\ud800\"",
)  # fmt: skip


def _mutated_lines(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines))
        line, key = lines[place], lines[place].partition(":")[0]
        value = rng.choice((*YAML_VALUES, *trees.VALUES))
        lines[place : place + 1] = rng.choice((
            [], [line, line], [line[1:]], [" " + line], ["  " + line], [line, rng.choice(LINES)], [key + ":"],
            [f"{key}: {value if isinstance(value, str) else trees.as_json(value)}"], [line, rng.choice(lines)],
        ))  # fmt: skip
        lines = lines or [""]
    return "\n".join(lines)


def _mutated_config(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = rng.choice(corpus) if rng.random() < 0.1 else corpus[0]
    how = rng.random()
    if how < 0.25:
        return mutations.mutated(rng, data, corpus)
    text = data.decode(errors="replace")
    if how < 0.6:
        text = _mutated_lines(rng, text)
    else:
        tree = trees.mutated(rng, _HONEST, YAML_VALUES)
        # YAML reads JSON as well, and raw texts are easier to place in it.
        text = "\n".join(f"{json.dumps(key)}: {trees.as_json(value)}" for key, value in tree.items()) \
            if isinstance(tree, dict) else trees.as_json(tree)  # fmt: skip
    return text.encode("utf-8", "surrogatepass")


def check_config(path: Path) -> bool:
    """An accepted configuration is resolved and plain, names only what may be built, and can be written again."""
    try:
        loaded = saved.load(path)
    except (OSError, ValueError) as error:
        must_be_readable(str(error))
        return False
    found = saved.problems(loaded)
    for line in found:
        must_be_readable(line)
    if found:
        return False
    again = records.config(OmegaConf.to_yaml(OmegaConf.create(loaded)))
    must(repr(again) == repr(loaded), "it is not the same when it is written again")
    for node in nodes(loaded):
        must(type(node) in (dict, list, str, int, float, bool, type(None)), f"{type(node)} is not plain")
        must(not isinstance(node, float) or math.isfinite(node), f"{node} is in it")
        must(not isinstance(node, str) or ("${" not in node and node != "???"), f"{node!r} is not resolved")
        if isinstance(node, dict):
            must(not {"_partial_", "_args_", "_recursive_", "_convert_", "_mode_"} & set(node), "it instructs Hydra")
            target = str(node.get("_target_", "onecycle.x"))
            must(target.startswith(("onecycle.", "torch.optim.", "torch.nn.", "lightning.pytorch.")), f"names {target}")
    must(type(loaded["seed"]) is int and 0 <= loaded["seed"] < 2**32, "its seed is none")
    must(type(loaded["batch_size"]) is int and loaded["batch_size"] > 0, "its batch size is none")
    must(0 < loaded["schedule"]["peak_lr"] < math.inf, "its learning rate is none")
    must(loaded["schedule"]["_target_"].startswith("onecycle.training.schedule."), "its schedule is none")
    must(
        0 <= loaded["label_smoothing"] < 1 and 0 < loaded["trainer"]["max_epochs"] < math.inf,
        "a number is out of range",
    )
    must(len(run.identity(loaded, {})) == 12, "it has no identity")
    return True


RESULT_JSON, CONFIG_YAML = (CORPUS / "result.json").read_bytes(), (CORPUS / "config.yaml").read_bytes()
_HONEST = yaml.safe_load(CONFIG_YAML)
# What stands for the curve is built while the configuration is checked.
_SCHEDULES = [
    yaml.safe_dump(_HONEST | {"schedule": schedule}).encode()
    for schedule in (
        {"_target_": "onecycle.runs.record.write_atomically", "path": "executed", "text": "x"},
        {"_target_": "onecycle.config.checks.Path.touch", "self": "executed"}, {"_target_": "onecycle.train.main"},
        {"_target_": "torch.nn.Linear", "in_features": 10**6, "out_features": 10**6},
        {"_target_": "torch.nn.Threshold", "threshold": 1, "value": 1}, {"_target_": "lightning.pytorch.Trainer"},
        {"_target_": "onecycle.training.schedule.Schedule", "peak_lr": 1.0},
        {"_target_": "onecycle.studies.rows.write_csv", "path": "executed", "table": []},
    )
]  # fmt: skip
RECORD = Kind("record", ".json", (RESULT_JSON, *regressions("record"), *RECORDS), _mutated_record, check_record)
CONFIG = Kind(
    "config", ".yaml", (CONFIG_YAML, *regressions("config"), *_SCHEDULES, *CONFIGS), _mutated_config, check_config
)
