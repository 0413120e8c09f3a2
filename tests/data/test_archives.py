import hashlib
import io
import pickle
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from onecycle.data import archives, sources
from onecycle.data.archives import ArchiveError, unpack
from onecycle.data.sources import Cifar, DataUnavailableError

GOOD = b"the published bytes"
WANTED = {"set/batch": hashlib.md5(GOOD).hexdigest()}


def member(name: str, content: bytes = GOOD, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


STRANGE = [
    member("../outside"), member("set/../../outside"), member("/tmp/outside-of-onecycle"), member("other"),
    member("set/link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    member("set/hard", b"", type=tarfile.LNKTYPE, linkname="../outside"),
    member("set/pipe", b"", type=tarfile.FIFOTYPE), member("set/device", b"", type=tarfile.CHRTYPE),
    member("set", b"", type=tarfile.SYMTYPE, linkname=".."), member("set/batch/", b"", type=tarfile.DIRTYPE),
    member("./set/batch", b"another name"),
]  # fmt: skip


def test_only_wanted_files_are_written_and_only_where_they_are_wanted(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", *STRANGE, member("set/batch", mode=0o777), *STRANGE)
    unpack(path, tmp_path / "in", WANTED)
    assert below(tmp_path) == ["a.tar.gz", "in/set/batch"]
    assert (tmp_path / "in/set/batch").read_bytes() == GOOD
    assert (tmp_path / "in/set/batch").stat().st_mode & 0o111 == 0  # nor does an archive choose who may run what
    assert not Path("/tmp/outside-of-onecycle").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_a_wanted_name_that_is_no_file_is_missing(kind: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", member("set/batch", b"", type=kind, linkname="/etc/passwd"))
    with pytest.raises(ArchiveError, match=r"a\.tar\.gz holds no file set/batch$"):
        unpack(path, tmp_path / "in", WANTED)
    assert below(tmp_path) == ["a.tar.gz"]


def test_other_bytes_under_a_wanted_name_do_not_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "in" / "set").mkdir(parents=True)
    (tmp_path / "in" / "set" / "batch").write_bytes(b"before")
    path = archive(tmp_path / "a.tar.gz", member("set/batch", b"others"))
    with pytest.raises(ArchiveError, match=r"^batch in it has another MD5 than the published one$"):
        unpack(path, tmp_path / "in", WANTED)
    assert below(tmp_path / "in") == ["set/batch"]
    assert (tmp_path / "in/set/batch").read_bytes() == b"before"


@pytest.mark.parametrize("cut", [0, 1, 20, -1, -9])
def test_an_archive_that_is_cut_off_is_named_and_leaves_no_part_of_a_file(cut: int, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(50_000)
    whole = archive(tmp_path / "a.tar.gz", member("set/batch", content)).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[:cut] if cut >= 0 else whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match=r"a\.tar\.gz cannot be unpacked \("):
        unpack(tmp_path / "a.tar.gz", tmp_path / "in", {"set/batch": hashlib.md5(content).hexdigest()})
    assert below(tmp_path) == ["a.tar.gz"]


def test_an_archive_that_would_fill_the_disk_is_refused_before_it_is_read_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = tarfile.TarInfo("bomb")
    header.size = 1 << 50  # a petabyte
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.fileobj.write(header.tobuf())
    started = time.monotonic()
    with pytest.raises(ArchiveError, match=r"unpacks to more than 1,073,741,824 bytes or 1,000 files$"):
        unpack(tmp_path / "a.tar", tmp_path / "in", WANTED)
    assert time.monotonic() - started < 5
    monkeypatch.setattr(archives, "MOST", 3)
    path = archive(tmp_path / "b.tar.gz", *(member(f"{number}") for number in range(4)), member("set/batch"))
    with pytest.raises(ArchiveError, match="or 3 files"):
        unpack(path, tmp_path / "in", WANTED)


class Code:
    """What touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("when", ["before the check", "after the check"])
def test_a_batch_with_another_checksum_is_never_unpickled(
    when: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.zeros((1, 3072), np.uint8)
    for good in NAMES:
        (folder / good).write_bytes(pickle.dumps({"data": pixels, "labels": [3], "label_names": ["a"]}))
    md5s = {good: hashlib.md5((folder / good).read_bytes()).hexdigest() for good in NAMES}
    monkeypatch.setattr(CIFAR10, "train_list", [[good, md5s[good]] for good in NAMES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5s["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5s["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    arrays, classes = Cifar("cifar10", str(tmp_path), download=False).decode()
    assert (arrays["train_labels"].tolist(), arrays["test_labels"].tolist(), classes) == ([3] * 5, [3], ["a"])

    hostile = pickle.dumps(Code(tmp_path / "executed"))
    if when == "before the check":
        (folder / name).write_bytes(hostile)
    else:  # exchanged between the look at all files and the reading of this one
        ensure = Cifar._ensure
        monkeypatch.setattr(Cifar, "_ensure", lambda *a: (ensure(*a), (folder / name).write_bytes(hostile)))
    with pytest.raises(ValueError, match=rf"{name} is damaged \(its MD5 is not the published one\)"):
        Cifar("cifar10", str(tmp_path), download=False).decode()
    assert not (tmp_path / "executed").exists()
    assert isinstance(pickle.loads(hostile), type(None))  # it does touch the file where it is unpickled
    assert (tmp_path / "executed").exists()


def test_a_downloaded_archive_of_other_bytes_is_no_data_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        Path(root).mkdir()
        archive(Path(root) / filename, *STRANGE, member("cifar-10-batches-py/data_batch_1"))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    monkeypatch.setattr(sources, "_loaded", {})
    with pytest.raises(DataUnavailableError, match="the download failed: data_batch_1 in it has another MD5"):
        Cifar("cifar10", str(tmp_path / "root"), download=True).decode()
    assert below(tmp_path) == ["root/cifar-10-python.tar.gz"]
