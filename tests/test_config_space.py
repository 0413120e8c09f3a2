"""Every configuration is refused in lines that name its keys, or trains one step."""

import functools
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis.configuration import set_hypothesis_home_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import config_space
from onecycle.config.compose import CONF, RULES
from onecycle.errors import ConfigError, one_line
from onecycle.train import train

# Hypothesis keeps what it finds in the program's own files: not in this tree.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")

TINY = (
    "experiment=debug", "batch_size=16", "data.source.train_size=64", "data.source.test_size=20",
    "trainer.max_steps=1", "trainer.detect_anomaly=false", "callbacks.figures=null", "callbacks.progress=null",
    "logger=csv", "evaluation.every_n_epochs=0",
)  # fmt: skip
# A problem begins with a key, or with the folder that a key names.
NAMED = re.compile(r"[\w.\[\]/]+(=|: | is missing: |\._target_)")
Groups = dict[str, str]

fixed = functools.partial(
    settings, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@functools.cache
def composed(*words: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("train", overrides=[*TINY, *words])


def outcome(groups: Groups, values: dict[str, Any], folder: Path) -> str:
    """The status of the run, or "refused"; fails for anything that is neither."""
    cfg = composed(*(f"{group}={option}" for group, option in groups.items())).copy()
    OmegaConf.set_struct(cfg, False)
    cfg.output, cfg.data.cache, cfg.data.root = str(folder), str(folder / "cache"), str(folder)
    try:
        for key, value in values.items():
            OmegaConf.update(cfg, key, value, merge=False)
    except (OmegaConfBaseException, TypeError, ValueError):  # a key below one that is no group any more
        return "impossible"
    problems: list[str] = []
    try:
        record = train(cfg, [], progress=False)
    except ConfigError as error:
        problems = error.problems or ["nothing"]
    for line in problems:
        assert NAMED.match(line), line
        assert len(one_line(line).splitlines()) == 1, line
    if problems:
        return "refused"
    assert record["steps"] == 1
    assert record["status"] in ("finished", "diverged")
    return str(record["status"])


def test_the_space_has_every_key_of_the_rules() -> None:
    single = {key for key, _, _ in RULES} - {"ema.decay", "ema.every_n_steps"}  # drawn as one group
    assert single <= set(config_space.VALUES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@fixed(max_examples=40)
@given(groups=config_space.groups, values=config_space.overrides())
@example(groups={"optimizer": "muon"}, values={"optimizer.iterations": None})
@example(groups={}, values={"batch_size": "\x1e"})
def test_a_configuration_is_refused_key_by_key_or_trains_one_step(
    groups: Groups, values: dict[str, Any], folder: Path
) -> None:
    event(outcome(groups, values, folder))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@fixed(max_examples=2000)
@given(groups=config_space.groups, values=config_space.overrides())
def test_two_thousand_configurations_are_refused_key_by_key_or_train_one_step(
    groups: Groups, values: dict[str, Any], folder: Path
) -> None:
    event(outcome(groups, values, folder))
