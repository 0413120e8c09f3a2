import json
import sys
import time
from pathlib import Path

import pytest

from onecycle import audit

ROOT = Path(__file__).parents[1]
LOCK = """absl-py==2.5.1 \\
    --hash=sha256:00
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:01
"""
BILL = [{"name": "absl-py", "version": "2.5.1"}, {"name": "cffi", "version": "2.1.1"}]
CLEAN = {"name": "absl-py", "version": "2.5.1", "vulns": []}
SKIPPED = {"name": "cffi", "skip_reason": "Dependency not found: cffi (2.1.1)"}
VULNERABLE = {"name": "cffi", "version": "2.1.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1.2", "2.2"]}]}


class Tools:
    """Executables in place of the real ones: `says` is what one does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.says("cyclonedx-py", f"open(sys.argv[-1], 'w').write({json.dumps({'components': BILL})!r})")

    def says(self, name: str, program: str) -> None:
        path = self.folder / name
        path.write_text(f"#!{sys.executable}\nimport json, sys, time\n{program}\n")
        path.chmod(0o755)

    def answers(self, entries: list[object], code: int = 0) -> None:
        self.says("pip-audit", f"print({json.dumps({'dependencies': entries})!r}); sys.exit({code})")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(audit, "TOOLS", tmp_path / "bin")
    monkeypatch.setattr(sys, "argv", ["audit"])
    return Tools(tmp_path / "bin")


def result() -> dict[str, object]:
    entries = json.loads(Path("logs/audit/audit.json").read_text())
    assert isinstance(entries, dict)
    return entries


def test_versions_that_were_all_checked_end_with_0(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    tools.answers([CLEAN])
    assert audit.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "bill of materials: 2 packages in logs/audit/sbom.json",
        "vulnerabilities: clean: no known vulnerability (1 versions checked)",
    ]
    assert result() == {"status": "clean", "reason": "no known vulnerability", "checked": 1, "vulnerable": []}


@pytest.mark.parametrize("others", [[CLEAN], [CLEAN, SKIPPED]])
def test_a_known_vulnerability_is_named_and_ends_with_1(
    others: list[object], tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.answers([*others, VULNERABLE], code=1)
    assert audit.main() == 1
    line = "cffi 2.1.1: PYSEC-1, fixed in 2.1.2, 2.2"
    assert capsys.readouterr().out.splitlines()[1:] == [
        "vulnerabilities: vulnerable: 1 known vulnerabilities (2 versions checked)", f"  {line}",
    ]  # fmt: skip
    assert (result()["status"], result()["vulnerable"]) == ("vulnerable", [line])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sys.stderr.write('Traceback\\nConnectionError: no route\\n'); sys.exit(1)", "ConnectionError: no route"),
        ("sys.exit(4)", "pip-audit failed: exit code 4"),
        ("print('No known vulnerabilities found')", "pip-audit's answer cannot be read (JSONDecodeError: "),
        ("print('[]')", "pip-audit's answer cannot be read (TypeError: "),
        ("print(json.dumps({'dependencies': []}))", "0 of 0 versions are unknown"),
        (
            f"print({json.dumps({'dependencies': [CLEAN, SKIPPED]})!r})",
            "1 of 2 versions are unknown, first: Dependency not found: cffi (2.1.1)",
        ),
        ("time.sleep(60)", "pip-audit gave no answer within 0.5 s"),
    ],
    ids=["no network", "no word", "no JSON", "another JSON", "nothing", "skipped", "silence"],
)  # fmt: skip
def test_what_was_not_checked_is_said_ends_with_3_and_leaves_the_bill(
    program: str,
    reason: str,
    tools: Tools,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tools.says("pip-audit", program)
    if "sleep" in program:
        monkeypatch.setattr(audit, "TIMEOUT", 0.5)
    started = time.monotonic()
    assert audit.main() == 3
    assert time.monotonic() - started < 20
    first, second = capsys.readouterr().out.splitlines()
    assert first == "bill of materials: 2 packages in logs/audit/sbom.json"
    assert second.startswith("vulnerabilities: NOT CHECKED: ")
    assert reason in second
    assert result()["status"] == "not checked"
    assert json.loads(Path("logs/audit/sbom.json").read_text())["components"] == BILL


def test_a_tool_that_is_not_installed_is_named_with_how_to_install_it(
    tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    (tools.folder / "cyclonedx-py").unlink()
    assert audit.main() == 3
    assert capsys.readouterr().out.splitlines() == [
        f"bill of materials: NOT WRITTEN: cyclonedx-py is not installed: {audit.INSTALL}",
        f"vulnerabilities: NOT CHECKED: pip-audit is not installed: {audit.INSTALL} (0 versions checked)",
    ]


def test_a_bill_that_lacks_a_locked_version_is_no_success(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    tools.answers([CLEAN])
    tools.says("cyclonedx-py", f"open(sys.argv[-1], 'w').write({json.dumps({'components': BILL[:1]})!r})")
    assert audit.main() == 3
    assert "NOT WRITTEN: cyclonedx-py left out 1 packages, first cffi==2.1.1" in capsys.readouterr().out


def test_without_a_lock_file_the_command_says_where_to_run_it(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    Path("requirements.lock").unlink()
    with pytest.raises(SystemExit, match="2"):
        audit.main()
    assert "requirements.lock is not there; run it where the lock file is" in capsys.readouterr().err


def test_every_version_of_the_real_lock_is_read() -> None:
    lock = ROOT / "requirements.lock"
    versions = audit.locked(lock)
    assert len(versions) == sum(not line.startswith(" ") for line in lock.read_text().splitlines() if "==" in line)
    assert {name for name, _ in versions} >= {"torch", "lightning", "hydra-core", "pillow", "pip-audit"}


@pytest.mark.skipif(not (audit.TOOLS / "cyclonedx-py").exists(), reason="cyclonedx-bom is not installed")
def test_the_bill_of_the_real_lock_has_every_locked_version_and_its_hashes(tmp_path: Path) -> None:
    lock, path = ROOT / "requirements.lock", tmp_path / "sbom.json"
    assert audit.write_bill(lock, path) == len(audit.locked(lock))
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {(part["name"], part["version"]) for part in bill["components"]} == audit.locked(lock)
    assert all(part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}" for part in bill["components"])
    hashes = {h["content"] for part in bill["components"] for r in part["externalReferences"] for h in r["hashes"]}
    assert len(hashes) > 1000
    assert all(f"--hash=sha256:{digest}" in lock.read_text() for digest in sorted(hashes)[::100])
