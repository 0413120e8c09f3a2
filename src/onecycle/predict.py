"""`onecycle-predict` answers images with the network of a finished run.

  onecycle-predict run=logs/runs/FOLDER cat.png photos/      files, folders (also what is deeper in them), or patterns
  onecycle-predict run=last 'images=photos/*.jpg' flip=true  also average the answers to each image and its mirror image
  onecycle-predict run=last photos/ csv=answers.csv          where the table goes; without csv= to predictions.csv if
                                                             there are more images than the terminal shows
  onecycle-predict run=last photos/ device=cpu               or cuda, mps; auto takes a GPU if there is one

Images of every size and kind that class folders may hold are cropped to a square and resized. Files that cannot be read
are named and left out; the exit code is then 1. The network computes in fp32.
"""

import csv
import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from onecycle.config.types import Options
from onecycle.config.validate import options_of
from onecycle.data.class_folders import KINDS, SUFFIXES
from onecycle.errors import ConfigError, one_line, plain_command, storage_errors_named
from onecycle.runs.saved import with_run_folders
from onecycle.runs.table import no_formula, print_table

SHOWN = 20  # images that the terminal shows
BATCH = 256


class PredictOptions(Options):
    """The words of the command line; images are further words, or images=."""

    run: str
    checkpoint: str = "last.ckpt"
    flip: Literal["true", "false"] = "false"
    csv: str = ""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def image_files(places: Sequence[str]) -> list[Path]:
    """The image files that are named, in folders, or that a pattern names; raises ConfigError where there are none."""
    found: list[Path] = []
    for place in places:
        path, matching = Path(place), sorted(map(Path, glob.glob(place, recursive=True)))  # noqa: PTH207 # may be absolute
        for one in [path] if path.exists() else matching:
            inside = (file for file in sorted(one.rglob("[!.]*")) if file.suffix.lower() in SUFFIXES and file.is_file())
            found += inside if one.is_dir() else [one]
        if not path.exists() and not matching:
            raise ConfigError([f"images={place}: there is no such file or folder"])
    if not found:
        raise ConfigError([f"images={','.join(places)}: must be files or folders of images ({KINDS})"])
    return found


def answer(task: Any, classes: Sequence[str], values: Sequence[float]) -> tuple[str, float | None]:
    """The class that a row of numbers says and its probability; several classes, or none, where the task is another."""
    from onecycle.training.tasks import Classification, Multilabel

    if isinstance(task, Classification):
        return max(zip(classes, values, strict=True), key=lambda pair: pair[1])
    if isinstance(task, Multilabel):
        return " ".join(name for name, value in zip(classes, values, strict=True) if value >= 0.5), None
    return "", None


def predict(options: PredictOptions, files: Sequence[Path]) -> int:
    """Write or print the answers; returns the number of files that could not be read."""
    import torch
    from rich.progress import track

    from onecycle import load

    network = load(options.run, options.checkpoint)
    found = torch.accelerator.current_accelerator(check_available=True) if options.device == "auto" else options.device
    network.to(found or "cpu")
    wanted, problems = options.csv or ("predictions.csv" if len(files) > SHOWN else ""), list[str]()
    names = ["path", "class", "probability", *network.classes, "run"]

    def rows() -> Iterator[list[Any]]:
        batches = network.answers(files, batch_size=BATCH, flip=options.flip == "true")
        total = -(-len(files) // BATCH)
        for paths, answers, unread in track(batches, "predict", total=total, transient=True, disable=total < 2):
            problems.extend(unread)
            for path, values in zip(paths, answers.tolist(), strict=True):
                yield [str(path), *answer(network.task, network.classes, values), *values, network.record["identity"]]

    if wanted:
        with storage_errors_named("run this again"), Path(wanted).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(map(no_formula, names))
            writer.writerows([no_formula(cell) for cell in row] for row in rows())
        print(f"{len(files) - len(problems):,} of {len(files):,} images answered: {wanted}")
    else:
        answered = list(rows())
        # One class and its probability say enough; of other tasks all numbers are shown.
        columns = range(3) if all(row[2] is not None for row in answered) else [0, *range(3, len(names) - 1)]
        texts = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in answered]
        print_table([names[k] for k in columns], [[row[k] for k in columns] for row in texts])
    for problem in problems:
        print(one_line(problem), file=sys.stderr)
    return len(problems)


def main() -> None:
    """Do what the words of the command line say; ends with 2 for one that is wrong, 1 if an image could not be read."""
    with plain_command(__doc__):
        words, places = list[str](), list[str]()
        for word in sys.argv[1:]:
            key, equals, value = word.partition("=")
            is_image = key == "images" or not equals or Path(word).exists()
            (places if is_image else words).append(value if key == "images" else word)
        unread = predict(options_of(PredictOptions, with_run_folders(words)), image_files(places))
    sys.exit(1 if unread else 0)
