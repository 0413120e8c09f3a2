"""A decoded data set on disk: one file that is memory-mapped, checked against its own checksum, and replaced whole."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

FORMAT = 1
HEADER_BYTES = 1 << 20  # room for thousands of class names; whole pages, so that the arrays behind it are page-aligned


class CacheDamagedError(Exception):
    """The cache file is not what its header says."""


def key_digest(key: dict[str, Any]) -> str:
    """The first 12 hex digits of a SHA-256 over `key`, independent of the order of its entries."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def cached(
    folder: Path,
    name: str,
    key: dict[str, Any],
    build: Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]],
    keep: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Arrays, their description and their fingerprint: read from `folder`, or built and written there.

    `build` returns named arrays and a JSON description. It runs in one process at a time: a second one waits for
    the first and reads what that one wrote. A file that is truncated or altered is rebuilt. Where the folder
    cannot be written (full disk, read-only) the built arrays are used from memory and a warning says so. Without
    `keep` nothing at all is written.

    The fingerprint is the SHA-256 over the description and every array's name, type, shape and bytes.
    """
    path = folder / f"{name}-{key_digest(key)}.cache"
    with contextlib.suppress(CacheDamagedError, OSError):
        return read(path, key)
    if not keep:
        arrays, description = build()
        return arrays, description, _fingerprint(arrays, description)
    with _locked(path) as writable:
        if writable:
            try:
                return read(path, key)
            except FileNotFoundError:
                pass
            except (CacheDamagedError, OSError) as error:
                log.warning("The cache %s cannot be used (%s): it is built anew.", path, error)
        arrays, description = build()
        if writable:
            _try_write(path, key, arrays, description)
        return arrays, description, _fingerprint(arrays, description)


def read(path: Path, key: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """The arrays (memory-mapped, copy-on-write), description and fingerprint of a cache file, verified.

    Raises `CacheDamagedError` where length, key or checksum differ from the header, `FileNotFoundError` where
    there is no file.
    """
    with path.open("rb") as file:
        try:
            header = json.loads(file.read(HEADER_BYTES).rstrip(b"\0"))
        except ValueError:
            raise CacheDamagedError("its header cannot be read") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("key") != key:
        raise CacheDamagedError("it is of another format or data set")
    try:
        if path.stat().st_size != header["bytes"]:
            raise CacheDamagedError(f"it has {path.stat().st_size} bytes, not {header['bytes']}")
        arrays: dict[str, np.ndarray] = {
            name: np.memmap(path, spec["dtype"], "c", spec["offset"], tuple(spec["shape"]))
            for name, spec in header["arrays"].items()
        }
        if _fingerprint(arrays, header["description"]) != header["sha256"]:
            raise CacheDamagedError("its contents do not match their checksum")
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise CacheDamagedError("its header is damaged") from None
    return arrays, header["description"], header["sha256"]


def _fingerprint(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.str, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).data.cast("B"))
    return digest.hexdigest()


def _try_write(path: Path, key: dict[str, Any], arrays: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    """Write to a temporary file, flush it to the disk, rename: a reader sees the whole file or none."""
    temporary = path.with_suffix(".part")
    offset = HEADER_BYTES
    specs: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        specs[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset}
        offset += -(-array.nbytes // 4096) * 4096
    header = {
        "format": FORMAT, "key": key, "description": description, "arrays": specs, "bytes": offset,
        "sha256": _fingerprint(arrays, description),
    }  # fmt: skip
    try:
        with temporary.open("wb") as file:
            file.write(json.dumps(header).encode().ljust(HEADER_BYTES, b"\0"))
            for name, array in arrays.items():
                file.seek(specs[name]["offset"])
                file.write(np.ascontiguousarray(array).data.cast("B"))
            file.truncate(offset)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        log.warning(
            "The cache %s (%d MB) could not be written (%s). This run goes on without it; free some space, or name "
            "another folder with data.cache=…, for a fast start next time.",
            path, offset >> 20, error.strerror or error,
        )  # fmt: skip


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold the lock beside `path`; yields whether the folder can be written. The system frees it if we die.

    Where nothing can be built nothing is left: the lock and the folders that were made for it are removed again.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    with contextlib.ExitStack() as stack:
        writable = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_held(path.with_suffix(".lock")))
        except OSError as error:
            writable = False
            log.warning(
                "No cache can be written in %s (%s): the data set is decoded at every start. Name another folder with "
                "data.cache=….", path.parent, error.strerror or error,
            )  # fmt: skip
        try:
            yield writable
        except BaseException:
            with contextlib.suppress(OSError):  # another process has put something there
                if writable:
                    path.with_suffix(".lock").unlink()
                for folder in made:
                    folder.rmdir()
            raise


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock file; one that its holder removed while we waited is made anew."""
    while True:
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                ours = os.path.samestat(os.fstat(lock.fileno()), path.stat())
            except FileNotFoundError:
                ours = False
            if ours:
                yield
                return
