import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onecycle.data import cache
from onecycle.data.cache import HEADER_BYTES, CacheDamagedError, cached, key_digest, read

KEY = {"name": "toy", "seed": 1}
DESCRIPTION = {"classes": ["cat", "dog"], "mean": [1.5, 0.1, 0.0]}
PAGE = 4096

# What a process of its own runs: its arguments are the folder and its fate.
CHILD = """
import os, pathlib, resource, signal, sys, time
import numpy as np
from onecycle.data import cache

folder, fate = pathlib.Path(sys.argv[1]), sys.argv[2]

def build():
    with (folder / "builds").open("a") as file:
        file.write("one\\n")
    time.sleep(0.3)
    return {"pixels": np.arange(1_000_000, dtype=np.int32)}, {"classes": ["cat", "dog"]}

if fate == "dies half-way through the file":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel kills whoever writes beyond the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if fate == "is killed before the rename":
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
sys.stdin.readline()
arrays, description, fingerprint = cache.cached(folder, "big", {"name": "big"}, build)
print(fingerprint, int(arrays["pixels"].sum(dtype=np.int64)), description["classes"])
"""
BIG_SUM = 999_999 * 1_000_000 // 2


class Build:
    """Builds the toy data set and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.calls += 1
        pixels = np.arange(50 * 8 * 8, dtype=np.int32).reshape(50, 8, 8)
        return {"pixels": pixels, "labels": np.arange(50) % 7}, DESCRIPTION


@pytest.fixture
def build() -> Build:
    return Build()


def is_toy(found: tuple[dict[str, np.ndarray], dict[str, Any], str]) -> bool:
    arrays, description, _ = found
    expected, _ = Build()()
    same = [
        np.array_equal(arrays[name], array) and arrays[name].dtype == array.dtype for name, array in expected.items()
    ]
    return all(same) and arrays.keys() == expected.keys() and description == DESCRIPTION


def file_in(folder: Path) -> Path:
    (path,) = folder.glob("*.cache")
    return path


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def spawn(folder: Path, fate: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(folder), fate]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def let_go(children: list[subprocess.Popen[str]]) -> list[str]:
    """Start all at once, when each is ready; return what they print."""
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    return [child.communicate(timeout=60)[0] for child in children]


def test_a_second_read_gives_the_same_without_building(tmp_path: Path, build: Build) -> None:
    first = cached(tmp_path / "new" / "folder", "toy", KEY, build)
    second = cached(tmp_path / "new" / "folder", "toy", KEY, build)
    assert build.calls == 1
    assert is_toy(first)
    assert is_toy(second)
    assert second[2] == first[2]
    assert isinstance(second[0]["pixels"], np.memmap)
    assert second[0]["labels"].offset % PAGE == 0  # type: ignore[attr-defined]
    assert sorted(path.suffix for path in (tmp_path / "new" / "folder").iterdir()) == [".cache", ".lock"]


def test_what_is_written_into_the_arrays_stays_in_the_process(tmp_path: Path, build: Build) -> None:
    cached(tmp_path, "toy", KEY, build)
    arrays, _, _ = cached(tmp_path, "toy", KEY, build)
    arrays["pixels"][:] = 0
    assert is_toy(cached(tmp_path, "toy", KEY, build))
    assert build.calls == 1


def test_another_key_is_another_file_and_the_order_of_its_entries_does_not_matter(tmp_path: Path, build: Build) -> None:
    cached(tmp_path, "toy", KEY, build)
    cached(tmp_path, "toy", {"seed": 1, "name": "toy"}, build)
    assert build.calls == 1
    cached(tmp_path, "toy", KEY | {"seed": 2}, build)
    assert build.calls == 2
    assert len(list(tmp_path.glob("toy-*.cache"))) == 2
    assert key_digest(KEY) == key_digest({"seed": 1, "name": "toy"}) != key_digest(KEY | {"seed": 2})


@pytest.mark.parametrize(
    "change", ["a pixel", "a label's type", "a shape", "an array's name", "the description", "nothing"]
)
def test_the_fingerprint_tells_contents_apart(change: str, tmp_path: Path, build: Build) -> None:
    arrays, description = build()
    if change == "a pixel":
        arrays["pixels"][7, 3, 3] ^= 1
    elif change == "a label's type":
        arrays["labels"] = arrays["labels"].view(np.uint64)
    elif change == "a shape":
        arrays["pixels"] = arrays["pixels"].reshape(50, 4, 16)
    elif change == "an array's name":
        arrays["marks"] = arrays.pop("labels")
    elif change == "the description":
        description = {**description, "mean": [1.5, 0.2, 0.0]}
    changed = cached(tmp_path / "changed", "toy", KEY, lambda: (arrays, description))[2]
    original = cached(tmp_path / "original", "toy", KEY, build)[2]
    assert (changed == original) == (change == "nothing")


def garbage(size: int) -> bytes:
    return np.random.Philox(key=0).random_raw(-(-size // 8)).tobytes()[:size]


DAMAGES = {
    "empty": lambda whole: b"",
    "cut within the header": lambda whole: whole[:100],
    "cut behind the header": lambda whole: whole[:HEADER_BYTES],
    "cut in half": lambda whole: whole[: HEADER_BYTES + (len(whole) - HEADER_BYTES) // 2],
    "a byte short": lambda whole: whole[:-1],
    "a byte long": lambda whole: whole + b"\0",
    "zeros": lambda whole: bytes(len(whole)),
    "garbage": lambda whole: garbage(len(whole)),
    "garbage in the header": lambda whole: garbage(HEADER_BYTES) + whole[HEADER_BYTES:],
    "no JSON in the header": lambda whole: b"PNG" + whole[3:],
    "JSON of another kind": lambda whole: b"[1, 2]".ljust(HEADER_BYTES, b"\0") + whole[HEADER_BYTES:],
    "only format and key": lambda whole: (
        json.dumps({"format": 1, "key": KEY}).encode().ljust(HEADER_BYTES, b"\0") + whole[HEADER_BYTES:]
    ),
    "of another format": lambda whole: whole.replace(b'"format": 1', b'"format": 2', 1),
    "of another data set": lambda whole: whole.replace(b'"seed": 1', b'"seed": 2', 1),
    "labels of another type": lambda whole: whole.replace(b'"<i8"', b'"<u8"', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_built_anew_with_one_warning(
    damage: str, tmp_path: Path, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, fingerprint = cached(tmp_path, "toy", KEY, build)
    path = file_in(tmp_path)
    whole = path.read_bytes()
    damaged = DAMAGES[damage](whole)
    assert damaged != whole
    path.write_bytes(damaged)
    rebuilt = cached(tmp_path, "toy", KEY, build)
    assert build.calls == 2
    assert is_toy(rebuilt)
    assert rebuilt[2] == fingerprint
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"The cache {path} cannot be used (")
    assert path.read_bytes() == whole
    assert is_toy(cached(tmp_path, "toy", KEY, build))
    assert build.calls == 2


def test_one_changed_byte_anywhere_is_never_wrong_data(tmp_path: Path, build: Build) -> None:
    cached(tmp_path, "toy", KEY, build)
    path = file_in(tmp_path)
    whole = path.read_bytes()
    header = len(whole[:HEADER_BYTES].rstrip(b"\0"))
    specs = json.loads(whole[:header])["arrays"]
    payload = {specs["pixels"]["offset"] + i for i in (0, 1, 6400, 50 * 8 * 8 * 4 - 1)}
    payload |= {specs["labels"]["offset"] + i for i in (0, 50 * 8 - 1)}
    caught = 0
    with path.open("r+b", buffering=0) as file:
        for position in [*range(header), *payload]:
            byte = whole[position]
            os.pwrite(file.fileno(), bytes([byte ^ 0x0F]), position)  # this makes an "i", integers, an "f", floats
            try:
                assert is_toy(read(path, KEY)), position
            except CacheDamagedError:
                caught += 1
            os.pwrite(file.fileno(), bytes([byte]), position)
    # Where it is not caught, other bytes say the same.
    assert caught >= header + len(payload) - 10
    assert is_toy(read(path, KEY))


def test_thousands_of_class_names_have_room(tmp_path: Path, build: Build) -> None:
    description = {"classes": [f"a class with a long name, number {number}" for number in range(10_000)]}
    cached(tmp_path, "toy", KEY, lambda: (build()[0], description))
    assert cached(tmp_path, "toy", KEY, build)[1] == description
    assert build.calls == 1


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path, caplog: pytest.LogCaptureFixture, build: Build) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "toy.cache", KEY)
    cached(tmp_path, "toy", KEY, build)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("fate", ["dies half-way through the file", "is killed before the rename"])
def test_after_a_process_dies_while_writing_the_next_one_builds(fate: str, tmp_path: Path) -> None:
    dying = spawn(tmp_path, fate)
    assert let_go([dying]) == [""]
    assert dying.returncode < 0  # a signal
    (part,) = tmp_path.glob("*.part")
    assert part.stat().st_size >= 3_000_000
    assert list(tmp_path.glob("*.cache")) == []
    (said,) = let_go([spawn(tmp_path)])
    assert said.split(maxsplit=1)[1] == f"{BIG_SUM} ['cat', 'dog']\n"
    assert (tmp_path / "builds").read_text() == "one\none\n"
    assert list(tmp_path.glob("*.part")) == []
    assert let_go([spawn(tmp_path)]) == [said]
    assert (tmp_path / "builds").read_text() == "one\none\n"


def test_a_part_of_a_file_left_behind_does_not_matter(tmp_path: Path, build: Build) -> None:
    part = tmp_path / f"toy-{key_digest(KEY)}.part"
    part.write_bytes(garbage(3 * HEADER_BYTES))  # longer than what will be written
    cached(tmp_path, "toy", KEY, build)
    assert is_toy(cached(tmp_path, "toy", KEY, build))
    assert build.calls == 1
    assert not part.exists()


def test_processes_that_start_together_build_once_and_get_the_same(tmp_path: Path) -> None:
    said = let_go([spawn(tmp_path) for _ in range(3)])
    assert said[0].split(maxsplit=1)[1] == f"{BIG_SUM} ['cat', 'dog']\n"
    assert said[1:] == said[:1] * 2
    assert (tmp_path / "builds").read_text() == "one\n"


def test_a_full_disk_is_a_warning_that_names_the_setting(
    tmp_path: Path, build: Build, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        found = cached(tmp_path, "toy", KEY, build)
    assert is_toy(found)
    (warning,) = warnings_of(caplog)
    assert "could not be written (No space left on device)" in warning
    assert "data.cache=" in warning
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert cached(tmp_path, "toy", KEY, build)[2] == found[2]
    assert build.calls == 2


def test_a_really_full_disk_is_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = HEADER_BYTES + 100 * PAGE
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)]
    try:
        permitted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        permitted = False
    if not permitted:
        pytest.skip("no file system can be mounted here")
    try:
        pixels = np.arange(200_000, dtype=np.int32)
        arrays, _, _ = cached(tmp_path, "toy", KEY, lambda: ({"pixels": pixels}, DESCRIPTION))
        assert np.array_equal(arrays["pixels"], np.arange(200_000))
        (warning,) = warnings_of(caplog)
        assert "(1 MB) could not be written (No space left on device)" in warning
        assert "data.cache=" in warning
        assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_cannot_be_made_is_a_warning_and_memory_serves(
    tmp_path: Path, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = cached(tmp_path / "file" / "cache", "toy", KEY, build)
    assert is_toy(found)
    assert found[2] == cached(tmp_path / "cache", "toy", KEY, build)[2]
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"No cache can be written in {tmp_path / 'file' / 'cache'} (Not a directory)")
    assert "data.cache=" in warning


def test_a_file_system_without_locks_is_a_warning_and_memory_serves(
    tmp_path: Path, build: Build, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert is_toy(cached(tmp_path, "toy", KEY, build))
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"No cache can be written in {tmp_path} (No locks available)")
    assert list(tmp_path.glob("*.cache")) == []


def test_a_build_that_fails_leaves_nothing_and_frees_the_lock(tmp_path: Path, build: Build) -> None:
    def fail() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        raise ValueError("an unreadable image")

    with pytest.raises(ValueError, match="an unreadable image"):
        cached(tmp_path / "new" / "cache", "toy", KEY, fail)
    assert list(tmp_path.iterdir()) == []  # neither a lock nor the folders that were made for it
    with pytest.raises(ValueError, match="an unreadable image"):
        cached(tmp_path, "toy", KEY, fail)
    assert list(tmp_path.iterdir()) == []
    assert is_toy(cached(tmp_path, "toy", KEY, build))


def test_the_file_is_flushed_to_the_disk_before_it_gets_its_name(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], int]] = []

    def look(descriptor: int) -> None:
        seen.append((sorted(path.suffix for path in tmp_path.iterdir()), os.fstat(descriptor).st_size))

    monkeypatch.setattr(cache.os, "fsync", look)
    cached(tmp_path, "toy", KEY, build)
    assert seen == [([".lock", ".part"], file_in(tmp_path).stat().st_size)]
