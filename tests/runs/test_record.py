import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from helpers import record_of
from onecycle.errors import ConfigError
from onecycle.runs import record as run
from onecycle.runs.record import DamagedRecordError, Run, new_folder, read_result, write_atomically
from onecycle.runs.saved import check_links, read_saved

CONFIG = {"seed": 3, "schedule": {"peak_lr": 0.4, "end": 1e-05}, "resume": None, "name": "1e-3"}
# What a run that came to its end has in its record.
RESULTS: dict[str, Any] = {
    "name": "quick", "overrides": ["seed=3"], "seconds": {"fit": 1.5}, "epochs": 1.0, "steps": 10, "parameters": 7,
    "test": {"accuracy": 0.9412, "loss": None}, "train": None, "val": None, "images_per_second": 500.0,
    "hyperparameters": {"peak_lr": 0.1, "momentum": 0.9, "batch_size": 50, "weight_decay": None},
    "data": {"name": "cifar10", "train_size": 1000, "classes": ["cat"]}, "device": "cpu", "precision": "32-true",
    "environment": {"threads": 2},
}  # fmt: skip
FINISHED: dict[str, Any] = {"schema": 1, "status": "finished", **RESULTS}


def opened(folder: Path) -> Run:
    return Run(folder, "quick", "0123456789ab", CONFIG, ["seed=3"])


@pytest.mark.parametrize("moment", [(os, "fsync"), (Path, "replace")], ids=["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(
    moment: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    for text in ("older and longer", "old"):
        write_atomically(tmp_path / "result.json", text)
    monkeypatch.setattr(*moment, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "result.json", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("result.json", "old")]


def test_a_password_is_not_written(tmp_path: Path) -> None:
    for text, kept in (
        ("mysql://u:p@h:3306/db\n", "mysql://u:***@h:3306/db\n"), ("a=x+y://:a/b@c@h, b@c", "a=x+y://:***@h, b@c"),
        ("sqlite:///t.db http://h:80/x mysql://u@h:1 a@b", None),
    ):  # fmt: skip
        write_atomically(tmp_path / "text", text)
        assert (tmp_path / "text").read_text() == (kept or text)


def test_a_record_is_read_as_it_was_written_with_keys_of_other_versions(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "nowhere") is None
    record = FINISHED | {"new": {"key": [1, None]}, "data": {**RESULTS["data"], "source": "drawn"}}
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert read_result(tmp_path) == record


@pytest.mark.parametrize(
    "content",
    [
        b"", b'{"schema": 1, "status": "fini', b"\xff\xfe\x00", b"[1]", b'{"status": "finished"}',
        b'{"schema": 1, "status": "running", "steps": NaN}', b"[" * 100_000, b'{"schema": 1, "status": "odd"}',
        b'{"schema": "1", "status": "running"}', b" " * (run.LARGEST + 1),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_not_a_record_is_damaged_and_a_run_goes_on_without_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(DamagedRecordError, match=rf"^{re.escape(str(tmp_path))}/result\.json: ") as caught:
        read_result(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert not opened(tmp_path).done


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, None) for key in RESULTS if key not in ("train", "val")],
        ("steps", -1), ("steps", 1.5), ("epochs", "1"), ("overrides", [1]), ("overrides", "seed=3"), ("name", 3),
        ("test.accuracy", 1.01), ("test.accuracy", -0.01), ("test.accuracy", None), ("test.loss", "low"),
        ("train", {"loss": True}), ("seconds", [1]), ("data.classes", {"_target_": "os.system"}),
        ("data.train_size", None), ("hyperparameters.batch_size", 0), ("environment.threads", 0), ("measures", 1),
    ],
)  # fmt: skip
def test_a_value_that_no_run_records_is_refused_by_its_key(key: str, value: Any, tmp_path: Path) -> None:
    record = json.loads(json.dumps(FINISHED))
    node = record
    *groups, last = key.split(".")
    for group in groups:
        node = node[group]
    node[last] = value
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(DamagedRecordError, match=last):
        read_result(tmp_path)


@pytest.mark.parametrize("key", [*RESULTS, "data.name", "environment.threads", "hyperparameters.peak_lr"])
def test_a_run_that_came_to_its_end_has_recorded_everything(key: str, tmp_path: Path) -> None:
    for status in ("finished", "diverged", "pruned"):
        record = json.loads(json.dumps(FINISHED | {"status": status}))
        group, _, last = key.rpartition(".")
        del (record[group] if group else record)[last]
        (tmp_path / "result.json").write_text(json.dumps(record))
        with pytest.raises(DamagedRecordError, match=last):
            read_result(tmp_path)


def test_a_record_of_another_schema_is_refused_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema": 2}')
    with pytest.raises(ConfigError, match="schema 1"):
        read_result(tmp_path)
    with pytest.raises(ConfigError, match="schema 1"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        None, b"", b"- 1\n- 2\n", b"seed: [1", b"seed: !!python/object/apply:os.system ['touch executed']",
        b"\xff\xfe\x00", b"a: " + b"[" * 5000, b"#" * (run.LARGEST + 1),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_not_a_runs_folder_is_refused_by_name(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    if content is not None:
        (folder / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(folder))}: .*config\.yaml") as caught:
        read_saved(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "executed").exists()


def test_two_runs_that_start_in_one_second_have_two_folders(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path / "runs", "quick") for _ in range(4)]
    assert all(folder.is_dir() and folder.parent == tmp_path / "runs" for folder in folders)
    assert len(set(folders)) == 4
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}_quick(-\d)?", folder.name) for folder in folders)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^output=.*/file: "):
        new_folder(tmp_path / "file" / "runs", "quick")


def test_a_run_is_running_and_then_finished(tmp_path: Path) -> None:
    this = opened(tmp_path / "new" / "folder")
    assert not this.done
    assert not this.folder.exists()
    with this.recording():
        record = record_of(this.folder)
        assert {key: record[key] for key in ("schema", "status", "identity", "name", "overrides")} == {
            "schema": 1, "status": "running", "identity": "0123456789ab", "name": "quick", "overrides": ["seed=3"],
        }  # fmt: skip
        assert record["test"] is record["train"] is record["val"] is None
        assert read_saved(this.folder) == CONFIG
        this.finish("finished", **RESULTS)
    assert record_of(this.folder) == read_result(this.folder) == record | FINISHED


@pytest.mark.parametrize("status", ["finished", "diverged", "pruned"])
def test_a_run_that_came_to_its_end_is_read_back(status: str, tmp_path: Path) -> None:
    first = opened(tmp_path)
    with first.recording():
        first.finish(status, **RESULTS)
    again = opened(tmp_path)
    assert again.done
    assert again.result == first.result


def test_a_failed_run_records_why_is_tried_again_and_forgets_the_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened(tmp_path).recording():
        _ = 1 / 0
    failed = record_of(tmp_path)
    assert (failed["status"], failed["error"]) == ("failed", "ZeroDivisionError: division by zero")
    again = opened(tmp_path)
    assert not again.done
    with again.recording():
        assert record_of(tmp_path)["status"] == "running"
        again.finish("finished", **RESULTS)
    record = record_of(tmp_path)
    assert record["status"] == "finished"
    assert "error" not in record
    assert record["started"] == failed["started"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_stays_running_to_be_gone_on_with(stop: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(stop), opened(tmp_path).recording():
        raise stop
    assert record_of(tmp_path)["status"] == "running"
    assert "error" not in record_of(tmp_path)
    assert not opened(tmp_path).done


def test_a_full_disk_does_not_hide_why_a_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    def fail() -> None:
        monkeypatch.setattr(run, "write_atomically", full)
        raise RuntimeError("the reason")

    with pytest.raises(RuntimeError, match="the reason"), opened(tmp_path).recording():
        fail()
    assert record_of(tmp_path)["status"] == "running"


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    this = opened(tmp_path)
    nan, inf = float("nan"), float("inf")
    with this.recording():
        this.finish("diverged", **RESULTS | {"train": {"loss": nan}, "curve": [1.0, inf, (-inf, 2)]})
    record = record_of(tmp_path)
    assert (record["train"], record["curve"]) == ({"loss": None}, [1.0, None, [None, 2]])


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
    logger.warning("after")
    said = (tmp_path / "train.log").read_text()
    assert "WARNING during 5\n" in said
    assert "before" not in said
    assert "after" not in said
    assert logger.handlers == handlers


def test_a_file_that_another_process_replaces_meanwhile_is_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "last.ckpt").touch()
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: [folder / "last.part", folder / "last.ckpt"])
    check_links(tmp_path)  # the first one is listed and gone
    os.link(tmp_path / "last.ckpt", tmp_path / "again")
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        check_links(tmp_path)
