"""One run in several processes: which of them this one is, who started them, what they tell each other and the user.

Every process of a run ("rank") does the same work on its own share of each batch. They are started by this program, by
torchrun or by SLURM's srun, and from then on nothing depends on by whom. Torch is not imported before it is needed.
"""

import atexit
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from onecycle.config.schema import TrainOptions
from onecycle.errors import ConfigError, InfrastructureError

if TYPE_CHECKING:
    from torch.multiprocessing import ProcessContext

T = TypeVar("T")

log = logging.getLogger("onecycle")

OWN = "ONECYCLE_MEETING"  # set for the processes that this program starts: the file at which they meet
INTERRUPTED = 130
GRACE_SECONDS = 20  # for the others, when one has failed: to record it and to end


@dataclass(frozen=True)
class Place:
    """One process among the `world_size` of a run: its rank, that on its machine, and what started it."""

    rank: int
    local_rank: int
    world_size: int
    starter: str


_joined: Place | None = None  # Lightning takes WORLD_SIZE out of the environment after a fit


def place(environment: Mapping[str, str]) -> Place | None:
    """What the environment says of this process; None where it is no part of several."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    if OWN in environment:
        starter = "this program"
    elif "TORCHELASTIC_RUN_ID" in environment:
        starter = "torchrun"
    elif "SLURM_STEP_ID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        starter, names = "srun", ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
    else:
        return None
    rank, local_rank, world_size = (int(environment[name]) for name in names)
    return Place(rank, local_rank, world_size, starter) if world_size > 1 else None


def is_first() -> bool:
    """Whether this process writes the record: rank 0, or the only one."""
    found = _joined or place(os.environ)
    return found is None or found.rank == 0


def show_messages(level: int = logging.INFO) -> None:
    """Show messages as they are; what is of use only later goes to the run's train.log alone.

    Of several processes the first one shows them from `level` on, the others only their errors.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger().setLevel(logging.INFO)
    log.setLevel(logging.DEBUG)
    for handler in logging.getLogger().handlers:
        handler.setLevel(level if is_first() else logging.ERROR)


def shown_level() -> int:
    """The level from which messages of a run are shown here: a study shows its own instead."""
    message = logging.LogRecord("onecycle", logging.INFO, "", 0, "", (), None)
    shown = any(handler.filter(message) for handler in logging.getLogger().handlers)
    return logging.INFO if shown else logging.WARNING


def _on_gpus(config: TrainOptions) -> bool:
    from onecycle.runs.environment import device_of  # imports torch

    return device_of(config.trainer.accelerator).type == "cuda"


def on_this_machine(config: TrainOptions) -> int:
    """Processes that the configuration wants on each machine: one for each device."""
    wanted = config.trainer.devices
    if wanted == "auto":
        import torch

        return torch.cuda.device_count() if _on_gpus(config) else 1
    return wanted if isinstance(wanted, int) else len(wanted)


def must_be_started(config: TrainOptions) -> bool:
    """Whether this process has to start those that will train.

    Raises ConfigError where torchrun or srun has started another number of them than the configuration says, and
    for several machines without one of the two.
    """
    own, machines = on_this_machine(config), config.trainer.num_nodes
    said = f"trainer.devices={config.trainer.devices} trainer.num_nodes={machines}"
    if config.batch_size % (own * machines):
        raise ConfigError([f"batch_size={config.batch_size}: does not divide among {own * machines} devices"])
    if config.trainer.sync_batchnorm and not _on_gpus(config):
        raise ConfigError(["trainer.sync_batchnorm=true: must be false on CPUs, PyTorch synchronises on GPUs alone"])
    found = _joined or place(os.environ)
    if found is not None:
        if found.world_size != own * machines:
            raise ConfigError([f"{said}: makes {own * machines}, but {found.starter} started {found.world_size}"])
        return False
    if machines > 1:
        raise ConfigError([f"{said}: several machines must be started by torchrun or srun, see docs/scaling.md"])
    return own > 1


def join(config: TrainOptions) -> None:
    """Connect this process with the others of its run, once; alone it does nothing."""
    global _joined
    found = None if _joined else place(os.environ)
    if found is None:
        return
    if found.starter == "srun":
        _adopt_srun(found)
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if _on_gpus(config):
        chosen = config.trainer.devices
        torch.cuda.set_device(found.local_rank if isinstance(chosen, int | str) else chosen[found.local_rank])
        backend = "cpu:gloo,cuda:nccl"
    meeting = f"file://{os.environ[OWN]}" if OWN in os.environ else "env://"
    dist.init_process_group(backend, meeting, rank=found.rank, world_size=found.world_size)
    # Threads of the group that are left at the end of a process started by torchrun can abort it.
    atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
    _joined = found


def _adopt_srun(found: Place) -> None:
    """Say in torch's words what srun says in its own; the port follows from the job, so that all choose the same."""
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    first = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_NODELIST"])
    values = {
        "RANK": found.rank, "LOCAL_RANK": found.local_rank, "WORLD_SIZE": found.world_size,
        "NODE_RANK": os.environ["SLURM_NODEID"], "MASTER_ADDR": first,
        "MASTER_PORT": 15_000 + int(os.environ["SLURM_JOB_ID"]) % 10_000,
    }  # fmt: skip
    for name, value in values.items():
        os.environ.setdefault(name, str(value))


def of_first(work: Callable[[], T]) -> T:
    """What `work` returns, or raises, in the first process, in all of them; only there it is called."""
    if _joined is None:
        return work()
    import torch
    import torch.distributed as dist

    said: list[Any] = [None, None]  # the value, the error
    own: Exception | None = None
    if _joined.rank == 0:
        try:
            said[0] = work()
        except Exception as error:
            own, known = error, isinstance(error, ConfigError | InfrastructureError | OSError)
            text = f"the first process stopped with {type(error).__name__}: {error}"
            said[1] = error if known else RuntimeError(text)  # any other may not survive the way
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    if said[1] is not None:
        raise own or said[1]
    return said[0]


def first_goes_ahead(work: Callable[[], T]) -> T:
    """Do `work` in the first process, then in the others, which find what it has left on the disk."""
    done: list[T] = []
    of_first(lambda: done.append(work()))
    return done[0] if done else work()


def launch(config: TrainOptions, work: Callable[..., T], *arguments: Any) -> T:
    """Call `work(*arguments)` in new processes, one for each device of this machine; returns what the first returned.

    work: a function of a module, for it is pickled. Each process ends with the others: when one fails or is killed,
    when this process ends in whatever way, and on Ctrl-C, after a checkpoint. Raises what the first one has raised.
    """
    import torch.multiprocessing as mp

    count = on_this_machine(config)
    told = mp.get_context("spawn").SimpleQueue()
    failure: Exception | None = None
    with tempfile.TemporaryDirectory() as folder:  # the processes meet at a file in it
        args = (os.getpid(), count, f"{folder}/meeting", told, work, arguments)
        context = mp.start_processes(_rank, args=args, nprocs=count, join=False)
        assert context is not None
        with _passing_signals_on(context) as signals:
            try:
                while not context.join(grace_period=GRACE_SECONDS):
                    pass
            except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
                failure = error
    if signals or getattr(failure, "exit_code", None) == INTERRUPTED:
        raise KeyboardInterrupt
    outcome: Any = None if told.empty() else told.get()
    if isinstance(outcome, Exception):
        raise outcome
    if failure is not None:
        raise failure
    return outcome


def _rank(
    local_rank: int, parent: int, count: int, meeting: str, told: Any,
    work: Callable[..., Any], arguments: tuple[Any, ...],
) -> None:  # fmt: skip
    """One of the processes, as if torchrun had started it."""
    if os.getppid() != parent:
        return  # it was killed while this process was getting ready
    # A group of its own: the terminal's Ctrl-C reaches the parent alone, which passes it on once.
    os.setpgrp()
    values = {OWN: meeting, "RANK": local_rank, "LOCAL_RANK": local_rank, "NODE_RANK": 0, "WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in values.items()}
    for loopback in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:  # as Linux and macOS call it
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)  # else gloo asks for the address of the machine's name
    try:
        returned = work(*arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (ConfigError, InfrastructureError, OSError) as error:  # shown as a line, not as a traceback
        if local_rank == 0:
            told.put(error)
        sys.exit(2)
    if local_rank == 0:
        told.put(returned)


def end_with_pool() -> None:
    """In a worker of joblib's pool: stop as on Ctrl-C, after a checkpoint, when the program that started it is gone.

    It would else train on, and make the runs that it was handed. Linux alone; torch does it for processes of its own.
    """
    if multiprocessing.current_process().name.startswith("Loky"):
        from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

        _prctl_pr_set_pdeathsig(signal.SIGINT)


def stop_signals() -> list[signal.Signals]:
    """The signals after which a run saves a checkpoint and ends; SIGHUP is one unless it is ignored, as nohup does."""
    is_hung_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *[signal.SIGHUP] * is_hung_up]


@contextlib.contextmanager
def _passing_signals_on(context: "ProcessContext") -> Iterator[list[int]]:
    """Give the signals that stop a run to the processes in place of this one; the third time they are killed."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL if len(received) > 2 else signal.SIGINT)

    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python sets handlers there only
        handlers = {number: signal.signal(number, pass_on) for number in stop_signals()}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
