import json
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from onecycle.config.checks import CONF
from onecycle.errors import ConfigError
from onecycle.studies import docs, pages, plan, report
from onecycle.studies import rows as table
from onecycle.studies.figures import draw as figures
from onecycle.studies.plan import Plan
from onecycle.studies.search import decisions
from onecycle.studies.search.coordinate import Step

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


def run_of(folder: Path, point: plan.Point, name: str = "cifar10") -> None:
    lr, seed = point.values["peak_lr"], point.values["seed"]
    entries = {
        "schema": 1, "status": "finished", "identity": "x", "name": "one", "overrides": list(point.overrides),
        "test": {"accuracy": ACCURACIES[lr, seed], "loss": 1.5}, "train": {"accuracy": 0.5, "loss": 1.0}, "val": None,
        "hyperparameters": {"peak_lr": lr, "batch_size": 50, "momentum": 0.9, "weight_decay": 5e-4},
        "data": {"name": name, "train_size": 1000}, "seconds": {"fit": 2.0, "total": 30.0}, "epochs": 1.0,
        "steps": 20, "parameters": 7, "images_per_second": 500.0, "device": "cpu", "precision": "32-true",
        "environment": {"threads": 2, "processor": "Zen"},
    }  # fmt: skip
    place = folder / f"{lr}-{seed}"
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(entries))
    (place / "metrics.csv").write_text(f"step,epoch,train/loss\n1,0.5,{2 + seed}\n2,1,1\n")


def study(folder: Path, runs: int = 4, name: str = "cifar10", **changes: Any) -> Path:
    spec = {**STUDY, **changes}
    points = plan.points(spec)
    plan.write_plan(folder / "one", Plan(spec, points, "onecycle-train study=one"))
    for point in points[:runs]:
        run_of(folder / "one", point, name)
    return folder / "one"


def test_the_page_shows_verdict_figure_published_number_table_and_command(tmp_path: Path) -> None:
    folder = study(tmp_path)
    built = report.build(folder)
    assert [verdict.verdict for verdict in built.verdicts] == ["holds"]
    assert built.verdicts[0].effect == pytest.approx(19.5)
    page = (folder / "report/index.html").read_text()
    for text in ("One &amp; only", "Is 0.4 &gt; 0.1?", "holds", "data:image/png;base64,", "94.1", "70.5 (n = 2)",
                 "70.50 ± 0.71", "51.00 ± 1.41", "2.0 minutes", "onecycle-train study=one"):  # fmt: skip
        assert text in page, text
    assert "<script" not in page
    assert "https://" not in page


def test_verdicts_table_figures_and_events_lie_beside_the_page(tmp_path: Path) -> None:
    folder = study(tmp_path)
    report.build(folder)
    (verdict,) = json.loads((folder / "report/verdicts.json").read_text())
    assert (verdict["id"], verdict["verdict"], verdict["at_least"], verdict["seeds"]) == (
        "high_beats_low",
        "holds",
        5.0,
        2,
    )
    assert len((folder / "report/table.csv").read_text().splitlines()) == 1 + 4
    assert (folder / "report/figure.svg").read_text().startswith("<?xml")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "report/tensorboard/peak_lr=0.1/mean"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.5), (2, 1.0)]
    above = EventAccumulator(str(folder / "report/tensorboard/peak_lr=0.1/plus sd"))
    above.Reload()
    assert above.Scalars("train/loss")[0].value == pytest.approx(2.5 + math.sqrt(0.5))
    images = EventAccumulator(str(folder / "report/tensorboard"), size_guidance={"images": 0})
    images.Reload()
    assert images.Tags()["images"] == ["figure"]


def test_an_incomplete_study_says_so_and_leaves_its_claims_open(tmp_path: Path) -> None:
    folder = study(tmp_path, runs=1)
    built = report.build(folder)
    assert built.missing == 3
    assert built.verdicts[0].verdict == "undecided"
    assert "no run has peak_lr 0.4" in built.verdicts[0].reason
    assert "3 of 4 runs have no result yet" in (folder / "report/index.html").read_text()


def test_drawn_images_are_named_as_such(tmp_path: Path) -> None:
    folder = study(tmp_path, name="synthetic")
    report.build(folder)
    assert "its accuracy says nothing about CIFAR" in (folder / "report/index.html").read_text().replace("their", "its")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"claims": [{**CLAIM, "metric": "test_acuracy"}]},
            "claim high_beats_low: no column 'test_acuracy'; there are ",
        ),
        ({"claims": [{**CLAIM, "of": {"peak_lr": 0.8}}]}, "claim high_beats_low: no run has peak_lr 0.8; "),
        ({"figures": [{"kind": "pie"}]}, "study.figures[0].kind=pie: unknown; there are curves, "),
        ({"figures": [{"kind": "curves", "x": "peak_lr", "y": "accuracie"}]}, "study.figures[0]: "),
        ({"figures": [{"kind": "curves", "x": "peak_lr", "z": "test_loss"}]}, "study.figures[0]: "),
    ],
)
def test_what_does_not_fit_the_rows_is_one_line(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        report.build(study(tmp_path, **changes))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(line)


def test_the_page_shows_what_can_be_drawn_and_what_cannot(tmp_path: Path) -> None:
    folder = study(
        tmp_path, claims=[CLAIM, {**CLAIM, "id": "b", "metric": "tset"}], figures=[{"kind": "pie"}, *STUDY["figures"]]
    )
    with pytest.raises(ConfigError) as caught:
        report.build(folder)
    assert [line.split(":")[0] for line in caught.value.problems] == ["claim b", "study.figures[0].kind=pie"]
    page = (folder / "report/index.html").read_text()
    assert "claim b: no column &#x27;tset&#x27;; there are " in page
    assert "kind=pie: unknown; there are " in page
    assert page.count("data:image/png;base64,") == 1
    (verdict,) = json.loads((folder / "report/verdicts.json").read_text())
    assert (verdict["id"], verdict["verdict"]) == ("high_beats_low", "holds")


def test_a_search_of_its_own_has_no_scale_and_shows_what_it_decided(tmp_path: Path) -> None:
    folder = study(tmp_path, scale=None)
    assert "Scale" not in (report.build(folder).folder / "report/index.html").read_text()
    points = [replace(p, values=p.values | {"arm": "a", "number": n}) for n, p in enumerate(plan.points(STUDY))]
    plan.write_plan(folder, Plan({**STUDY, "scale": None, "claims": []}, points, "x"))
    decided = decisions.Decisions(folder)
    decided.add("a", Step(0, {"schedule.peak_lr": 0.1}, 0.5, "start", "start"), 1)
    decided.add("a", Step(1, {"schedule.peak_lr": 0.4}, 0.7, "schedule.peak_lr", "better", 0.5), 1)
    header, body = report.lines(report.build(folder))
    place = header.index("decision"), header.index("coordinate")
    assert [[line[at] for at in place] for line in body] == [
        ["start", ""], ["better", "peak_lr"], ["", ""], ["", ""],
    ]  # fmt: skip


def test_a_study_without_any_result_says_how_to_run_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run is finished; run it: make study NAME=one"):
        report.build(study(tmp_path, runs=0))


def test_the_command_draws_every_page_and_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    study(tmp_path)
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    report.main()
    index = (tmp_path / "index.html").read_text()
    assert "one/report/index.html" in index
    assert "0.4 beats 0.1 by 5 points." in index
    assert "Index:" in capsys.readouterr().out


def test_without_any_study_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds no study yet; run one: make study NAME="):
        report.main()


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (87.543, 0.301, "87.54 ± 0.30"), (0.12345, math.nan, "0.123"), (1503.6, 20.2, "1504 ± 20"),
        (math.nan, math.nan, "–"),
    ],
)  # fmt: skip
def test_numbers_are_shown_with_as_many_digits_as_they_deserve(mean: float, sd: float, text: str) -> None:
    assert report.mean_and_sd(mean, sd) == text


def test_every_kind_of_figure_of_the_studies_exists() -> None:
    kinds = {
        figure["kind"]
        for path in (CONF / "study").glob("*.yaml")
        for figure in yaml.safe_load(path.read_text()).get("study", {}).get("figures", [])
    }
    assert kinds
    assert kinds <= figures.KINDS.keys()


def test_text_in_pages_is_escaped() -> None:
    page = pages.index_page([("one", "<b>bold</b>", [], None)])
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page


def test_docs_hold_figures_verdicts_and_the_command_of_complete_studies_of_real_data(tmp_path: Path) -> None:
    report.build(study(tmp_path / "real"))
    report.build(study(tmp_path / "drawn", name="synthetic"))
    assert docs.write_docs(tmp_path / "real", tmp_path / "docs") == ["one"]
    assert docs.write_docs(tmp_path / "drawn", tmp_path / "other") == []
    text = (tmp_path / "docs/studies.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("| 0.4 beats 0.1 by 5 points. | ✔ holds | "))
    assert line.endswith("at least 5.0 was claimed |")
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
    docs.write_docs(tmp_path / "here", tmp_path / "docs")
    introduction, _, own = before.partition("## One & only")
    another = "## Another\n\nWhy?\n\n3 runs: `make study NAME=another`\n\n"
    assert page.read_text() == f"{introduction}{another}## One & only{own}"
    docs.write_docs(tmp_path / "nothing", tmp_path / "docs")
    assert page.read_text() == f"{introduction}{another}## One & only{own}"


def test_every_sentence_of_a_cell_of_the_docs_ends_in_one_full_stop(tmp_path: Path) -> None:
    claim = {**CLAIM, "at_least": 50.0, "if_not": "Likely reason: too few.", "margin_from": "Half of what was seen."}
    report.build(study(tmp_path, claims=[claim]))
    docs.write_docs(tmp_path, tmp_path / "docs")
    text = (tmp_path / "docs/studies.md").read_text()
    assert "at least 50.0 was claimed. Likely reason: too few. Half of what was seen. |" in text
    assert ".." not in text


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([0], "n = 1 seed"), ([0, 1, 1, 0], "n = 2 seeds"), ([0] * 3 + [1, 2, 3], "3 with seed 0, 3 with seeds 1–3"),
        ([0, 0, 1, 4], "2 with seed 0, 2 with seeds 1, 4"),
    ],
)  # fmt: skip
def test_the_docs_say_how_many_runs_have_which_seeds(tmp_path: Path, seeds: list[int], text: str) -> None:
    folder = study(tmp_path)
    rows = [{**table.entries(folder)[0], "seed": seed} for seed in seeds]
    section = docs.section(plan.read_plan(folder), rows, [], [], datetime(2026, 11, 25))
    assert f"{len(seeds)} runs, {text}, " in section


def test_published_numbers_may_have_their_own_metric_several_values_and_no_run_of_ours(tmp_path: Path) -> None:
    rows = table.entries(study(tmp_path))
    entries = [
        {"text": "others", "value": [1.0, 0.25]},
        {"text": "loss", "value": 1.4, "metric": "test_loss", "of": {"peak_lr": 0.1}},
        {"text": "unmeasured", "value": 2, "metric": "no_such_column", "of": {"peak_lr": 0.1}},
    ]
    found = pages.published_and_here({"metric": "test_accuracy", "rows": entries}, rows)
    assert found == [("others", "1 / 0.25", ""), ("loss", "1.4", "1.5 (n = 2)"), ("unmeasured", "2", "")]


def test_a_figure_without_runs_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    curve = {"kind": "curves", "x": "peak_lr", "y": "test_accuracy"}
    built = study(tmp_path, figures=[curve, {**curve, "name": "other", "where": {"peak_lr": 0.8}}])
    report.build(built)
    assert [path.name for path in (built / "report").glob("*.png")] == ["figure.png"]
    assert "other is left out: no run has peak_lr 0.8." in caplog.text
