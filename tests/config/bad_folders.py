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


def empty_class(here: Path) -> None:
    good(here)
    for path in (here / "images" / "train" / "b").iterdir():
        path.rename(path.with_suffix(".txt"))


def no_test(here: Path) -> None:
    good(here)
    (here / "images" / "test").rename(here / "images" / "validation")


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


FOLDERS: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (
        good, empty_class, no_test, class_without_utf8, file_for_root, broken_config, config_with_code, config_is_link,
        config_is_folder,
    )
}  # fmt: skip
