"""From a configuration to a line for each of its errors: key, value and what is allowed."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from onecycle.config.overrides import near
from onecycle.config.types import Options


def errors_of(options: type[Options], values: Any, prefix: str = "") -> list[str]:
    """A line for each key of a group that is wrong, missing or unknown. prefix: the group's own key."""
    try:
        options.model_validate(values)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for one in error.errors():
            node, path = values, [prefix] if prefix else []
            for part in one["loc"]:  # it also names the members of unions and the elements of lists
                if isinstance(node, Mapping) and part in node:
                    node = node[part]
                elif one["type"] != "missing" or part != one["loc"][-1]:
                    continue
                path.append(str(part))
            key, message = ".".join(path), one["msg"].removeprefix("Value error, ")
            if one["type"] == "extra_forbidden":
                message = f"is unknown{near(str(one['loc'][-1]), options.model_fields)}"
            lines.setdefault(key, f"{key}: {message}" if isinstance(node, Mapping) else f"{key}={node}: {message}")
        return list(lines.values())
    return []
