import html
import json
import math
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from onecycle.errors import ConfigError
from onecycle.studies import plan, publish, report
from onecycle.studies import rows as table
from onecycle.studies.figures import columns
from onecycle.studies.plan import Plan
from onecycle.studies.search.coordinate import Decisions, Step
from studying import record_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
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
    assert "<script" not in index
    assert page_of(folder).count("<script") == 2  # the page's own


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
    assert columns.mean_and_sd(mean, sd) == text


def test_a_page_knows_the_runs_of_each_place_of_its_figures(tmp_path: Path) -> None:
    evil = "</script><b>"
    folder = study(tmp_path)
    record = json.loads((folder / "0.4-1/result.json").read_text())
    (folder / "0.4-1/result.json").write_text(json.dumps({**record, "status": "diverged"}))
    with (folder / "0.1-0/metrics.csv").open("a") as lines:
        lines.write("".join(f"{step},9,{step / 1000}\n" for step in range(3, 1003)) + "1003,9,nan\n")
    noted = plan.read_plan(folder)
    points = [replace(point, label=evil + point.label) for point in noted.points]
    plan.write_plan(folder, replace(noted, points=points))
    report.build(folder)
    text = page_of(folder).split("id=data>")[1].split("</script>")[0]
    assert evil not in page_of(folder)
    data = json.loads(text)
    assert [run["folder"] for run in data["runs"]] == ["../0.1-0/", "../0.4-0/", "../0.1-1/", "../0.4-1/"]
    assert data["runs"][3]["name"] == "seed 1, diverged"
    assert data["runs"][2]["curves"] == {"train/loss": [[1, 2], [3, 1]]}
    steps, losses = data["runs"][0]["curves"]["train/loss"]
    assert (len(steps), 995 < steps[-1] < 1002, 0.99 < losses[-1] < 1.0) == (120, True, True)
    low, high, cross = data["figures"]["figure"]["marks"]
    assert (low["runs"], low["n"], low["means"][0], low["title"]) == ([0, 2], 2, "51.00 ± 1.41", evil + "peak_lr=0.1")
    assert (high["runs"], high["n"], high["means"][0], high["metric"]) == (
        [1, 3],
        "1 of 2",
        "70.00",
        data["metrics"][0],
    )
    # As in the picture, in hundredths of an inch from the top left: the higher accuracy is above, the cross below both.
    (x_low, y_low), (x_high, y_high), (x_cross, y_cross) = (
        map(int, one["points"].split(",")) for one in (low, high, cross)
    )
    width, height = map(int, data["figures"]["figure"]["size"].split())
    assert 0 < x_low < x_high == x_cross < width
    assert 0 < y_high < y_low < y_cross < height
    assert cross["runs"] == [1, 3]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_in_a_browser_pointing_shows_runs_and_their_curves_can_be_compared(tmp_path: Path) -> None:
    evil = "<img src=x onerror=document.title='evil'>"
    folder = study(tmp_path)
    noted = plan.read_plan(folder)
    points = [replace(point, label=evil + point.label) for point in noted.points]
    plan.write_plan(folder, replace(noted, points=points))
    report.build(folder)
    steps = """<script>{
        const places = document.querySelectorAll('svg[data-figure] *'), popup = document.getElementById('popup');
        const told = [places.length], say = () => told.push(popup.hidden ? '' : popup.innerText.split('\\n').join(' '));
        const box = places[1].getBoundingClientRect();
        told.push(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === places[1]);
        places[1].onmouseenter({pageX: 1, pageY: 1}); say();
        places[1].onmouseleave(); say();
        places[0].onclick({pageX: 1, pageY: 1, stopPropagation() {}}); places[0].onmouseleave(); say();
        told.push(popup.querySelectorAll('a')[1].getAttribute('href'));
        popup.querySelector('button').onclick(); document.onclick(); say();
        told.push(document.querySelectorAll('.chart').length, document.querySelectorAll('.chart polyline').length);
        document.querySelector('#curves button').onclick();
        told.push(document.querySelectorAll('.chart polyline').length, document.querySelectorAll('img[src=x]').length);
        document.body.replaceChildren(JSON.stringify(told));
    }</script>"""
    (tmp_path / "page.html").write_text(page_of(folder).replace("</body>", steps + "</body>"))
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--window-size=1100,3000",
        "--dump-dom",
        str(tmp_path / "page.html"),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "<title>One &amp; only</title>" in shown
    told = json.loads(html.unescape(shown.split("<body>")[1].split("</body>")[0]))
    count, is_hit, high, left, low, folder_of, closed, *numbers = told
    assert (count, is_hit, left, closed, folder_of) == (2, True, "", "", "../0.1-1/")
    assert "test accuracy (%)\t70.50 ± 0.71\t70.00\t71.00" in high
    assert evil + "peak_lr=0.1 mean ± sd, n = 2\tseed 0\tseed 1" in low.replace(" \t", " ")
    assert numbers == [1, 2, 1, 0]


def test_the_generated_blocks_of_the_docs_are_written_anew_and_what_stands_between_them_stays(tmp_path: Path) -> None:
    claim = {**CLAIM, "id": "b", "at_least": 50.0, "if_not": "Likely reason: a | b.", "margin_from": "Half of it."}
    report.build(study(tmp_path / "real", claims=[CLAIM, claim]))
    report.build(study(tmp_path / "drawn", name="synthetic"))
    page = tmp_path / "docs/studies.md"
    assert publish.write_docs(tmp_path / "real", tmp_path / "docs") == ["one"]
    assert publish.write_docs(tmp_path / "drawn", tmp_path / "other") == []
    text = page.read_text()
    link = "[0.4 beats 0.1 by 5 points.](#one--only)"
    for line in (
        "2 claims: 1 hold, 1 do not hold.",
        f"| {link} | ✔ holds | 19.5 ± 4.3 points | 2 | yes |",
        f"| {link} | ✘ does not hold | 19.5 ± 4.3 points | 2 | yes |",
        "![One & only](figures/one_figure.png)",
        "| 0.4 beats 0.1 by 5 points. | ✔ holds | 19.5 ± 4.3 points | at least 5 | 2 | 0.0086 |",
        "| 0.4 beats 0.1 by 5 points. | ✘ does not hold | 19.5 ± 4.3 points | at least 50 | 2 | 0.0033 |",
        "- 0.4 beats 0.1 by 5 points. Likely reason: a | b. Half of it.",
        "Published test accuracy (%): λ 0.4 → 94.1, here 70.5 (n = 2). From: a book.",
    ):
        assert line in text.splitlines(), line
    assert "4 runs, 2.0 minutes on Zen, 2 threads (32-true)" in text
    assert (tmp_path / "docs/figures/one_figure.png").stat().st_size > 1000
    another = "## Another\n\n| Why? | ? undecided | 1.2 ± 3 points | at least 5 | 2 |  |\n"
    told = text.replace("Is 0.4 > 0.1?", "They claimed it.").replace("19.5 ±", "7 ±") + another
    page.write_text(told)
    for folder in ("real", "nothing"):
        publish.write_docs(tmp_path / folder, tmp_path / "docs")
        again = page.read_text()
        assert ("They claimed it." in again, another in again, "7 ±" in again) == (True, True, False)
        assert "3 claims: 1 hold, 1 do not hold, 1 undecided." in again
        assert "| [Why?](#another) | ? undecided | 1.2 ± 3 points | 2 |  |" in again


@pytest.mark.parametrize(
    ("low", "effect", "high", "text"),
    [
        (5.2, 5.5, 5.8, "5.50 ± 0.30 x"), (None, 1.25, 2.0, "so, so"),
        (0.22, 1.0, 1.0, "so, so"), (3.0, 3.0, 3.0, "3 x"),
    ],
)  # fmt: skip
def test_effects_in_the_docs_have_half_widths_or_both_ends(
    low: float | None, effect: float | None, high: float | None, text: str
) -> None:
    half = None if low is None or high is None else (high - low) / 2
    entry = {"effect": effect, "low": low, "high": high, "uncertainty": half, "unit": "x"}
    assert publish.effect_text(entry | {"reason": "so, so, at least 5 was claimed"}) == text
    assert publish.effect_text(dict.fromkeys(entry) | {"reason": "a, b"}) == "a, b"


def test_a_study_that_is_unpacked_elsewhere_draws_the_same_page(tmp_path: Path) -> None:
    folder = study(tmp_path / "here")
    (folder / "0.1-0/checkpoints").mkdir()
    (folder / "0.1-0/checkpoints/last.ckpt").write_text("large")
    archive = publish.bundle(folder)
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    there = tmp_path / "there/one"
    assert not list(there.rglob("*.ckpt"))
    before = {
        name: (there / "report" / name).read_bytes()
        for name in ("table.csv", "verdicts.json", "index.html", "figure.png")
    }
    shutil.copytree(there / "report", tmp_path / "packed")
    for path in (there / "report").iterdir():
        if path.is_file():
            path.unlink()
    report.main([str(there)])
    assert {name: (there / "report" / name).read_bytes() for name in before} == before
    assert (tmp_path / "packed/figure.pdf").read_bytes().startswith(b"%PDF")
    lines = (tmp_path / "packed/table.tex").read_text().splitlines()
    assert (
        r"peak learning rate $\lambda$ & n & test accuracy (\%) & test loss & training loss & training time (s) \\"
        in lines
    )
    assert r"0.1 & 2 & 51.00 $\pm$ 1.41 & 1.500 $\pm$ 0.000 & -- & 2.000 $\pm$ 0.000 \\" in lines
    versions = json.loads((tmp_path / "packed/versions.json").read_text())
    assert (versions["runs"], set(versions["figures"]) >= {"matplotlib"}) == (
        [{"threads": 2, "processor": "Zen"}],
        True,
    )


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


@pytest.mark.parametrize(("losses", "reason"), [([1.5, 1.9], ""), ([2.2, 2.25], "nothing was learnt")])
def test_a_range_test_is_judged_by_its_lowest_loss(losses: list[float], reason: str) -> None:
    # It ends at rates that destroy the network: its accuracy is then that of guessing. Guessing's loss is log 10 = 2.3.
    rows = pd.DataFrame({"data_name": "cifar10", "test_accuracy": 10.0, "chance": 10.0, "lowest_loss": losses})
    assert table.why_not_judged(rows).partition(":")[0] == reason


def test_runs_that_were_made_at_once_count_once_in_the_minutes_of_a_study() -> None:
    starts = [f"2026-11-27T10:0{minute}:00+00:00" for minute in (0, 0, 1, 8)]
    rows = pd.DataFrame({"started": starts, "seconds_total": [120.0, 60.0, 120.0, 30.0]})
    assert report.minutes(rows) == pytest.approx(3.5)  # 10:00 to 10:03, and half a minute later on
