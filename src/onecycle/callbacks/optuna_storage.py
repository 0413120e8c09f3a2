"""Optuna's storages, samplers and pruners, by the names that a configuration has for them. Optuna is optional."""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onecycle.callbacks.options import PRUNERS
from onecycle.errors import ConfigError, masked, reason_of

if TYPE_CHECKING:
    import optuna

SAMPLERS = {
    "tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
}  # fmt: skip


def open_storage(where: str) -> "optuna.storages.BaseStorage":
    """The storage that a text names: a database's URL, or "journal:PATH", a file that processes append to.

    A URL whose password is masked, as it stands in files, is completed from the environment's ONECYCLE_STORAGE.
    Raises ConfigError for one that cannot be opened.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    given = os.environ.get("ONECYCLE_STORAGE", "")
    where = given if masked(given) == where else where
    kind, _, path = where.partition(":")
    for wait in (0.1, 0.2, 0.4, 0.8, 0):
        try:
            if kind == "journal":
                return optuna.storages.JournalStorage(JournalFileBackend(path))
            return optuna.storages.RDBStorage(where)
        except (SQLAlchemyError, OSError, ImportError) as error:
            # Of processes that make a database's tables at the same moment, all but one are refused.
            if not wait or not isinstance(error, SQLAlchemyError):
                hint = "; ONECYCLE_STORAGE must be the URL with its password" if ":***@" in where else ""
                raise ConfigError([f"storage={where}: {reason_of(error)}{hint}"]) from error
            time.sleep(wait)
    raise AssertionError


def optuna_part(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """The sampler or pruner (kind) of a name; raises ConfigError where its options do not fit."""
    import optuna

    try:
        if kind == "sampler":
            return getattr(optuna.samplers, SAMPLERS[name])(**options)
        return getattr(optuna.pruners, PRUNERS[name])(**options)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError([f"{kind}={name}: {reason_of(error)}"]) from None
