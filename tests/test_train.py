import gc
import inspect
import json
import math
import os
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf

from helpers import CrashError, composed_of, only_folder, record_of, rows, same, weights
from onecycle import build
from onecycle.callbacks.divergence import Divergence
from onecycle.cli import score
from onecycle.config.schema import TrainerOptions, TrainOptions
from onecycle.config.validate import validated
from onecycle.data.augment import Canvas
from onecycle.errors import ConfigError
from onecycle.runs import summary
from onecycle.runs.saved import resumed_config
from onecycle.training.classifier import Classifier
from onecycle.training_run import train, train_here

Compose = Callable[..., TrainOptions]

EXACT = "callbacks.checkpoint.every_n_minutes=1e-9"  # a checkpoint after every step


def _values(config: TrainOptions) -> dict[str, Any]:
    return config.model_dump(exclude_unset=True)


def test_held_out_images_are_evaluated_at_the_end_also_where_none_are_while_training(tiny: Any) -> None:
    often = train(tiny("data.val_size=50", "evaluation.every_n_epochs=1", "name=often"), [])
    never = train(tiny("data.val_size=50", "evaluation.every_n_epochs=0", "name=never"), [])
    assert never["val"] == often["val"]
    assert 0 <= never["val"]["accuracy"] <= 1


def test_a_run_leaves_its_record_configuration_metrics_and_checkpoint(tmp_path: Path, tiny: Compose) -> None:
    result = train(tiny("seed=3", "data.val_size=50", "evaluation.batch_size=64"), ["seed=3"])
    folder = only_folder(tmp_path / "runs")
    assert folder.name.endswith("_debug")
    assert result["folder"] == str(folder)
    assert {"folder": str(folder), **record_of(folder)} == json.loads(json.dumps(result))
    assert result["status"] == "finished"
    assert result["overrides"] == ["seed=3"]
    assert (result["steps"], result["epochs"]) == (8, 2.0)
    assert result["parameters"] == 26_340
    data = result["data"]
    assert (data["name"], data["train_size"], data["val_size"], data["test_size"]) == ("synthetic", 270, 50, 200)
    assert result["hyperparameters"]["effective_decay"] == pytest.approx(0.4 * 5e-4 / 0.1)
    assert 0 <= result["test"]["accuracy"] <= 1
    assert result["test"]["loss"] == pytest.approx(2.3, abs=0.5)
    assert result["val"]["accuracy"] * 50 == pytest.approx(round(result["val"]["accuracy"] * 50))
    assert result["seconds"]["total"] == pytest.approx(
        sum(result["seconds"][p] for p in ("setup", "warm_up", "fit", "test"))
    )
    assert OmegaConf.load(folder / "config.yaml").seed == 3
    last = rows(folder)[-1]
    assert float(last["lr"]) == 0.0
    assert float(last["momentum"]) == 0.9
    assert float(last["test/accuracy"]) == pytest.approx(result["test"]["accuracy"])


def test_a_finished_run_leaves_no_signal_handler_and_no_images_behind(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvases, handlers = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ready = Canvas.__init__

    def noted(self: Canvas, *arguments: Any) -> None:
        ready(self, *arguments)
        canvases.append(weakref.ref(self))

    monkeypatch.setattr(Canvas, "__init__", noted)
    gc.disable()  # a sweep's next run lays out its images long before the collector comes
    try:
        train(tiny(), [])
    finally:
        gc.enable()
    assert [canvas() for canvas in canvases] == [None] * 2  # of the training images and of the test images
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_the_learning_rate_of_every_step_is_that_of_the_schedule_also_of_a_fraction_of_an_epoch(
    tmp_path: Path, tiny: Compose
) -> None:
    result = train(tiny("trainer.max_epochs=1.4", "schedule.peak_at=0.25", "schedule.peak_lr=0.8"), [])
    assert (result["steps"], result["epochs"]) == (7, 1.4)
    logged = {int(row["step"]): float(row["lr"]) for row in rows(only_folder(tmp_path / "runs"))}
    # 7 steps, peak at step 1.75
    expected = [3.2 / 7, *(0.8 * (7 - step) / 5.25 for step in range(2, 8))]
    assert [logged[step] for step in range(1, 8)] == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_images_grow_with_progress_and_are_tested_whole(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[int]] = {"training_step": [], "test_step": [], "validation_step": []}
    for name, sides in seen.items():
        step = getattr(Classifier, name)

        def noted(self: Classifier, batch: Any, index: int, step: Any = step, sides: list[int] = sides) -> Any:
            sides.append(batch.images.shape[-1])
            return step(self, batch, index)

        monkeypatch.setattr(Classifier, name, noted)
    result = train(tiny("resizing=[[0,16],[0.35,24],[0.65,32]]", "data.val_size=20", "batch_size=60"), [])
    assert result["steps"] == 10
    assert seen["training_step"] == [16, 16, 16, 24, 24, 24, 32, 32, 32, 32]
    assert set(seen["test_step"]) == set(seen["validation_step"]) == {32}
    with pytest.raises(ConfigError, match=r"^resizing=.*: the images have 32 pixels"):
        train(tiny("resizing=[[0,16],[0.5,40]]"), [])
    # Of a source of one's own the size is known only when its images are there.
    cfg = tiny("resizing=[[0,16],[0.5,40]]")
    datamodule = build.build_datamodule(cfg, build.load_dataset(cfg)[1])
    with pytest.raises(ConfigError, match=r"^resizing=.*: the images have 32 pixels"):
        build.total_steps(cfg, datamodule)


def test_equal_seeds_give_identical_weights_and_another_seed_others(tmp_path: Path, tiny: Compose) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name) % 1000)  # the global state must not matter
        train(tiny(f"seed={seed}", f"output={tmp_path / name}"), [])
    a, b, c = (weights(only_folder(tmp_path / name / "runs")) for name in "abc")
    assert same(a, b)
    assert not same(a, c)


def crash_now(*arguments: Any, **named: Any) -> None:
    raise CrashError


class Once:
    calls = 0

    def __call__(self, *arguments: Any) -> None:
        self.calls += 1


def crash_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Divergence.on_train_batch_end

    def hook(self: Divergence, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == step:
            raise CrashError
        original(self, trainer, *arguments)

    monkeypatch.setattr(Divergence, "on_train_batch_end", hook)


def train_until(step: int, monkeypatch: pytest.MonkeyPatch, cfg: Any, sweep: Path | None = None) -> None:
    """Train as a process does that crashes behind a step."""
    with monkeypatch.context() as patch:
        crash_at(step, patch)
        with pytest.raises(CrashError):
            train(cfg, [], sweep=sweep)


RECIPES: dict[str, list[str]] = {  # 5 steps an epoch, 10 in all
    "plain": [EXACT, "batch_size=60"],
    "full": [
        EXACT, "batch_size=60", "ema={decay_per_step:0.9,every_n_steps:2}", "data.augment.flip=alternating",
        "data.val_size=20", "resizing=[[0,16],[0.45,32]]",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> dict[str, Path]:
    """The folder of an undisturbed run of each recipe."""
    folders = {}
    for name, recipe in RECIPES.items():
        output = tmp_path_factory.mktemp(name)
        train(validated(composed_of(*drawn, f"output={output}", *recipe)), [], sweep=output)
        folders[name] = only_folder(output)
    return folders


@pytest.mark.parametrize(("step", "recipe"), [(5, "plain"), (2, "full"), (5, "full"), (8, "full"), (10, "full")])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    step: int, recipe: str, tmp_path: Path, tiny: Compose, undisturbed: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(step, monkeypatch, tiny(*RECIPES[recipe]), sweep=tmp_path)
    folder, reference = only_folder(tmp_path), undisturbed[recipe]
    assert record_of(folder)["status"] == "failed"
    torch.manual_seed(step)
    resumed, whole = train(tiny(*RECIPES[recipe]), [], sweep=tmp_path), record_of(reference)
    assert same(weights(folder), weights(reference))
    for part in ("status", "identity", "test", "train", "val", "steps", "epochs"):
        assert resumed[part] == whole[part], part
    assert "error" not in resumed
    assert rows(folder) == rows(reference)


def test_the_average_of_the_weights_follows_its_formula_and_is_what_is_tested(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, torch.Tensor]] = []

    def keep(self: Divergence, trainer: Any, module: Any, *arguments: Any) -> None:
        states.append({name: value.clone() for name, value in module.network.state_dict().items()})

    monkeypatch.setattr(Divergence, "on_train_batch_end", keep)
    train(tiny("ema={decay_per_step:0.9,every_n_steps:3}", "schedule=constant", "schedule.peak_lr=0.3"), [])
    saved = weights(only_folder(tmp_path / "runs"))
    assert len(states) == 10
    for name, last in states[-1].items():
        if not last.is_floating_point():
            continue
        average = states[2][name]  # the first update copies
        for step in (6, 9):
            average = 0.729 * average + 0.271 * states[step - 1][name]
        torch.testing.assert_close(saved[f"network.{name}"], average)
        assert not torch.equal(average, last)


def crashed_before_its_record(cfg: TrainOptions, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(summary, "test_and_record", crash_now)
        with pytest.raises(CrashError):
            train(cfg, [], sweep=sweep)


def test_a_run_that_was_killed_after_its_last_step_is_only_tested_again(
    tmp_path: Path, tiny: Compose, undisturbed: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(*RECIPES["full"])
    crashed_before_its_record(cfg, tmp_path, monkeypatch)
    resumed, whole = train(cfg, [], sweep=tmp_path), record_of(undisturbed["full"])
    assert (resumed["test"], resumed["train"], resumed["steps"]) == (whole["test"], whole["train"], 10)


@pytest.mark.parametrize("recipe", [["schedule.peak_lr=1e30"], ["callbacks.divergence.max_loss=0.5"]], ids=range(2))
def test_a_diverged_run_stops_early_keeps_its_curve_and_is_a_result_also_if_killed_before_its_record(
    recipe: list[str], tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("schedule=constant", "callbacks.divergence.every_n_steps=2", "trainer.log_every_n_steps=1", *recipe)
    crashed_before_its_record(cfg, tmp_path, monkeypatch)
    result = train(cfg, [], sweep=tmp_path)
    assert result["status"] == "diverged"
    assert 2 <= result["steps"] <= 4
    assert "NaN" not in (only_folder(tmp_path) / "result.json").read_text()
    losses = [float(row["train/loss"]) for row in rows(only_folder(tmp_path)) if row["train/loss"]]
    assert len(losses) == result["steps"]
    assert math.isfinite(losses[0])
    assert train(cfg, [], sweep=tmp_path)["started"] == result["started"]
    assert math.isnan(score(result))


def test_validation_is_no_training_time(tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Classifier.validation_step

    def slow(self: Classifier, *arguments: Any) -> None:
        time.sleep(0.3)
        original(self, *arguments)

    monkeypatch.setattr(Classifier, "validation_step", slow)
    result = train(tiny("data.val_size=20", "evaluation.every_n_epochs=1"), [])
    # 2 epochs of 4 steps of 64, validated twice inside the fit and once behind it.
    training = result["seconds"]["fit"] - 2 * 0.3
    assert 512 / result["seconds"]["fit"] < result["images_per_second"]
    assert result["images_per_second"] == pytest.approx(512 / training, rel=0.3)


def test_gradients_can_be_clipped_in_mixed_precision(tmp_path: Path, tiny: Compose) -> None:
    result = train(tiny("trainer.gradient_clip_val=0.1", "trainer.precision=bf16-mixed"), [])
    free = train(tiny("trainer.gradient_clip_val=null", "trainer.precision=bf16-mixed"), [])
    assert result["train"]["loss"] != free["train"]["loss"]


def test_without_momentum_nesterov_is_plain_descent(tmp_path: Path, tiny: Compose) -> None:
    results = [
        train(tiny("hyperparameters.momentum=0", f"optimizer.nesterov={nesterov}"), [])
        for nesterov in ("true", "false")
    ]
    assert results[0]["status"] == "finished"
    assert results[0]["test"] == results[1]["test"]


def lr_and_momentum(output: Path) -> list[tuple[float, float]]:
    return [(float(row["lr"]), float(row["momentum"])) for row in rows(only_folder(output / "runs")) if row["lr"]]


def test_adamw_has_its_own_betas_unless_the_schedule_cycles_momentum(tmp_path: Path, tiny: Compose) -> None:
    adam = [
        "optimizer=adamw",
        "optimizer.betas=[0.8,0.99]",
        "schedule.peak_lr=0.004",
        "hyperparameters.groups.bias.lr=64",
    ]
    for name, expected in (
        ("one_cycle", [0.8] * 10),
        ("one_cycle_momentum", [0.9, 0.85, *(0.8625 + 0.0125 * k for k in range(8))]),
    ):
        result = train(tiny(*adam, f"schedule={name}", f"output={tmp_path / name}"), [])
        assert (result["status"], result["hyperparameters"]["momentum"]) == ("finished", 0.0)
        rates = lr_and_momentum(tmp_path / name)
        assert [momentum for _, momentum in rates] == pytest.approx(expected, rel=1e-5)
        assert rates[1][0] == pytest.approx(0.004)
    contents = torch.load(only_folder(tmp_path / "one_cycle" / "runs") / "checkpoints" / "last.ckpt", weights_only=True)
    groups = contents["optimizer_states"][0]["param_groups"]
    assert {(group["kind"], group["lr_multiplier"], group["betas"]) for group in groups} == {
        ("weights", 1.0, (0.8, 0.99)), ("bias", 64, (0.8, 0.99)), ("norm_scale", 1.0, (0.8, 0.99)),
        ("head", 1.0, (0.8, 0.99)),
    }  # fmt: skip


def reference(steps: int, make: Any) -> list[tuple[float, float]]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4, momentum=0.9)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        scheduler.step()
    return found


def test_a_scheduler_of_torch_sets_what_it_sets_when_it_is_stepped_by_batch(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedulers = torch.optim.lr_scheduler
    torch_one = [EXACT, "schedule=torch_one_cycle", "schedule.scheduler.pct_start=0.3", f"output={tmp_path / 'a'}"]
    train_until(7, monkeypatch, tiny(*torch_one))
    folder = only_folder(tmp_path / "a" / "runs")
    train(tiny(*torch_one, f"resume={folder}"), [])
    cycle = reference(
        10, lambda optimizer: schedulers.OneCycleLR(optimizer, 0.4, 10, pct_start=0.3, anneal_strategy="linear")
    )
    assert lr_and_momentum(tmp_path / "a") == [pytest.approx(pair, rel=1e-5) for pair in cycle]
    cosine = "+schedule.scheduler={_target_:torch.optim.lr_scheduler.CosineAnnealingLR}"
    train(tiny("schedule=torch_one_cycle", "~schedule.scheduler", cosine, f"output={tmp_path / 'b'}"), [])
    expected = reference(10, lambda optimizer: schedulers.CosineAnnealingLR(optimizer, 10))
    assert lr_and_momentum(tmp_path / "b") == [pytest.approx(pair, rel=1e-5) for pair in expected]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["optimizer=adamw", "hyperparameters=effective"], "hyperparameters.parametrisation=effective: "),
        (["~optimizer", "+optimizer={_target_:torch.optim.Rprop}"], "hyperparameters.weight_decay=0.0005: "),
        (
            ["schedule=torch_one_cycle", "schedule.scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
            "schedule.scheduler.pct_start=0.2: ",
        ),
        (
            ["schedule=torch_one_cycle", "~schedule.scheduler",
             "+schedule.scheduler={_target_:torch.optim.lr_scheduler.ReduceLROnPlateau}"],
            "schedule.scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau: ",
        ),
        (["model=torchvision_resnet18", "model.name=resnet99"], "model._target_="),
        (["model=torchvision_resnet18", "model.name=squeezenet1_0"], "model._target_="),
    ],
)  # fmt: skip
def test_what_does_not_apply_is_told_before_anything_is_written(
    words: list[str], key: str, tmp_path: Path, tiny: Compose
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tiny(*words), [])
    assert caught.value.problems[0].startswith(key)
    assert not [*(tmp_path / "runs").glob("*")]


def test_weights_in_bf16_are_trained_resized_averaged_and_resumed(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = [
        "trainer.precision=bf16-true",
        EXACT,
        "resizing=[[0,16],[0.5,32]]",
        "ema={decay_per_step:0.9,every_n_steps:2}",
    ]
    whole = train(tiny(*cfg), [], sweep=tmp_path / "whole")
    train_until(7, monkeypatch, tiny(*cfg), sweep=tmp_path / "killed")
    assert train(tiny(*cfg), [], sweep=tmp_path / "killed")["test"] == whole["test"]
    assert whole["precision"] == "bf16-true"
    assert len(f"{whole['train']['loss']:.6f}".rstrip("0")) > 6  # summed in fp32
    contents = torch.load(only_folder(tmp_path / "whole") / "checkpoints" / "last.ckpt", weights_only=True)
    assert contents["current_model_state"]["network.head.weight"].dtype == torch.bfloat16


def test_tags_are_in_the_record_and_in_tensorboard_and_change_no_identity(tmp_path: Path, tiny: Compose) -> None:
    first = train(tiny("tags=[a,b c]"), [], sweep=tmp_path)
    assert first["tags"] == ["a", "b c"]
    (events,) = only_folder(tmp_path).glob("events*")
    assert b"a, b c" in events.read_bytes()
    assert train(tiny("tags=[other]"), [], sweep=tmp_path)["started"] == first["started"]


def test_quick_takes_a_network_of_ones_own(tmp_path: Path, tiny: Compose) -> None:
    own = ["data=synthetic", "data.source.train_size=320", "data.source.test_size=200", "trainer.max_epochs=1"]
    cfg = tiny("experiment=quick", "model=backbone_3x3", "model.width=4", *own)
    assert train(cfg, [])["parameters"] == 6_596


def test_only_what_cannot_change_the_result_can_be_changed_in_a_resumed_run(tmp_path: Path, tiny: Compose) -> None:
    train(tiny("seed=4"), [])
    folder = only_folder(tmp_path / "runs")
    cfg = OmegaConf.create(_values(tiny(f"resume={folder}", "trainer.threads=1", "seed=5", "data.root=elsewhere")))
    kept = resumed_config(cfg, [f"resume={folder}", "trainer.threads=1", "data.root=elsewhere"])
    assert (kept.seed, kept.trainer.threads, kept.data.root, kept.resume) == (4, 1, "elsewhere", str(folder))
    with pytest.raises(ConfigError) as caught:
        resumed_config(cfg, [f"resume={folder}", "seed=5", "trainer.threads=1", "model.width=8"])
    assert [line.partition(":")[0] for line in caught.value.problems] == ["seed=5", "model.width=8"]


def test_a_configuration_that_was_changed_behind_a_checkpoint_is_refused_key_by_key(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(7, monkeypatch, tiny(EXACT), sweep=tmp_path)
    folder = only_folder(tmp_path)
    cfg = tiny(EXACT, f"resume={folder}", "seed=3", "label_smoothing=0.1", "callbacks.progress=null")
    with pytest.raises(ConfigError) as caught:
        train(cfg, [])
    ending = "when this run began; its checkpoint cannot go on so"
    assert caught.value.problems == [f"label_smoothing=0.1: was 0.0 {ending}", f"seed=3: was 0 {ending}"]


def test_a_damaged_checkpoint_costs_only_the_steps_after_the_one_before(
    tmp_path: Path,
    tiny: Compose,
    undisturbed: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train_until(7, monkeypatch, tiny(*RECIPES["plain"]), sweep=tmp_path)
    folder = only_folder(tmp_path)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with caplog.at_level("WARNING", "onecycle"):
        train(tiny(*RECIPES["plain"]), [], sweep=tmp_path)
    assert "previous.ckpt, after step 5" in caplog.text
    assert same(weights(folder), weights(undisturbed["plain"]))


def test_a_run_that_another_process_has_just_finished_is_not_run_again(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = build.build_classifier

    def meanwhile(*arguments: Any) -> Any:
        classifier = ready(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(build, "build_classifier", ready)
            train(tiny(), [], sweep=tmp_path)
        return classifier

    monkeypatch.setattr(build, "build_classifier", meanwhile)
    monkeypatch.setattr(summary, "show_start", crash_second := Once())
    assert train(tiny(), [], sweep=tmp_path)["status"] == "finished"
    assert crash_second.calls == 1


def test_a_stop_that_comes_during_the_last_validation_is_not_swallowed(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    original = Classifier.on_validation_epoch_end

    def stopped(self: Classifier) -> None:
        original(self)
        if self.global_step == self.total_steps:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "on_validation_epoch_end", stopped)
            with pytest.raises(KeyboardInterrupt):
                train(tiny(), [], sweep=tmp_path)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert record_of(only_folder(tmp_path))["status"] == "running"
    assert train(tiny(), [], sweep=tmp_path)["steps"] == 10


def test_a_finished_run_of_a_sweep_is_read_back_and_not_run_again(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(tiny("seed=1"), ["seed=1"], sweep=tmp_path)
    crash_at(1, monkeypatch)
    again = train(tiny("seed=1", "data.root=elsewhere", "name=other", "logger=csv"), ["seed=1"], sweep=tmp_path)
    assert again["test"] == first["test"]
    assert again["started"] == first["started"]
    with pytest.raises(CrashError):
        train(tiny("seed=2"), ["seed=2"], sweep=tmp_path)


def test_resume_takes_the_folder_of_a_single_run(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(7, monkeypatch, tiny(EXACT))
    folder = only_folder(tmp_path / "runs")
    result = train(tiny(EXACT, f"resume={folder}"), [])
    assert (result["status"], result["steps"]) == ("finished", 10)
    assert only_folder(tmp_path / "runs") == folder
    whole = train(tiny(f"output={tmp_path / 'whole'}"), [])
    assert result["test"] == whole["test"]


def without_cifar(config: TrainOptions) -> TrainOptions:
    values = _values(config)
    values["data"]["source"] = {
        "_target_": "onecycle.data.sources.Cifar", "name": "cifar10", "root": "nowhere", "download": False,
    }  # fmt: skip
    return validated(values)


def test_a_missing_cifar_is_an_error_that_says_what_to_do(tmp_path: Path, tiny: Compose) -> None:
    cfg = without_cifar(tiny())
    with pytest.raises(ConfigError, match=r"cifar10 is not in .*nowhere.*data.root=… or ONECYCLE_DATA.*data=synthetic"):
        train(cfg, [])
    assert not (tmp_path / "runs").exists()


def test_a_fallback_says_so_in_the_name_the_record_and_the_output(
    tmp_path: Path, tiny: Compose, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = without_cifar(tiny("data.fallback=synthetic", "name=quick"))
    original = build.OmegaConf.load

    def smaller(path: Path) -> Any:
        loaded = original(path)
        loaded.source.train_size, loaded.source.test_size = 320, 200
        return loaded

    with monkeypatch.context() as patch:
        patch.setattr(build.OmegaConf, "load", smaller)
        result = train(cfg, [])
    assert only_folder(tmp_path / "runs").name.endswith("_quick-synthetic")
    assert (result["data"]["name"], result["data"]["stands_in_for"]) == ("synthetic", "cifar10")
    assert capsys.readouterr().out.count("NOT cifar10: synthetic data") == 2
    # Resumed from its own configuration, it still says so.
    folder = only_folder(tmp_path / "runs")
    (folder / "result.json").unlink()
    kept = resumed_config(OmegaConf.create(_values(tiny(f"resume={folder}"))), [f"resume={folder}"])
    assert train(kept, [])["data"]["stands_in_for"] == "cifar10"
    assert capsys.readouterr().out.count("NOT cifar10: synthetic data") == 2


def test_a_gpu_that_is_not_there_is_refused_before_an_image_is_drawn(
    tmp_path: Path, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    with pytest.raises(ConfigError) as caught:
        train(tiny("trainer.accelerator=gpu", f"data.cache={tmp_path / 'cache'}"), [])
    (line,) = caught.value.problems
    assert line.startswith("trainer.accelerator=gpu: ")
    assert list(tmp_path.iterdir()) == []


def test_every_argument_of_lightnings_trainer_is_an_option_or_refused_with_its_reason() -> None:
    known = {*TrainerOptions.model_fields, *TrainerOptions.NOT_TAKEN, "enable_autolog_hparams", "model_registry"}
    assert inspect.signature(pl.Trainer).parameters.keys() <= known
    assert not TrainerOptions.NOT_TAKEN.keys() & TrainerOptions.model_fields.keys()


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("trainer.devices=[0,1]", "trainer._target_=lightning.pytorch.Trainer: "),
        ("+callbacks.x={_target_:lightning.pytorch.callbacks.Timer,duration:x}", "callbacks.x._target_="),
    ],
)
def test_what_a_constructor_refuses_is_a_line_and_leaves_no_folder(
    word: str, named: str, tiny: Compose, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        train_here(tiny(word), [], None, progress=False)
    (line,) = caught.value.problems
    assert line.startswith(named)
    assert not list((tmp_path / "runs").iterdir())


def test_what_a_callback_refuses_as_training_begins_is_one_line(tiny: Compose, tmp_path: Path) -> None:
    needs_a_logger = "+callbacks.x={_target_:lightning.pytorch.callbacks.LearningRateMonitor}"
    with pytest.raises(ConfigError) as caught:
        train_here(tiny(needs_a_logger, "logger=csv", "logger.csv=null"), [], None, progress=False)
    assert len(caught.value.problems) == 1
    assert record_of(only_folder(tmp_path / "runs"))["status"] == "failed"
