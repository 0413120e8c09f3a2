import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from onecycle.callbacks import progress
from onecycle.training_run import train


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_sees_epoch_loss_accuracy_speed_and_time_and_a_file_nothing(
    terminal: bool, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda: Console(file=output, force_terminal=terminal, width=160, legacy_windows=False)
    )
    train(tiny("callbacks.progress={_target_:onecycle.callbacks.progress.Progress,refresh_per_second:1e9}"), [])
    text = output.getvalue()
    parts = ("epoch 2.0/2", "100%", "loss ", "accuracy ", " images/s", "left", "epoch  1.00   train loss")
    assert [part for part in parts if part in text] == (list(parts) if terminal else [])
    assert terminal or text == ""
    (folder,) = (tmp_path / "runs").iterdir()
    assert "epoch  2.00   train loss" in (folder / "train.log").read_text()


def test_eighty_columns_show_both_times_in_full(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda: Console(file=output, force_terminal=True, width=80, legacy_windows=False)
    )
    train(tiny("callbacks.progress={_target_:onecycle.callbacks.progress.Progress,refresh_per_second:1e9}"), [])
    bars = [line for line in output.getvalue().split("\r") if "accuracy" in line and "left" in line]
    assert bars
    assert not [line for line in bars if "…" in line]
