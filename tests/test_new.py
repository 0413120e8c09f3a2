"""A new project out of this one, under another name."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from onecycle.new import ROOT, copy_project, name_error


@pytest.mark.parametrize("name", ["My", "1a", "a-b", "class", "json", "torch", "onecycle", ""])
def test_a_name_that_no_package_can_have_is_refused(name: str) -> None:
    assert name_error(name) is not None
    assert name_error("mylab") is None


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
@pytest.mark.parametrize("studies", [True, False])
def test_the_copy_has_the_name_in_every_place_and_no_results(studies: bool, tmp_path: Path) -> None:
    copy_project("mylab", tmp_path, studies=studies)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in paths if "onecycle" in path.name or path.parent == tmp_path / "docs" / "figures"]
    places = [path for path in paths if b"onecycle" in path.read_bytes()]
    assert {path.name for path in places} <= {"README.md", "LICENSE"}
    assert (tmp_path / "src" / "mylab" / "conf").is_symlink()
    assert (tmp_path / "src" / "mylab" / "studies").exists() == studies
    for page in (tmp_path / "docs").glob("*.md"):
        for link in re.findall(r"\]\((?!http)([\w/.-]+\.md)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("parts", ["all", "train"])
def test_in_a_new_project_make_lint_train_and_test_pass(parts: str, tmp_path: Path) -> None:
    folder = tmp_path / "mylab"
    subprocess.run([sys.executable, "-m", "onecycle.new", "mylab", folder, "--parts", parts], check=True)
    # The packages of this environment, so that nothing is downloaded; `make setup` would install them afresh.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    own = Path(sysconfig.get_path("purelib"))
    site = folder / ".venv" / own.relative_to(sys.prefix)
    (site / "shared.pth").write_text(f"{own}\n")
    python = folder / ".venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", "--editable", folder], check=True)
    for tool, program in {"ruff": Path(sys.executable).with_name("ruff"), "mypy": f"{python} -m mypy"}.items():
        (python.parent / tool).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (python.parent / tool).chmod(0o755)
    (folder / ".venv" / ".installed-python3").touch()
    for words in ("lint", "train EXPERIMENT=debug ARGS=data=synthetic", "test"):
        done = subprocess.run(["make", *words.split()], cwd=folder, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((folder / "logs" / "runs").glob("*/result.json"))) == 1
    log = subprocess.run(["git", "log", "--oneline"], cwd=folder, capture_output=True, text=True, check=True)
    assert len(log.stdout.splitlines()) == 1
