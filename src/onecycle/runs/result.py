"""What a run records: the keys of result.json, schema 1."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onecycle.config.types import Fraction, NonNegativeNumber, Number

SCHEMA = 1
DONE = ("finished", "diverged", "pruned")

Size = Annotated[int, Field(ge=0)]
Numbers = dict[str, Number | None]


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
    batch_size: Annotated[int, Field(ge=1)]


class _Data(_Part):
    name: str
    train_size: Size
    val_size: Size = 0
    test_size: Size = 0
    classes: list[str] = []


class _Environment(_Part):
    threads: Annotated[int, Field(ge=1)]
    processor: str = ""


class Record(_Part):
    """result.json, schema 1. A run that is finished, diverged or pruned has all the keys below but OPTIONAL."""

    OPTIONAL: ClassVar = {"identity", "started", "error", "peak_memory_bytes", "measures"}

    schema_: Literal[1] = Field(alias="schema")
    status: Literal["running", "finished", "diverged", "pruned", "failed"]
    identity: str = ""
    name: str = ""
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
    environment: _Environment | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "Record":
        if self.status in DONE:
            missing = Record.model_fields.keys() - Record.OPTIONAL - self.model_fields_set
            missing |= {name for name in ("hyperparameters", "data", "environment") if getattr(self, name) is None}
            if missing:
                raise ValueError(f"{', '.join(sorted(missing))} missing")
            if self.test is None or self.test.accuracy is None:
                raise ValueError("test.accuracy must be a number from 0 to 1")
        return self
