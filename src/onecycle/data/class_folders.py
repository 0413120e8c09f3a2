"""Images in class folders, decoded to one size."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


class ImageFolder:
    """Any images as train/<class>/* and test/<class>/* (png, jpg, webp), decoded to RGB squares of `image_size`."""

    origin = "class folders"

    def __init__(self, name: str, root: str, image_size: int) -> None:
        self.name, self.root, self.image_size = name, Path(root), image_size

    def key(self) -> dict[str, Any]:
        """A digest over every file's path, class, size and time of change."""
        digest = hashlib.sha256()
        for split in ("train", "test"):
            for path, label in self._files(split):
                stat = path.stat()
                digest.update(f"{path.relative_to(self.root)}\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return {"name": self.name, "image_size": self.image_size, "files": digest.hexdigest()}

    def decode(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """Every image of both splits, in the order of class and file name."""
        arrays: dict[str, np.ndarray] = {}
        resized = 0
        for split in ("train", "test"):
            files = self._files(split)
            images = np.empty((len(files), self.image_size, self.image_size, 3), dtype=np.uint8)
            for image, (path, _) in zip(images, files, strict=True):
                image[...], was_resized = self._decode_one(path)
                resized += was_resized
            arrays[f"{split}_images"] = images
            arrays[f"{split}_labels"] = np.array([label for _, label in files], dtype=np.int64)
        if resized:
            log.warning("%d images were cropped and resized to %d×%d.", resized, self.image_size, self.image_size)
        return arrays, self._classes("train")

    def _decode_one(self, path: Path) -> tuple[np.ndarray, bool]:
        from PIL import Image, ImageOps

        size = (self.image_size, self.image_size)
        try:
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(_eight_bits(opened)).convert("RGB")  # a camera's notion of up
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"data.root: {path} cannot be read as an image ({error}). Repair or remove it.") from None
        was_resized = image.size != size
        return np.asarray(ImageOps.fit(image, size) if was_resized else image), was_resized

    def _classes(self, split: str) -> list[str]:
        folder = self.root / split
        entries = folder.iterdir() if folder.is_dir() else ()
        names = sorted(path.name for path in entries if path.is_dir() and not _is_hidden(path))
        if not names:
            raise ValueError(
                f"data.root: {folder.absolute()} holds no class folders. Lay the images out as train/<class>/* and "
                f"test/<class>/* and name their folder with data.root=…"
            )
        return names

    def _files(self, split: str) -> list[tuple[Path, int]]:
        classes = self._classes("train")
        unknown = sorted(set(self._classes(split)) - set(classes))
        if unknown:
            raise ValueError(f"data.root: the classes {', '.join(unknown)} are in {split}/ but not in train/.")
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((self.root / split / name).glob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(path)
        ]
        empty = sorted(set(range(len(classes))) - {label for _, label in files})
        if not files or (split == "train" and empty):
            where = classes[empty[0]] if files else ""
            raise ValueError(f"data.root: no png, jpg or webp image in {(self.root / split / where).absolute()}.")
        return files


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")  # .ipynb_checkpoints, and the ._cat.png that a Mac leaves beside cat.png


def _eight_bits(image: Any) -> Any:
    """16-bit gray by its high byte, as Pillow itself reads 16-bit colour; its conversion would clip at 255."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
