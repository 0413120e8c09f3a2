"""`python -m onecycle train …` is onecycle-train …, and so for the other commands."""

import sys
from importlib.metadata import EntryPoint

commands = {
    "train": "onecycle.cli:train_command", "evaluate": "onecycle.cli:evaluate_command",
    "runs": "onecycle.runs.table:main", "predict": "onecycle.predict:main", "export": "onecycle.export:main",
}  # fmt: skip
command = sys.argv.pop(1) if len(sys.argv) > 1 else ""
if command not in commands:
    sys.exit(f"usage: python -m onecycle [{'|'.join(commands)}] …")
sys.exit(EntryPoint(command, commands[command], "").load()())
