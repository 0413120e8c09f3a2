from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from helpers import composed_of
from onecycle.config.compose import CONF, plain
from onecycle.errors import ConfigError
from onecycle.studies.figures import KINDS
from onecycle.studies.plan import points
from onecycle.studies.rows import row_of
from onecycle.studies.study import at_scale
from onecycle.studies.sweep import ColumnCheck, known_columns, named_columns
from onecycle.training_run import train

STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml") if path.stem != "base")
# Columns that only callbacks write.
MEASURED = {
    "final_loss", "final_test_accuracy", "final_test_loss", "recency", "recency_z", "twin_deviation",
    "twin_deviation_last", "data_share", "norm_share",
}  # fmt: skip
CLAIM = {
    "id": "one", "text": "One.", "unit": "points", "effect": "value", "metric": "test_accuracy", "of": {"arm": "a"},
    "at_least": 1.0,
}  # fmt: skip


def study(**changes: Any) -> dict[str, Any]:
    runs = [{"arm": "a", "axes": {"schedule.peak_lr": [0.1, 0.4]}}]
    figures = [{"kind": "curves", "x": "peak_lr", "y": "test_loss", "where": {"seed": 0}}]
    own: dict[str, Any] = {"name": "one", "scale": None, "seeds": [0], "fixed": {}, "runs": runs}
    return {**own, "claims": [CLAIM], "figures": figures, **changes}


def check_of(spec: Mapping[str, Any], config: DictConfig, folder: Path) -> ColumnCheck:
    return ColumnCheck(dict(spec), points(spec), config, folder)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_runs_and_names_columns_that_its_records_may_have(name: str, tmp_path: Path) -> None:
    config = composed_of(f"study={name}")
    for scale in config.study.scales:
        spec = at_scale({**plain(config)["study"], "scale": scale})
        assert bool(points(spec)) != bool(spec["records_of"])
        assert {figure["kind"] for figure in spec["figures"]} <= KINDS.keys()
        check_of(spec, config, tmp_path / name)
        measured = MEASURED | {"study", "arm"} if spec["records_of"] else MEASURED
        assert {column for _, column in named_columns(spec)} - known_columns(spec, points(spec), config) <= measured


def test_the_columns_of_a_record_are_known_before_there_is_one(tiny: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny("data.val_size=40", "evaluation.tta=flip")
    point = points(study())[0]
    row = row_of(point, tmp_path, train(config, list(point.overrides)))
    known = known_columns(study(), points(study()), config)
    assert known == row.keys()
    bare = known_columns(study(), points(study()), tiny("evaluation.tta=none"))
    assert known - bare == {"val_accuracy", "val_loss", "test_accuracy_tta"}
    search = {"arm": "b", "budget": 2, "coordinates": {"hyperparameters.momentum": {}}}
    more = known_columns(study(derive="range_test", searches=[search]), [], config)
    assert more >= {"usable_lr", "lr_at_minimum", "number", "momentum", "arm"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"claims": [CLAIM | {"metric": "test_acuracy"}]},
         "claim one: no column 'test_acuracy'; did you mean test_accuracy?"),
        ({"claims": [CLAIM | {"of": {"amr": "a"}}]}, "claim one: no column 'amr'; did you mean arm?"),
        ({"figures": [{"kind": "curves", "x": "peak_rl", "y": "test_loss"}]},
         "study.figures[0].x: no column 'peak_rl'; did you mean peak_lr?"),
        ({"figures": [{"kind": "curves", "x": "peak_lr", "y": "test_loss", "where": {"zzz": 1}}]},
         "study.figures[0].where: no column 'zzz'; there are arm, "),
    ],
)  # fmt: skip
def test_a_name_that_no_record_can_have_is_refused_without_one(
    changes: dict[str, Any], line: str, composed: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_of(study(**changes), composed(), tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(line)
    histories = {"kind": "histories", "x": "epoch", "y": "train/loss"}  # columns of a run's curves
    check_of(study(figures=[histories]), composed(), tmp_path)


def test_a_name_that_a_callback_may_measure_is_looked_for_in_the_first_record(
    tiny: Callable[..., Any], composed: Callable[..., Any], tmp_path: Path
) -> None:
    probe = "+callbacks.final_loss={_target_:onecycle.callbacks.probes.FinalLoss,images:8}"
    spec = study(claims=[CLAIM | {"metric": "final_loss"}], figures=[])
    with pytest.raises(ConfigError, match="no column 'final_loss'"):
        check_of(spec, composed(), tmp_path)
    config = composed(probe)
    point = points(spec)[0]
    train(tiny(probe), list(point.overrides), sweep=tmp_path / "study")
    right = check_of(spec, config, tmp_path / "study")
    right.check(point)
    assert not right.is_open
    wrong = check_of(study(claims=[CLAIM | {"metric": "finall_loss"}], figures=[]), config, tmp_path / "study")
    with pytest.raises(ConfigError, match=r"no column 'finall_loss'; did you mean final_loss\?"):
        wrong.check(point)
    apart = study(runs=[{"arm": "a", "fixed": {"callbacks.final_loss": None}}], claims=spec["claims"], figures=[])
    assert not check_of(apart, config, tmp_path / "study").is_open  # the first record does not tell of the others
