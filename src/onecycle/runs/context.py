"""What a run tells those of its callbacks and loggers that ask for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunContext:
    """A run as its components see it.

    folder: where the run writes. steps_done: the step of the checkpoint from which it resumes, 0 for a new run.
    key: the values in which a run that resumes from one of its checkpoints must agree.
    """

    folder: Path
    steps_done: int = 0
    key: Mapping[str, Any] = field(default_factory=dict)


class NeedsRun:
    """Base of callbacks and loggers that need to know their run.

    Every component is built from its YAML alone, Lightning's and a user's as well as ours, and a relative path in it
    is relative to the working directory. One that is derived from this class is then given its run, before training.
    """

    def attach(self, run: RunContext) -> None:
        """Take what is needed of `run`; nothing else is called before."""
        raise NotImplementedError


def attach_all(components: Iterable[object], run: RunContext) -> None:
    """Give the run to those of the components that ask for it."""
    for component in components:
        if isinstance(component, NeedsRun):
            component.attach(run)
