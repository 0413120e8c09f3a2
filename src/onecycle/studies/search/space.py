"""What a search varies: steps along coordinates, or draws from intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onecycle.config.hyperparameters import is_finite_number
from onecycle.errors import ConfigError


@dataclass(frozen=True)
class Coordinate:
    """A hyperparameter to search along.

    name: its configuration key. start: its first value, above 0. factor: above 1; a step multiplies or divides by it.
    complement: the factor acts on 1 − value, as for a momentum, whose effect goes with 1/(1−ρ). low, high: the values
    allowed, ends included.
    """

    name: str
    start: float
    factor: float = 2.0
    complement: bool = False
    low: float = 0.0
    high: float = math.inf

    def at(self, exponent: float) -> float | None:
        """The value `exponent` steps from the start; None outside of what is allowed.

        Upwards is towards the larger value: for a complement, towards the smaller 1 − value. Behind a part of a step
        a value has four digits.
        """
        scaled = (1 - self.start) * self.factor**-exponent if self.complement else self.start * self.factor**exponent
        # What the search writes into commands and tables should read like what a person would type.
        scaled = float(f"{scaled:.{12 if float(exponent).is_integer() else 4}g}")
        value = float(f"{1 - scaled if self.complement else scaled:.12g}")
        return value if self.low <= value <= self.high and 0 <= value < (1 if self.complement else math.inf) else None


@dataclass(frozen=True)
class Interval:
    """A hyperparameter to draw between `low` and `high`, evenly or, with `log`, evenly in its logarithm.

    complement: 1 − value is what is drawn, as for a momentum.
    """

    name: str
    low: float
    high: float
    log: bool = True
    complement: bool = False

    def at(self, share: float) -> float:
        """The value at a share of the way from `low` to `high`, in [0, 1]."""
        if self.log:
            drawn = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            drawn = self.low + share * (self.high - self.low)
        return float(f"{1 - drawn if self.complement else drawn:.6g}")


def intervals(settings: Mapping[str, Any]) -> list[Interval]:
    """Intervals from a configuration, {key: {low, high, log, complement}}.

    Of a complement low and high are those of 1 − value. Raises ConfigError with every mistake, one line each.
    """
    problems: list[str] = []
    found = []
    for key, entry in settings.items():
        given = dict(entry or {})
        problems += [
            f"{key}.{name}: is unknown; there are low, high, log, complement"
            for name in given
            if name not in ("low", "high", "log", "complement")
        ]
        problems += [f"{key}.{name}={given.get(name)!r}: must be a number" for name in ("low", "high")
                     if not is_finite_number(given.get(name))]  # fmt: skip
        problems += [f"{key}.{name}={given[name]!r}: must be true or false" for name in ("log", "complement")
                     if given.get(name) not in (None, True, False)]  # fmt: skip
        if not problems:
            interval = Interval(key, **given)
            if not interval.low < interval.high:
                problems.append(f"{key}.low={interval.low}: must be below high, {interval.high}")
            elif interval.log and interval.low <= 0:
                problems.append(f"{key}.low={interval.low}: must be above 0 for a logarithm; or set log: false")
            found.append(interval)
    if not settings:
        problems.append("space: is empty; name at least one key, such as schedule.peak_lr")
    if problems:
        raise ConfigError(problems)
    return found


def coordinates(settings: Mapping[str, Any]) -> list[Coordinate]:
    """Coordinates from a configuration, {key: {start, factor, complement, low, high}}, in its order.

    Raises ConfigError with every mistake, one line each.
    """
    problems: list[str] = []
    found = [_coordinate(key, entry, problems) for key, entry in settings.items()]
    if not settings:
        problems.append("coordinates: is empty; name at least one key, such as hyperparameters.effective_decay")
    if problems:
        raise ConfigError(problems)
    return found


def _coordinate(key: str, entry: Any, problems: list[str]) -> Coordinate:
    given = dict(entry or {})
    before = len(problems)
    unknown = [name for name in given if name not in ("start", "factor", "complement", "low", "high")]
    problems += [f"{key}.{name}: is unknown; there are start, factor, complement, low, high" for name in unknown]
    for name in ("start", "factor", "low", "high"):
        value = given.get(name)
        if value is None and name != "start":
            given.pop(name, None)
        elif not is_finite_number(value):
            problems.append(f"{key}.{name}={value!r}: must be a number" + _unset(name, value))
    if given.get("complement") not in (None, True, False):
        problems.append(f"{key}.complement={given['complement']!r}: must be true or false")
    if len(problems) > before:
        return Coordinate(key, 1.0)
    coordinate = Coordinate(key, **{name: value for name, value in given.items() if value is not None})
    if coordinate.factor <= 1:
        problems.append(f"{key}.factor={coordinate.factor}: must be above 1")
    if coordinate.start <= 0 and not coordinate.complement:
        problems.append(f"{key}.start={coordinate.start}: must be above 0, because steps multiply it")
    elif len(problems) == before and coordinate.at(0) is None:
        problems.append(f"{key}.start={coordinate.start}: must be a value that is allowed")
    return coordinate


def _unset(name: str, value: Any) -> str:
    """Why a start is missing: a search around a configuration takes that of the configuration."""
    return "; the configuration has no such key" if name == "start" and value is None else ""
