"""Which messages a process of a run shows on the terminal."""

import logging
import sys

from onecycle.runs import processes

log = logging.getLogger("onecycle")


def show_messages(level: int = logging.INFO) -> None:
    """Show messages as they are; what is of use only later goes to the run's train.log alone.

    Of several processes the first one shows them from `level` on, the others only their errors.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger().setLevel(logging.INFO)
    log.setLevel(logging.DEBUG)
    for handler in logging.getLogger().handlers:
        handler.setLevel(level if processes.is_first() else logging.ERROR)


def shown_level() -> int:
    """The level from which messages of a run are shown here: a study shows its own instead."""
    message = logging.LogRecord("onecycle", logging.INFO, "", 0, "", (), None)
    shown = any(handler.filter(message) for handler in logging.getLogger().handlers)
    return logging.INFO if shown else logging.WARNING
