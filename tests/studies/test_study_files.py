import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from onecycle.config.checks import CONF
from onecycle.studies import curves, plan
from onecycle.studies.figures.draw import KINDS
from onecycle.studies.study import at_scale

FILES = sorted(path for path in (CONF / "study").glob("*.yaml") if path.stem != "base")
SCALES = ("cpu", "gpu", "tiny")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_study_can_be_planned_at_every_scale(path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        composed = compose("train", overrides=[f"study={path.stem}"]).study
    study: dict[str, Any] = json.loads(json.dumps(OmegaConf.to_container(composed, resolve=False)))
    for scale in SCALES:
        scaled = at_scale({**study, "scale": scale})
        assert bool(plan.points(scaled)) != bool(scaled["records_of"]), scale
        assert {figure["kind"] for figure in scaled["figures"]} <= KINDS.keys()
        for entry in (scaled["published"] or {"rows": []})["rows"]:
            assert entry["text"]
            assert entry["value"]


def test_the_range_test_is_drawn_with_the_average_that_its_numbers_have() -> None:
    (figure,) = OmegaConf.load(CONF / "study/lr_range_test.yaml").study.figures
    assert figure.smooth == curves.SMOOTHING
