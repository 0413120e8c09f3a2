"""A new project out of this one, under a name of its own: `make new NAME=mylab DIR=../mylab`.

The name of the package stands in its files as `onecycle`, in environment variables as `ONECYCLE`, and nowhere else.
"""

import argparse
import ast
import importlib.util
import keyword
import re
import subprocess
import sys
from pathlib import Path

from onecycle.config.compose import CONF

ROOT = CONF.parent
LEFT_OUT = (
    "README.md", "docs/figures/", "docs/studies.md", "docs/benchmarks.md", "src/onecycle/new.py", "tests/test_new.py",
)  # fmt: skip
STUDIES = (
    "src/onecycle/studies/", "src/onecycle/benchmark/", "src/onecycle/document.py",
    "src/hydra_plugins/onecycle_sweepers", "src/onecycle/callbacks/pruning.py",
    "src/onecycle/callbacks/optuna_storage.py", "conf/study/", "docs/search.md", "docs/configuration.md",
    "tests/studies/", "tests/benchmark/", "tests/test_document.py",
    "tests/runs/test_launchers.py",
)  # fmt: skip
TARGETS = "study|studies|search|report|docs|benchmark|schema|plan|bundle"  # of the Makefile, which go with the studies
# What a test that needs them says.
WITH_STUDIES = re.compile(r"study|sweeper|onecycle\.benchmark|pruning", re.IGNORECASE)
README = """# NAME

This project was made from `onecycle`, a PyTorch Lightning + Hydra template.

```bash
make train                    # build .venv, download CIFAR-10, train, print the accuracy and the run's folder
make test lint                # the fast tests, the linters
make tensorboard              # curves, images, hyperparameters
```

| to replace | change |
|---|---|
| the network | `src/NAME/models/`, `conf/model/` |
| the data | `conf/data/`; a source of your own: `src/NAME/data/sources.py` |
| the recipe | `conf/experiment/`, `conf/schedule/`, `conf/optimizer/` |
| this page, the description in `pyproject.toml` | first; `LICENSE` stays for what was copied |

How to do each of them, with complete examples, is in [docs/own-project.md](docs/own-project.md).
"""


def name_error(name: str) -> str | None:
    """Why a package cannot have this name; None where it can."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return "must be a name of lower-case letters, digits and _"
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        return "is the name of a package that is installed"
    return None


def without_targets(makefile: str, targets: str) -> str:
    """A Makefile without some targets, given as alternatives of a regular expression."""
    text = re.sub(rf"^(?:#[^\n]*\n)*(?:{targets}):.*\n(?:\t.*\n)*\n?", "", makefile, flags=re.MULTILINE)
    return re.sub(r"^\.PHONY.*", lambda line: re.sub(rf" (?:{targets})\b", "", line[0]), text, flags=re.MULTILINE)


def without_studies(path: str, text: str) -> str:
    """A file's text without what only studies, searches and the benchmark need."""
    if path == "Makefile":
        text = without_targets(text, TARGETS)
        return re.sub(r"^# The studies of `make studies`.*?^(?=ARGS)", "", text, flags=re.MULTILINE | re.DOTALL)
    if path == ".ci/run":
        return re.sub(r"^# A study,.*?^(?=rm )", "", text, flags=re.MULTILINE | re.DOTALL)
    if path == "conf/train.yaml":
        return re.sub(r"^  callbacks:\n    sweep_progress:\n.*\n", "", text, flags=re.MULTILINE)
    if path == "pyproject.toml":
        return re.sub(r'^"onecycle.studies".*\n', "", text, flags=re.MULTILINE)
    if path == "src/onecycle/cli.py":
        return re.sub(r'^ *if OmegaConf\.select\(config, "study".*\n.*\n\n.*\n', "", text, flags=re.MULTILINE)
    if path == "src/onecycle/callbacks/options.py":
        return re.sub(r'^ *"onecycle.callbacks.pruning.*\n', "", text, flags=re.MULTILINE)
    if path.startswith("tests/") and path.endswith(".txt"):
        return "".join(line for line in text.splitlines(keepends=True) if not WITH_STUDIES.search(line))
    if path.startswith("tests/") and path.endswith(".py"):
        lines = text.splitlines(keepends=True)
        for node in reversed(ast.parse(text).body):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                first = min([node.lineno, *(part.lineno for part in node.decorator_list)]) - 1
                if WITH_STUDIES.search("".join(lines[first : node.end_lineno])):
                    del lines[first : node.end_lineno]
        return "".join(lines)
    return text


def copy_project(name: str, folder: Path, *, studies: bool = True) -> int:
    """Copy the project's files into `folder` under another name; returns how many.

    README and results are left out, and what links to them is text; without `studies`, so are studies,
    searches, the benchmark, and their tests.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    left_out = LEFT_OUT if studies else (*LEFT_OUT, *STUDIES)
    paths = [path for path in listed.split("\0") if path and not path.startswith(left_out)]
    gone = "|".join(re.escape(Path(path).name) for path in left_out if path.endswith(".md"))
    for path in paths:
        source, target = ROOT / path, folder / path.replace("onecycle", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
            continue
        try:
            text = source.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            target.write_bytes(source.read_bytes())
            continue
        text = without_targets(text, "new") if path == "Makefile" else text
        text = text if studies else without_studies(path, text)
        if path.endswith(".md"):
            text = re.sub(rf"\[([^\]]*)\]\((?:docs/)?(?:{gone})[^)]*\)", r"\1", text)
        if path != "LICENSE":  # which names the authors of what is copied
            text = text.replace("onecycle", name).replace("ONECYCLE", name.upper())
        target.write_text(text, encoding="utf-8")
        target.chmod(source.stat().st_mode)
    (folder / "README.md").write_text(README.replace("NAME", name), encoding="utf-8")
    return len(paths) + 1


def main() -> None:
    """Command: python -m onecycle.new NAME FOLDER [--parts all|train]."""
    parser = argparse.ArgumentParser(description="Copy this project under another name, without its results.")
    parser.add_argument("name", help="of the package")
    parser.add_argument("folder", type=Path, help="new, or empty")
    without = "train: no studies, searches, benchmark"
    parser.add_argument("--parts", choices=["all", "train"], default="all", help=without)
    arguments = parser.parse_args()
    name, folder = arguments.name, arguments.folder
    if wrong := name_error(name):
        parser.error(f"{name}: {wrong}")
    if not (ROOT / ".git").exists():
        parser.error(f"{ROOT} is no git checkout")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f"{folder}: must be a new folder")
    count = copy_project(name, folder, studies=arguments.parts == "all")
    # Imports are sorted, and lines broken, by the length of the name.
    for words in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *words, "."], cwd=folder, check=False)
    git = ["git", "-c", "init.defaultBranch=main"]
    commit = ["commit", "--quiet", "--message", f"{name}, from a template"]
    for words in (["init", "--quiet"], ["add", "--all"], commit):
        subprocess.run([*git, *words], cwd=folder, check=False)
    print(f"{name}: {count} files in {folder}. Next: cd {folder} && make train")


if __name__ == "__main__":
    main()
