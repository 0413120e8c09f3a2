"""Damaged and hostile files: whatever the bytes, the reader accepts them or raises the error that it documents.

`make fuzz COUNT=10000` tries more of them; an input that is answered otherwise is kept in logs/fuzz. Kind and number
name an input: `mutated("record", 1234)` makes it again.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

from onecycle.config.compose import CONF, plain
from onecycle.data.class_folders import decode_image
from onecycle.errors import ConfigError
from onecycle.runs import checkpoints
from onecycle.runs.record import read_result
from onecycle.runs.saved import saved_config

SECONDS = 10  # for one input; honest files take milliseconds
MARKER = "executed"  # what code in a file would leave in the working directory
INTEGERS = (0, 1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
HOSTILE = (
    b"!!python/object/apply:os.system ['touch executed']", b"_target_: os.system", b"${oc.env:HOME}", b"NaN", b"1e999",
    b"[" * 9000, b'"\\ud800"', b"\x1b[2J", b"\0" * 64, b"cposix\nsystem\n(S'touch executed'\ntR.",
)  # fmt: skip


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARKER}",)


def record_files() -> list[bytes]:
    record = {
        "schema": 1, "status": "finished", "name": "quick", "overrides": ["seed=3"], "seconds": {"fit": 1.5},
        "epochs": 1.0, "steps": 10, "parameters": 7, "test": {"accuracy": 0.9, "loss": None}, "train": None,
        "val": None, "images_per_second": 5.0, "data": {"name": "a", "train_size": 9, "classes": ["cat"]},
        "hyperparameters": {"peak_lr": 0.1, "momentum": 0.9, "batch_size": 50}, "device": "cpu",
        "precision": "32-true", "environment": {"threads": 2},
    }  # fmt: skip
    return [json.dumps(entries, indent=1).encode() for entries in (record, record | {"status": "running"})]


def config_files() -> list[bytes]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = [plain(compose("train", overrides=[f"experiment={name}"])) for name in ("debug", "quick")]
    return [yaml.safe_dump(entries).encode() for entries in composed]


def image_files() -> list[bytes]:
    files = []
    for kind, mode in (("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("JPEG", "RGB"), ("WEBP", "RGB")):
        pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind)
        files.append(file.getvalue())
    return files


def checkpoint_files() -> list[bytes]:
    files = []
    for extra in (1, Code()):
        file = io.BytesIO()
        weights = {"w": torch.arange(20.0)}
        contents = {"state_dict": weights, "global_step": 1, "onecycle": {"a": (1.0, None)}, "onecycle_run": {"b": 1}}
        torch.save(contents | {"extra": extra}, file)
        files.append(file.getvalue())
    return files


def read_run(path: Path) -> None:
    saved_config(path.parent)


def read_sealed(path: Path) -> None:
    with contextlib.suppress(AssertionError):  # no archive at all: then it is read without a seal
        checkpoints.seal(path)
    contents = checkpoints.read_checkpoint(path)
    assert isinstance(contents["state_dict"], dict)


# The files that are changed, the name of a changed one, what reads it, and the error that is documented.
KINDS: dict[str, tuple[Callable[[], list[bytes]], str, Callable[[Path], Any], type[Exception]]] = {
    "record": (record_files, "result.json", lambda path: read_result(path.parent), ConfigError),
    "config": (config_files, "config.yaml", read_run, ConfigError),
    "image": (image_files, "image", lambda path: decode_image(path, 8), ValueError),
    "checkpoint": (checkpoint_files, "last.ckpt", read_sealed, checkpoints.DamagedError),
}
FILES: dict[str, list[bytes]] = {}


def mutated(kind: str, number: int) -> bytes:
    """The same bytes on every machine: one of the kind's files after a few changes; the first ones are unchanged."""
    files = FILES.setdefault(kind, KINDS[kind][0]())
    if number < len(files):
        return files[number]
    rng = random.Random(f"{kind} {number}")
    data = rng.choice(files)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 1, 2, 4, 8, rng.randrange(64), rng.randrange(len(data) + 1))))
        size = rng.choice((1, 2, 4, 8))
        number_bytes = (rng.choice(INTEGERS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
        other = rng.choice(files)
        cut = rng.randrange(len(other) + 1)
        put = rng.choice(
            (b"", number_bytes, rng.randbytes(size), rng.choice(HOSTILE), data[start:end] * 2, other[cut : cut + 64])
        )
        data = data[: start if rng.random() < 0.05 else len(data)]  # sometimes the file ends here
        data = data[:start] + put + data[end:]
    return data


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def expired(*_: Any) -> None:
        raise BaseException(f"took longer than {SECONDS} s")  # no Exception: readers catch those

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def campaign(kind: str, count: int, failed: Path) -> tuple[int, int]:
    """How many inputs were accepted and refused; one that was answered otherwise is kept in `failed` and raised."""
    _, name, read, documented = KINDS[kind]
    accepted = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and Pillow, on what is strange in an input
        for number in range(count):
            path = Path(folder) / "run" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(mutated(kind, number))
            try:
                with limited():
                    read(path)
                accepted += 1
            except documented:
                pass
            except BaseException:
                failed.mkdir(parents=True, exist_ok=True)
                path.rename(failed / f"{kind}-{number}")
                print(f"{kind} {number} is answered wrongly; kept in {failed}", file=sys.stderr)
                raise
            assert not Path(MARKER).exists(), f"code in {kind} {number} was run"
    return accepted, count - accepted


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_accepted_or_refused_as_documented(kind: str, tmp_path: Path) -> None:
    accepted, refused = campaign(kind, {"config": 10}.get(kind, 200), tmp_path)
    assert accepted >= 2
    assert refused > accepted / 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each kind")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all by default")
    wanted = parser.parse_args()
    for one in wanted.kinds or KINDS:
        began = time.perf_counter()
        well, ill = campaign(one, wanted.count, Path("logs/fuzz").absolute())
        print(f"{one}: {well:,} accepted, {ill:,} refused, {time.perf_counter() - began:.0f} s", flush=True)
