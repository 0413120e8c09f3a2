"""Files that are replaced whole."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's contents: a reader, or a crash at any moment, sees the old or the new text in full."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # two processes may replace one file
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
