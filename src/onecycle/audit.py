"""Known vulnerabilities of the locked versions, and a software bill of materials: `make audit`.

It leaves sbom.json (CycloneDX, every locked version, also those for other systems) and audit.json (`status`: clean,
vulnerable or not checked) in logs/audit. Its exit code is 0 where all versions were checked and none is known to be
vulnerable, 1 where one is, 3 where they could not be checked or listed; make itself ends with 2 for both, and names the
code. The database of pip-audit is a service: without a network nothing can be said, and nothing is claimed.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

TOOLS = Path(sys.executable).parent
INSTALL = "make setup, or .venv/bin/python -m pip install 'cyclonedx-bom>=7' 'pip-audit>=2.9'"
TIMEOUT = 300.0  # seconds for all versions; a service that is silent would otherwise keep one waiting for each of them
EXIT = {"clean": 0, "vulnerable": 1, "not checked": 3}


class ToolError(RuntimeError):
    """A tool that is not there, gives no answer in time, or none that can be read; the message says which and why."""


@dataclass
class Verdict:
    """status: a key of EXIT. checked: versions that the service knows. vulnerable: a line for each vulnerability."""

    status: str
    reason: str
    checked: int = 0
    vulnerable: list[str] = field(default_factory=list)


def locked(lock: Path) -> set[tuple[str, str]]:
    """Name and version of every package in a lock file."""
    return set(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def write_bill(lock: Path, path: Path) -> int:
    """Write the bill of materials of a lock file; returns its number of packages.

    Raises ToolError where it cannot be made or lacks a locked version.
    """
    path.unlink(missing_ok=True)
    _ask("cyclonedx-py", "requirements", str(lock), "--output-format", "JSON", "--output-reproducible", "-o", str(path))
    try:
        components = json.loads(path.read_text(encoding="utf-8"))["components"]
        listed = {(part["name"], part["version"]) for part in components}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolError(f"cyclonedx-py left no bill of materials ({type(error).__name__}: {error})") from None
    missing = sorted(locked(lock) - listed)
    if missing:
        raise ToolError(f"cyclonedx-py left out {len(missing)} packages, first {'=='.join(missing[0])}")
    return len(listed)


def check(lock: Path) -> Verdict:
    """What the database says of the locked versions that this system would install."""
    try:
        answer = _ask(
            "pip-audit", "--disable-pip", "--require-hashes", "-r", str(lock), "--format", "json",
            "--progress-spinner", "off", "--timeout", "15",
        )  # fmt: skip
        return _verdict(json.loads(answer)["dependencies"])
    except ToolError as error:
        return Verdict("not checked", str(error))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Verdict("not checked", f"pip-audit's answer cannot be read ({type(error).__name__}: {error})")


def _verdict(entries: Sequence[dict[str, object]]) -> Verdict:
    """pip-audit calls it a success when it skips what its service does not know, even if that is everything."""
    skipped = [str(entry["skip_reason"]) for entry in entries if "skip_reason" in entry]
    known = [entry for entry in entries if "skip_reason" not in entry]
    vulnerable = []
    for entry in known:
        found = entry["vulns"]
        assert isinstance(found, list)
        for vulnerability in found:
            fixed = ", ".join(vulnerability.get("fix_versions") or ()) or "no version yet"
            vulnerable.append(f"{entry['name']} {entry['version']}: {vulnerability['id']}, fixed in {fixed}")
    if vulnerable:
        return Verdict("vulnerable", f"{len(vulnerable)} known vulnerabilities", len(known), vulnerable)
    if skipped or not known:
        first = f", first: {skipped[0]}" if skipped else ""
        return Verdict("not checked", f"{len(skipped)} of {len(entries)} versions are unknown{first}", len(known))
    return Verdict("clean", "no known vulnerability", len(known))


def _ask(name: str, *arguments: str) -> str:
    """A tool's standard output, whatever it thinks of its success as long as it says something."""
    tool = TOOLS / name
    if not tool.exists():
        raise ToolError(f"{name} is not installed: {INSTALL}")
    try:
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{name} gave no answer within {TIMEOUT:g} s") from None
    if done.returncode and not done.stdout.strip():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ToolError(f"{name} failed: {lines[-1][:300]}")
    return done.stdout


def main() -> int:
    """Console entry."""
    parser = argparse.ArgumentParser(prog="onecycle.audit")
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--output", type=Path, default=Path("logs/audit"))
    asked = parser.parse_args()
    if not asked.lock.is_file():
        parser.error(f"{asked.lock} is not there; run it where the lock file is, or name it with --lock")
    asked.output.mkdir(parents=True, exist_ok=True)
    bill, code = asked.output / "sbom.json", 0
    try:
        print(f"bill of materials: {write_bill(asked.lock, bill)} packages in {bill}", flush=True)
    except ToolError as error:
        print(f"bill of materials: NOT WRITTEN: {error}", flush=True)
        code = EXIT["not checked"]
    verdict = check(asked.lock)
    (asked.output / "audit.json").write_text(json.dumps(asdict(verdict), indent=1) + "\n", encoding="utf-8")
    status = "NOT CHECKED" if verdict.status == "not checked" else verdict.status
    print(f"vulnerabilities: {status}: {verdict.reason} ({verdict.checked} versions checked)")
    print(*(f"  {line}" for line in verdict.vulnerable), sep="\n", end="\n" if verdict.vulnerable else "")
    return EXIT[verdict.status] or code


if __name__ == "__main__":
    sys.exit(main())
