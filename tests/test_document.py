"""docs/configuration.md and conf/schema.json are what the schema says today."""

import json
import re
from pathlib import Path

import pytest

from onecycle.config.compose import CONF
from onecycle.document import PAGE, SCHEMA, page, schema

FILES = [path for path in sorted(CONF.rglob("*.yaml")) if path.parent.name != "launcher" and path.stem != "evaluate"]


def test_the_page_and_the_json_schema_are_up_to_date() -> None:
    assert page() == PAGE.read_text(), "write them again: make schema"
    assert json.loads(SCHEMA.read_text()) == schema(), "write them again: make schema"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_of_conf_names_the_definition_that_it_follows(path: Path) -> None:
    pattern = r"^# yaml-language-server: \$schema=(\S+)#/definitions/(\w+)$"
    place, name = re.findall(pattern, path.read_text(), re.MULTILINE)[0]
    assert (path.parent / place).resolve() == SCHEMA.resolve()
    assert name in json.loads(SCHEMA.read_text())["definitions"]


def test_the_json_schema_takes_interpolations_and_refuses_what_the_program_refuses() -> None:
    width = schema()["definitions"]["ResNet9Options"]["properties"]["width"]["anyOf"]
    assert any({"maximum": 1024, "minimum": 1, "type": "integer"}.items() <= part.items() for part in width)
    assert {"type": "string", "pattern": r"^\$\{"} in width
