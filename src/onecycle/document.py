"""Writes docs/configuration.md and conf/schema.json from the schema: `python -m onecycle.document`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from onecycle.config.compose import CONF, register_resolvers
from onecycle.config.schema import COMPONENTS, EvaluateOptions, TrainOptions
from onecycle.config.types import Options
from onecycle.config.validate import NUMBERS, allowed_text, shown
from onecycle.runs.record import write_atomically
from onecycle.studies.study import StudyOptions

ROOT = CONF.parent
PAGE, SCHEMA = ROOT / "docs" / "configuration.md", CONF / "schema.json"
INTRODUCTION = """\
# Configuration

Every key of a configuration: what it may be, its default, and what it means. This page is written by `make schema` from
`src/onecycle/config/schema.py`, from the classes of options beside the components, and from the defaults in `conf/`.

A key is set on the command line, `onecycle-train trainer.max_epochs=10`, or in a file of `conf/`. Errors are shown all
at once, one line each, before anything is trained. Keys of a component that is not listed here are the arguments of its
constructor. Editors complete and check the files of `conf/` by `conf/schema.json`, which the same command writes.
"""


def page() -> str:
    """The text of docs/configuration.md."""
    register_resolvers()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        train = OmegaConf.to_container(compose("train", overrides=["~experiment"]), resolve=False)
        evaluate = OmegaConf.to_container(compose("evaluate"), resolve=False)
    assert isinstance(train, dict)
    parts = [INTRODUCTION, "## onecycle-train\n", _table(TrainOptions, train)]
    for name, options in _groups(TrainOptions):
        parts.append(f"### {name}\n\n{options.__doc__}\n\n{_table(options, _select(train, name))}")
        for group, classes in COMPONENTS.items():
            if group == name or group.rpartition(".")[0] == name:
                parts += _components(group, classes)
    for group, classes in COMPONENTS.items():
        if "." not in group:
            parts += [f"### {group}\n", *_components(group, classes)]
    parts.append("## Studies\n")
    studies: list[tuple[str, type[Options]]] = [("study", StudyOptions), *_groups(StudyOptions, "study.")]
    for name, options in studies:
        parts.append(f"### {name}\n\n{options.__doc__}\n\n{_table(options, {})}")
    parts += ["## onecycle-evaluate\n", _table(EvaluateOptions, evaluate)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _components(group: str, classes: Mapping[str, type[Options]]) -> Iterator[str]:
    for target, options in classes.items():
        if options.model_fields:
            file, defaults = _default_file(group, target)
            where = f", `{file.relative_to(ROOT)}`" if file else ""
            yield f"#### {target.rpartition('.')[2]} (`{target}`{where})\n\n{_table(options, defaults)}"


def _default_file(group: str, target: str) -> tuple[Path | None, Mapping[str, Any]]:
    """The first file of conf/ that names a class, and the keys beside it."""
    for path in sorted((CONF / group.partition(".")[0]).glob("*.yaml")):
        waiting = [yaml.safe_load(path.read_text()) or {}]
        while waiting:
            node = waiting.pop()
            if node.get("_target_") == target:
                return path, node
            waiting += [child for child in node.values() if isinstance(child, dict)]
    return None, {}


def _groups(options: type[Options], prefix: str = "") -> Iterator[tuple[str, type[Options]]]:
    """The nested groups of a class of options, by their keys."""
    for name, field in options.model_fields.items():
        for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(kind, type) and issubclass(kind, Options):
                yield f"{prefix}{name}", kind
                yield from _groups(kind, f"{prefix}{name}.")


def _table(options: type[Options], defaults: Any) -> str:
    lines = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for name, field in options.model_fields.items():
        value = defaults.get(name, field.default) if isinstance(defaults, Mapping) else field.default
        known = not isinstance(value, Mapping) and (name in (defaults or {}) or not field.is_required())
        cells = [
            f"`{name}`",
            allowed_text(options, [name]),
            f"`{shown(value)}`" if known else "",
            field.description or "",
        ]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _select(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node.get(name, {}) if isinstance(node, Mapping) else {}
    return node


def schema() -> dict[str, Any]:
    """conf/schema.json: a JSON schema for each folder of conf/, in which every key may be left out."""
    train = _lenient(TrainOptions)
    groups = train.pop("properties")
    definitions: dict[str, Any] = {}
    for group, classes in COMPONENTS.items():
        definitions[group] = {"anyOf": [_of_class(target, options) for target, options in classes.items()] + [
            {"type": "object", "properties": {"_target_": {"not": {"enum": list(classes)}}}}]}  # fmt: skip
    hydra = {"defaults": {"type": "array"}, "hydra": {"type": "object"}}
    data = dict(groups["data"]["properties"]) | {"source": definitions.pop("data.source")}
    components = {name: {"type": "object", "additionalProperties": {"anyOf": [definitions[name], {"type": "null"}]}}
                  for name in ("callbacks", "logger")}  # fmt: skip
    files = {
        **{name: definitions[name] for name in ("model", "schedule", "optimizer")}, **components,
        "data": {"type": "object", "properties": data, "additionalProperties": False},
        "trainer": groups["trainer"], "hyperparameters": groups["hyperparameters"],
    }  # fmt: skip
    everything = groups | {name: {"$ref": f"#/definitions/{name}"} for name in files}
    everything["study"] = {"$ref": "#/definitions/study"}
    files |= {
        "study": _lenient(StudyOptions),
        "experiment": {"type": "object", "properties": everything, "additionalProperties": False},
    }
    for node in files.values():
        if node.get("type") == "object":
            node.setdefault("properties", {})
            node["properties"] = node["properties"] | hydra | {"_target_": {"type": "string"}}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": files}


def _of_class(target: str, options: type[Options]) -> dict[str, Any]:
    node = _lenient(options)
    extra = {"_target_": {"const": target}, "defaults": {"type": "array"}}
    return node | {"properties": node.get("properties", {}) | extra, "title": target}


def _lenient(options: type[Options]) -> dict[str, Any]:
    """A class's JSON schema without required keys and references; values may be interpolations."""
    root = options.model_json_schema()

    def made(node: Any) -> Any:
        if isinstance(node, list):
            return [made(part) for part in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return made(root["$defs"][node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"})
        dropped = ("required", "title", "allowed", "$defs", "default", *NUMBERS)
        kept = {key: made(value) for key, value in node.items() if key not in dropped}
        if "properties" in node:
            kept["properties"] = {name: made(child) for name, child in node["properties"].items()}
        bounds = {NUMBERS[key]: node[key] for key in NUMBERS if key in node}
        if bounds and "anyOf" in kept:
            kept["anyOf"] = [
                part | bounds if part.get("type") in ("integer", "number") else part for part in kept["anyOf"]
            ]
        if "properties" not in kept and kept.get("type") != "object":
            description = {"description": kept.pop("description")} if "description" in kept else {}
            return {"anyOf": [kept, {"type": "string", "pattern": r"^\$\{"}]} | description
        return kept

    schema: dict[str, Any] = made(root)
    return schema


def main() -> None:
    """Write both files."""
    write_atomically(PAGE, page())
    write_atomically(SCHEMA, json.dumps(schema(), indent=1) + "\n")
    print(f"Written: {PAGE.relative_to(ROOT)} and {SCHEMA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
