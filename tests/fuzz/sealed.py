"""Checkpoints: damaged as they lie, and forged, with a checksum that matches."""

import collections
import hashlib
import io
import itertools
import math
import os
import pickle
import pickletools
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fuzz import mutations
from fuzz.kinds import Kind, must, must_be_readable, regressions
from onecycle.runs import checkpoints
from onecycle.runs.checkpoints import SEAL, SEAL_BYTES, DamagedError

PLAIN = (str, int, float, complex, bool, type(None), bytes, bytearray, torch.dtype, torch.device)


class Code:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _archive(contents: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()


def sealed(archive: bytes) -> bytes:
    """Any bytes with a checksum that matches, as `checkpoints.seal` puts it behind an archive."""
    body = archive[:-2] + SEAL_BYTES.to_bytes(2, "little")
    return body + SEAL + hashlib.sha256(body).hexdigest().encode()


def contents(extra: Any = None) -> dict[str, Any]:
    """A tiny checkpoint of this program's form."""
    weights = {
        "network.w": torch.arange(12.0).reshape(3, 4),
        "network.n": torch.tensor(3),
        "network.h": torch.ones(2).half(),
    }
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3, 4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {
        "state_dict": collections.OrderedDict(weights), "global_step": 7, "onecycle": {"normalization": [[0.5],
        (0.25,)]},
        "onecycle_run": {"seed": 0, "name": "a"}, "optimizer_states": [optimizer], "epoch": 1, "extra": extra,
    }  # fmt: skip


def _hostile() -> list[bytes]:
    strange = [
        Code(os.system, "touch executed"), Code(eval, "open('executed', 'w')"), Code(exec, "open('executed', 'w')"),
        Code(io.open, "executed", "w"), Code(getattr, "", "join"),
        {"a": [Code(os.mkdir, "executed")]},
        torch.nn.Linear(2, 2), torch.eye(3).to_sparse(), torch.ones(1).expand(10**12), torch.empty(3, device="meta"),
        torch.nn.Parameter(torch.ones(2)), b"bytes",
        torch.Generator(), torch.float32, torch.Size([1]), {1, 2}, (1,), 1j, collections.Counter("aab"),
        torch.device("cpu"),
    ]  # fmt: skip
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    return [_archive(contents(part)) for part in (*strange, loop, deep)] + [
        pickle.dumps(contents()), pickle.dumps(Code(os.system, "touch executed")), b"", b"PK\5\6" + bytes(18),
        _archive([1]), _archive({"state_dict": 1}),
    ]  # fmt: skip


WHOLE = sealed(_archive(contents()))
ARCHIVES = [_archive(contents()), *_hostile()]
# Names that a forged pickle may call: forbidden ones, and those of torch's list with arguments that they do not expect.
NAMES = (
    b"os system", b"posix system", b"builtins eval", b"builtins getattr", b"torch load", b"torch.hub load",
    b"torch._utils _rebuild_tensor_v2", b"torch._utils _rebuild_tensor", b"torch._utils _rebuild_parameter",
    b"torch._utils _rebuild_sparse_tensor", b"torch._utils _rebuild_qtensor",
    b"torch._utils _rebuild_meta_tensor_no_storage",
    b"torch._utils _rebuild_nested_tensor", b"torch._utils _rebuild_wrapper_subclass", b"torch FloatStorage",
    b"torch DoubleStorage", b"torch ByteStorage", b"torch ComplexDoubleStorage", b"torch.storage UntypedStorage",
    b"collections OrderedDict", b"collections Counter", b"torch Size", b"torch device", b"torch Tensor", b"torch uint8",
    b"torch.nn.parameter Parameter", b"_codecs encode", b"builtins set", b"builtins bytearray", b"subprocess Popen",
)  # fmt: skip
PARTS = (
    *(b"c" + name.replace(b" ", b"\n") + b"\n" for name in NAMES), b"R", b"b", b"Q", b")", b"]", b"}", b"(", b"t", b"l",
    b"0", b"2", b"N", b"\x88", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b".", b"\x81", b"i", b"o", b"P",
    b"h\0", b"h\1", b"r\xff\xff\xff\x7f", b"j\0\0\0\0", b"\x8f", b"\x90", b"X\x05\0\0\0meta!",
    b"\x8a\x08" + b"\xff" * 8,
    b"cos\nsystem\nX\x0e\0\0\0touch executed\x85R", b"G\x7f\xf0\0\0\0\0\0\0", b"X\xff\xff\xff\x7f",
    b"\x95" + b"\xff" * 8,
)  # fmt: skip


def _integer(rng: random.Random) -> bytes:
    number = rng.choice((*mutations.INTEGERS, 3, 4, 5, 12, 13, -1, -2, 10**12))
    return b"\x8a" + bytes([9]) + number.to_bytes(9, "little", signed=True)


def _mutated_pickle(rng: random.Random, data: bytes) -> bytes:
    """Instructions that are left out, doubled, swapped, put in, or given other numbers."""
    try:
        places = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    except ValueError:
        return mutations.mutated(rng, data, PARTS)
    steps = [data[start:end] for start, end in itertools.pairwise(places)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(steps))
        change = rng.randrange(6)
        numbers = [n for n, step in enumerate(steps) if step[:1] in b"KMJ\x8a"]
        names = [n for n, step in enumerate(steps) if step[:1] == b"c"]
        if change == 0:
            steps[place] = b""
        elif change == 1:
            steps.insert(place, rng.choice(PARTS))
        elif change == 2 and names:
            steps[rng.choice(names)] = b"c" + rng.choice(NAMES).replace(b" ", b"\n") + b"\n"
        elif change == 3:
            other = rng.randrange(len(steps))
            steps[place], steps[other] = steps[other], steps[place]
        elif numbers:
            steps[rng.choice(numbers)] = _integer(rng)
    return b"".join(steps)


def _mutated_inside(rng: random.Random, archive: bytes) -> bytes:
    """An archive whose own checksums match again: a record of it is changed, renamed, doubled or left out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(file, "w") as after:
        entries = [(name, before.read(name)) for name in before.namelist()]
        place = rng.choice([0, 0, 0, rng.randrange(len(entries))])
        pickles = [n for n, (name, _) in enumerate(entries) if name.endswith("data.pkl")]
        name, data = entries[place if place or not pickles else pickles[0]]
        place = entries.index((name, data))
        change = rng.random()
        if change < 0.8:
            entries[place] = (
                name,
                _mutated_pickle(rng, data) if name.endswith(".pkl") else mutations.mutated(rng, data, [data]),
            )
        elif change < 0.9:
            other = rng.choice((*before.namelist(), "../executed", "archive/../../executed", "x" * 300))
            entries[place] = (other, data)
        else:
            entries[place : place + 1] = rng.choice(([], [(name, data), (name, data[::-1])]))
        method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        for name, data in entries:
            after.writestr(name, data, method)
    return file.getvalue()


def _mutated(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    how = rng.random()
    if how < 0.2:
        return mutations.mutated(rng, rng.choice((WHOLE, rng.choice(corpus))), corpus)
    archive = ARCHIVES[0] if rng.random() < 0.5 else rng.choice(ARCHIVES)
    if how < 0.4 or not zipfile.is_zipfile(io.BytesIO(archive)) or len(archive) < 100:
        return sealed(mutations.mutated(rng, archive, ARCHIVES))
    return sealed(_mutated_inside(rng, archive))


def _check_plain(loaded: Any) -> None:
    """Only tensors that lie in their own memory, and values of types that can do nothing."""
    waiting, seen = [loaded], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, torch.Tensor):
            must(type(node) in (torch.Tensor, torch.nn.Parameter), f"{type(node)} is a tensor of another kind")
            must(
                node.layout is torch.strided and node.device.type == "cpu",
                f"a tensor is {node.layout} on {node.device}",
            )
            last = node.storage_offset() + sum(
                (n - 1) * step for n, step in zip(node.shape, node.stride(), strict=True)
            )
            held = node.untyped_storage().nbytes()
            must(not node.numel() or int(last + 1) * node.itemsize <= held, "a tensor reaches beyond its memory")
            must(math.prod(node.shape) * node.itemsize <= held, f"{tuple(node.shape)} does not fit into {held} bytes")
            node.detach().clone()
        elif isinstance(node, dict):
            must(type(node) in (dict, collections.OrderedDict, collections.Counter), f"{type(node)} is not plain")
            waiting += [*node, *node.values()]
        elif type(node) in (list, tuple, set, torch.Size):
            waiting += node
        else:
            must(type(node) in PLAIN, f"{type(node)} is not plain")


def check(path: Path) -> bool:
    """Accepted is only what ends with its checksum, and then tensors and plain values."""
    data = path.read_bytes()
    try:
        loaded = checkpoints.load(path)
    except DamagedError as error:
        must_be_readable(str(error))
        return False
    body, end = data[:-64], data[-64:]
    digest = hashlib.sha256(body[: -len(SEAL)]).hexdigest().encode()
    must(body.endswith(SEAL) and end == digest, "its checksum does not match")
    must({"state_dict", "global_step", "onecycle", "onecycle_run"} <= loaded.keys(), "a part of it is missing")
    must(type(loaded["global_step"]) is int and 0 <= loaded["global_step"] < 2**63, "its step is none")
    must({torch.Tensor, torch.nn.Parameter} >= set(map(type, loaded["state_dict"].values())), "its weights are none")
    must(isinstance(loaded["onecycle_run"], dict | None), "its run is none")
    _check_plain(loaded)
    return True


CHECKPOINT = Kind(
    "checkpoint", ".ckpt", (WHOLE, *regressions("checkpoint"), *map(sealed, ARCHIVES), *ARCHIVES), _mutated, check
)
