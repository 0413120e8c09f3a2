"""Checkpoint files on disk: written whole, checked before use, the one before kept until the next is complete."""

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onecycle.errors import ConfigError

log = logging.getLogger("onecycle")

FOLDER, LAST, PREVIOUS = "checkpoints", "last.ckpt", "previous.ckpt"
PART = "last.part"  # written by all ranks, before it becomes LAST
RUN = "onecycle_run"  # what a run that goes on from a checkpoint must agree in
PARTS: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict, "global_step": int, "onecycle": dict, RUN: (dict, type(None)),
}  # fmt: skip
ABSENT = "(not there)"
SEAL = b"onecycle sha256 "
SEAL_BYTES = len(SEAL) + 64


class DamagedError(ValueError):
    """A file that is not a whole checkpoint of this program."""


@dataclass(frozen=True)
class Start:
    """Where a run begins: a checkpoint, its number of steps and what it says of its run; or nothing at all."""

    path: Path | None = None
    step: int = 0
    run: Mapping[str, Any] | None = None


def replace_last(folder: Path, write: Callable[[Path], Any]) -> float:
    """Put what `write` writes in the place of last.ckpt, which becomes previous.ckpt; returns the seconds it took.

    A kill, or a power cut, at any moment leaves at least one whole checkpoint under one of the two names.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    part, last = folder / PART, folder / LAST
    try:
        write(part)
        seal(part)
        _flush(part)
        if last.exists():
            last.replace(folder / PREVIOUS)
        part.replace(last)
    finally:
        part.unlink(missing_ok=True)
    _flush(folder)
    return time.monotonic() - started


def _flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def seal(path: Path) -> None:
    """Append the SHA-256 of a checkpoint's bytes, as the comment of the ZIP archive that it is.

    The archive's own checksums cover neither the names nor the order of its records, which say what a tensor is.
    """
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"\0\0", f"{path} is no archive without a comment"
        file.seek(-2, os.SEEK_END)
        file.write(SEAL_BYTES.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(SEAL + digest.encode())


def sealed_with(path: Path) -> str:
    """The SHA-256 at the end of a whole checkpoint, 64 hex digits."""
    return path.read_bytes()[-SEAL_BYTES + len(SEAL) :].decode()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, exactly as they were written: the whole file is checked against its SHA-256.

    Only tensors and plain values are unpickled. Raises DamagedError, with the reason, for any other file.
    """
    try:
        file = path.read_bytes()
        if file[-SEAL_BYTES:] != SEAL + hashlib.sha256(memoryview(file)[:-SEAL_BYTES]).hexdigest().encode():
            raise DamagedError("its checksum is missing or does not match")
        contents = torch.load(io.BytesIO(file), weights_only=True, map_location="cpu")
    except DamagedError:
        raise
    except Exception as error:  # whatever garbage makes a reader of archives and pickles raise
        # One sentence: torch goes on with advice to unpickle everything, for those who trust the file.
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise DamagedError(f"{type(error).__name__}: {reason}") from None
    for name, kind in PARTS.items():
        # A default of no kind that is asked for: None is one of them.
        if not isinstance(contents, dict) or not isinstance(contents.get(name, ...), kind):
            raise DamagedError(f"its {name} is missing or of another type")
    return dict(contents)


def newest(run_folder: Path) -> Start:
    """The newest whole checkpoint of a run. A damaged one is passed over with a warning.

    Raises ConfigError where there are checkpoints and none of them is whole.
    """
    damaged = []
    for path in (run_folder / FOLDER / LAST, run_folder / FOLDER / PREVIOUS):
        try:
            contents = read_checkpoint(path)
        except DamagedError as error:
            if path.exists():
                damaged.append(f"{path.name} ({error})")
            continue
        step = contents["global_step"]
        if damaged:
            log.warning("%s is damaged; going on from %s, after step %d.", damaged[0], path.name, step)
        return Start(path, step, contents[RUN])
    if damaged:
        found = f"{' and '.join(damaged)} cannot be read"
        raise ConfigError([f"{run_folder / FOLDER}: {found}. Delete the folder to start this run over."])
    return Start()


def changed_keys(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """One line for each key that differs between two flat mappings; none where the first is not known."""
    if before is None:
        return []

    def shown(entries: Mapping[str, Any], key: str) -> str:
        return json.dumps(entries.get(key, ABSENT)).strip('"')

    return [
        f"{key}={shown(now, key)}: was {shown(before, key)} when this run began; its checkpoint cannot go on so"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ABSENT) != now.get(key, ABSENT)
    ]
