"""Runs one command line after the other, each in a process of its own that has imported the program already.

A program of its own: it forks, which only a process without other threads may do. It reads from standard input a JSON
list of [command, words, folder] — command "train" or "evaluate", folder where it runs — and prints one JSON line for
each: exit code, both outputs, seconds, what of the heavy libraries was imported, and what it opened, wrote or started.
With the argument `torch` the heavy libraries are there from the beginning: for mistakes that only the data show.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAVY = ("torch", "numpy", "lightning", "torchvision", "matplotlib", "PIL", "optuna")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.bind")
LIMIT = 60  # seconds


def import_program(heavy: bool) -> dict[str, Callable[[], None]]:
    """Both commands; with all that they need before a mistake is found, but nothing that keeps a state."""
    from onecycle import evaluate, train
    from onecycle.config import checks as config
    from onecycle.config import overrides

    # What is read once: the installed plugins, the grammar of overrides, the sources of what a configuration names.
    overrides.check(["seed=1"], config.CONF, "train", train.problems)
    if heavy:
        import torch

        from onecycle.data import class_folders  # noqa: F401
        from onecycle.runs import environment  # noqa: F401

        torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # or each child's first collection would copy the pages of all that
    return {"train": train.main, "evaluate": evaluate.main}


def watch(folder: Path, seen: dict[str, set[str]]) -> None:
    """Note what this process does to files from now on, and what it reads in the folder or starts."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.path.abspath(os.fsdecode(arguments[0])), arguments[2]  # noqa: PTH100 (no file is looked at)
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull:
                seen["written"].add(path)
            elif Path(path).is_relative_to(folder):
                seen["read"].add(path)
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
    seen: dict[str, set[str]] = {"read": set(), "written": set(), "started": set()}
    try:
        os.chdir(folder)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        sys.argv = ["onecycle", *words]
        watch(folder, seen)
        began = time.perf_counter()
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
        found = {
            "code": code, "seconds": time.perf_counter() - began,
            "heavy": [name for name in HEAVY if name in sys.modules],
            **{name: sorted(paths) for name, paths in seen.items()},
        }  # fmt: skip
        os.write(report, json.dumps(found).encode())
    finally:
        os._exit(code if isinstance(code, int) else 1)


def run(main: Callable[[], None], words: list[str], folder: Path, scratch: Path) -> dict[str, Any]:
    """What a command did in a process of its own."""
    paths = [scratch / "stdout", scratch / "stderr", scratch / "report"]
    files = [path.open("w+b") for path in paths]
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


def main() -> None:
    """Run the cases of standard input."""
    scratch = Path(sys.argv[1])
    commands = import_program(heavy="torch" in sys.argv[2:])
    for command, words, folder in json.load(sys.stdin):
        print(json.dumps(run(commands[command], words, Path(folder), scratch)), flush=True)


if __name__ == "__main__":
    main()
