"""The values that an override of the command line takes in a sweep."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

MOST = 64  # values of one axis that are looked at before a sweep: more would keep it waiting


def words(override: Override) -> Iterator[str]:
    """The override with each of its values; of ranges and intervals with the first and the last one only."""
    value, line = override.value(), str(override.input_line)
    start = line.partition("=")[0]
    if isinstance(value, ChoiceSweep):
        yield from (f"{start}={text}" for text in islice(override.sweep_string_iterator(), MOST))
    elif isinstance(value, RangeSweep):
        texts = list(islice(override.sweep_string_iterator(), 10**6))
        yield from (f"{start}={text}" for text in dict.fromkeys([*texts[:1], *texts[-1:]]))
    elif isinstance(value, IntervalSweep):
        yield from (f"{start}={end}" for end in (value.start, value.end))
    elif not override.is_sweep_override():
        yield line


def first(override: Override) -> str:
    """The override with its first value; one that has none, such as a pattern of names, is kept as it is."""
    return next(words(override), str(override.input_line))


def further(override: Override) -> list[str]:
    """The override with each of its other values."""
    return list(words(override))[1:]


def values(override: Override) -> list[Any]:
    """The values themselves: one where the override is no sweep."""
    value = override.value()
    return list(value.list) if isinstance(value, ChoiceSweep) else [] if override.is_sweep_override() else [value]
