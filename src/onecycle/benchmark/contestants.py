"""Training steps of this project beside those of the baselines.

Steps are compared in pairs: the bare loop takes its turn right after each turn of the contestant, in the same process,
so that a machine that changes its speed from second to second changes it for both.
"""

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from onecycle import build
from onecycle.benchmark import baselines
from onecycle.benchmark.baselines import synchronize
from onecycle.config.compose import CONF
from onecycle.config.schema import TrainOptions
from onecycle.config.targets import instantiate
from onecycle.config.validate import validated
from onecycle.data import synthetic
from onecycle.training import precision

POOL = 12_800  # images that all contestants draw from

# Seconds a step of a contestant and of the bare loop beside it, one pair for each group of steps.
Pairs = list[tuple[float, float]]


class Race(NamedTuple):
    """One size of the comparison: `groups` values, each of `group` steps, after `warm` steps that are not timed.

    group: on a CPU a multiple of the batches that the loader makes at a time, but for a quick look. turn: steps a
    contestant takes before the bare loop takes as many; on a GPU more than one: each change waits for the device.
    """

    width: int
    batch_size: int
    groups: int
    group: int
    turn: int
    warm: int


def configured(*overrides: str) -> TrainOptions:
    """A training configuration on drawn images: the recipe of dawnbench, so that nothing is special to one network."""
    drawn = ["experiment=dawnbench", "data=synthetic", f"data.source.train_size={POOL}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return validated(compose("train", overrides=[*drawn, *overrides]))


def new_network(width: int) -> nn.Module:
    """ResNet-9 in some width, for ten classes."""
    torch.manual_seed(0)
    network = instantiate(configured(f"model.width={width}").model, torch.nn.Module, classes=10)
    assert isinstance(network, nn.Module)
    return network


def is_bf16_fast(device: torch.device) -> bool:
    """Whether this project would train in bf16 on the device."""
    return precision.choose("auto", device)[0] == "bf16-mixed"


def bare(race: Race, device: torch.device, *, bf16: bool, channels_last: bool = True) -> Iterator[None]:
    """The bare loop on a network of its own."""
    return baselines.bare_loop(new_network(race.width), race.batch_size, device, bf16=bf16, channels_last=channels_last)


def advance(loop: Iterator[None], steps: int) -> float:
    """Take some steps; returns the seconds."""
    start = time.perf_counter()
    for _ in range(steps):
        next(loop)
    synchronize()
    return time.perf_counter() - start


def race_bare_loops(race: Race, device: torch.device) -> dict[str, Pairs]:
    """The bare loop in other precisions and memory layouts, turn by turn beside the fastest kind."""
    fast = is_bf16_fast(device)
    reference = bare(race, device, bf16=fast)
    results = {}
    for bf16, channels_last in [(True, False), (False, True), (False, False)] if fast else [(False, False)]:
        other = bare(race, device, bf16=bf16, channels_last=channels_last)
        advance(other, race.warm)
        advance(reference, race.warm)
        name = f"bare loop, {'bf16' if bf16 else 'fp32'}, {'channels_last' if channels_last else 'NCHW'}"
        results[name] = [
            (advance(other, race.turn) / race.turn, advance(reference, race.turn) / race.turn)
            for _ in range(race.groups)
        ]
    return results


class Beside(pl.Callback):
    """Lets the bare loop take a turn after each turn of the Trainer, and keeps both times."""

    def __init__(self, race: Race, loop: Iterator[None]) -> None:
        self.race, self.loop = race, loop
        self.pairs: Pairs = []
        self._mark, self._own, self._bare = 0.0, 0.0, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Change turns when it is time; the last callback, so that all others' work counts for the Trainer."""
        race, step = self.race, trainer.global_step - self.race.warm
        if step < 0 or step % race.turn:
            return
        synchronize()
        if step == 0:
            advance(self.loop, race.warm)
        else:
            self._own += time.perf_counter() - self._mark
            self._bare += advance(self.loop, race.turn)
            if step % race.group == 0:
                self.pairs.append((self._own / race.group, self._bare / race.group))
                self._own, self._bare = 0.0, 0.0
        self._mark = time.perf_counter()


def race_trainer(race: Race, device: torch.device, *, barebones: bool) -> Pairs:
    """Our training through the Trainer, with everything on or with Trainer(barebones), beside the bare loop."""
    overrides = (f"model.width={race.width}", f"batch_size={race.batch_size}", "evaluation.every_n_epochs=0")
    config = build.choose_precision(configured(*overrides))
    _, dataset, _ = build.load_dataset(config)
    datamodule = build.build_datamodule(config, dataset)
    steps = race.warm + race.groups * race.group
    classifier = build.build_classifier(config, datamodule, steps)
    beside = Beside(race, bare(race, device, bf16=is_bf16_fast(device)))
    with tempfile.TemporaryDirectory() as folder:
        if barebones:
            trainer = pl.Trainer(
                barebones=True, max_epochs=-1, max_steps=steps, accelerator=config.trainer.accelerator, devices=1,
                precision=config.trainer.precision,
            )  # fmt: skip
        else:
            trainer = build.build_trainer(config, Path(folder), steps, {}, steps_done=0, progress=True)
        trainer.callbacks.append(beside)  # type: ignore[attr-defined]
        trainer.fit(classifier, datamodule)
    return beside.pairs


def race_plain(race: Race, device: torch.device, rounds: int) -> Pairs:
    """A plain Lightning script in a process of its own, as a user would run it, in turn with the bare loop.

    It has none of the settings that a run of this project makes for its process.
    """
    loop = bare(race, device, bf16=is_bf16_fast(device))
    advance(loop, race.warm)
    pairs, steps = [], max(4, race.group // 2)
    numbers = map(str, (race.width, race.batch_size, steps, race.warm))
    command = [sys.executable, "-m", "onecycle.benchmark.contestants", *numbers]
    for _ in range(rounds):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        pairs.append((float(done.stdout.splitlines()[-1]), advance(loop, steps) / steps))
    return pairs


def time_plain_script(width: int, batch_size: int, steps: int, warm: int) -> None:
    """Print the seconds a step of the plain script."""
    warnings.filterwarnings("ignore")
    images, labels = synthetic.draw(POOL, 0, "train")
    loader = baselines.dataloader(images, labels, batch_size, kind="PIL", cutout=True, workers=2)
    print(baselines.plain_script(new_network(width), loader, steps, warm))


if __name__ == "__main__":
    time_plain_script(*map(int, sys.argv[1:]))
