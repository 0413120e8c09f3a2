"""Writes docs/configuration.md and conf/schema.json from the schema: `python -m onecycle.document`."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic.json_schema import models_json_schema

from onecycle.config.compose import CONF, register_resolvers
from onecycle.config.schema import COMPONENTS, EvaluateOptions, TrainOptions
from onecycle.config.types import Options
from onecycle.config.validate import NUMBERS, allowed_text, shown
from onecycle.runs.record import write_atomically
from onecycle.studies.study import StudyOptions

ROOT = CONF.parent
PAGE, SCHEMA = ROOT / "docs" / "configuration.md", CONF / "schema.json"
INTERPOLATION = {"type": "string", "pattern": r"^\$\{"}
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
    parts = [INTRODUCTION, "## onecycle-train\n", _table(TrainOptions, train)]
    for name, options in _groups(TrainOptions):
        defaults = train
        for key in name.split("."):
            defaults = defaults.get(key) if isinstance(defaults, Mapping) else None
        parts.append(f"### {name}\n\n{options.__doc__}\n\n{_table(options, defaults)}")
        for group, classes in COMPONENTS.items():
            if group.startswith(f"{name}."):
                parts += _components(group, classes)
    for group, classes in COMPONENTS.items():
        if any(options.model_fields for options in classes.values()) and "." not in group:
            parts += [f"### {group}\n", *_components(group, classes)]
    parts.append("## Studies\n")
    studies: list[tuple[str, type[Options]]] = [("study", StudyOptions), *_groups(StudyOptions, "study.")]
    for name, options in studies:
        parts.append(f"### {name}\n\n{options.__doc__}\n\n{_table(options)}")
    parts += ["## onecycle-evaluate\n", _table(EvaluateOptions, evaluate)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _components(group: str, classes: Mapping[str, type[Options]]) -> Iterator[str]:
    """The classes of a group; defaults are those of the first file in conf/ that names the class."""
    files = [
        (path, part)
        for path in sorted((CONF / group.partition(".")[0]).glob("*.yaml"))
        for part in _parts(yaml.safe_load(path.read_text()) or {})
    ]
    for target, options in classes.items():
        if options.model_fields:
            path, part = next((file for file in files if file[1].get("_target_") == target), (None, {}))
            where = f", `{path.relative_to(ROOT)}`" if path else ""
            yield f"#### {target.rpartition('.')[2]} (`{target}`{where})\n\n{_table(options, part)}"


def _parts(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.values():
        if isinstance(child, dict):
            yield from _parts(child)


def _groups(options: type[Options], prefix: str = "") -> Iterator[tuple[str, type[Options]]]:
    """The nested groups of a class of options, by their keys."""
    for name, field in options.model_fields.items():
        for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(kind, type) and issubclass(kind, Options):
                yield f"{prefix}{name}", kind
                yield from _groups(kind, f"{prefix}{name}.")


def _table(options: type[Options], defaults: Any = None) -> str:
    lines = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for name, field in options.model_fields.items():
        optional = {} if field.is_required() else {name: field.default}
        value = (optional | (defaults or {})).get(name, {})
        default = "" if isinstance(value, Mapping) else f"`{shown(value)}`"
        cells = [f"`{name}`", allowed_text(options, [name]), default, field.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """conf/schema.json: a JSON schema for each folder of conf/, in which every key may be left out."""
    classes: list[type[Options]] = [TrainOptions, StudyOptions]
    classes += [options for group in COMPONENTS.values() for options in group.values()]
    _, made = models_json_schema(
        [(options, "validation") for options in dict.fromkeys(classes)], ref_template="#/definitions/{model}"
    )
    definitions: dict[str, Any] = {name: _lenient(node) for name, node in made["$defs"].items()}
    for node in definitions.values():
        node.setdefault("properties", {})
        node["properties"] |= {"defaults": {"type": "array"}, "hydra": {"type": "object"}, "_target_": {}}
    for group, targets in COMPONENTS.items():
        own = [{"$ref": f"#/definitions/{options.__name__}"} for options in dict.fromkeys(targets.values())]
        foreign = {"type": "object", "properties": {"_target_": {"not": {"enum": list(targets)}}}}
        for target, options in targets.items():
            definitions[options.__name__]["properties"]["_target_"].setdefault("enum", []).append(target)
        definitions[group.rpartition(".")[2]] = {"anyOf": [*own, foreign]}
    train = definitions["TrainOptions"]["properties"]
    train |= {name: {"$ref": f"#/definitions/{name}"} for name in ("model", "schedule", "optimizer", "task")}
    definitions["DataOptions"]["properties"]["source"] = {"$ref": "#/definitions/source"}
    for group in ("callbacks", "logger", "metrics"):
        part = {"anyOf": [definitions[group], {"type": "null"}]}
        definitions[group] = {"additionalProperties": part, "properties": {"defaults": {"type": "array"}}}
        train[group] = {"$ref": f"#/definitions/{group}"}
    train["study"] = {"$ref": "#/definitions/StudyOptions"}
    for name in ("data", "trainer", "hyperparameters", "study", "train"):
        folder = "experiment" if name == "train" else name
        definitions[folder] = {"$ref": f"#/definitions/{name.capitalize()}Options"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": definitions}


def _lenient(node: Any) -> Any:
    """A JSON schema without required keys, in which a value may be an interpolation."""
    if isinstance(node, list):
        return [_lenient(part) for part in node]
    if not isinstance(node, dict):
        return node
    bounds = {NUMBERS[key]: node[key] for key in NUMBERS if key in node}
    dropped = ("required", "title", "allowed", "default", "properties", *NUMBERS)
    kept = {key: _lenient(value) for key, value in node.items() if key not in dropped}
    if "properties" in node:
        kept["properties"] = {
            name: {"anyOf": [_lenient(part), INTERPOLATION]} for name, part in node["properties"].items()
        }
    if "anyOf" in kept:
        numeric = ("integer", "number")
        kept["anyOf"] = [part | bounds if part.get("type") in numeric else part for part in kept["anyOf"]]
    return kept


def main() -> None:
    """Write both files."""
    write_atomically(PAGE, page())
    write_atomically(SCHEMA, json.dumps(schema(), indent=1) + "\n")
    print(f"Written: {PAGE.relative_to(ROOT)} and {SCHEMA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
