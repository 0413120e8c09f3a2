"""Training steps of this project beside what a user would write instead: a bare loop and a plain Lightning script.

Steps are compared in pairs: the bare loop takes its turn right after each turn of the contestant, in the same process,
so that a machine that changes its speed from second to second changes it for both.
"""

import functools
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import v2

from onecycle import build
from onecycle.config.compose import CONF
from onecycle.config.schema import TrainOptions
from onecycle.config.targets import instantiate
from onecycle.config.validate import validated
from onecycle.data import synthetic
from onecycle.runs import environment
from onecycle.runs.loggers import RunContext

POOL = 12_800  # images that all contestants draw from
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

draw_images = functools.cache(synthetic.draw_images)

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

    def pairs(self, turns: Pairs) -> Pairs:
        """The mean of every group, out of the seconds a step of every turn."""
        size = self.group // self.turn
        groups = [turns[first : first + size] for first in range(0, len(turns), size)]
        return [(fmean(own for own, _ in group), fmean(bare for _, bare in group)) for group in groups]


def configured(*overrides: str) -> TrainOptions:
    """A training configuration on drawn images: the recipe of dawnbench, so that nothing is special to one network."""
    drawn = ["experiment=dawnbench", "data=synthetic", f"data.source.train_size={POOL}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return validated(compose("train", overrides=[*drawn, *overrides]))


def new_network(width: int) -> nn.Module:
    """ResNet-9 in some width, for ten classes."""
    torch.manual_seed(0)
    return instantiate(configured(f"model.width={width}").model, torch.nn.Module, classes=10)


def is_bf16_fast(device: torch.device) -> bool:
    """Whether this project would train in bf16 on the device."""
    return environment.choose("auto", device)[0] == "bf16-mixed"


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def advance(loop: Iterator[Any], steps: int) -> float:
    """Take some steps; returns the seconds."""
    start = time.perf_counter()
    for _ in range(steps):
        next(loop)
    synchronize()
    return time.perf_counter() - start


def bare_loop(race: Race, device: torch.device, *, bf16: bool, channels_last: bool = True) -> Iterator[None]:
    """Training steps on tensors that are on the device, without data path, logging and schedule: what a loop can reach.

    Each `next` takes one.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = new_network(race.width).to(device).to(memory_format=layout).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(race.batch_size, 3, 32, 32, generator=generator).to(device, memory_format=layout)
    images = images.bfloat16() if bf16 else images  # what autocast would do at every step
    labels = torch.randint(0, 10, (race.batch_size,), generator=generator).to(device)
    while True:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        yield


def print_rate(seconds: float, width: int = 16, batch_size: int = 256) -> None:
    """Print the images a second of the bare loop on the processor; for processes that are compared as wholes."""
    device, steps, taken = torch.device("cpu"), 0, 0.0
    loop = bare_loop(Race(width, batch_size, 1, 1, 1, 1), device, bf16=is_bf16_fast(device))
    advance(loop, 1)
    while taken < seconds:
        steps, taken = steps + 1, taken + advance(loop, 1)
    print(batch_size * steps / taken)


def race_bare_loops(race: Race, device: torch.device) -> dict[str, Pairs]:
    """The bare loop in other precisions and memory layouts, turn by turn beside the fastest kind."""
    fast, results = is_bf16_fast(device), {}
    for bf16, channels_last in [(True, False), (False, True), (False, False)] if fast else [(False, False)]:
        other = bare_loop(race, device, bf16=bf16, channels_last=channels_last)
        reference = bare_loop(race, device, bf16=fast)
        advance(other, race.warm)
        advance(reference, race.warm)
        turns = [
            (advance(other, race.turn) / race.turn, advance(reference, race.turn) / race.turn)
            for _ in range(race.groups * race.group // race.turn)
        ]
        name = f"bare loop, {'bf16' if bf16 else 'fp32'}, {'channels_last' if channels_last else 'NCHW'}"
        results[name] = race.pairs(turns)
    return results


def race_trainer(race: Race, device: torch.device) -> Pairs:
    """Our training through the Trainer, with everything on, beside the bare loop."""
    overrides = (f"model.width={race.width}", f"batch_size={race.batch_size}", "evaluation.every_n_epochs=0")
    config, dataset = build.load_dataset(build.choose_precision(configured(*overrides)))
    datamodule = build.build_datamodule(config, dataset)
    steps = race.warm + race.groups * race.group
    loop = bare_loop(race, device, bf16=is_bf16_fast(device))
    advance(loop, race.warm)
    turns: Pairs = []
    mark = 0.0

    def change_turns(trainer: pl.Trainer, *_: Any) -> None:
        nonlocal mark
        step = trainer.global_step - race.warm
        if step < 0 or step % race.turn:
            return
        synchronize()
        if step:
            turns.append(((time.perf_counter() - mark) / race.turn, advance(loop, race.turn) / race.turn))
        mark = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        trainer = build.build_trainer(config, Path(folder), steps, progress=True)
        build.attach(trainer, RunContext(Path(folder)))
        # The last callback, so that all others' work counts for the Trainer.
        trainer.callbacks.append(LambdaCallback(on_train_batch_end=change_turns))  # type: ignore[attr-defined]
        trainer.fit(build.build_classifier(config, datamodule, steps), datamodule)
    return race.pairs(turns)


def race_plain(race: Race, device: torch.device, rounds: int) -> Pairs:
    """A plain Lightning script in turn with the bare loop, in a process without the settings that ours makes."""
    loop = bare_loop(race, device, bf16=is_bf16_fast(device))
    advance(loop, race.warm)
    pairs, steps = [], max(4, race.group // 2)
    numbers = map(str, (race.width, race.batch_size, steps, race.warm))
    command = [sys.executable, "-m", "onecycle.benchmark.contestants", *numbers]
    for _ in range(rounds):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        pairs.append((float(done.stdout.splitlines()[-1]), advance(loop, steps) / steps))
    return pairs


def dataloader(batch_size: int, *, kind: str, workers: int) -> DataLoader:
    """A DataLoader that transforms one image at a time, as tutorials write it, with random erasing in place of cutout.

    kind: "PIL", or "torchvision v2" for its transforms on tensors.
    """
    tv: Any = transforms if kind == "PIL" else v2
    transform = tv.Compose([
        tv.ToPILImage() if kind == "PIL" else tv.ToImage(), tv.RandomCrop(32, padding=4, padding_mode="reflect"),
        tv.RandomHorizontalFlip(), tv.ToTensor() if kind == "PIL" else tv.ToDtype(torch.float32, scale=True),
        tv.Normalize(MEAN, STD), tv.RandomErasing(p=1.0, scale=(1 / 16, 1 / 16), ratio=(1.0, 1.0)),
    ])  # fmt: skip

    def collate(pairs: list[tuple[Any, int]]) -> tuple[Tensor, Tensor]:
        return torch.stack([transform(image) for image, _ in pairs]), torch.tensor([label for _, label in pairs])

    pairs: Any = list(zip(*draw_images(POOL, 0, "train"), strict=True))
    return DataLoader(
        pairs, batch_size, shuffle=True, num_workers=workers, collate_fn=collate, drop_last=True,
        persistent_workers=workers > 0,
    )  # fmt: skip


class PlainModule(pl.LightningModule):
    """The LightningModule of a tutorial: fp32, NCHW, a log of loss and accuracy at every step, torch's OneCycleLR."""

    def __init__(self, network: nn.Module, total_steps: int) -> None:
        super().__init__()
        self.network, self.total_steps = network, total_steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """SGD and torch's own one-cycle scheduler."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.4, momentum=0.9, weight_decay=5e-4, nesterov=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def time_plain_script(width: int, batch_size: int, steps: int, warm: int) -> None:
    """Print the seconds a step in fp32 and NCHW, with every step logged, after the first `warm` steps."""
    warnings.filterwarnings("ignore")
    times = []

    def read_clock(trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step in (warm, warm + steps):
            synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=-1, max_steps=steps + warm, precision="32-true", devices=1, accelerator="auto",
            callbacks=[LambdaCallback(on_train_batch_end=read_clock)], logger=TensorBoardLogger(folder),
            enable_model_summary=False, default_root_dir=folder, log_every_n_steps=1, enable_progress_bar=False,
            enable_checkpointing=False,
        )  # fmt: skip
        loader = dataloader(batch_size, kind="PIL", workers=2)
        trainer.fit(PlainModule(new_network(width), steps + warm), loader)
    print((times[1] - times[0]) / steps)


if __name__ == "__main__":
    time_plain_script(*map(int, sys.argv[1:]))
