import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from onecycle.errors import ConfigError
from onecycle.studies import docs, plan, report
from onecycle.studies import rows as table
from onecycle.studies.plan import Plan
from onecycle.studies.search.coordinate import Decisions, Step
from studying import record_of

CLAIM = {
    "id": "high_beats_low", "text": "0.4 beats 0.1 by 5 points.", "unit": "points", "effect": "difference",
    "metric": "test_accuracy", "of": {"peak_lr": 0.4}, "against": {"peak_lr": 0.1}, "at_least": 5.0,
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "one", "title": "One & only", "question": "Is 0.4 > 0.1?", "source": "nobody", "scale": "cpu",
    "seeds": [0, 1], "fixed": {}, "runs": [{"axes": {"schedule.peak_lr": [0.1, 0.4]}}], "scales": {"cpu": None},
    "figures": [{"kind": "curves", "x": "peak_lr", "y": "test_accuracy"}], "claims": [CLAIM],
    "published": {
        "metric": "test_accuracy", "source": "a book",
        "rows": [{"text": "λ 0.4", "value": 94.1, "of": {"peak_lr": 0.4}}],
    },
}  # fmt: skip
ACCURACIES = {(0.1, 0): 0.5, (0.1, 1): 0.52, (0.4, 0): 0.7, (0.4, 1): 0.71}


def run_of(folder: Path, point: plan.Point, name: str) -> None:
    lr, seed = point.values["peak_lr"], point.values["seed"]
    rates = {"peak_lr": lr, "batch_size": 50, "momentum": 0.9, "weight_decay": 5e-4}
    place, data = folder / f"{lr}-{seed}", {"name": name, "train_size": 1000}
    record_of(place, point.overrides, ACCURACIES[lr, seed], hyperparameters=rates, data=data)
    (place / "metrics.csv").write_text(f"step,epoch,train/loss\n1,0.5,{2 + seed}\n2,1,1\n")


def study(folder: Path, runs: int = 4, name: str = "cifar10", **changes: Any) -> Path:
    spec = {**STUDY, **changes}
    points = plan.points(spec)
    plan.write_plan(folder / "one", Plan(spec, points, "onecycle-train study=one"))
    for point in points[:runs]:
        run_of(folder / "one", point, name)
    return folder / "one"


def page_of(folder: Path) -> str:
    return (folder / "report/index.html").read_text()


def verdicts_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "report/verdicts.json").read_text())
    return found


def events(folder: Path, run: str = "") -> EventAccumulator:
    found = EventAccumulator(str(folder / "report/tensorboard" / run), size_guidance={"images": 0})
    found.Reload()
    return found


def test_the_page_shows_verdict_figure_published_number_table_and_command(tmp_path: Path) -> None:
    folder = study(tmp_path)
    report.build(folder)
    page = page_of(folder)
    for text in ("One &amp; only", "Is 0.4 &gt; 0.1?", "holds", "data:image/png;base64,", "94.1", "70.5 (n = 2)",
                 "<td>2</td>", "70.50 ± 0.71", "51.00 ± 1.41", "2.0 minutes", "onecycle-train study=one"):  # fmt: skip
        assert text in page, text
    assert "https://" not in page
    (verdict,) = verdicts_of(folder)
    assert (verdict["id"], verdict["verdict"], verdict["at_least"], verdict["seeds"]) == (
        "high_beats_low", "holds", 5.0, 2,
    )  # fmt: skip
    assert verdict["effect"] == pytest.approx(19.5)
    assert len((folder / "report/table.csv").read_text().splitlines()) == 1 + 4
    assert (folder / "report/figure.svg").read_text().startswith("<?xml")


def test_what_a_study_says_is_escaped_on_its_page_and_in_the_index(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    published = {**STUDY["published"], "source": evil}
    folder = study(
        tmp_path, title=evil, question=evil, notes=evil, published=published, claims=[{**CLAIM, "text": evil}]
    )
    report.build(folder)
    index = report.build_index(tmp_path).read_text()
    assert page_of(folder).count("&lt;script&gt;") == 6  # title twice
    assert index.count("&lt;script&gt;") == 2
    assert "<script" not in page_of(folder) + index


def test_events_hold_mean_and_spread_over_the_seeds_and_the_figures(tmp_path: Path) -> None:
    folder = study(tmp_path)
    (folder / "0.1-1/metrics.csv").write_text("step,epoch,train/loss\n1,0.5,3\n2,1,1\n3,1.5,1\n4,2,nan\n")
    report.build(folder)
    mean = [(event.step, event.value) for event in events(folder, "peak_lr=0.1/mean").Scalars("train/loss")]
    assert mean == [(1, 2.5), (2, 1.0)]  # steps that both seeds have
    above = events(folder, "peak_lr=0.1/plus sd").Scalars("train/loss")
    assert above[0].value == pytest.approx(2.5 + math.sqrt(0.5))
    assert events(folder).Tags()["images"] == ["figure"]


def test_an_incomplete_study_says_so_and_leaves_its_claims_open(tmp_path: Path) -> None:
    folder = study(tmp_path, runs=1)
    report.build(folder)
    (verdict,) = verdicts_of(folder)
    assert verdict["verdict"] == "undecided"
    assert "peak_lr 0.4" in verdict["reason"]
    assert "3 of 4 runs have no result yet" in page_of(folder)


def test_the_page_shows_what_can_be_drawn_and_what_cannot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    curve = STUDY["figures"][0]
    wrong: dict[str, Any] = {
        "claims": [CLAIM, {**CLAIM, "id": "b", "metric": "tset"}, {**CLAIM, "id": "c", "of": {"peak_lr": 0.8}}],
        "figures": [
            {"kind": "pie"}, curve, {**curve, "y": "accuracie"}, {**curve, "z": "test_loss"},
            {**curve, "where": {"peak_lr": 0.8}},
        ],
    }  # fmt: skip
    folder = study(tmp_path, **wrong)
    with pytest.raises(ConfigError) as caught:
        report.build(folder)
    said = ["claim b", "claim c", "study.figures[0].kind=pie", "study.figures[2]", "study.figures[3]"]
    assert [line.split(":")[0] for line in caught.value.problems] == said
    assert "figure_5 is left out: no run has peak_lr 0.8" in caplog.text
    page = page_of(folder)
    assert all(text in page for text in said)
    assert page.count("data:image/png;base64,") == 1
    assert [path.name for path in (folder / "report").glob("*.png")] == ["figure_2.png"]
    assert [(verdict["id"], verdict["verdict"]) for verdict in verdicts_of(folder)] == [("high_beats_low", "holds")]


def test_a_search_of_its_own_has_no_scale_and_shows_what_it_decided(tmp_path: Path) -> None:
    folder = study(tmp_path, scale=None)
    points = [replace(p, values=p.values | {"arm": "a", "number": n}) for n, p in enumerate(plan.points(STUDY))]
    plan.write_plan(folder, Plan({**STUDY, "scale": None, "claims": []}, points, "x"))
    decided = Decisions(folder)
    decided.add("a", Step(0, {"schedule.peak_lr": 0.1}, 0.5, "start", "start"), 1)
    decided.add("a", Step(1, {"schedule.peak_lr": 0.4}, 0.7, "schedule.peak_lr", "better"), 1)
    report.build(folder)
    assert "Scale" not in page_of(folder)
    header, body = report.summary_table(plan.read_plan(folder), table.read(folder))
    place = header.index("number"), header.index("decision"), header.index("coordinate")
    assert [[line[at] for at in place] for line in body] == [
        ["0", "start", ""], ["1", "better", "peak_lr"], ["2", "", ""], ["3", "", ""],
    ]  # fmt: skip


def test_the_command_draws_every_page_and_the_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path)
    report.main([str(tmp_path)])
    index = (tmp_path / "index.html").read_text()
    assert "one/report/index.html" in index
    assert "0.4 beats 0.1 by 5 points." in index
    assert "Index:" in capsys.readouterr().out


def test_without_a_study_or_a_result_it_says_how_to_run_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make study NAME="):
        report.main([str(tmp_path)])
    with pytest.raises(ConfigError, match="make study NAME=one"):
        report.build(study(tmp_path, runs=0))


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (87.543, 0.301, "87.54 ± 0.30"), (0.12345, math.nan, "0.123"), (1503.6, 20.2, "1504 ± 20"),
        (math.nan, math.nan, "–"),
    ],
)  # fmt: skip
def test_numbers_are_shown_with_as_many_digits_as_they_deserve(mean: float, sd: float, text: str) -> None:
    assert report.mean_and_sd(mean, sd) == text


def test_docs_hold_figures_verdicts_and_the_command_of_complete_studies_of_real_data(tmp_path: Path) -> None:
    claim = {**CLAIM, "id": "b", "at_least": 50.0, "if_not": "Likely reason: a | b.", "margin_from": "Half of it."}
    report.build(study(tmp_path / "real", claims=[CLAIM, claim]))
    report.build(study(tmp_path / "drawn", name="synthetic"))
    assert docs.write_docs(tmp_path / "real", tmp_path / "docs") == ["one"]
    assert docs.write_docs(tmp_path / "drawn", tmp_path / "other") == []
    text = (tmp_path / "docs/studies.md").read_text()
    holds, fails = (line for line in text.splitlines() if line.startswith("| 0.4 beats 0.1 by 5 points. | "))
    assert "| ✔ holds | " in holds
    assert holds.endswith("at least 5 was claimed | 0.0086 † |")
    assert "| ✘ does not hold | " in fails
    assert fails.endswith("at least 50 was claimed. Likely reason: a \\| b. Half of it. | 0.0033 † |")
    assert "Published test accuracy (%): λ 0.4 → 94.1, here 70.5 (n = 2). From: a book." in text
    assert "4 runs, n = 2 seeds, 2.0 minutes on Zen, 2 threads (32-true)" in text
    assert "`make study NAME=one`" in text
    assert "![One & only](figures/one_figure.png)" in text
    assert (tmp_path / "docs/figures/one_figure.png").stat().st_size > 1000


def test_docs_keep_the_sections_of_studies_whose_records_are_not_here(tmp_path: Path) -> None:
    report.build(study(tmp_path / "here"))
    docs.write_docs(tmp_path / "here", tmp_path / "docs")
    page = tmp_path / "docs/studies.md"
    before = page.read_text()
    page.write_text(before + "\n## Another\n\nWhy?\n\n3 runs: `make study NAME=another`\n")
    introduction, _, own = before.partition("## One & only")
    another = "## Another\n\nWhy?\n\n3 runs: `make study NAME=another`\n\n"
    for folder in ("here", "nothing"):
        docs.write_docs(tmp_path / folder, tmp_path / "docs")
        assert page.read_text() == f"{introduction}{another}## One & only{own}"


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([0], "n = 1 seed"), ([0, 1, 1, 0], "n = 2 seeds"), ([0] * 3 + [1, 2, 3], "3 with seed 0, 3 with seeds 1–3"),
        ([0, 0, 1, 4], "2 with seed 0, 2 with seeds 1, 4"), ([math.nan, None, 2.0], "n = 1 seed"),
    ],
)  # fmt: skip
def test_the_docs_say_how_many_runs_have_which_seeds(seeds: list[Any], text: str) -> None:
    assert docs.seeds_text(seeds) == text


def test_published_numbers_may_have_their_own_metric_several_values_and_no_run_of_ours(tmp_path: Path) -> None:
    entries = [
        {"text": "others", "value": [1.0, 0.25]},
        {"text": "loss", "value": 1.4, "metric": "test_loss", "of": {"peak_lr": 0.1}},
        {"text": "unmeasured", "value": 2, "metric": "no_such_column", "of": {"peak_lr": 0.1}},
    ]
    rows = table.read(study(tmp_path))
    assert report.published_and_here({"metric": "test_accuracy", "rows": entries}, rows) == [
        ("others", "1 / 0.25", ""), ("loss", "1.4", "1.5 (n = 2)"), ("unmeasured", "2", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "accuracies", "chance", "reason"),
    [
        ("synthetic", [90.0], 10.0, "drawn images"),
        ("cifar10", [10.0, math.nan, 11.9], 10.0, "nothing was learnt: no accuracy differs from guessing"),
        ("cifar10", [10.0, 12.1], 10.0, ""),
        ("cifar100", [1.3], 1.0, ""),
        ("cifar10", [10.0], math.nan, ""),
        ("cifar10", [math.nan], 10.0, ""),
    ],
)
def test_drawn_images_and_guessing_decide_nothing(
    name: str, accuracies: list[float], chance: float, reason: str
) -> None:
    rows = pd.DataFrame({"data_name": name, "test_accuracy": accuracies, "chance": chance})
    assert table.why_not_judged(rows) == reason
