"""Checkpoint files on disk: written whole, checked before use, the one before kept until the next is complete."""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onecycle.config.rules import whole
from onecycle.errors import ConfigError, one_line

log = logging.getLogger("onecycle")

FOLDER, LAST, PREVIOUS = "checkpoints", "last.ckpt", "previous.ckpt"
RUN = "onecycle_run"  # what a run that goes on from a checkpoint must agree in
SEAL = b"onecycle sha256 "
SEAL_BYTES = len(SEAL) + 64
REFUSED = "Weights only load failed."  # how torch begins
PLAIN = (str, int, float, complex, bytes, bytearray, torch.dtype, torch.device, type(None))
# A checkpoint's parts, what must hold of each, and how that is said.
PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "state_dict": (
        lambda part: isinstance(part, dict) and all(isinstance(value, torch.Tensor) for value in part.values()),
        "a group of tensors",
    ),
    "global_step": (whole(0, 2**63 - 1), "a whole number of at least 0"),
    "onecycle": (lambda part: isinstance(part, dict), "a group"),
    RUN: (lambda part: part is None or _is_flat(part), "null or a group of plain values"),
}


def _is_flat(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(key, str) for key in part)


class DamagedError(ValueError):
    """A file that is not a whole checkpoint of this program."""


@dataclass(frozen=True)
class Start:
    """Where a run begins: a checkpoint, the steps behind it and what it says of its run; or nothing at all."""

    path: Path | None = None
    step: int = 0
    run: Mapping[str, Any] | None = None


def replace_last(folder: Path, write: Callable[[Path], Any]) -> float:
    """Put what `write` writes in the place of last.ckpt, which becomes previous.ckpt; returns the seconds it took.

    A kill, or a power cut, at any moment leaves at least one whole checkpoint under one of the two names.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    part, last = folder / "last.part", folder / LAST
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
    """Note the SHA-256 of a checkpoint's bytes in the file itself, as the comment of the ZIP archive that it is.

    The archive's own checksums cover neither the names nor the order of its records, which say what a tensor is.
    """
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        if file.read() != b"\0\0":  # the length of the comment
            raise AssertionError(f"{path} is no archive without a comment")
        file.seek(-2, os.SEEK_END)
        file.write(SEAL_BYTES.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(SEAL + digest.encode())


def _check_seal(path: Path) -> None:
    """Raise DamagedError unless the file ends with the SHA-256 of all that stands before it."""
    digest, left = hashlib.sha256(), path.stat().st_size - SEAL_BYTES
    with path.open("rb") as file:
        while left > 0:
            block = file.read(min(left, 1 << 20))
            digest.update(block)
            left -= len(block) or left
        found = file.read()
    if not found.startswith(SEAL):
        raise DamagedError("it does not end with a checksum")
    if found != SEAL + digest.hexdigest().encode():
        raise DamagedError("its checksum does not match")


def load(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, exactly as they were written: the whole file is checked against its SHA-256.

    Only tensors and plain values are unpickled, and no tensor has more values than its memory in the file. Raises
    DamagedError, with the reason, for any other file.
    """
    try:
        _check_seal(path)
        contents = torch.load(path, weights_only=True, map_location="cpu")
    except DamagedError:
        raise
    except Exception as error:  # whatever garbage makes a reader of archives and pickles raise
        reason = " ".join(str(error).split())[:200]
        if reason.startswith(REFUSED):  # torch goes on with advice to unpickle everything, for those who trust the file
            reason = REFUSED
        raise DamagedError(one_line(f"{type(error).__name__}: {reason}" if reason else type(error).__name__)) from None
    missing = [name for name in PARTS if not isinstance(contents, dict) or name not in contents]
    if missing:
        raise DamagedError(f"it has no {missing[0]}")
    for name, (holds, allowed) in PARTS.items():
        if not holds(contents[name]):
            raise DamagedError(f"its {name} is not {allowed}")
    _check_values(contents)
    return dict(contents)


def _check_values(contents: Any) -> None:
    """Raise DamagedError for what is not plain, and for a tensor that is sparse, has no memory, or repeats it.

    A few bytes can be a tensor of a million million values, which fill the memory as soon as it is copied.
    """
    waiting, seen = [contents], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # a list may hold itself
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            waiting += [*node, *node.values()]
        elif isinstance(node, list | tuple | set):
            waiting += node
        elif isinstance(node, torch.Tensor):
            if node.layout is not torch.strided or node.device.type != "cpu":
                raise DamagedError(f"it has a tensor of layout {node.layout} on {node.device}")
            if node.numel() * node.itemsize > node.untyped_storage().nbytes():
                raise DamagedError(f"it has a tensor of {node.numel():,} values without as many in the file")
        elif not isinstance(node, PLAIN):
            raise DamagedError(f"it has a {type(node).__name__}")


def newest(run_folder: Path) -> Start:
    """The newest whole checkpoint of a run. A damaged one is passed over with a warning.

    Raises ConfigError where there are checkpoints and none of them is whole.
    """
    found = [path for name in (LAST, PREVIOUS) if (path := run_folder / FOLDER / name).exists()]
    damaged = []
    for path in found:
        try:
            contents = load(path)
            step = int(contents["global_step"])
            run = contents[RUN]
        except (DamagedError, TypeError, ValueError) as error:
            damaged.append(f"{path.name} ({error})")
            continue
        if damaged:
            log.warning("%s is damaged; going on from %s, behind step %d.", damaged[0], path.name, step)
        return Start(path, step, run)
    if damaged:
        names = " nor ".join(damaged)
        raise ConfigError(
            [f"{run_folder / FOLDER}: neither {names} can be read. Delete the folder to start this run over."]
            if len(damaged) > 1
            else [f"{run_folder / FOLDER}: {names} cannot be read. Delete it to start this run over."]
        )
    return Start()


def changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """One line for each key that differs between two flat mappings; none where the first is not known."""
    if before is None:
        return []
    keys = sorted(before.keys() | now.keys())
    return [
        f"{key}={_shown(now, key)}: was {_shown(before, key)} when this run began; its checkpoint cannot go on so"
        for key in keys
        if key not in before or key not in now or before[key] != now[key]
    ]


def _shown(entries: Mapping[str, Any], key: str) -> str:
    if key not in entries:
        return "(not there)"
    value = entries[key]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
