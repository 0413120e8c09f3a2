"""Runs command lines one after the other, each in a process of its own that has imported the program already.

A program of its own: it forks, which only a process without other threads may do. It reads from standard input a JSON
list of [command, words, folder] — command "train" or "evaluate", folder where it runs — and prints one JSON line for
each: exit code, both outputs, what of the heavy libraries was imported, and what it wrote or started.
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAVY = ("torch", "lightning", "torchvision", "matplotlib", "PIL", "pandas")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.bind")


def import_program() -> dict[str, Callable[[], None]]:
    """Both commands, with what is read once: the installed plugins and the grammar of overrides."""
    from onecycle import cli
    from onecycle.config import compose

    compose.check_words(["seed=1"], "train", cli.training_word_errors)
    gc.collect()
    gc.freeze()  # or each child's first collection would copy the pages of all that
    return {"train": cli.train_command, "evaluate": cli.evaluate_command}


def watch(seen: dict[str, set[str]]) -> None:
    """Note what this process does to files from now on, and what it starts."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.fsdecode(arguments[0]), arguments[2]
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull:
                seen["written"].add(path)
        elif event == "os.mkdir" and Path(arguments[0]).is_dir():
            pass  # Hydra makes sure that the folder in which it runs is there
        elif event in CHANGES:
            seen["written"].add(f"{event} {arguments[0]!s}")
        elif event in STARTS:
            seen["started"].add(f"{event} {arguments[0]!s}")

    sys.addaudithook(hook)


def child(main: Callable[[], None], words: list[str], folder: Path, outputs: list[int], report: int) -> None:
    """Run a command as this process, and report what it did; does not come back."""
    code: Any = 1
    seen: dict[str, set[str]] = {"written": set(), "started": set()}
    try:
        os.chdir(folder)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        sys.argv = ["onecycle", *words]
        watch(seen)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else stop.code
        except BaseException:  # what the interpreter itself would show
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        heavy = [name for name in HEAVY if name in sys.modules]
        found = {"heavy": heavy, **{name: sorted(paths) for name, paths in seen.items()}}
        os.write(report, json.dumps(found).encode())
    finally:
        os._exit(code if isinstance(code, int) else 1)


def run(main: Callable[[], None], words: list[str], folder: Path, scratch: Path) -> dict[str, Any]:
    """What a command did in a process of its own."""
    files = [(scratch / name).open("w+b") for name in ("stdout", "stderr", "report")]
    number = os.fork()
    if not number:
        child(main, words, folder, [file.fileno() for file in files[:2]], files[2].fileno())
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read().decode(errors="surrogateescape"))
        file.close()
    return {**json.loads(texts[2] or "{}"), "code": status, "stdout": texts[0], "stderr": texts[1]}


if __name__ == "__main__":
    commands = import_program()
    for command, words, folder in json.load(sys.stdin):
        print(json.dumps(run(commands[command], words, Path(folder), Path(sys.argv[1]))), flush=True)
