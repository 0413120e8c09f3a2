"""`python -m onecycle train …` is onecycle-train …, `python -m onecycle evaluate …` is onecycle-evaluate …."""

import sys

from onecycle import cli

command = sys.argv.pop(1) if len(sys.argv) > 1 else ""
commands = {"train": cli.train_command, "evaluate": cli.evaluate_command}
sys.exit(commands[command]() if command in commands else f"usage: python -m onecycle [{'|'.join(commands)}] …")
