"""What a `_target_` leads to and which keys it takes, read from the source: nothing of it is imported or run."""

import ast
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Signature:
    """The dotted path at which a class is defined, and the names that its constructor takes; None: any."""

    path: str
    names: tuple[str, ...] | None


class NotFoundError(ValueError):
    """No class stands behind the path; the message says what does."""


def of(target: str, depth: int = 8) -> Signature:
    """The signature of the class that a dotted path names, through the imports of the modules on the way.

    Raises NotFoundError where there is no such name, where it is not a class, or where that cannot be told.
    """
    module, rest = _module_of(target)
    if not rest:
        raise NotFoundError("it is a module, not a class")
    tree = _tree(module)
    first, *others = rest
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == first:
            if others:
                raise NotFoundError(f"it is something inside {first}, not a class of a module")
            return Signature(f"{_dotted(target, rest)}.{first}", _names(node, _dotted(target, rest), depth))
    elsewhere = _imported(tree, first, _dotted(target, rest), is_package=module.name == "__init__.py")
    if elsewhere is not None and depth:
        return of(".".join([elsewhere, *others]), depth - 1)
    raise NotFoundError(f"{_dotted(target, rest)} has no class {first}")


def _module_of(target: str) -> tuple[Path, list[str]]:
    """The file of the longest module in a dotted path, and the names behind it."""
    names = target.split(".")
    spec = importlib.util.find_spec(names[0]) if names[0].isidentifier() else None  # a top-level one is not imported
    if spec is None or spec.origin is None:
        raise NotFoundError(f"there is no module {names[0]} to read")
    file = Path(spec.origin)
    for place, name in enumerate(names[1:], start=1):
        package, module = file.parent / name / "__init__.py", file.parent / f"{name}.py"
        if file.name != "__init__.py" or not (name.isidentifier() and (_is_file(package) or _is_file(module))):
            return file, names[place:]
        file = package if package.is_file() else module
    return file, []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False


def _dotted(target: str, rest: list[str]) -> str:
    return target.removesuffix("." + ".".join(rest))


@functools.cache
def _tree(file: Path) -> ast.Module:
    if file.suffix != ".py":
        raise NotFoundError(f"{file.name} has no source to read")
    return ast.parse(file.read_text(encoding="utf-8"))


def _imported(tree: ast.Module, name: str, module: str, *, is_package: bool) -> str | None:
    """The dotted path that an import of this module gives this name, or None."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname == name:
                    return alias.name
                if alias.asname is None and alias.name.partition(".")[0] == name:
                    return name
        if isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            upwards = len(parts) - node.level + is_package
            origin = ".".join([*(parts[:upwards] if node.level else []), *([node.module] if node.module else [])])
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return f"{origin}.{alias.name}"
                if alias.name == "*" and _is_listed(origin, name):
                    return f"{origin}.{name}"
    return None


def _is_listed(module: str, name: str) -> bool:
    """Whether a module that is imported whole defines or imports a name."""
    file, rest = _module_of(module)
    if rest:
        return False
    return _imported(_tree(file), name, module, is_package=file.name == "__init__.py") is not None or any(
        isinstance(node, ast.ClassDef) and node.name == name for node in _tree(file).body
    )


def _names(node: ast.ClassDef, module: str, depth: int) -> tuple[str, ...] | None:
    """The names that the constructor of a class takes, or None where it takes any or they cannot be told."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            arguments = part.args
            if arguments.kwarg:
                return None
            return tuple(a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs][1:])
    inherited: tuple[str, ...] | None = ()
    for base in node.bases:
        shown = ast.unparse(base)
        if shown in ("ABC", "object"):
            continue
        try:
            inherited = of(f"{module}.{shown}", depth - 1).names if depth else None
        except NotFoundError:
            return None
        break
    if inherited is None or not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return inherited or None
    fields = [p.target.id for p in node.body if isinstance(p, ast.AnnAssign) and isinstance(p.target, ast.Name)]
    return (*inherited, *fields)
