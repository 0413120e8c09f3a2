import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onecycle.data import sources
from onecycle.data.sources import HEADER, Arrays, Decoded, cached

KEY = {"name": "toy", "seed": 1}
DESCRIPTION = {"classes": ["cat", "dog"], "mean": [1.5, 0.1, 0.0]}


class ToyBuild:
    """Builds the toy data set and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.calls += 1
        pixels = np.arange(50 * 8 * 8, dtype=np.int32).reshape(50, 8, 8)
        return {"pixels": pixels, "labels": np.arange(50) % 7}, DESCRIPTION


@pytest.fixture
def build() -> ToyBuild:
    return ToyBuild()


def is_toy(found: Decoded) -> bool:
    expected, _ = ToyBuild()()
    same = [
        np.array_equal(found.arrays[name], array) and found.arrays[name].dtype == array.dtype
        for name, array in expected.items()
    ]
    return all(same) and found.arrays.keys() == expected.keys() and found.description == DESCRIPTION


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def read_big(folder: Path, is_killed: bool, barrier: Any, results: Any) -> None:
    def build() -> tuple[Arrays, dict[str, Any]]:
        with (folder / "builds").open("a") as file:
            file.write("one\n")
        time.sleep(0.3)
        return {"pixels": np.arange(1_000_000)}, DESCRIPTION

    if is_killed:
        Path.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign]
    barrier.wait(60)
    found = cached(folder, "big", {"name": "big"}, build)
    results.put((found.fingerprint, int(found.arrays["pixels"].sum()), found.description))


def in_processes(folder: Path, count: int, is_killed: bool = False) -> list[Any]:
    """What processes read that start together; nothing where they are killed while they write."""
    context = multiprocessing.get_context("fork")  # a new one would import torch
    barrier, results = context.Barrier(count), context.Queue()
    children = [context.Process(target=read_big, args=(folder, is_killed, barrier, results)) for _ in range(count)]
    for child in children:
        child.start()
    found = [] if is_killed else [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    return found


def test_a_second_read_gives_the_same_without_building(tmp_path: Path, build: ToyBuild) -> None:
    first = cached(tmp_path / "new" / "folder", "toy", KEY, build)
    second = cached(tmp_path / "new" / "folder", "toy", {"seed": 1, "name": "toy"}, build)
    assert build.calls == 1
    assert is_toy(first)
    assert is_toy(second)
    assert second.fingerprint == first.fingerprint
    assert isinstance(second.arrays["pixels"], np.memmap)
    second.arrays["pixels"][:] = 0  # copied on write: the file stays as it is
    assert is_toy(cached(tmp_path / "new" / "folder", "toy", KEY, build))
    assert build.calls == 1
    cached(tmp_path / "new" / "folder", "toy", KEY | {"seed": 2}, build)
    assert build.calls == 2


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x0F]) + content[place + 1 :]


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": ("pixels.npy", lambda content: b""),
    "a byte short": ("labels.npy", lambda content: content[:-1]),
    "a changed byte": ("pixels.npy", lambda content: flipped(content, len(content) // 2)),
    "a changed shape": ("pixels.npy", lambda content: content.replace(b"(50, 8, 8)", b"(50, 4, 8)")),
    "an object array": ("labels.npy", lambda content: content.replace(b"<i8", b"|O8")),
    "a header that is no JSON": (HEADER, lambda content: content[:-1]),
    "a header without checksum": (HEADER, lambda content: content.replace(b'"sha256"', b'"sha255"')),
    "the header of another data set": (HEADER, lambda content: content.replace(b'"seed": 1', b'"seed": 2')),
    "another description": (HEADER, lambda content: content.replace(b"cat", b"cow")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_again_with_one_warning(
    damage: str, tmp_path: Path, build: ToyBuild, caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = cached(tmp_path, "toy", KEY, build).fingerprint
    name, change = DAMAGES[damage]
    (path,) = tmp_path.glob(f"toy-*/{name}")
    damaged = change(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    rebuilt = cached(tmp_path, "toy", KEY, build)
    assert build.calls == 2
    assert is_toy(rebuilt)
    assert rebuilt.fingerprint == fingerprint
    (warning,) = warnings_of(caplog)
    assert str(path.parent) in warning
    assert is_toy(cached(tmp_path, "toy", KEY, build))
    assert build.calls == 2


def test_a_missing_array_is_damage_and_a_missing_entry_is_not(
    tmp_path: Path, build: ToyBuild, caplog: pytest.LogCaptureFixture
) -> None:
    cached(tmp_path, "toy", KEY, build)
    assert warnings_of(caplog) == []
    next(tmp_path.glob("toy-*/labels.npy")).unlink()
    assert is_toy(cached(tmp_path, "toy", KEY, build))
    assert len(warnings_of(caplog)) == 1


def test_after_a_process_dies_while_writing_the_next_one_builds(tmp_path: Path) -> None:
    in_processes(tmp_path, 1, is_killed=True)
    assert len(list(tmp_path.glob("*.part"))) == 1
    found = in_processes(tmp_path, 1)
    assert found[0][1:] == (999_999 * 1_000_000 // 2, DESCRIPTION)
    assert list(tmp_path.glob("*.part")) == []
    assert in_processes(tmp_path, 1) == found
    assert (tmp_path / "builds").read_text() == "one\none\n"


def test_processes_that_start_together_build_once_and_get_the_same(tmp_path: Path) -> None:
    found = in_processes(tmp_path, 3)
    assert found == found[:1] * 3
    assert (tmp_path / "builds").read_text() == "one\n"


@pytest.mark.parametrize("reason", ["full disk", "folder cannot be made"])
def test_what_cannot_be_written_is_a_warning_that_names_the_setting(
    reason: str, tmp_path: Path, build: ToyBuild, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "file" / "cache"
    with monkeypatch.context() as patch:
        if reason == "full disk":
            folder.mkdir(parents=True)

            def full(file: Any, array: Any) -> None:
                raise OSError("12800 requested and 4096 written")  # what numpy raises, without a number

            patch.setattr(sources.np, "save", full)
        else:
            (tmp_path / "file").write_text("not a folder")
        found = cached(folder, "toy", KEY, build)
    assert is_toy(found)
    (warning,) = warnings_of(caplog)
    assert str(folder) in warning
    assert "data.cache=" in warning
    if reason == "full disk":
        assert [path.suffix for path in folder.iterdir()] == [".lock"]
        assert cached(folder, "toy", KEY, build).fingerprint == found.fingerprint
        assert build.calls == 2


def test_a_build_that_fails_leaves_nothing_and_releases_the_lock(tmp_path: Path, build: ToyBuild) -> None:
    def fail() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        raise ValueError("an unreadable image")

    for folder in (tmp_path / "new" / "cache", tmp_path):
        with pytest.raises(ValueError, match="an unreadable image"):
            cached(folder, "toy", KEY, fail)
        assert list(tmp_path.iterdir()) == []  # neither a lock nor the folders that were made for it
    assert is_toy(cached(tmp_path, "toy", KEY, build))


def test_without_keep_nothing_is_written_and_what_is_there_is_read(tmp_path: Path, build: ToyBuild) -> None:
    assert is_toy(cached(tmp_path / "new", "toy", KEY, build, keep=False))
    assert list(tmp_path.iterdir()) == []
    cached(tmp_path, "toy", KEY, build)
    assert is_toy(cached(tmp_path, "toy", KEY, build, keep=False))
    assert build.calls == 2
