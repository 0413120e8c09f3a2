"""The HTML of a study's page and of the index: one file each, without anything from the network."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from onecycle.studies import rows as table
from onecycle.studies.figures import curves as plots
from onecycle.studies.selection import select

if TYPE_CHECKING:
    from onecycle.studies.report import Report

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1e; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
img { width: 100%; height: auto; } a { color: #0b5cad; } .quiet { color: #5f6368; font-size: .9rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e3e3e6; }
th:first-child, td:first-child { text-align: left; } .wide { overflow-x: auto; }
.verdict { border-left: .35rem solid; padding: .1rem 1rem; margin: 1rem 0; }
.holds { border-color: #009e73; } .fails { border-color: #d55e00; } .undecided { border-color: #999; }
.verdict b { text-transform: uppercase; font-size: .8rem; letter-spacing: .04em; }
code { background: #f2f2f4; padding: .15rem .35rem; border-radius: .25rem; font-size: .85rem; overflow-wrap: anywhere; }
.warning { background: #fff4e5; border: 1px solid #e69f00; padding: .6rem 1rem; border-radius: .3rem; }
.studies { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1.5rem; }
.studies a { text-decoration: none; color: inherit; }
.studies div { border: 1px solid #e3e3e6; border-radius: .5rem; padding: 1rem; height: 100%; box-sizing: border-box; }
"""
INTERVALS = (
    "± is half of the effect's 90 % interval: Student's, with one variance from seed to seed for all points of a claim "
    "or, with one seed, from the spread that the study assumes. A claim holds, or does not, where the whole interval "
    "says so. Margins without a note were set before the runs."
)
CLASSES = {"holds": "holds", "does not hold": "fails", "undecided": "undecided"}


def study_page(report: "Report", images: Mapping[str, str], lines: tuple[list[str], list[list[str]]]) -> str:
    """The page of one study. images: data URLs by figure name. lines: header and rows of its table."""
    study = report.plan.study
    parts = [f"<h1>{_(study['title'])}</h1>", f"<p>{_(study.get('question') or '')}</p>"]
    if study.get("source"):
        parts.append(f"<p class=quiet>Source: {_(study['source'])}</p>")
    parts += _warnings(report)
    if report.verdicts:
        parts += ["<h2>Verdicts</h2>", *map(_verdict, report.verdicts), f"<p class=quiet>{INTERVALS}</p>"]
    parts += [f"<p><img src='{url}' alt='{_(name)}'></p>" for name, url in images.items()]
    if study.get("published"):
        parts += ["<h2>Published and here</h2>", _published(study["published"], report.rows)]
    header, body = lines
    parts += ["<h2>Runs</h2>", "<p class=quiet>Mean ± standard deviation over n seeds.</p>", _table(header, body)]
    parts += ["<h2>How it was made</h2>", *_provenance(report)]
    return _document(str(study["title"]), parts)


def _warnings(report: "Report") -> list[str]:
    texts = list(report.problems)
    if report.missing > 0:
        texts.append(f"{report.missing} of {len(report.plan.points)} runs have no result yet: run the command again.")
    sets = sorted({str(row.get("data_name")) for row in report.rows})
    if "synthetic" in sets:
        texts.append("These runs saw drawn images: their accuracy says nothing about CIFAR.")
    return [f"<p class=warning>{_(text)}</p>" for text in texts]


def _verdict(verdict: Any) -> str:
    entry = verdict.as_dict()
    extra = "".join(f"<p class=quiet>{_(entry[key])}</p>" for key in ("margin_from", "if_not") if entry.get(key))
    source = f" <span class=quiet>{_(entry['source'])}</span>" if entry.get("source") else ""
    return (
        f"<div class='verdict {CLASSES[verdict.verdict]}'><p><b>{_(verdict.verdict)}</b> · "
        f"{_(verdict.text)}{source}<br>"
        f"{_(verdict.reason)}</p>{extra}</div>"
    )


def published_and_here(published: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Of each published entry its text, its number or numbers, and the mean of our runs that it speaks of, with n.

    The last is empty where none of our runs has its metric.
    """
    found = []
    for entry in published["rows"]:
        metric = entry.get("metric", published["metric"])
        own = select(rows, entry["of"]) if entry.get("of") else []
        mean = float(table.summary(pd.DataFrame(own), [], [metric])[metric].iloc[0]) if own else math.nan
        values = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
        here = f"{mean:.4g} (n = {len(own)})" if math.isfinite(mean) else ""
        found.append((entry["text"], " / ".join(f"{value:g}" for value in values), here))
    return found


def _published(published: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The published numbers beside the mean of our runs that they speak of."""
    body = [(text, value, here or "not run here") for text, value, here in published_and_here(published, rows)]
    name = plots.label_of(published["metric"])
    return _table(["", f"published {name}", f"here {name}"], body) + f"<p class=quiet>{_(published['source'])}</p>"


def _provenance(report: "Report") -> list[str]:
    row = report.rows[0]
    # A search of its own has none.
    scale = f"Scale: {report.plan.study['scale']}. " if report.plan.study["scale"] else ""
    facts = [
        f"{len(report.rows)} runs, {report.seconds / 60:.1f} minutes of set-up, training and testing on "
        f"{row['machine']}.",
        f"Data: {row['data_name']}. {scale}Drawn on {datetime.now():%Y-%m-%d}.",
    ]
    if report.plan.study.get("notes"):
        facts.append(str(report.plan.study["notes"]))
    return [*(f"<p>{_(fact)}</p>" for fact in facts), f"<p><code>{_(report.plan.command)}</code></p>",
            "<p><a href='table.csv'>table.csv</a> · <a href='verdicts.json'>verdicts.json</a> · "
            "<a href='../../index.html'>all studies</a></p>"]  # fmt: skip


def index_page(entries: Iterable[tuple[str, str, list[Mapping[str, Any]], str | None]]) -> str:
    """The page over all studies: name, title, verdicts and picture of each."""
    cards = []
    for name, title, verdicts, picture in entries:
        image = f"<img src='{_(picture)}' alt=''>" if picture else ""
        judged = "".join(
            f"<p class='verdict {CLASSES[entry['verdict']]} quiet'><b>{_(entry['verdict'])}</b> {_(entry['text'])}</p>"
            for entry in verdicts
        )
        cards.append(f"<a href='{_(name)}/report/index.html'><div>{image}<h2>{_(title)}</h2>{judged}</div></a>")
    return _document("Studies", ["<h1>Studies</h1>", f"<div class=studies>{''.join(cards)}</div>"])


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_(cell)}</th>" for cell in header)
    rows = "".join("<tr>" + "".join(f"<td>{_(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _document(title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f"<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content='width=device-width'>\n"
        f"<title>{_(title)}</title>\n<style>{STYLE}</style>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _(text: Any) -> str:
    return html.escape(str(text), quote=True)
