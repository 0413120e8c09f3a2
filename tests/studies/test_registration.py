import json
from pathlib import Path
from typing import Any

import pytest
from test_report import CLAIM, STUDY, page_of, study

from helpers import composed_of
from onecycle.errors import ConfigError
from onecycle.studies import registration, report
from onecycle.studies.plan import Changes, read_plan, write_plan
from onecycle.studies.registration import REGISTRATION, digest, latest, register, registration_text


def registered(folder: Path, *words: str, changes: Changes | None = None, **study: Any) -> dict[str, Any]:
    register(folder, {**STUDY, **study}, changes or Changes(), composed_of(*words))
    found: dict[str, Any] = json.loads((folder / REGISTRATION).read_text())
    return found


def test_the_first_registration_has_effects_margins_sizes_seeds_and_a_hash_and_stays(tmp_path: Path) -> None:
    first = registered(tmp_path / "one")
    design = first["design"]
    assert (first["runs"], first["changes"], first["sha256"]) == (0, [], digest(design))
    assert len(first["sha256"]) == 64
    assert design["study.claims.high_beats_low.at_least"] == 5.0
    assert design["study.claims.high_beats_low.of.peak_lr"] == 0.4
    assert design["study.runs.0.axes.schedule.peak_lr"] == [0.1, 0.4]
    assert design["study.seeds"] == [0, 1]
    before = (tmp_path / "one" / REGISTRATION).read_bytes()
    wording: dict[str, Any] = {"claims": [{**CLAIM, "text": "In other words."}], "title": "Other", "figures": []}
    registered(tmp_path / "one", **wording)  # neither a repeated command nor other words are a change
    registered(tmp_path / "one", "output=/elsewhere", "trainer.threads=1")
    assert (tmp_path / "one" / REGISTRATION).read_bytes() == before


def test_each_change_is_appended_with_the_runs_that_were_seen_and_stands_on_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    registered(folder)
    study(tmp_path, runs=3)
    registered(folder, claims=[{**CLAIM, "at_least": 3.0}])
    entries = registered(folder, "trainer.max_steps=70", changes=Changes({"seed": [0, 1, 2]}), claims=[])
    assert [change["runs"] for change in entries["changes"]] == [3, 3]
    assert entries["changes"][0]["changed"] == [
        {"key": "study.claims.high_beats_low.at_least", "before": 5.0, "after": 3.0}
    ]
    second = {one["key"]: (one["before"], one["after"]) for one in entries["changes"][1]["changed"]}
    assert second["trainer.max_steps"] == (None, 70)
    assert "seed" not in second
    assert second["axes.seed"] == (None, [0, 1, 2])
    assert second["study.claims.high_beats_low.at_least"] == (3.0, None)
    assert digest(latest(entries)) == entries["changes"][1]["sha256"]
    elsewhere = tmp_path / "taken" / "away"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    report.build(elsewhere)
    assert "claims.high_beats_low.at_least: 5.0 → 3.0" in page_of(elsewhere)
    assert "Changed after 3 runs" in page_of(elsewhere)


def test_what_was_begun_before_or_is_edited_by_hand_is_said(tmp_path: Path) -> None:
    folder = study(tmp_path)
    (line,) = registration_text(folder, STUDY)
    assert line.startswith("Not registered")
    registered(folder)
    (line,) = registration_text(folder, STUDY)
    assert "after 4 runs" in line
    plan = read_plan(folder)
    plan.study["claims"][0]["at_least"] = 1.0
    write_plan(folder, plan)
    assert "at_least: 5.0 → 1.0" in registration_text(folder, read_plan(folder).study)[-1]
    text = (folder / REGISTRATION).read_text()
    (folder / REGISTRATION).write_text(text.replace('at_least": 5.0', 'at_least": 1.0'))
    assert "was edited" in registration_text(folder, STUDY)[1]
    (folder / REGISTRATION).write_text("{")
    with pytest.raises(ConfigError, match=REGISTRATION):
        registration.read_registration(folder)
