"""Files out of an archive: those that are wanted, with the checksums that they must have, and nothing else."""

import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

LARGEST = 1 << 30  # bytes of all members together; CIFAR's have 186 MB
MOST = 1000  # members; CIFAR's have nine
BLOCK = 1 << 20


class ArchiveError(ValueError):
    """An archive that cannot be read or does not hold what it must; the message is read behind its name."""


def unpack(archive: Path, folder: Path, wanted: Mapping[str, str]) -> None:
    """Write the regular files of a tar archive that are wanted below `folder`, each whole or not at all.

    wanted: MD5s by the members' names. A member of another name, a link, a device or a folder is passed over, so that
    no archive decides where anything is written. Raises ArchiveError where a wanted file is missing, has another MD5,
    or the archive is damaged or unpacks to more than `LARGEST` bytes.
    """
    left = dict(wanted)
    try:
        with tarfile.open(archive) as tar:
            size = 0
            for number, member in enumerate(tar):
                size += member.size
                if size > LARGEST or number >= MOST:
                    raise ArchiveError(f"{archive} unpacks to more than {LARGEST:,} bytes or {MOST:,} files")
                if member.isreg() and member.name in left:
                    content = tar.extractfile(member)
                    assert content is not None
                    _write(content, folder / member.name, left.pop(member.name))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ArchiveError(f"{archive} cannot be unpacked ({error})") from None
    if left:
        raise ArchiveError(f"{archive} holds no file {', '.join(left)}")


def _write(content: IO[bytes], path: Path, md5: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with part.open("wb") as file:
            while block := content.read(BLOCK):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != md5:
            raise ArchiveError(f"{path.name} in it has another MD5 than the published one")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
