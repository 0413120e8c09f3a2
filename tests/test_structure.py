"""The structure of the package, read from its imports: no circles, and arrows that only lead downwards."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FILES = sorted((SOURCE / "onecycle").rglob("*.py"))
# Each layer may import what stands after it, and itself.
LAYERS = (
    ("__init__", "__main__", "document", "export", "new", "predict"), ("cli",), ("benchmark", "studies"),
    ("evaluate",), ("training_run",), ("build",), ("callbacks",), ("runs",), ("training",), ("data", "models"),
    ("config", "errors"),
)  # fmt: skip
# Classes of options stand beside their components, and the schema collects them; they import nothing but config.types.
OPTIONS = {"callbacks.options", "data.options", "models.options", "training.options", "training.schedule"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE / "onecycle").with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, at its top or anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "onecycle":
            module = node.module.removeprefix("onecycle").lstrip(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                found.add(inner if inner in MODULES else module)
    return found - {""}


MODULES = {name_of(path) for path in FILES}
GRAPH = {name_of(path): imports(path) - {name_of(path)} for path in FILES}


def test_no_module_leads_back_to_itself() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in sorted(GRAPH.get(module, ())):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(GRAPH):
        visit(module, ())


def layer(module: str) -> int:
    return next(place for place, names in enumerate(LAYERS) if module.split(".")[0] in names)


def test_imports_only_lead_downwards() -> None:
    upwards = [
        f"{module} → {other}"
        for module, others in GRAPH.items()
        for other in others
        if module and layer(other) < layer(module) and other not in OPTIONS
    ]
    assert upwards == []


@pytest.mark.parametrize("module", sorted(OPTIONS))
def test_classes_of_options_stand_on_the_types_alone(module: str) -> None:
    assert GRAPH[module] <= {"config.types"}


def test_every_file_is_short_enough_to_be_read() -> None:
    assert [str(path) for path in FILES if len(path.read_text().splitlines()) > 300] == []
    assert len(FILES) + len(list((SOURCE / "hydra_plugins").glob("*.py"))) <= 93


def test_no_two_public_functions_or_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))
    assert {name: where for name, where in places.items() if len(where) > 1 and name != "main"} == {}
