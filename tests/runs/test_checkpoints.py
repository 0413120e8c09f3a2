import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from onecycle.errors import ConfigError
from onecycle.runs import checkpoints
from onecycle.runs.checkpoints import DamagedError


def contents(step: int) -> dict[str, Any]:
    weights = torch.arange(1000.0) + step
    return {"state_dict": {"w": weights}, "global_step": step, "onecycle": {}, "onecycle_run": {"seed": 0}}


def save(folder: Path, step: int) -> Path:
    checkpoints.replace_last(folder / "checkpoints", lambda part: torch.save(contents(step), part))
    return folder / "checkpoints" / "last.ckpt"


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) == checkpoints.Start(None, 0, None)
    for step in (1, 2, 3):
        save(tmp_path, step)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert checkpoints.read_checkpoint(folder / "previous.ckpt")["global_step"] == 2
    start = checkpoints.newest(tmp_path)
    assert (start.path, start.step, start.run) == (folder / "last.ckpt", 3, {"seed": 0})


@pytest.mark.parametrize(("place", "call"), [((torch, "save"), 1), ((os, "fsync"), 1), ((Path, "replace"), 1),
                                              ((Path, "replace"), 2)], ids=range(4))  # fmt: skip
def test_a_write_that_fails_anywhere_leaves_a_whole_checkpoint(
    place: tuple[Any, str], call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    calls, original = [0], getattr(*place)

    def no_room(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(*place, no_room)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 2)
    assert not list(tmp_path.rglob("*.part"))
    assert checkpoints.newest(tmp_path).step == 1
    save(tmp_path, 3)
    assert checkpoints.newest(tmp_path).step == 3


def flipped(data: bytes) -> bytes:
    place = data.index(torch.arange(1000.0).add(2).numpy().tobytes()) + 1234
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-1], lambda data: data[1000:], flipped, lambda data: os.urandom(5000)],
    ids=["empty", "one byte less", "without its start", "one bit", "noise"],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    last = save(tmp_path, 2)
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(DamagedError, match="checksum"):
        checkpoints.read_checkpoint(last)
    with caplog.at_level(logging.WARNING, "onecycle"):
        start = checkpoints.newest(tmp_path)
    assert (start.path, start.step) == (last.with_name("previous.ckpt"), 1)
    (record,) = caplog.records
    assert "last.ckpt" in record.message
    last.with_name("previous.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"checkpoints: last\.ckpt "):
        checkpoints.newest(tmp_path)


@pytest.mark.parametrize("part", checkpoints.PARTS)
@pytest.mark.parametrize("change", ["missing", "another type"])
def test_a_checkpoint_of_another_program_is_refused(part: str, change: str, tmp_path: Path) -> None:
    other = contents(1) | {part: ["a list"]}
    if change == "missing":
        del other[part]
    torch.save(other, tmp_path / "other.ckpt")
    checkpoints.seal(tmp_path / "other.ckpt")
    with pytest.raises(DamagedError, match=part):
        checkpoints.read_checkpoint(tmp_path / "other.ckpt")


def test_two_tensors_that_change_their_places_are_noticed(tmp_path: Path) -> None:
    # Every record's CRC-32 still holds: the checksums of an archive do not cover the names.
    state = {"a": torch.zeros(9), "b": torch.ones(9)}
    checkpoints.replace_last(tmp_path, lambda part: torch.save({**contents(1), "state_dict": state}, part))
    last = tmp_path / "last.ckpt"
    whole = last.read_bytes()
    assert checkpoints.read_checkpoint(last)["state_dict"]["b"].tolist() == [1.0] * 9
    swapped = whole.replace(b"/data/0", b"/data/X").replace(b"/data/1", b"/data/0").replace(b"/data/X", b"/data/1")
    last.write_bytes(swapped)
    with zipfile.ZipFile(last) as archive:
        assert archive.testzip() is None
    assert torch.load(last)["state_dict"]["b"].tolist() == [0.0] * 9
    with pytest.raises(DamagedError, match="checksum"):
        checkpoints.read_checkpoint(last)


def test_what_changed_is_named_key_by_key() -> None:
    before, now = {"seed": 0, "a.b": None, "gone": 1, "same": 0.1}, {"seed": 1, "a.b": True, "new": [1], "same": 0.1}
    lines = checkpoints.changed_keys(before, now)
    assert [line.split()[:3] for line in lines] == [
        ["a.b=true:", "was", "null"], ["gone=(not", "there):", "was"], ["new=[1]:", "was", "(not"],
        ["seed=1:", "was", "0"],
    ]  # fmt: skip
    assert checkpoints.changed_keys(None, now) == checkpoints.changed_keys(now, now) == []
