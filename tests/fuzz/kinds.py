"""What is fuzzed: a kind of file, its mutations, and what must hold of every answer of the program to it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MARKER = "executed"  # what code in a file would leave in the working directory


class WrongError(AssertionError):
    """The program accepted what it must not accept, or refused it in a way that nobody can read."""


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    corpus: files, whole and hostile. mutate: another file made of them. check: True where the program accepted the
    file rightly, False where it refused it as documented; raises WrongError, or lets through what the program raised.
    """

    name: str
    suffix: str
    corpus: Sequence[bytes]
    mutate: Callable[[random.Random, Sequence[bytes]], bytes]
    check: Callable[[Path], bool]

    def input(self, seed: int, index: int) -> bytes:
        """The file with this number: the same on every machine, whichever were made before. First comes the corpus."""
        if index < len(self.corpus):
            return self.corpus[index]
        return self.mutate(random.Random(f"{self.name} {seed} {index}"), self.corpus)


def must(holds: bool, reason: str) -> None:
    """Raise WrongError unless something holds."""
    if not holds:
        raise WrongError(reason)


def must_be_readable(reason: str) -> None:
    """A refusal is one line that a terminal shows as it is; Unicode's own marks for direction are not."""
    must(bool(reason.strip()), "the refusal says nothing")
    must(reason.isprintable(), f"the refusal is not one printable line: {reason!r}")
    must(len(reason) < 2000, f"the refusal has {len(reason)} letters")


def regressions(name: str) -> list[bytes]:
    """Inputs that once were answered wrongly."""
    return [path.read_bytes() for path in sorted((CORPUS / "regressions" / name).glob("*"))]
