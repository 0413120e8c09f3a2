"""Loader, step and start-up beside what a user would pick instead, in one run, as ratios: `make benchmark`.

The contestants take turns, several rounds of each, so that a machine that slows down slows all of them; the table
shows the median and the spread (half the range between the quartiles) over the rounds.
"""

import argparse
import gc
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from onecycle import assembly, baselines, closing, memory, precision, run
from onecycle.config import CONF, instantiate
from onecycle.data import synthetic
from onecycle.train import train

Measure = Callable[[], float]
LOADER_BATCH = 512
POOL = 12_800  # images that all contestants draw from


def configured(*overrides: str) -> DictConfig:
    """A training configuration on drawn images: the recipe of dawnbench, so that nothing is special to one network."""
    drawn = ["experiment=dawnbench", "data=synthetic", f"data.source.train_size={POOL}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("train", overrides=[*drawn, *overrides])


def loaders(device: torch.device, seconds: float) -> dict[str, Measure]:
    """Images a second of each way to make augmented batches, with and without cutout."""
    images, labels = synthetic.draw(POOL, 0, "train")
    contestants: dict[str, Measure] = {}
    for cutout in (False, True):
        suffix = "crop, flip, cutout" if cutout else "crop, flip"
        cfg = configured(f"batch_size={LOADER_BATCH}", f"data.augment.cutout={8 * cutout}")
        _, dataset, _ = assembly.load_dataset(cfg)
        datamodule = assembly.build_datamodule(cfg, dataset)
        contestants[f"onecycle | {suffix}"] = _rate(datamodule.loader("train", device), seconds)
        for name, transform in (("PIL", baselines.pil_transform), ("torchvision v2", baselines.v2_transform)):
            for workers in (0, 2) if name == "PIL" else (0,):
                loader = baselines.dataloader(images, labels, transform(cutout), LOADER_BATCH, workers)
                contestants[f"{name}, {workers} workers | {suffix}"] = _rate(loader, seconds)
    return contestants


def _rate(loader: Any, seconds: float) -> Measure:
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
        _synchronize()
        return count / (time.perf_counter() - start)

    return measure


class StepClock(pl.Callback):
    """Notes the time after step `first` and after the last one."""

    def __init__(self, first: int) -> None:
        self.first, self.start, self.stop, self.steps = first, 0.0, 0.0, 0

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Wait for the device and look at the clock, twice in a run."""
        if trainer.global_step == self.first:
            _synchronize()
            self.start = time.perf_counter()
        if trainer.global_step == trainer.max_steps:
            _synchronize()
            self.stop, self.steps = time.perf_counter(), trainer.global_step - self.first


def trainers(
    model: str, width: int, batch_size: int, steps: int, warm: int, device: torch.device
) -> dict[str, Measure]:
    """Images a second of a training step: the limit, ours, and what it is compared with."""
    fast = precision.choose("auto", device)[0] == "bf16-mixed"
    contestants: dict[str, Measure] = {}
    formats = [("channels_last", True), ("NCHW", False)]
    kinds = [("bf16", True), ("fp32", False)] if fast else [("fp32", False)]
    for kind, bf16 in kinds:
        for layout, channels_last in formats:
            loop = baselines.bare_loop(
                _network(model, width), batch_size, device, bf16=bf16, channels_last=channels_last
            )
            contestants[f"bare loop, {kind}, {layout}"] = _loop_rate(loop, batch_size, steps, warm)
    contestants["onecycle, logging on"] = lambda: _ours(model, width, batch_size, steps, warm, barebones=False)
    contestants["onecycle in Trainer(barebones)"] = lambda: _ours(model, width, batch_size, steps, warm, barebones=True)
    contestants["plain Lightning script"] = lambda: _plain(model, width, batch_size, steps, warm)
    return contestants


def _network(model: str, width: int) -> nn.Module:
    """A network of conf/model in some width, for ten classes."""
    torch.manual_seed(0)
    network = instantiate(configured(f"model={model}", f"model.width={width}").model, classes=10)
    if network.needs_whitening:
        network.fit_whitening(torch.randn(500, 3, 32, 32))
    assert isinstance(network, nn.Module)
    return network


def _loop_rate(loop: Any, batch_size: int, steps: int, warm: int) -> Measure:
    def measure() -> float:
        for _ in range(warm):
            next(loop)
        _synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            next(loop)
        _synchronize()
        return steps * batch_size / (time.perf_counter() - start)

    return measure


def _ours(model: str, width: int, batch_size: int, steps: int, warm: int, *, barebones: bool) -> float:
    cfg = assembly.choose_precision(configured(f"model={model}", f"model.width={width}", f"batch_size={batch_size}"))
    _, dataset, _ = assembly.load_dataset(cfg)
    datamodule = assembly.build_datamodule(cfg, dataset)
    classifier = assembly.build_classifier(cfg, datamodule, steps + warm)
    clock = StepClock(warm)
    with tempfile.TemporaryDirectory() as folder:
        if barebones:
            trainer = pl.Trainer(
                barebones=True, max_epochs=-1, max_steps=steps + warm, accelerator=cfg.trainer.accelerator, devices=1,
                precision=cfg.trainer.precision,
            )  # fmt: skip
        else:
            cfg.evaluation.every_n_epochs = 0
            trainer = assembly.build_trainer(cfg, Path(folder), steps + warm, steps_done=0, progress=True)
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        trainer.fit(classifier, datamodule)
    return clock.steps * batch_size / (clock.stop - clock.start)


def _plain(model: str, width: int, batch_size: int, steps: int, warm: int) -> float:
    images, labels = synthetic.draw(POOL, 0, "train")
    loader = baselines.dataloader(images, labels, baselines.pil_transform(cutout=True), batch_size, workers=2)
    clock = StepClock(warm)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=-1, max_steps=steps + warm, precision="32-true", devices=1, callbacks=[clock],
            accelerator="auto", logger=TensorBoardLogger(folder), enable_model_summary=False, default_root_dir=folder,
            log_every_n_steps=1, enable_progress_bar=Console().is_terminal, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(baselines.PlainModule(_network(model, width), steps + warm), loader)
    return clock.steps * batch_size / (clock.stop - clock.start)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> Measure:
    """Floating-point operations a second of a large matrix product."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def measure() -> float:
        for _ in range(2):
            a @ b
        _synchronize()
        start = time.perf_counter()
        for _ in range(8):
            a @ b
        _synchronize()
        return 8 * 2 * size**3 / (time.perf_counter() - start)

    return measure


def flops_per_image(model: str, width: int) -> float:
    """Floating-point operations of one image, forward and backward."""
    network = _network(model, width)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(4, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 4


def first_step_seconds() -> float:
    """From the command to the end of the first step of `quick`, with everything on and a warm cache."""
    program = (
        "import os, sys\nfrom onecycle import train\nfrom onecycle import assembly\n"
        "from onecycle.classifier import Classifier\n"
        "Classifier.on_train_batch_end = lambda *arguments: os._exit(0)\ntrain.main()"
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["data=synthetic", f"data.source.train_size={POOL}", f"output={folder}"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
        return time.perf_counter() - start


def sweep_overhead_seconds(runs: int) -> list[float]:
    """Of each further run of a sweep, the time that is neither training nor testing."""
    cfg = configured("model.width=4", "batch_size=64", "trainer.max_epochs=0.1", "callbacks.progress=null")
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(runs + 1):
            cfg.seed = seed
            start = time.perf_counter()
            result = train(cfg, [f"seed={seed}"], sweep=Path(folder))
            seconds.append(time.perf_counter() - start - result["seconds"]["fit"] - result["seconds"]["test"])
    return seconds[1:]  # the first one of a process loads the data and warms up


def compare(contestants: dict[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Every contestant once a round, in an order that turns from round to round."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            gc.collect()
            rates[name].append(contestants[name]())
    return rates


def _synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def show(title: str, rates: dict[str, list[float]], reference: str, unit: str) -> dict[str, Any]:
    """Print a table with the ratio of every row to `reference`; returns it for the JSON."""
    table = Table(title=title, title_justify="left")
    for column in ("", unit, "spread", f"ratio to {reference.split(' | ')[0]}"):
        table.add_column(column, justify="left" if not column else "right")
    base = statistics.median(rates[reference])
    rows = {}
    for name, values in rates.items():
        median = statistics.median(values)
        quartiles = statistics.quantiles(values, n=4) if len(values) > 2 else [min(values), median, max(values)]
        spread = (quartiles[2] - quartiles[0]) / 2
        # A ratio within each round, not of the medians: what slows a whole round down cancels.
        ratio = statistics.median(a / b for a, b in zip(values, rates[reference], strict=True))
        rows[name] = {"median": median, "spread": spread, "ratio": ratio, "values": values}
        table.add_row(name, f"{median:,.0f}", f"± {spread / median:.1%}", f"{ratio:.3f}")
    assert base > 0
    Console(soft_wrap=True).print(table)
    return rows


def main() -> None:
    """Command: python -m onecycle.benchmark [--quick] [--widths 16 64] [--only loader step start]."""
    parser = argparse.ArgumentParser(description="Measure this machine; results go to logs/benchmarks/ as JSON.")
    parser.add_argument("--quick", action="store_true", help="one round of each: about two minutes on two cores")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--only", nargs="+", choices=["loader", "step", "start"], default=["loader", "step", "start"])
    parser.add_argument("--output", type=Path, default=Path("logs/benchmarks"))
    parser.add_argument("--model", default="resnet9", help="a file of conf/model; every contestant trains the same")
    arguments = parser.parse_args()
    closing.quiet()
    memory.keep_freed_memory()  # for every contestant: it is the machine that is set up, not ours alone
    warnings.filterwarnings("ignore")
    logging.getLogger("onecycle").setLevel(logging.WARNING)
    report = measure(arguments.quick, arguments.model, arguments.widths, arguments.only)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{datetime.now():%Y-%m-%d_%H%M%S}.json"
    run.write_atomically(path, json.dumps(report, indent=1) + "\n")
    print(f"Written to {path}")


def measure(quick: bool, model: str, widths: list[int], parts: list[str]) -> dict[str, Any]:
    """Run the parts and print their tables."""
    device = assembly.device_of("auto")
    gpu = device.type != "cpu"
    report: dict[str, Any] = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"), "quick": quick, "model": model,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "environment": run.environment(torch.get_num_threads()),
    }  # fmt: skip
    if "loader" in parts:
        rates = compare(loaders(device, 0.3 if quick else 2.0), rounds=1 if quick else 5)
        report["loader"] = show("Augmented batches", rates, "onecycle | crop, flip, cutout", "images/s")
    if "step" in parts:
        dtype = torch.bfloat16 if precision.choose("auto", device)[0] == "bf16-mixed" else torch.float32
        peak = statistics.median(compare({"peak": matmul_peak(device, dtype)}, rounds=5)["peak"])
        report["matmul_flops"] = {str(dtype): peak}
        for width in widths:
            batch_size = 512 if gpu else 256 if width <= 16 else 128
            steps, warm = (100, 20) if gpu else (12, 3) if not quick else (6, 2) if width <= 16 else (2, 1)
            wide = width > 16 and not gpu  # seconds a step
            rounds = 1 if quick else 3 if wide else 5
            contestants = trainers(model, width, batch_size, steps, warm, device)
            kind = "bf16" if dtype == torch.bfloat16 else "fp32"
            reference = f"bare loop, {kind}, channels_last"
            rates = compare(contestants, rounds)
            rows = show(
                f"Training steps, {model} of width {width}, batches of {batch_size}", rates, reference, "images/s"
            )
            share = rows["onecycle, logging on"]["median"] * flops_per_image(model, width) / peak
            overhead = 1000 * batch_size * statistics.median(
                1 / a - 1 / b for a, b in zip(rates["onecycle, logging on"], rates[reference], strict=True)
            )  # fmt: skip
            ratio = rows["onecycle, logging on"]["median"] / rows["plain Lightning script"]["median"]
            print(
                f"onecycle: {ratio:.2f} × the plain script, {share:.1%} of the {peak / 1e9:,.0f} GFLOP/s of a large "
                f"{kind} matrix product, {overhead:+.2f} ms a step beyond the bare loop"
            )
            report[f"step, width {width}"] = rows | {
                "peak_share": share,
                "overhead_ms": overhead,
                "ratio_to_plain": ratio,
            }
    if "start" in parts:
        assembly.load_dataset(configured())  # warms the cache
        starts = [first_step_seconds() for _ in range(1 if quick else 5)]
        overheads = sweep_overhead_seconds(2 if quick else 8)
        report["first_step_seconds"], report["sweep_overhead_seconds"] = starts, overheads
        print(f"From command to first step: {statistics.median(starts):.1f} s (n = {len(starts)})")
        print(
            f"One more run of a sweep, beyond fit and test: {statistics.median(overheads):.2f} s (n = {len(overheads)})"
        )
    return report


if __name__ == "__main__":
    main()
