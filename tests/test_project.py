"""The project around the package: make, the lock file, what the README promises."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import composed_of
from onecycle.cli import training_word_errors
from onecycle.config.compose import check_words
from onecycle.runs.record import read_result

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that make needs and no environment yet."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


def fake_python(folder: Path, version: str) -> Path:
    """An interpreter that only tells its version, and is refused before anything else is asked of it."""
    path = folder / "fakepython"
    numbers = version.replace(".", ", ")
    path.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit 0\n'
        f'exec python3 -c "import sys; sys.version_info = ({numbers}, 0); $(echo "$2" | cut -c13-)"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_another_python_is_refused_in_a_sentence_before_anything_is_built(version: str, checkout: Path) -> None:
    done = make("train", f"PYTHON={fake_python(checkout, version)}", cwd=checkout)
    assert done.returncode == 2
    assert "onecycle needs Python 3.11, 3.12 or 3.13" in done.stdout
    assert f"Python {version}" in done.stdout
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_not_there_is_named(checkout: Path) -> None:
    done = make("test", "PYTHON=python-that-is-not-there", cwd=checkout)
    assert done.returncode == 2
    assert "'python-that-is-not-there' was not found" in done.stdout


def test_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    shown = make("help", cwd=ROOT).stdout
    assert targets == set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE))
    assert {"setup", "train", "test", "lint", "tensorboard", "clean", "help"} <= targets


def test_the_lock_pins_everything_by_hash_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    blocks = re.split(r"\n(?=[a-z])", lock.strip())
    assert len(blocks) > 50
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+", block), block
        assert "--hash=sha256:" in block, block
    # Some CPU builds of torch 2.13.0 have no matching torchvision.
    assert not re.search(r"^torch==2\.13\.0", lock, re.MULTILINE)


def test_every_target_experiment_and_group_that_the_readme_names_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split())
    assert set(re.findall(r"`?make ([a-z-]+)", readme)) - {"and"} <= targets
    for name in re.findall(r"EXPERIMENT=(\w+)", readme):
        assert (ROOT / "conf" / "experiment" / f"{name}.yaml").exists()
    for group, name in re.findall(r"\b(data|model|schedule|hyperparameters|trainer)=(\w+)", readme):
        assert (ROOT / "conf" / group / f"{name}.yaml").exists() or name == "mine", (group, name)


def test_the_commands_of_the_pages_have_words_that_exist() -> None:
    pages = [ROOT / name for name in ("README.md", "docs/first-hour.md", "docs/scaling.md", "docs/search.md")]
    text = "\n".join(page.read_text().replace("\\\n", " ") for page in pages if page.exists())
    command = r'^(?:\.venv/bin/)?onecycle-train (.*?)(?:  +#.*)?$|^make train ARGS="(.*)"'
    foreign = re.compile("FOLDER|my_images|hydra/launcher")
    given = ["".join(found) for found in re.findall(command, text, re.MULTILINE)]
    assert len(given) >= 5
    for words in given:
        if not foreign.search(words):
            check_words(shlex.split(words), "train", training_word_errors)


def test_a_person_s_own_defaults_hold_unless_the_command_line_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "default.yaml").write_text("# @package _global_\nseed: 7\nbatch_size: 64\n")
    config = composed_of(f"hydra.searchpath=[{tmp_path}]", "experiment=quick", "batch_size=128")
    assert (config.seed, config.batch_size, config.name) == (7, 128, "quick")
    assert composed_of("experiment=quick").seed == 0


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_an_experiment_opens_with_its_command_and_what_to_expect(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    head = "\n".join(lines[1:8])
    assert "# Command: make train" in head
    assert re.search(r"^# (Expected|Measured): .*(\d %|seconds)", head, re.MULTILINE), head
    assert composed_of(f"experiment={path.stem}").name == path.stem


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_installed_wheel_works_from_an_empty_folder(tmp_path: Path) -> None:
    source, site, here = tmp_path / "source", tmp_path / "site", tmp_path / "here"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", site, source], check=True, timeout=120)
    shutil.rmtree(source)
    here.mkdir()
    program = f"import sys; sys.path.insert(0, {str(site)!r}); from onecycle import cli; cli.{{}}_command()"

    def run(command: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program.format(command), *words],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "experiment: bag_of_tricks, baseline" in run("train", "--help")
    run("train", "experiment=debug", "data=synthetic")
    (folder,) = (here / "logs" / "runs").iterdir()
    record = read_result(folder)
    assert record is not None
    assert record["status"] == "finished"
    assert record["environment"]["git"] is None
    run("evaluate", f"run={folder.relative_to(here)}")
    run("train", "study=one_cycle", "study.scale=tiny")
    assert (here / "logs" / "studies" / "one_cycle" / "report" / "index.html").exists()
