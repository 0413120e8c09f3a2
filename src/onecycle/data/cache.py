"""A decoded data set on disk: a folder of memory-mapped arrays with a checksum, replaced as a whole."""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

log = logging.getLogger(__name__)

HEADER = "header.json"


class Decoded(NamedTuple):
    """Named arrays, their description as JSON, and the SHA-256 of both: every array's name, type, shape and bytes."""

    arrays: dict[str, np.ndarray]
    description: dict[str, Any]
    fingerprint: str


Build = Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]]


def key_digest(key: dict[str, Any]) -> str:
    """The first 12 hex digits of a SHA-256 over `key`, independent of the order of its entries."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def cached(folder: Path, name: str, key: dict[str, Any], build: Build, keep: bool = True) -> Decoded:
    """Arrays and their description, read from `folder`, or built and, if `keep`, written there.

    `build` runs in one process at a time: a second process waits for the first and reads what it wrote. A truncated or
    altered entry is built again. Where the folder cannot be written (full disk, read-only) the built arrays are used
    from memory, with a warning.
    """
    path = folder / f"{name}-{key_digest(key)}"
    lock = path.with_name(path.name + ".lock")
    made = [parent for parent in path.parents if not parent.exists()]
    with contextlib.ExitStack() as stack:
        if keep:
            with contextlib.suppress(OSError):  # then writing fails as well, or the folder has no locks
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(lock))
        try:
            return _read(path, key)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            log.warning("The cache %s cannot be used (%s): it is built again.", path, error)
        try:
            arrays, description = build()
        except BaseException:
            with contextlib.suppress(OSError):  # where another process has written something
                lock.unlink()
                for parent in made:
                    parent.rmdir()
            raise
        built = Decoded(arrays, description, _fingerprint(arrays, description))
        if keep:
            _try_write(path, key, built)
        return built


def _read(path: Path, key: dict[str, Any]) -> Decoded:
    """The arrays of an entry, memory-mapped copy-on-write.

    Raises FileNotFoundError where there is no entry, ValueError where it is damaged.
    """
    header = (path / HEADER).read_bytes()
    try:
        found = json.loads(header)
        arrays = {file.stem: np.load(file, mmap_mode="c") for file in path.glob("*.npy")}
        if found["key"] == key and _fingerprint(arrays, found["description"]) == found["sha256"]:
            return Decoded(arrays, found["description"], found["sha256"])
    except OSError:
        raise
    except Exception as error:  # a damaged header makes numpy and json raise many kinds
        raise ValueError(f"it is damaged: {error}") from None
    raise ValueError("its contents do not match their checksum")


def _fingerprint(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.str, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).data.cast("B"))
    return digest.hexdigest()


def _try_write(path: Path, key: dict[str, Any], built: Decoded) -> None:
    """Write to a temporary folder and rename it: a reader sees the whole entry or none. An OSError is a warning."""
    temporary = path.with_name(path.name + ".part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, array in built.arrays.items():
            np.save(temporary / f"{name}.npy", array)
        header = {"key": key, "description": built.description, "sha256": built.fingerprint}
        (temporary / HEADER).write_text(json.dumps(header))
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        log.warning(
            "The cache %s cannot be written (%s). This run goes on without it, and the next one decodes the data set "
            "again: free some space, or name another folder with data.cache=….", path, error.strerror or error,
        )  # fmt: skip
