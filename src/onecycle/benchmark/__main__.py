"""Loader, step and start-up beside what a user would pick instead, in one run, as ratios: `make benchmark`.

Contestants take turns, so that a machine that slows down slows all of them; a table shows the median and the spread
(half the range between the quartiles), and each ratio is the median of the ratios within one turn, or group of turns.
"""

import argparse
import contextlib
import gc
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import onecycle
from onecycle import build
from onecycle.benchmark import contestants
from onecycle.benchmark.contestants import POOL, Race, synchronize
from onecycle.errors import make_output_harmless
from onecycle.runs import summary
from onecycle.runs.environment import device_of, environment, keep_freed_memory
from onecycle.runs.record import write_atomically
from onecycle.runs.table import print_table
from onecycle.training import breakdown
from onecycle.training_run import train

PARTS = ("loader", "step", "profile", "start", "load")
# How OpenMP's threads wait, as environment variables; the first is what libgomp and libomp do by themselves.
WAYS = {
    "in a loop": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    "1000 turns": {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"},
    "asleep": {"OMP_WAIT_POLICY": "passive"},
    "chosen at the start": {},
}
LOADER_BATCH = 512


def measure_loaders(quick: bool, device: torch.device) -> dict[str, Any]:
    """Images a second of every way to make augmented batches."""
    config, dataset = build.load_dataset(contestants.configured(f"batch_size={LOADER_BATCH}"))
    loaders: dict[str, Any] = {"onecycle": build.build_datamodule(config, dataset).loader("train", device)}
    for kind, workers in (("PIL", 0), ("PIL", 2), ("torchvision v2", 0)):
        loaders[f"{kind}, {workers} workers"] = contestants.dataloader(LOADER_BATCH, kind=kind, workers=workers)
    seconds: dict[str, list[float]] = {name: [] for name in loaders}  # a batch
    for _ in range(1 if quick else 5):
        for name, loader in loaders.items():
            batches = itertools.chain.from_iterable(itertools.repeat(loader))
            next(batches)
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < (0.3 if quick else 2.0):
                next(batches)
                count += 1
            synchronize()
            seconds[name].append((time.perf_counter() - start) / count)
    rows = {
        name: paired_row(list(zip(own, seconds["onecycle"], strict=True)), LOADER_BATCH)
        for name, own in seconds.items()
    }
    _print_rates("Batches with crop, flip and cutout", rows, "ratio to onecycle")
    return rows


def race_of(width: int, quick: bool, device: torch.device) -> Race:
    """How long to compare: seconds a step on a CPU, thousandths on a GPU."""
    if device.type != "cpu":
        return Race(width, batch_size=512, groups=2 if quick else 10, group=100, turn=50, warm=50)
    if quick:
        return Race(width, batch_size=256 if width <= 16 else 32, groups=1, group=8, turn=1, warm=1)
    batch_size, groups = (256, 6) if width <= 16 else (128, 3)
    return Race(width, batch_size, groups, group=16, turn=1, warm=3)


def measure_steps(width: int, quick: bool, device: torch.device) -> dict[str, Any]:
    """Images a second of a training step: ours beside the bare loop, and what both are compared with."""
    race = race_of(width, quick, device)
    kind, dtype = ("bf16", torch.bfloat16) if contestants.is_bf16_fast(device) else ("fp32", torch.float32)
    peaks = [_matmul_flops(device, dtype) for _ in range(3)]
    results = {
        "onecycle, logging on": contestants.race_trainer(race, device),
        "plain Lightning script": contestants.race_plain(race, device, rounds=1 if quick else 3),
        **contestants.race_bare_loops(race, device),
    }
    peak = median(peaks + [_matmul_flops(device, dtype) for _ in range(3)])
    bare = [(bare, bare) for pairs in results.values() for _, bare in pairs]
    results = {f"bare loop, {kind}, channels_last": bare, **results}
    rows = {name: paired_row(pairs, race.batch_size) for name, pairs in results.items()}
    title = f"Training steps, resnet9 of width {width}, batches of {race.batch_size}"
    _print_rates(title, rows, "ratio to the bare loop")
    row = rows["onecycle, logging on"]
    share = row["median"] * flops_per_image(width) / peak
    overhead = 1000 * median(own - bare for own, bare in results["onecycle, logging on"])
    to_plain = row["ratio"] / rows["plain Lightning script"]["ratio"]
    print(
        f"onecycle: {to_plain:.2f} × the plain script, {share:.1%} of the {peak / 1e9:,.0f} GFLOP/s of a large {kind} "
        f"matrix product, {overhead:+.2f} ms a step beyond the bare loop"
    )
    numbers = {"matmul_flops": peak, "peak_share": share, "overhead_ms": overhead, "ratio_to_plain": to_plain}
    return rows | {"batch_size": race.batch_size} | numbers


def flops_per_image(width: int) -> float:
    """Floating-point operations of one image, forward and backward; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        contestants.new_network(width)(torch.randn(4, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 4


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    products = (a @ b for _ in itertools.count())
    contestants.advance(products, 2)
    return 8 * 2 * size**3 / contestants.advance(products, 8)


def measure_profile(width: int, quick: bool, device: torch.device) -> dict[str, float]:
    """Milliseconds of a training step by component."""
    race, bf16 = race_of(width, quick, device), contestants.is_bf16_fast(device)
    overrides = (f"model.width={width}", f"batch_size={race.batch_size}")
    config, dataset = build.load_dataset(contestants.configured(*overrides))
    datamodule = build.build_datamodule(config, dataset, dtype=torch.bfloat16 if bf16 else torch.float32)
    steps = 2 if quick else 20
    classifier = build.build_classifier(config, datamodule, steps).to(device)
    loader = datamodule.loader("train", device)
    parts = breakdown.of_steps(classifier.network, classifier.configure_optimizers(), loader, steps=steps, bf16=bf16)
    total = sum(parts.values())
    rows = [(name, f"{1000 * seconds:,.2f}", f"{seconds / total:.1%}") for name, seconds in parts.items()]
    title = f"Where a step's time goes, resnet9 of width {width}, batches of {race.batch_size}"
    print_table(["", "ms", "share"], rows, title)
    return {name: 1000 * seconds for name, seconds in parts.items()}


def measure_start(quick: bool) -> dict[str, list[float]]:
    """Seconds from the command to the first step of `quick`, with everything on, and of one more run of a sweep."""
    program = (
        "import os\nfrom onecycle import cli\nfrom onecycle.training.classifier import Classifier\n"
        "Classifier.on_train_batch_end = lambda *arguments: os._exit(0)\ncli.train_command()"
    )
    words = ["experiment=quick", "data=synthetic", f"data.source.train_size={POOL}"]
    config = contestants.configured(
        "model.width=4", "batch_size=64", "trainer.max_epochs=0.1", "callbacks.progress=null"
    )
    build.load_dataset(config)  # fills the cache
    starts, overheads = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 if quick else 5):
            start = time.perf_counter()
            command = [sys.executable, "-c", program, *words, f"output={folder}"]
            subprocess.run(command, check=True, capture_output=True)
            starts.append(time.perf_counter() - start)
        for seed in range(3 if quick else 9):
            start = time.perf_counter()
            result = train(config.model_copy(update={"seed": seed}), [f"seed={seed}"], sweep=Path(folder))
            overheads.append(time.perf_counter() - start - result["seconds"]["fit"] - result["seconds"]["test"])
    del overheads[0]  # the first one of a process loads the data and warms up
    print(f"From command to first step: {median(starts):.1f} s (n = {len(starts)})")
    print(f"One more run of a sweep, beyond fit and test: {median(overheads):.2f} s (n = {len(overheads)})")
    return {"first_step_seconds": starts, "sweep_overhead_seconds": overheads}


def measure_load(quick: bool) -> dict[str, dict[str, list[float]]]:
    """Images a second of the bare loop at width 16, on the machine as it is and beside busy processes, by `WAYS`."""
    seconds, rounds, others = (2, 1, 3) if quick else (6, 4, 3)
    command = [sys.executable, "-c", f"from onecycle.benchmark import contestants; contestants.print_rate({seconds})"]
    inherited = {name: value for name, value in os.environ.items() if name not in onecycle.WAITING}
    rates: dict[str, dict[str, list[float]]] = {name: {"alone": [], "beside": []} for name in WAYS}
    for _ in range(rounds):
        for load, busy in (("alone", 0), ("beside", others)):
            for name, variables in WAYS.items():
                with contextlib.ExitStack() as stack:
                    for _ in range(busy):
                        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                        stack.callback(process.wait)
                        stack.callback(process.kill)
                    done = subprocess.run(
                        command, check=True, capture_output=True, text=True, env=inherited | variables
                    )
                rates[name][load].append(float(done.stdout.splitlines()[-1]))
    rows = [
        (name, *(f"{median(row[load]):,.0f} ({min(row[load]):,.0f}–{max(row[load]):,.0f})" for load in row))
        for name, row in rates.items()
    ]
    title = f"Training steps by how OpenMP's threads wait, images/s, median and range (n = {rounds})"
    print_table(["", "alone", f"beside {others} busy processes"], rows, title)
    return rates


def paired_row(pairs: contestants.Pairs, batch_size: int) -> dict[str, Any]:
    """The row of a contestant: seconds a batch of its own and of the one beside it, with which its ratio is taken."""
    values = [batch_size / own for own, _ in pairs]
    lower, upper = np.percentile(values, [25, 75])
    ratio = median(other / own for own, other in pairs)
    return {"median": median(values), "spread": (upper - lower) / 2, "ratio": ratio, "values": values}


def _print_rates(title: str, rows: Mapping[str, Mapping[str, float]], ratio: str) -> None:
    cells = [
        (name, f"{row['median']:,.0f}", f"± {row['spread'] / row['median']:.1%}", f"{row['ratio']:.3f}")
        for name, row in rows.items()
    ]
    print_table(["", "images/s", "spread", ratio], cells, title)


def main() -> None:
    """Command: python -m onecycle.benchmark [--quick] [--widths 16 64] [--only loader step profile start load]."""
    parser = argparse.ArgumentParser(description="Measure this machine; results go to logs/benchmarks/ as JSON.")
    parser.add_argument("--quick", action="store_true", help="few repetitions: a few minutes on two cores")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    make_output_harmless()
    summary.silence_libraries()
    keep_freed_memory()  # for the bare loop too: only the plain script runs in a process without it
    warnings.filterwarnings("ignore")
    logging.getLogger("onecycle").setLevel(logging.WARNING)
    quick, parts, device, started = arguments.quick, arguments.only, device_of("auto"), time.perf_counter()
    report: dict[str, Any] = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"), "quick": quick,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "environment": environment(),
    }  # fmt: skip
    if "loader" in parts:
        report["loader"] = measure_loaders(quick, device)
    for width in arguments.widths:
        gc.collect()
        if "step" in parts:
            report[f"step, width {width}"] = measure_steps(width, quick, device)
        if "profile" in parts:
            report[f"profile, width {width}"] = measure_profile(width, quick, device)
    if "start" in parts:
        report |= measure_start(quick)
    if "load" in parts and device.type == "cpu":
        report["load"] = measure_load(quick)
    report["seconds"] = time.perf_counter() - started
    path = Path("logs/benchmarks") / f"{datetime.now():%Y-%m-%d_%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(report, indent=1) + "\n")
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
