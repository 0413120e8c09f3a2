"""Images in class folders, decoded to one size."""

import hashlib
import logging
import stat
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onecycle.data import png

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
FORMATS = ("PNG", "JPEG", "WEBP")  # by their contents, whatever the name says; Pillow would start programs for others
MAX_PIXELS = 80_000_000  # 240 MB as RGB
MAX_SIDE = 65_535  # of a JPEG; each row of Pillow's takes memory and time of its own
SHOWN = 20  # refused files that are named; the others are counted
DECODING = 3  # raise it where the same files come to give other pixels: it is part of the key


class _File(NamedTuple):
    path: Path
    label: int


class _RefusedError(ValueError):
    """A file that is no image to train on; the message is read behind its name."""


class ImageFolder:
    """Any images as train/<class>/* and test/<class>/* (png, jpg, webp), decoded to RGB squares of `image_size`.

    Every file becomes the picture that a viewer shows: turned as its EXIF says, palettes and CMYK as colours, 16 bits
    by their high byte. What is transparent is laid on white, as on a page: the colour below it is never seen, and often
    arbitrary. An animation is refused, because no frame of it is the image; so are more than `MAX_PIXELS` pixels, by
    the header alone, and a PNG with a wrong checksum or too few rows, which Pillow would decode. Symbolic links are
    followed, also to places outside: a folder of links is a usual subset. Hidden files are passed over, other suffixes
    with a warning.
    """

    origin = "class folders"

    def __init__(self, name: str, root: str, image_size: int) -> None:
        self.name, self.root, self.image_size = name, Path(root), image_size

    def key(self) -> dict[str, Any]:
        """A digest over every file's path, class, size and time of change."""
        digest = hashlib.sha256()
        for split in ("train", "test"):
            for path, label in self._files(split):
                try:
                    status = path.stat()
                    size, changed = status.st_size, status.st_mtime_ns
                except OSError:  # a link that leads nowhere: `decode` names it
                    size, changed = -1, -1
                entry = f"{path.relative_to(self.root)}\0{label}\0{size}\0{changed}\n"
                digest.update(entry.encode(errors="surrogateescape"))
        return {"name": self.name, "image_size": self.image_size, "decoding": DECODING, "files": digest.hexdigest()}

    def counts(self) -> dict[str, int]:
        """Training images by class; raises ValueError where either split is not laid out as it should be."""
        training = self._files("train")
        self._files("test")
        return dict(Counter(path.parent.name for path, _ in training))

    def decode(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """Every image of both splits, in the order of class and file name.

        Raises ValueError with a line for each file that is no image to train on, up to `SHOWN`, then their number.
        """
        arrays: dict[str, np.ndarray] = {}
        refused: list[str] = []
        resized = 0
        for split in ("train", "test"):
            files = self._files(split, warn=True)
            images = np.empty((len(files), self.image_size, self.image_size, 3), dtype=np.uint8)
            for image, (path, _) in zip(images, files, strict=True):
                try:
                    image[...], was_resized = decode_image(path, self.image_size)
                except ValueError as error:
                    refused.append(f"data.root: {_shown(path)} {error}")
                else:
                    resized += was_resized
            arrays[f"{split}_images"] = images
            arrays[f"{split}_labels"] = np.array([label for _, label in files], dtype=np.int64)
        if refused:
            more = len(refused) - SHOWN
            also = [f"data.root: {more:,} more files below {_shown(self.root)} are refused as well"] if more > 0 else []
            raise ValueError("\n".join(refused[:SHOWN] + also))
        if resized:
            log.warning("%d images were cropped and resized to %d×%d.", resized, self.image_size, self.image_size)
        return arrays, self._classes("train")

    def _classes(self, split: str) -> list[str]:
        folder = self.root / split
        entries = [path for path in _listed(folder) if not _is_hidden(path)] if folder.is_dir() else []
        names = sorted(path.name for path in entries if path.is_dir())
        for path in entries:
            if path.is_symlink() and not path.exists():
                raise ValueError(f"data.root: {_shown(path)} is a link that leads nowhere. Repair or remove it.")
            if path.name in names and not path.name.isprintable():
                raise ValueError(f"data.root: {_shown(path)} is no name that can be printed. Rename this class.")
        if not names:
            raise ValueError(
                f"data.root: {_shown(folder.absolute())} holds no class folders. Lay the images out as "
                f"train/<class>/* and test/<class>/* and name their folder with data.root=…"
            )
        return names

    def _files(self, split: str, warn: bool = False) -> list[_File]:
        classes = self._classes("train")
        own = self._classes(split)
        unknown = sorted(set(own) - set(classes))
        if unknown:
            raise ValueError(f"data.root: the classes {', '.join(unknown)} are in {split}/ but not in train/.")
        entries = [
            _File(path, label)
            for label, name in enumerate(classes)
            if name in own
            for path in sorted(_listed(self.root / split / name))
            if not _is_hidden(path)
        ]
        files = [entry for entry in entries if entry.path.suffix.lower() in IMAGE_SUFFIXES]
        if warn and len(files) < len(entries):
            others = Counter(path.suffix.lower() for path, _ in entries) - Counter(
                path.suffix.lower() for path, _ in files
            )
            kinds = ", ".join(
                f"{number:,} × {_shown(suffix or 'no suffix')}" for suffix, number in others.most_common(5)
            )
            log.warning("%s: what is no png, jpg or webp was passed over (%s).", _shown(self.root / split), kinds)
        empty = sorted(set(range(len(classes))) - {label for _, label in files})
        if not files or (split == "train" and empty):
            where = (self.root / split / (classes[empty[0]] if files else "")).absolute()
            raise ValueError(f"data.root: no png, jpg or webp image in {_shown(where)}.")
        return files


def decode_image(path: Path, size: int) -> tuple[np.ndarray, bool]:
    """A file as uint8 [size, size, 3], and whether it had to be cropped or resized.

    Raises ValueError with the reason, to be read behind the file's name.
    """
    from PIL import Image, ImageOps

    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):  # to open a FIFO would wait for somebody to write into it
            raise _RefusedError(f"is {'a folder' if stat.S_ISDIR(kind) else 'no regular file'}. Remove it.")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on metadata that are of no use here
            with Image.open(file, formats=FORMATS) as opened:
                _refuse_by_header(opened)
                form = png.check(path) if opened.format == "PNG" else None
            file.seek(0)
            with Image.open(file, formats=FORMATS) as opened:
                opened.load()
                if form is not None:
                    _read_as_specified(opened, form)
                turned = ImageOps.exif_transpose(opened)  # a camera's notion of up
                image = _on_white(_eight_bits(turned))
            resized = image.size != (size, size)
            return np.asarray(ImageOps.fit(image, (size, size)) if resized else image), resized
    except _RefusedError:
        raise
    except Image.DecompressionBombError:
        raise _RefusedError(f"has more than {MAX_PIXELS:,} pixels. Scale it down or remove it.") from None
    except Exception as error:  # whatever garbage makes a decoder raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "it is empty" if not path.stat().st_size else "it is no PNG, JPEG or WebP"
        raise _RefusedError(f"cannot be read as an image ({reason}). Repair or remove it.") from None


def _refuse_by_header(image: Any) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _RefusedError(
            f"has {image.width}×{image.height} pixels, more than {MAX_PIXELS:,}. Scale it down or remove it."
        )
    if max(image.size) > MAX_SIDE:
        raise _RefusedError(
            f"has {image.width}×{image.height} pixels, more than {MAX_SIDE:,} on a side. Scale it down or remove it."
        )
    # A phone's JPEG may hold a second picture (MPO): the first is the photograph.
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise _RefusedError(f"is an animation of {image.n_frames} frames. Keep one of them, or remove it.")


def _read_as_specified(image: Any, form: png.Form) -> None:
    """Put right, or refuse, what Pillow takes otherwise than the PNG specification: indices and transparent colours.

    It compares a transparent gray of 2 or 4 bits with samples that it has scaled to 8, and one of 16 bits a sample with
    their high bytes; and what lies behind the end of a palette is black.
    """
    if image.mode == "P" and (image.getextrema()[1] + 1) * 3 > len(image.palette.palette):
        raise _RefusedError("has colours that are not in its palette. Repair or remove it.")
    key = image.info.get("transparency")
    if form.colour == png.COLOUR and form.depth == 16 and key is not None:
        raise _RefusedError("has a transparent colour of 16 bits a sample. Give it an alpha channel, or remove it.")
    largest = 2**form.depth - 1
    if form.colour == png.COLOUR and key is not None:
        image.info["transparency"] = tuple(sample & largest for sample in key)
    if form.colour == png.GRAY and form.depth in (2, 4, 8) and key is not None:
        image.info["transparency"] = (key & largest) * 255 // largest


def _eight_bits(image: Any) -> Any:
    """16-bit gray by its high byte, as Pillow itself reads 16-bit colour; its conversion would clip at 255."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    gray = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


def _on_white(image: Any) -> Any:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ValueError(f"data.root: {_shown(folder)} cannot be listed ({error.strerror}).") from None


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")  # .ipynb_checkpoints, and the ._cat.png that a Mac leaves beside cat.png


def _shown(path: Path | str) -> str:
    """A name in one line: a line feed, or bytes that are no UTF-8, as an escape."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
