from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from onecycle.config.compose import CONF
from onecycle.errors import ConfigError
from onecycle.studies.plan import Changes, read_changes, refuse_changes, refuse_values

STUDY: dict[str, Any] = {"runs": [{"axes": {"schedule.peak_lr": [0.1], "data.subset_size": [None]}}]}


def test_axes_and_overrides_of_every_run_are_told_apart() -> None:
    words = ["study=one", "study.scale=tiny", "seed=0,1", "data.subset_size=null", "model=resnet9", "hydra.sweep.dir=x"]
    assert read_changes(words, STUDY) == Changes({"seed": [0, 1], "data.subset_size": [None]}, ("model=resnet9",))


@pytest.mark.parametrize("word", ["seed=[]", "schedule.peak_lr=", "schedule.peak_lr=''"])
def test_an_axis_without_a_value_is_refused(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_changes([word], STUDY)
    assert caught.value.problems == [f"{word}: must be at least one value"]


def test_a_value_that_every_run_would_refuse_is_refused_by_the_rules_of_the_configuration(
    drawn: list[str],
) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("train", overrides=drawn)
    with pytest.raises(ConfigError) as caught:
        refuse_changes(
            Changes({"seed": [0, "a"], "schedule.peak_lr": [0.1, -1]}, ("batch_size=0", "data=synthetic")), config
        )
    assert [line.split(":")[0] for line in caught.value.problems] == ["seed=a", "schedule.peak_lr=-1", "batch_size=0"]
    refuse_changes(Changes({"seed": [0, 1], "data.subset_size": [None, 100]}, ("~callbacks.figures",)), config)
    refuse_values({"hyperparameters.effective_decay": [-1]}, config)  # of another group than this one
    assert config.seed == 0  # nothing has changed in it
