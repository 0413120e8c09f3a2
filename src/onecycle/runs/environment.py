"""What a run was made with and on."""

import contextlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def environment(threads: int) -> dict[str, Any]:
    """Versions and machine, for the record."""
    packages = {name: version(name) for name in ("onecycle", "torch", "lightning")}
    return {
        **packages,
        "python": platform.python_version(),
        "git": _git(),
        "host": platform.node(),
        "processor": _processor(),
        "threads": threads,
    }


def _processor() -> str:
    """The processor's name, which Python itself does not know on Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
        return done.stdout.strip() or None
    return None
