"""What `make benchmark` measures: our loader and training step beside those that a user would pick instead.

A training step is compared step by step: the bare loop takes its step right after each step of the contestant, in the
same process, so that a machine that changes its speed from second to second changes it for both.
"""

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from onecycle import build as assembly
from onecycle.benchmark import baselines
from onecycle.config.compose import CONF
from onecycle.config.targets import instantiate
from onecycle.data import synthetic
from onecycle.training import precision

LOADER_BATCH = 512
POOL = 12_800  # images that all contestants draw from


@dataclass
class Paired:
    """Seconds a step of a contestant, and of the bare loop beside it; one value for each group of steps."""

    contestant: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Race:
    """One size of the comparison of training steps.

    group: steps behind which the times are summed; on a CPU a multiple of the batches that the loader makes at a time,
    but for a quick look. turn: steps a contestant takes before the bare loop takes as many; on a GPU more than one,
    because handing over makes the device wait.
    """

    model: str
    width: int
    batch_size: int
    groups: int
    group: int
    turn: int
    warm: int


def configured(*overrides: str) -> DictConfig:
    """A training configuration on drawn images: the recipe of dawnbench, so that nothing is special to one network."""
    drawn = ["experiment=dawnbench", "data=synthetic", f"data.source.train_size={POOL}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("train", overrides=[*drawn, *overrides])


def new_network(model: str, width: int) -> nn.Module:
    """A network of conf/model in some width, for ten classes."""
    torch.manual_seed(0)
    network = instantiate(configured(f"model={model}", f"model.width={width}").model, torch.nn.Module, classes=10)
    if getattr(network, "needs_whitening", False):
        network.fit_whitening(torch.randn(500, 3, 32, 32))
    assert isinstance(network, nn.Module)
    return network


def flops_per_image(model: str, width: int) -> float:
    """Floating-point operations of one image, forward and backward; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        new_network(model, width)(torch.randn(4, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 4


def is_bf16_fast(device: torch.device) -> bool:
    """Whether this project would train in bf16 on the device."""
    return precision.choose("auto", device)[0] == "bf16-mixed"


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(2):
        a @ b
    synchronize()
    start = time.perf_counter()
    for _ in range(8):
        a @ b
    synchronize()
    return 8 * 2 * size**3 / (time.perf_counter() - start)


def loaders(device: torch.device, seconds: float) -> dict[str, Callable[[], float]]:
    """Ways to make augmented batches, with and without cutout; each function measures images a second."""
    images, labels = synthetic.draw(POOL, 0, "train")
    contestants: dict[str, Callable[[], float]] = {}
    for cutout in (False, True):
        suffix = "crop, flip, cutout" if cutout else "crop, flip"
        cfg = configured(f"batch_size={LOADER_BATCH}", f"data.augment.cutout={8 * cutout}")
        _, dataset, _ = assembly.load_dataset(cfg)
        ours = assembly.build_datamodule(cfg, dataset).loader("train", device)
        contestants[f"onecycle | {suffix}"] = _rate(ours, seconds)
        for name, transform in (("PIL", baselines.pil_transform), ("torchvision v2", baselines.v2_transform)):
            for workers in (0, 2) if name == "PIL" else (0,):
                loader = baselines.dataloader(images, labels, transform(cutout), LOADER_BATCH, workers)
                contestants[f"{name}, {workers} workers | {suffix}"] = _rate(loader, seconds)
    return contestants


def _rate(loader: Any, seconds: float) -> Callable[[], float]:
    def measure() -> float:
        iterator = iter(loader)
        next(iterator)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            try:
                next(iterator)
            except StopIteration:
                iterator = iter(loader)
                next(iterator)
            count += LOADER_BATCH
        synchronize()
        return count / (time.perf_counter() - start)

    return measure


def bare(race: Race, device: torch.device, *, bf16: bool, channels_last: bool) -> Iterator[None]:
    """The bare loop on a network of its own."""
    network = new_network(race.model, race.width)
    return baselines.bare_loop(network, race.batch_size, device, bf16=bf16, channels_last=channels_last)


def race_bare_loops(race: Race, device: torch.device) -> dict[str, Paired]:
    """The bare loop in other precisions and memory layouts, turn by turn beside the fastest kind."""
    kinds = [("bf16", True), ("fp32", False)] if is_bf16_fast(device) else [("fp32", False)]
    layouts = [("channels_last", True), ("NCHW", False)]
    reference = bare(race, device, bf16=kinds[0][1], channels_last=True)
    results = {}
    for kind, bf16 in kinds:
        for layout, channels_last in layouts:
            if (kind, layout) == (kinds[0][0], "channels_last"):
                continue
            other = bare(race, device, bf16=bf16, channels_last=channels_last)
            advance(other, race.warm)
            advance(reference, race.warm)
            paired = Paired()
            for _ in range(race.groups):
                paired.contestant.append(advance(other, race.turn) / race.turn)
                paired.bare.append(advance(reference, race.turn) / race.turn)
            results[f"bare loop, {kind}, {layout}"] = paired
    return results


def advance(loop: Iterator[None], steps: int) -> float:
    """Take some steps; returns the seconds."""
    start = time.perf_counter()
    for _ in range(steps):
        next(loop)
    synchronize()
    return time.perf_counter() - start


class Beside(pl.Callback):
    """Lets the bare loop take a turn after each turn of the Trainer, and keeps both times."""

    def __init__(self, race: Race, loop: Iterator[None]) -> None:
        self.race, self.loop, self.result = race, loop, Paired()
        self._mark, self._sums = 0.0, [0.0, 0.0]

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Hand over when it is time; the last callback, so that all others' work counts for the Trainer."""
        race, step = self.race, trainer.global_step - self.race.warm
        if step < 0:
            return
        if step % race.turn == 0:
            synchronize()
            if step > 0:
                self._sums[0] += time.perf_counter() - self._mark
                self._sums[1] += advance(self.loop, race.turn)
            else:
                advance(self.loop, race.warm)
            if step > 0 and step % race.group == 0:
                self.result.contestant.append(self._sums[0] / race.group)
                self.result.bare.append(self._sums[1] / race.group)
                self._sums = [0.0, 0.0]
            self._mark = time.perf_counter()


def race_trainer(race: Race, device: torch.device, *, barebones: bool) -> Paired:
    """Our training through the Trainer, with everything on or with Trainer(barebones), beside the bare loop."""
    overrides = (f"model={race.model}", f"model.width={race.width}", f"batch_size={race.batch_size}")
    cfg = assembly.choose_precision(configured(*overrides, "evaluation.every_n_epochs=0"))
    _, dataset, _ = assembly.load_dataset(cfg)
    datamodule = assembly.build_datamodule(cfg, dataset)
    steps = race.warm + race.groups * race.group
    classifier = assembly.build_classifier(cfg, datamodule, steps)
    beside = Beside(race, bare(race, device, bf16=is_bf16_fast(device), channels_last=True))
    with tempfile.TemporaryDirectory() as folder:
        if barebones:
            trainer = pl.Trainer(
                barebones=True, max_epochs=-1, max_steps=steps, accelerator=cfg.trainer.accelerator, devices=1,
                precision=cfg.trainer.precision,
            )  # fmt: skip
        else:
            trainer = assembly.build_trainer(cfg, Path(folder), steps, {}, steps_done=0, progress=True)
        trainer.callbacks.append(beside)  # type: ignore[attr-defined]
        trainer.fit(classifier, datamodule)
    return beside.result


def race_plain(race: Race, device: torch.device, rounds: int) -> Paired:
    """A plain Lightning script in a process of its own, as a user would run it, in turn with the bare loop.

    It has none of the settings that a run of this project makes for its process.
    """
    loop = bare(race, device, bf16=is_bf16_fast(device), channels_last=True)
    advance(loop, race.warm)
    paired = Paired()
    steps = max(4, race.group // 2)
    for _ in range(rounds):
        command = [
            sys.executable,
            "-m",
            "onecycle.benchmark.contestants",
            race.model,
            str(race.width),
            str(race.batch_size),
        ]
        done = subprocess.run([*command, str(steps), str(race.warm)], check=True, capture_output=True, text=True)
        paired.contestant.append(json.loads(done.stdout.splitlines()[-1]))
        paired.bare.append(advance(loop, steps) / steps)
    return paired


def main() -> None:
    """Print the seconds a step of the plain script: MODEL WIDTH BATCH_SIZE STEPS WARM."""
    warnings.filterwarnings("ignore")
    model, *numbers = sys.argv[1:]
    width, batch_size, steps, warm = map(int, numbers)
    transform = baselines.pil_transform(cutout=True)
    loader = baselines.dataloader(*synthetic.draw(POOL, 0, "train"), transform, batch_size, workers=2)
    print(baselines.plain_script(new_network(model, width), loader, steps, warm))


if __name__ == "__main__":
    main()
