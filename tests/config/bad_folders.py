"""Folders that are no data set, or no run, as the table of bad input names them; each is made in an empty folder."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def good(here: Path) -> None:
    """Four images of each of two classes to train on, and as many to test."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = here / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(np.full((32, 32, 3), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")


def no_classes(here: Path) -> None:
    (here / "images" / "train").mkdir(parents=True)


def empty_class(here: Path) -> None:
    good(here)
    for path in (here / "images" / "train" / "b").iterdir():
        path.rename(path.with_suffix(".txt"))


def foreign_class(here: Path) -> None:
    good(here)
    (here / "images" / "test" / "b").rename(here / "images" / "test" / "zebra")


def no_test(here: Path) -> None:
    good(here)
    (here / "images" / "test").rename(here / "images" / "validation")


def link_to_nowhere(here: Path) -> None:
    good(here)
    (here / "images" / "train" / "c").symlink_to("gone")


def class_without_utf8(here: Path) -> None:
    good(here)
    os.rename(bytes(here / "images" / "train" / "b"), bytes(here / "images" / "train") + b"/\xff\xfe")  # noqa: PTH104 (bytes)


def file_for_root(here: Path) -> None:
    (here / "images").write_text("no folder")


def _config(here: Path, text: str) -> None:
    (here / "images").mkdir()
    (here / "images" / "config.yaml").write_text(text)


def broken_config(here: Path) -> None:
    _config(here, "seed: [1")


def config_with_code(here: Path) -> None:
    _config(here, "seed: !!python/object/apply:os.system ['touch marker']\n")


def config_is_link(here: Path) -> None:
    _config(here, "")
    (here / "images" / "config.yaml").unlink()
    (here / "outside.yaml").write_text("seed: 1\n")
    (here / "images" / "config.yaml").symlink_to("../outside.yaml")


def config_is_folder(here: Path) -> None:
    (here / "images" / "config.yaml").mkdir(parents=True)


def _with_image(here: Path, content: bytes, name: str | bytes = "4.png") -> None:
    good(here)
    with open(bytes(here / "images" / "train" / "a") + b"/" + os.fsencode(name), "wb") as file:  # noqa: PTH123 (bytes)
        file.write(content)


def garbage_image(here: Path) -> None:
    _with_image(here, b"no image at all")


def empty_image(here: Path) -> None:
    _with_image(here, b"")


def cut_image(here: Path) -> None:
    good(here)
    path = here / "images" / "train" / "a" / "3.png"
    path.write_bytes(path.read_bytes()[:60])


def image_without_utf8_name(here: Path) -> None:
    _with_image(here, b"no image at all", b"\xff.png")


def two_bad_images(here: Path) -> None:
    garbage_image(here)
    (here / "images" / "test" / "b" / "4.jpg").write_bytes(b"")


def mixed_sizes(here: Path) -> None:
    """No mistake: they are cropped and resized, and the program says so."""
    good(here)
    Image.fromarray(np.zeros((50, 40, 3), dtype=np.uint8)).save(here / "images" / "train" / "a" / "4.png")


FOLDERS: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (
        good, no_classes, empty_class, foreign_class, no_test, link_to_nowhere, class_without_utf8, file_for_root,
        broken_config, config_with_code, config_is_link, config_is_folder, garbage_image, empty_image, cut_image,
        image_without_utf8_name, two_bad_images, mixed_sizes,
    )
}  # fmt: skip
