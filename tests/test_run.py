import copy
import json
import logging
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from onecycle.config import checks as config
from onecycle.errors import ConfigError
from onecycle.runs import record as run
from onecycle.runs.environment import environment
from onecycle.runs.files import write_atomically
from onecycle.runs.identity import NEUTRAL_KEYS, folder_name, identity, short_name
from onecycle.runs.record import (
    Run,
    new_folder,
    read_config,
    read_result,
)

CONF = Path(__file__).parents[1] / "conf"
DATA_KEY = {"name": "cifar10"}

config.register_resolvers()


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return config.plain(compose("train", overrides=list(overrides)))


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return composed()


def changed(base: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(base)
    node = result
    *parents, last = key.split(".")
    for name in parents:
        node = node.setdefault(name, {})
    assert node.get(last) != value
    node[last] = value
    return result


@pytest.mark.parametrize("key", NEUTRAL_KEYS)
def test_what_cannot_change_a_result_does_not_change_the_identity(key: str, base: dict[str, Any]) -> None:
    for value in ("elsewhere", None, {"_target_": "another", "with": {"keys": 1}}):
        other = copy.deepcopy(base) if value is None else changed(base, key, value)
        if value is None:
            other = changed(changed(base, key, "set"), key, None)
        assert identity(other, DATA_KEY) == identity(base, DATA_KEY)


def test_a_run_is_the_same_on_another_machine_in_other_folders_and_shown_otherwise(base: dict[str, Any]) -> None:
    other = composed(
        "name=other", "output=/tmp/x", "resume=logs/runs/x", "data.root=/data", "data.cache=/tmp/cache",
        "data.fallback=synthetic", "data.source.download=false", "logger=csv", "callbacks.progress=null",
        "callbacks.training_log=null", "callbacks.figures=null", "callbacks.checkpoint.every_n_minutes=1",
        "evaluation.batch_size=10", "evaluation.every_n_epochs=0", "trainer.accelerator=gpu",
        "trainer.threads=3", "trainer.log_every_n_steps=1",
        "trainer.benchmark=false", "trainer.deterministic=true", "trainer.detect_anomaly=true",
    )  # fmt: skip
    assert identity(other, DATA_KEY) == identity(base, DATA_KEY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("batch_size", 128),
        ("label_smoothing", 0.2),
        ("resizing", [[0, 24], [0.5, 32]]),
        ("ema", {"decay": 0.99, "every_n_steps": 5}),
        ("schedule.peak_lr", 0.3),
        ("schedule._target_", "onecycle.training.schedule.Constant"),
        ("hyperparameters.momentum", 0.85),
        ("hyperparameters.groups.bias.lr", 32.0),
        ("trainer.devices", 2),
        ("optimizer.nesterov", False),
        ("model.width", 32),
        ("model.residual", []),
        ("model.residual", [1, 2]),
        ("data.subset_size", 5000),
        ("data.subset_seed", 1),
        ("data.val_size", 500),
        ("data.classes", ["cat", "dog"]),
        ("data.augment.flip", "none"),
        ("data.source.name", "cifar100"),
        ("evaluation.tta", "none"),
        ("trainer.precision", "32-true"),
        ("trainer.max_epochs", 7),
        ("trainer.gradient_clip_val", 1.0),
        ("trainer.compile", True),
        ("callbacks.divergence.max_loss", 9.0),
        ("a_key_of_tomorrow", 1),
        ("names", {}),  # begins like the neutral "name"
    ],
)
def test_what_can_change_a_result_changes_the_identity(key: str, value: Any, base: dict[str, Any]) -> None:
    assert identity(changed(base, key, value), DATA_KEY) != identity(base, DATA_KEY)


def test_other_data_are_another_run(base: dict[str, Any]) -> None:
    assert identity(base, {"name": "cifar10", "files": "1a2b"}) != identity(base, DATA_KEY)


def test_an_identity_is_the_same_tomorrow_and_in_any_order_of_keys() -> None:
    # Sweeps find their finished runs by it: were it to change, all of them would be run again.
    first = {"seed": 0, "model": {"width": 16, "residual": [1, 3]}, "name": "x"}
    second = {"name": "y", "model": {"residual": [1, 3], "width": 16}, "seed": 0}
    assert identity(first, {"a": 1, "b": 2}) == identity(second, {"b": 2, "a": 1}) == "094f5a894d8f"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "run"),
        (["schedule.peak_lr=0.1", "seed=0"], "peak_lr=0.1,seed=0"),
        (["experiment=quick", "seed=3"], "seed=3"),
        (["name=x", "output=/tmp/x", "data.root=/data", "logger=csv", "trainer.accelerator=cpu"], "run"),
        (["data=synthetic", "trainer=cpu", "model=backbone"], "data=synthetic,trainer=cpu,model=backbone"),
        (["+model.depth=3", "++seed=1", "~callbacks.progress"], "depth=3,seed=1"),
        (["data.classes=[cat,dog]", "model.extra=[1, 2]"], "classes=_cat,dog_,extra=_1,_2_"),
        (["data.source.test_size=20", "hyperparameters.groups.bias.lr=64"], "test_size=20,lr=64"),
        (["model.norm=../../x y"], "norm=.._.._x_y"),
        (["schedule.peak_lr=1e-3"], "peak_lr=1e-3"),
    ],
)
def test_a_short_name_says_what_varies(overrides: list[str], name: str) -> None:
    assert short_name(overrides) == name


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("constant 0.05,seed=0", "constant_0.05,seed=0"),
        ("step, from 0.1,seed=1", "step,_from_0.1,seed=1"),
        ("4λ, α/4,seed=2", "4λ,_α_4,seed=2"),
        ("../../etc", ".._.._etc"),
    ],
)
def test_a_label_becomes_a_folder_name_that_still_says_what_it_is(label: str, name: str) -> None:
    assert folder_name(label) == name


def test_a_short_name_is_short_and_one_folder() -> None:
    name = short_name([f"model.option_{i}=value/{i}" for i in range(40)])
    assert len(name) == 100
    assert "/" not in name


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "old and long")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "result.json"
    write_atomically(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync", fail) if moment == "fsync" else (Path, "replace", fail)))
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    write_atomically(path, "newer")
    assert path.read_text() == "newer"


def test_a_folder_without_a_record_has_none(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "nowhere") is None


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = {"schema": 1, "status": "finished", **RESULTS}
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert read_result(tmp_path) == record


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"is not a run's record \(Expecting value"),
        (b'{"schema": 1, "status": "fini', r"is not a run's record \(Unterminated string"),
        (b"\xff\xfe\x00", r"is not a run's record \('utf-8' codec"),
        (b"[1]", r"is not a run's record \(it is not a record of schema 1\)"),
        (b'{"status": "finished"}', r"is not a run's record \(it is not a record of schema 1\)"),
        (b'{"schema": 2}', "is not a record of schema 1"),
    ],
)
def test_what_is_not_a_record_is_refused_by_name(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path))}/result.json: {problem}"):
        read_result(tmp_path)


def test_a_record_that_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(ConfigError, match=r"/result\.json: is not a run's record \(Is a directory\)$"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"config\.yaml: No such file or directory"),
        (b"", r"config\.yaml: it holds no configuration"),
        (b"- 1\n- 2\n", r"config\.yaml: it holds no configuration"),
        (b"seed: [1", r"config\.yaml: while parsing a flow sequence"),
        (b"seed: !!python/object/apply:os.system [true]", r"config\.yaml: could not determine a constructor"),
        (b"\xff\xfe\x00", r"config\.yaml: 'utf-8' codec"),
    ],
)
def test_what_is_not_a_runs_folder_is_refused_by_name(content: bytes | None, problem: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(tmp_path))}: is not a run's folder \({problem}") as caught:
        read_config(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_in_place_of_a_runs_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("hello")
    with pytest.raises(ConfigError, match=r"README\.md: is not a run's folder \(config\.yaml: Not a directory\)"):
        read_config(file)


def test_two_runs_that_start_in_one_second_have_two_folders(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path, "quick") for _ in range(4)]
    assert all(folder.is_dir() and folder.parent == tmp_path / "runs" for folder in folders)
    assert len(set(folders)) == 4
    by_second = {folder.name[:17]: [f.name for f in folders if f.name[:17] == folder.name[:17]] for folder in folders}
    for second, names in by_second.items():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}", second)
        assert names == [f"{second}_quick", *(f"{second}_quick-{n}" for n in range(2, len(names) + 1))]


def test_an_output_that_is_no_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^output=.*/file: no run's folder can be made in it \(Not a directory\)$"):
        new_folder(tmp_path / "file", "quick")


CONFIG = {"seed": 3, "schedule": {"peak_lr": 0.4, "end": 1e-05}, "resume": None}


def opened(folder: Path) -> Run:
    return Run(folder, "quick", "0123456789ab", CONFIG, ["seed=3"])


# What a run that came to its end has in its record.
RESULTS: dict[str, Any] = {
    "name": "quick", "overrides": ["seed=3"], "seconds": {"fit": 1.5}, "epochs": 1.0, "steps": 10, "parameters": 7,
    "test": {"accuracy": 0.9412, "loss": None}, "train": None, "val": None, "images_per_second": 500.0,
    "hyperparameters": {"peak_lr": 0.1, "momentum": 0.9, "batch_size": 50, "weight_decay": None},
    "data": {"name": "cifar10", "train_size": 1000, "classes": ["cat"]}, "device": "cpu", "precision": "32-true",
    "environment": {"threads": 2},
}  # fmt: skip


def recorded(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def test_a_run_is_running_and_then_finished(tmp_path: Path) -> None:
    this = opened(tmp_path / "new" / "folder")
    assert not this.done
    assert not this.folder.exists()
    with this.recording():
        record = recorded(this.folder)
        assert {key: record[key] for key in ("schema", "status", "identity", "name", "overrides")} == {
            "schema": 1, "status": "running", "identity": "0123456789ab", "name": "quick", "overrides": ["seed=3"],
        }  # fmt: skip
        assert record["test"] is record["train"] is record["val"] is None
        assert read_config(this.folder) == CONFIG
        this.finish("finished", **RESULTS)
    record |= {"status": "finished", **RESULTS}
    assert recorded(this.folder) == read_result(this.folder) == record


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_a_run_that_came_to_its_end_is_read_back(status: str, tmp_path: Path) -> None:
    first = opened(tmp_path)
    with first.recording():
        first.finish(status, **RESULTS)
    again = opened(tmp_path)
    assert again.done
    assert again.result == first.result


def test_a_run_that_raises_is_failed_with_the_reason(tmp_path: Path) -> None:
    this = opened(tmp_path)
    with pytest.raises(ZeroDivisionError), this.recording():
        _ = 1 / 0
    record = recorded(tmp_path)
    assert (record["status"], record["error"]) == ("failed", "ZeroDivisionError: division by zero")


def test_a_failed_run_is_tried_again_and_forgets_the_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), opened(tmp_path).recording():
        raise RuntimeError("once")
    started = recorded(tmp_path)["started"]
    again = opened(tmp_path)
    assert not again.done
    with again.recording():
        assert recorded(tmp_path)["status"] == "running"
        again.finish("finished", **RESULTS)
    record = recorded(tmp_path)
    assert record["status"] == "finished"
    assert "error" not in record
    assert record["started"] == started


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_stays_running_to_be_gone_on_with(stop: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(stop), opened(tmp_path).recording():
        raise stop
    assert recorded(tmp_path)["status"] == "running"
    assert "error" not in recorded(tmp_path)
    assert not opened(tmp_path).done


def test_a_full_disk_does_not_hide_why_a_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    def fail() -> None:
        monkeypatch.setattr(run, "write_atomically", full)
        raise RuntimeError("the reason")

    with pytest.raises(RuntimeError, match="the reason"), opened(tmp_path).recording():
        fail()
    assert recorded(tmp_path)["status"] == "running"


def test_only_one_process_records_a_run(tmp_path: Path) -> None:
    holder = f"process {os.getpid()} on {re.escape(platform.node())}"
    refusal = f"^{re.escape(str(tmp_path))}: {holder} is training this run$"
    with opened(tmp_path).recording():
        second = opened(tmp_path)
        with pytest.raises(ConfigError, match=refusal), second.recording():
            raise AssertionError("not reached")
        assert recorded(tmp_path)["status"] == "running"
    with opened(tmp_path).recording():  # the first has let go
        assert recorded(tmp_path)["status"] == "running"


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    this = opened(tmp_path)
    nan, inf = float("nan"), float("inf")
    with this.recording():
        this.finish("diverged", test={"loss": nan, "accuracy": 0.1}, curve=[1.0, inf, (-inf, 2)], steps=4)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert record["test"] == {"loss": None, "accuracy": 0.1}
    assert record["curve"] == [1.0, None, [None, 2]]


@pytest.mark.parametrize("fails", [False, True])
def test_the_log_of_a_run_holds_what_was_said_during_it_and_no_more(fails: bool, tmp_path: Path) -> None:
    logger = logging.getLogger("onecycle")
    handlers = list(logger.handlers)
    logger.warning("before")
    try:
        with opened(tmp_path).recording():
            logger.warning("during %d", 5)
            if fails:
                raise ValueError("this is why")
    except ValueError:
        pass
    logger.warning("behind")
    said = (tmp_path / "train.log").read_text()
    assert "WARNING during 5\n" in said
    assert "before" not in said
    assert "behind" not in said
    assert logger.handlers == handlers


def test_the_environment_names_versions_and_threads() -> None:
    import lightning
    import torch

    found = environment(threads=3)
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert found["lightning"] == lightning.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == 3


@pytest.mark.parametrize("failure", [FileNotFoundError("git"), TimeoutError("git")], ids=["not installed", "too slow"])
def test_a_machine_without_git_has_no_revision(failure: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise failure

    monkeypatch.setattr("onecycle.runs.environment.subprocess.run", fail)
    assert environment(threads=1)["git"] is None
