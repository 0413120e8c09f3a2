"""Images in class folders, decoded to one size."""

import contextlib
import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.errors import reason_of

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
KINDS = "png, jpg, webp, bmp, gif or tiff"
# By content, whatever the suffix says; for some others Pillow starts programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_NAMED = 20  # refused files that are named; the others are counted
DECODING = 4  # part of the key: increase it when the same files are decoded to other pixels


class ImageFolder:
    """Images as train/<class>/* and test/<class>/* (`KINDS`), decoded to RGB squares of `image_size`.

    A file becomes the picture that a viewer shows: turned as its EXIF says, palettes and CMYK as colours, 16-bit gray
    by value / 257 rounded (of 16-bit colours Pillow keeps the high byte), transparent parts on white, the first of
    several frames. Images above Pillow's `MAX_IMAGE_PIXELS` are refused. Symbolic links are followed. Hidden files
    are passed over, other suffixes and images in deeper folders with a warning.
    """

    # torchvision.datasets.folder would import torch before the configuration is checked, and looks into subfolders.

    origin = "class folders"

    def __init__(self, name: str, root: str, image_size: int) -> None:
        self.name, self.root, self.image_size = name, Path(root), image_size

    def key(self) -> dict[str, Any]:
        """A digest over every file's path, class, size and time of change."""
        digest = hashlib.sha256()
        for images in self._images().values():
            for label, path in [(label, path) for label, paths in enumerate(images.values()) for path in paths]:
                entry = f"{path.relative_to(self.root)}\0{label}\0"
                with contextlib.suppress(OSError):  # a broken link: `decode` names it
                    entry += f"{path.stat().st_size}\0{path.stat().st_mtime_ns}\n"
                digest.update(entry.encode(errors="surrogateescape"))
        return {"name": self.name, "image_size": self.image_size, "decoding": DECODING, "files": digest.hexdigest()}

    def counts(self) -> dict[str, int]:
        """Training images by class; raises ValueError where a split is not laid out as it should be."""
        return {name: len(paths) for name, paths in self._images()["train"].items()}

    def decode(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """Every image of both splits, ordered by class and file name.

        Raises ValueError with a line for each refused file, up to `MOST_NAMED`, then the number of the others.
        """
        arrays: dict[str, np.ndarray] = {}
        refused: list[str] = []
        resized = 0
        for split, images in self._images(warn=True).items():
            files = [path for paths in images.values() for path in paths]
            pixels = np.empty((len(files), self.image_size, self.image_size, 3), dtype=np.uint8)
            for image, path in zip(pixels, files, strict=True):
                try:
                    image[...], was_resized = decode_image(path, self.image_size)
                    resized += was_resized
                except ValueError as error:
                    refused.append(f"data.root: {str(path)!r} {error}")
            arrays[f"{split}_images"] = pixels
            arrays[f"{split}_labels"] = np.repeat(np.arange(len(images)), [len(paths) for paths in images.values()])
        if len(refused) > MOST_NAMED:
            refused[MOST_NAMED:] = [f"data.root: {len(refused) - MOST_NAMED:,} more files are refused as well."]
        if refused:
            raise ValueError("\n".join(refused))
        if resized:
            log.warning("%d images were cropped and resized to %d×%d.", resized, self.image_size, self.image_size)
        return arrays, list(images)

    def _images(self, warn: bool = False) -> dict[str, dict[str, list[Path]]]:
        """The image files of "train" and "test" by class; the classes of both are those of "train", in order."""
        classes, tested = (_class_names(self.root / split) for split in ("train", "test"))
        unknown = [name for name in tested if name not in classes]
        if unknown:
            raise ValueError(f"data.root: the classes {', '.join(unknown)} are in test/ but not in train/.")
        splits = {}
        for split in ("train", "test"):
            found = {name: _visible(self.root / split / name) for name in classes}
            images = {name: [p for p in paths if p.suffix.lower() in SUFFIXES] for name, paths in found.items()}
            empty = [self.root / split / name for name, paths in images.items() if not paths]
            if empty and (split == "train" or len(empty) == len(classes)):
                deeper = _deeper(found[empty[0].name])
                below = f"; move them up from {deeper}" if deeper else ""
                raise ValueError(f"data.root: no {KINDS} image in {str(empty[0].absolute())!r}{below}.")
            others = [p for paths in found.values() for p in paths if p.suffix.lower() not in SUFFIXES]
            if warn and (suffixes := sorted({p.suffix for p in others if not p.is_dir()})):
                log.warning("%s/: files that are no %s were passed over: %r.", split, KINDS, suffixes[:5])
            if warn and (deeper := _deeper(others)):
                log.warning("%s/: images in folders inside a class were passed over: %s.", split, deeper)
            splits[split] = images
        return splits


def _class_names(folder: Path) -> list[str]:
    found = _visible(folder)
    names = [path.name for path in found if path.is_dir()]
    if not names:
        raise ValueError(
            f"data.root: {str(folder.absolute())!r} holds no class folders. Lay the images out as "
            f"train/<class>/* and test/<class>/* and name their folder with data.root=…"
        )
    for path in found:
        if not path.exists():
            raise ValueError(f"data.root: {str(path)!r} is a broken link. Repair or remove it.")
        if path.is_dir() and not path.name.isprintable():
            raise ValueError(f"data.root: {str(path)!r} cannot be printed. Rename this class.")
    return names


def decode_image(path: Path, size: int) -> tuple[np.ndarray, bool]:
    """A file as uint8 [size, size, 3], and whether it had to be cropped or resized.

    Raises ValueError with the reason, which is to be read after the file's name.
    """
    from PIL import Image, ImageOps

    if not path.is_file():  # opening a FIFO would block
        raise ValueError("is no regular file. Remove it.")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.open(file, formats=FORMATS).verify()
            file.seek(0)
            image: Any = ImageOps.exif_transpose(Image.open(file, formats=FORMATS))
            if image.mode[0] in "IF":  # 16-bit gray, which Pillow's own conversion would clip at 255
                values = np.asarray(image)
                if image.mode == "F" or not 0 <= values.min() <= values.max() < 1 << 16:
                    raise ValueError("its pixels have more than 16 bits")
                image = Image.fromarray(((values.astype(np.int32) + 128) // 257).astype(np.uint8))
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("RGB")
            resized = image.size != (size, size)
            return np.asarray(ImageOps.fit(image, (size, size)) if resized else image), resized
    except Exception as error:  # a damaged file makes decoders raise many kinds
        raise ValueError(f"cannot be read as an image ({reason_of(error)}). Repair or remove it.") from None


def _deeper(paths: list[Path]) -> str:
    """The folders among `paths` that hold images, which are not read, with their numbers: the first five, in words."""
    counts = {p: sum(f.suffix.lower() in SUFFIXES for f in p.rglob("[!.]*")) for p in paths if p.is_dir()}
    return ", ".join([f"{str(path)!r} (images: {count:,})" for path, count in counts.items() if count][:5])


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden files such as .ipynb_checkpoints or ._cat.png from a Mac."""
    return sorted(folder.glob("[!.]*"))
