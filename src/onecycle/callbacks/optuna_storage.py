"""Optuna's storages and pruners, by the names that a configuration has for them. Optuna is an optional extra."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onecycle.callbacks.options import PRUNERS
from onecycle.errors import ConfigError, reason_of

if TYPE_CHECKING:
    import optuna


def open_storage(where: str) -> "optuna.storages.BaseStorage":
    """The storage that a text names: a database's URL, or "journal:PATH", a file that processes append to.

    Raises ConfigError for one that cannot be opened.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    kind, _, path = where.partition(":")
    for wait in (0.1, 0.2, 0.4, 0.8, None):
        try:
            if kind == "journal":
                return optuna.storages.JournalStorage(JournalFileBackend(path))
            return optuna.storages.RDBStorage(where)
        except SQLAlchemyError as error:
            # Of processes that make a database's tables at the same moment, all but one are refused.
            if wait is None:
                raise ConfigError([f"storage={where}: {str(error).splitlines()[0]}"]) from error
            time.sleep(wait)
        except (OSError, ImportError) as error:
            raise ConfigError([f"storage={where}: {error}"]) from error
    raise AssertionError


def optuna_object(kind: str, name: str, class_name: str, options: Mapping[str, Any]) -> Any:
    """The sampler or pruner (kind) of that class of Optuna's; raises ConfigError where its options do not fit."""
    import optuna

    try:
        return getattr(getattr(optuna, f"{kind}s"), class_name)(**options)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError([f"{kind}={name}: {reason_of(error)}"]) from None


def make_pruner(name: str, options: Mapping[str, Any]) -> "optuna.pruners.BasePruner":
    """The pruner of that name in PRUNERS; raises ConfigError for unknown options."""
    pruner: optuna.pruners.BasePruner = optuna_object("pruner", name, PRUNERS[name], options)
    return pruner
