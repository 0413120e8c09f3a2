"""The GPU against the CPU, against itself, and against what a step may cost."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LambdaCallback

from helpers import composed_of, only_folder, weights
from onecycle import build
from onecycle.callbacks.checkpoint import Checkpoint
from onecycle.config.schema import TrainOptions
from onecycle.data.datamodule import DataModule
from onecycle.evaluate import evaluate
from onecycle.runs.checkpoints import newest
from onecycle.runs.environment import INPUTS
from onecycle.training import breakdown, gpu
from onecycle.training.classifier import Classifier, resized
from onecycle.training_run import train

OnGpu = Callable[..., TrainOptions]
Measured = Callable[..., None]

EXPERIMENTS = ("dawnbench", "bag_of_tricks", "quick", "speedrun")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
FIXED = ("trainer.deterministic=true", "trainer.benchmark=false")  # kernels that are chosen by rule
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def parts(config: TrainOptions) -> tuple[DataModule, Classifier]:
    _, dataset = build.load_dataset(config)
    datamodule = build.build_datamodule(config, dataset)
    return datamodule, build.build_classifier(config, datamodule, build.total_steps(config, datamodule))


def largest_difference(a: Path, b: Path) -> float:
    one, other = weights(a), weights(b)
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("experiment", "more"),
    [("dawnbench", ()), ("quick", ()), ("dawnbench", ("data.augment.shift=2", "data.augment.crop=2"))],
)
def test_batches_are_those_of_the_cpu(
    on_gpu: OnGpu, measured: Measured, experiment: str, more: tuple[str, ...], precision: str
) -> None:
    datamodule, _ = parts(on_gpu(experiment, "resizing=null", f"trainer.precision={precision}", *more))
    worst = 0.0
    for _, own, other in zip(range(6), datamodule.loader("train", CPU), datamodule.loader("train", GPU), strict=False):
        assert torch.equal(own.labels, other.labels.cpu())
        assert other.images.is_contiguous(memory_format=torch.channels_last)
        worst = max(worst, (own.images.float() - other.images.cpu().float()).abs().max().item())
    measured(f"largest difference {worst:.2g}")
    assert worst <= (5e-7 if precision == "32-true" else 0)  # one unit in the last place


def five_losses(config: TrainOptions, device: torch.device) -> list[float]:
    datamodule, classifier = parts(config)
    classifier = classifier.to(device).train()
    optimizer, losses = classifier.configure_optimizers(), []
    dtype = INPUTS.get(config.trainer.precision)
    for step, batch in zip(range(1, 6), datamodule.loader("train", device), strict=False):
        t = step / 20
        for group in optimizer.param_groups:
            group["lr"] = classifier.schedule.lr(t) * group["lr_multiplier"]
            group["momentum"] = classifier.schedule.momentum(t, classifier.point.momentum)
        images = resized(batch.images, config.resizing, t) if config.resizing else batch.images
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = F.cross_entropy(classifier(images), batch.labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_first_losses_are_those_of_the_cpu(
    on_gpu: OnGpu, measured: Measured, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very first loss has seen no update and must agree closely; the others show backward and optimizer."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    small = ["batch_size=128", "data.subset_size=2560", "trainer.max_steps=20"]
    small += ["model.width=16"] if experiment in EXPERIMENTS[:2] else []
    expected = five_losses(on_gpu(experiment, "trainer.precision=32-true", *small), CPU)
    for precision, first, later in (("32-true", 2e-5, 2e-2), ("bf16-mixed", 2e-3, 5e-2), ("16-mixed", 1e-3, 5e-2)):
        found = five_losses(on_gpu(experiment, f"trainer.precision={precision}", *small), GPU)
        off = [abs(a - b) for a, b in zip(expected, found, strict=True)]
        measured(f"{precision}: the first loss differs by {off[0]:.1e}, the next four by up to {max(off):.1e}")
        assert off[0] <= first
        assert max(off) <= later


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_evaluation_reproduces_the_record(on_gpu: OnGpu, tmp_path: Path, precision: str) -> None:
    config = on_gpu("bag_of_tricks", "trainer.max_steps=40", f"trainer.precision={precision}", "batch_size=256")
    record = train(config, [], sweep=tmp_path / "runs", progress=False)
    found = evaluate(composed_of(f"run='{only_folder(tmp_path / 'runs')}'", name="evaluate"))
    assert found["test"] == record["test"]


@pytest.mark.parametrize("kernels", [FIXED, ()], ids=["fixed kernels", "measured kernels"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_resumed_run_ends_in_the_same_bits(
    on_gpu: OnGpu, measured: Measured, tmp_path: Path, experiment: str, kernels: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Bit by bit where the kernels are chosen by rule; where cuDNN chooses by measuring, it is only reported."""
    config = on_gpu(experiment, "trainer.max_steps=40", "batch_size=256", *kernels)
    whole = train(config, [], sweep=tmp_path / "whole", progress=False)
    train(config, [], sweep=tmp_path / "again", progress=False)
    consider = Checkpoint._consider

    def interrupted(self: Checkpoint, trainer: Any, *arguments: Any, **options: Any) -> None:
        self._interrupted = trainer.global_step == 20
        consider(self, trainer, *arguments, **options)

    monkeypatch.setattr(Checkpoint, "_consider", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, [], sweep=tmp_path / "cut", progress=False)
    monkeypatch.setattr(Checkpoint, "_consider", consider)
    assert newest(only_folder(tmp_path / "cut")).step == 20
    resumed = train(config, [], sweep=tmp_path / "cut", progress=False)
    folders = {name: only_folder(tmp_path / name) for name in ("whole", "again", "cut")}
    twice, cut = (largest_difference(folders["whole"], folders[name]) for name in ("again", "cut"))
    measured(f"weights of a second run differ by {twice:.2g}, those of the resumed run by {cut:.2g}")
    if kernels:
        assert (twice, cut) == (0, 0)
        assert resumed["test"] == whole["test"]


@pytest.mark.parametrize("experiment", ["dawnbench", "speedrun"])
def test_a_graphed_run_ends_as_one_without_graphs(
    on_gpu: OnGpu, measured: Measured, tmp_path: Path, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, graphs = gpu.record, list[Any]()

    def record_and_count(*arguments: Any) -> Any:
        graphs.append(recorded(*arguments))
        return graphs[-1]

    monkeypatch.setattr(gpu, "record", record_and_count)
    losses, ways = {}, {"plain": ["trainer.cuda_graph=false"], "graph": [], "compiled": ["trainer.compile=true"]}
    for name, words in ways.items():
        config = on_gpu(experiment, "trainer.max_steps=40", "batch_size=256", *FIXED, *words)
        record = train(config, [], sweep=tmp_path / name, progress=False)
        losses[name] = record["train"]["loss"]
        measured(name, f"{len(graphs)} graphs, loss {losses[name]:.6f},", record["seconds"])
    difference = largest_difference(only_folder(tmp_path / "plain"), only_folder(tmp_path / "graph"))
    measured(f"weights of the graphed run differ by {difference:.2g}")
    assert graphs
    assert losses["graph"] == pytest.approx(losses["plain"], abs=1e-3)
    assert losses["compiled"] == pytest.approx(losses["plain"], abs=3e-2)


@pytest.mark.parametrize("fused", ["null", "true"])
def test_gradients_that_overflow_at_once_are_passed_over(
    on_gpu: OnGpu, measured: Measured, tmp_path: Path, fused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda device, **options: scaler(device, init_scale=2.0**26, **options)
    )
    junk = [torch.full((1 << 22,), float("nan"), device=GPU) for _ in range(64)]
    del junk  # what memory that is not initialised would hold
    words = ["trainer.precision=16-mixed", f"optimizer.fused={fused}", "batch_size=256", "model.width=16"]
    record = train(on_gpu("dawnbench", "trainer.max_steps=40", *words), [], sweep=tmp_path / "runs", progress=False)
    measured(record["status"], record["train"])
    assert record["status"] == "finished"


def test_ddp_of_one_process_trains_as_without(on_gpu: OnGpu, measured: Measured, tmp_path: Path) -> None:
    words = ["trainer.max_steps=40", "batch_size=256", *FIXED]
    train(on_gpu("dawnbench", *words), [], sweep=tmp_path / "plain", progress=False)
    config = on_gpu("dawnbench", *words, "trainer.strategy=ddp", "trainer.devices=1")
    assert train(config, [], sweep=tmp_path / "ddp", progress=False)["status"] == "finished"
    difference = largest_difference(only_folder(tmp_path / "plain"), only_folder(tmp_path / "ddp"))
    measured(f"weights differ by {difference:.2g}")
    assert difference < 1e-2


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where the host waited for the device in steps 12 to 31 of the runs that follow."""
    found: list[str] = []
    built = build.build_trainer

    def watched(*arguments: Any, **options: Any) -> Any:
        trainer: Any = built(*arguments, **options)
        recorder = warnings.catch_warnings(record=True)
        caught: list[Any] = []

        def start(trainer: Any, *_: Any) -> None:
            if trainer.global_step == 12:
                caught.append(recorder.__enter__())
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")

        def end(trainer: Any, *_: Any) -> None:
            if trainer.global_step == 32 and caught:
                torch.cuda.set_sync_debug_mode(0)
                recorder.__exit__(None, None, None)
                places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught.pop() if "synchroniz" in str(w.message)]
                found.extend(places)

        trainer.callbacks.insert(0, LambdaCallback(on_train_batch_start=start))
        trainer.callbacks.append(LambdaCallback(on_train_batch_end=end))
        return trainer

    monkeypatch.setattr(build, "build_trainer", watched)
    yield found
    torch.cuda.set_sync_debug_mode(0)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_host_seldom_waits_in_a_step(
    on_gpu: OnGpu, measured: Measured, tmp_path: Path, experiment: str, waits: list[str]
) -> None:
    words = ["trainer.max_steps=40", "callbacks.checkpoint.every_n_steps=null", "evaluation.every_n_epochs=0"]
    train(on_gpu(experiment, "batch_size=256", *words), [], sweep=tmp_path / "runs", progress=False)
    measured(f"{len(waits)} waits in 20 steps:", {place: waits.count(place) for place in sorted(set(waits))})
    assert len(waits) <= 12


def test_peak_memory_is_that_of_the_run(on_gpu: OnGpu, measured: Measured, tmp_path: Path) -> None:
    peaks = []
    for words in (["batch_size=512"], ["batch_size=64", "model.width=16"]):
        config = on_gpu("dawnbench", "trainer.max_steps=20", *FIXED, *words)  # cuDNN's trials take memory of their own
        record = train(config, words, sweep=tmp_path / "runs", progress=False)
        peaks.append(record["peak_memory_bytes"]["device"])
    measured("bytes", *peaks)
    assert peaks[1] < peaks[0] / 2


def test_the_parts_of_a_step_add_up_to_it(on_gpu: OnGpu, measured: Measured) -> None:
    datamodule, classifier = parts(on_gpu("dawnbench", "trainer.precision=bf16-mixed"))
    classifier = classifier.to(GPU).train()
    optimizer, loader = classifier.configure_optimizers(), datamodule.loader("train", GPU)
    found = breakdown.of_steps(classifier.network, optimizer, loader, steps=8, bf16=True)
    batch, times = next(iter(loader)), []
    for _ in range(12):
        torch.cuda.synchronize()
        started = perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(classifier(batch.images), batch.labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        times.append(perf_counter() - started)
    total, wall = sum(found.values()), median(times)
    shown = {part: round(1e3 * seconds, 3) for part, seconds in found.items()}
    measured(f"sum {1e3 * total:.2f} ms, a step takes {1e3 * wall:.2f} ms:", shown)
    assert 0.3 * wall < total < 1.15 * wall
