"""One run = one folder = one record: its status, its result.

A run's folder holds result.json, config.yaml, checkpoints/, TensorBoard events, metrics.csv, train.log and figures/.
Everything that other programs read from it is replaced whole, never written in place.
"""

import contextlib
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json, to_json

from onecycle.config.types import Count, Fraction, NonNegativeNumber, Number
from onecycle.errors import ConfigError, masked, reason_of
from onecycle.runs import processes
from onecycle.runs.lock import BusyError, LostLeaseError, exclusive

log = logging.getLogger("onecycle")

RESULT, CONFIG, LOG = "result.json", "config.yaml", "train.log"
LARGEST = 1 << 20  # bytes of a record or a configuration; usual ones have a few thousand
SCHEMA = 1
WAIT_SECONDS = 1.0
SECONDS = ("setup", "warm_up", "fit", "test", "total")  # a run's, by part
DONE = ("finished", "diverged", "pruned")

Size = Annotated[int, Field(ge=0)]
Numbers = dict[str, Number | None]


class DamagedRecordError(ConfigError):
    """A result.json that is no record, as after a full disk; unlike that of another schema, it is worth nothing."""


class _Part(BaseModel):
    """Keys that a record must or may have; it may have others, which older and newer versions wrote."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Metrics(_Part):
    __pydantic_extra__: Numbers
    accuracy: Fraction | None = None


class _Hyperparameters(_Part):
    __pydantic_extra__: Numbers
    peak_lr: NonNegativeNumber
    momentum: NonNegativeNumber
    batch_size: Count


class _Data(_Part):
    name: str
    train_size: Size
    val_size: Size = 0
    test_size: Size = 0
    classes: list[str] = []


class _Environment(_Part):
    threads: Count
    processor: str = ""


class Record(_Part):
    """result.json, schema 1. A run that is finished, diverged or pruned has all the keys below but OPTIONAL."""

    OPTIONAL: ClassVar = {"identity", "started", "error", "peak_memory_bytes", "measures", "repeatable", "tags", "task"}

    schema_: Literal[1] = Field(alias="schema")
    status: Literal["running", "finished", "diverged", "pruned", "failed"]
    identity: str = ""
    name: str = ""
    task: str = ""  # the class of another task than classification, whose test may have no accuracy
    tags: list[str] = []
    overrides: list[str] = []
    started: str = ""
    error: str = ""
    test: _Metrics | None = None
    train: Numbers | None = None
    val: Numbers | None = None
    seconds: Numbers = {}
    epochs: NonNegativeNumber = 0
    steps: Size = 0
    parameters: Size = 0
    images_per_second: NonNegativeNumber = 0
    peak_memory_bytes: Numbers | None = None
    hyperparameters: _Hyperparameters | None = None
    data: _Data | None = None
    measures: dict[str, Any] = {}
    device: str = ""
    precision: str = ""
    repeatable: bool = False
    environment: _Environment | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "Record":
        given = {name for name in self.model_fields_set if getattr(self, name) is not None} | {"train", "val"}
        missing = Record.model_fields.keys() - Record.OPTIONAL - (given & self.model_fields_set)
        if self.test is None or (self.test.accuracy is None and not self.task):
            missing.add("test.accuracy")
        if self.status in DONE and missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
        return self


def score_of(metrics: Mapping[str, float | None]) -> float:
    """What a search maximises: the accuracy, or, of a task without one, minus the loss; NaN where there is neither."""
    accuracy, loss = metrics.get("accuracy"), metrics.get("loss")
    return accuracy if accuracy is not None else -loss if loss is not None else math.nan


def score_text(score: float) -> str:
    """A score in words: 85.12%, or loss 0.412."""
    return f"{score:.2%}" if score >= 0 else f"loss {-score:.4g}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Metrics on one line: loss 0.412 accuracy 85.12%; those that belong to one class are left out."""
    words = {name: f"{value:.2%}" if name.startswith("accuracy") else f"{value:.3f}" for name, value in metrics.items()}
    return " ".join(f"{name} {text}" for name, text in words.items() if "/" not in name)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's contents: a reader, or a crash at any moment, sees the old or the new text in full.

    Passwords of URLs are masked.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # two processes may replace one file
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(masked(text))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_result(folder: Path) -> dict[str, Any] | None:
    """The record in a run's folder, as it was written, or None where there is none.

    Raises ConfigError where it is of another schema, and DamagedRecordError where it is not a record.
    """
    path = folder / RESULT
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        entries: dict[str, Any] = from_json(path.read_bytes(), allow_inf_nan=False)
        schema = entries.get("schema") if isinstance(entries, dict) else None
        if type(schema) is not int or schema == SCHEMA:
            Record.model_validate(entries)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            place = f"{'.'.join(map(str, first['loc']))}={ascii(first['input'])[:60]}: " if first["loc"] else ""
            reason = place + first["msg"]
        raise DamagedRecordError([f"{path}: is not a run's record ({reason})"]) from None
    if schema != SCHEMA:
        raise ConfigError([f"{path}: is not a record of schema {SCHEMA}"])
    return entries


def earlier_result(folder: Path) -> dict[str, Any]:
    """The record that a run goes on from; empty where there is none, or, with a warning, where it is damaged."""
    try:
        return read_result(folder) or {}
    except DamagedRecordError as error:
        log.warning("%s: the run goes on from its checkpoint, or from the beginning.", error)
        return {}


def new_folder(parent: Path, name: str) -> Path:
    """A folder <parent>/<date>_<time>_<name> that was not there before; raises ConfigError where none can be made."""
    stamp = f"{datetime.now():%Y-%m-%d_%H%M%S}_{name}"
    for number in itertools.count(1):
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError([f"output={parent.parent}: no folder can be made in it ({reason_of(error)})"]) from None
    return folder


class Run:
    """The folder of one run and the record in it."""

    def __init__(
        self, folder: Path, name: str, run_identity: str, config: dict[str, Any], overrides: Sequence[str]
    ) -> None:
        self.folder, self.config = folder, config
        self.check_lease: Callable[[], None] = lambda: None
        previous = processes.of_first(lambda: earlier_result(folder))
        self.done = previous.get("status") in DONE
        self.result: dict[str, Any] = previous if self.done else {
            "schema": SCHEMA, "status": "running", "identity": run_identity, "name": name,
            "tags": config.get("tags", []), "test": None, "train": None, "val": None, "overrides": list(overrides),
            "seconds": previous.get("seconds") or dict.fromkeys(SECONDS, 0.0),
            "started": previous.get("started") or datetime.now().astimezone().isoformat(timespec="seconds"),
        }  # fmt: skip

    @contextlib.contextmanager
    def recording(self, wait: bool = False) -> Iterator[None]:
        """Keep the record's status true while the run is going: running, then failed if anything is raised.

        An interrupted run keeps the status running: the same command, or resume=, goes on with it. Where another
        process is training in this folder: waits until it has ended, or raises BusyError. Ranks but the first leave
        the record alone.
        """
        with contextlib.ExitStack() as stack:

            def lock() -> dict[str, Any]:
                for number in itertools.count():
                    try:
                        self.check_lease = stack.enter_context(exclusive(self.folder))
                        break
                    except BusyError as busy:
                        if not wait:
                            raise
                        if not number:
                            log.info("%s; waiting for it.", busy)
                        time.sleep(WAIT_SECONDS)
                return earlier_result(self.folder)

            again = processes.of_first(lock)
            if again.get("status") in DONE:
                self.result, self.done = again, True
            elif processes.is_first():
                stack.enter_context(self._status_kept())
            yield

    @contextlib.contextmanager
    def _status_kept(self) -> Iterator[None]:
        handler = logging.FileHandler(self.folder / LOG)
        handler.handleError = lambda record: None  # type: ignore[method-assign] # a full disk is reported elsewhere
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)  # the file keeps what the terminal does not show
        try:
            self._write()
            yield
        except Exception as error:
            self.result |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
            log.debug("The run failed.", exc_info=True)
            with contextlib.suppress(OSError, LostLeaseError):  # a full disk is often the very reason
                self._write()
            raise
        finally:
            log.removeHandler(handler)
            handler.close()

    def finish(self, status: str, **entries: Any) -> None:
        """Write the record of a run that came to its end, with one of the states of DONE."""
        self.result.pop("error", None)
        self.result |= {"status": status, **entries}
        self._write()

    def _write(self) -> None:
        if not processes.is_first():
            return
        self.check_lease()
        self.folder.mkdir(parents=True, exist_ok=True)  # it may have been removed meanwhile
        write_atomically(self.folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(self.config)))
        # JSON knows neither NaN nor infinity.
        write_atomically(self.folder / RESULT, to_json(self.result, indent=1, inf_nan_mode="null").decode() + "\n")
