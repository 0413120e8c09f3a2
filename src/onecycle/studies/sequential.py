"""Seeds that are added while a claim is undecided: `study.budget_minutes`.

After the first seeds sequential.json fixes how many looks there will be, after how many seeds each and how much of the
error each may spend. That depends on the time of the runs alone, not on what they measured, so the verdicts of all
looks together are wrong as rarely as that of one: the levels add up to ALPHA, whenever the study stops.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.core.utils import JobReturn
from scipy import stats

from onecycle.errors import ConfigError
from onecycle.runs.identity import settings
from onecycle.runs.record import write_atomically
from onecycle.studies import plan
from onecycle.studies import rows as table
from onecycle.studies.effects import columns_of
from onecycle.studies.study import CLAIMS
from onecycle.studies.verdicts import ALPHA, SHARE, UNDECIDED, forecast, judge, measured, metric_of

log = logging.getLogger(__name__)

SEQUENTIAL = "sequential.json"
LOOKS = 5  # at most
MOST_SEEDS = 20
REACH = 0.2  # how probable a decision at the last look must be for the next seeds to run


def spending(looks: Sequence[int]) -> list[float]:
    """The level of each look after so many seeds; they add up to ALPHA.

    The spending function is that of Lan and DeMets (1983) that resembles O'Brien and Fleming's bounds: little early.
    """
    spent = 2 * stats.norm.sf(stats.norm.isf(ALPHA / 2) / np.sqrt(np.array(looks) / looks[-1]))
    return [float(level) for level in np.diff(spent, prepend=0.0)]


def planned_looks(seeds: int, seconds: float, budget: float) -> list[int]:
    """After how many seeds to look: `seeds` took so many seconds of runs, and the budget, in seconds, is for all."""
    most = min(MOST_SEEDS, seeds + max(0, int((budget - seconds) / (seconds / seeds))))
    looks = np.linspace(seeds, max(seeds, most), min(LOOKS, max(0, most - seeds) + 1))
    return [round(look) for look in looks]


def read_scheme(folder: Path) -> dict[str, Any]:
    """What sequential.json says; empty where seeds were not added."""
    try:
        scheme: dict[str, Any] = json.loads((folder / SEQUENTIAL).read_text())
        _ = scheme["levels"][scheme["done"] - 1], scheme["looks"][scheme["done"] - 1]
        return scheme
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError([f"{folder / SEQUENTIAL}: is not a plan of looks ({error})"]) from None


def alpha_of(folder: Path) -> float:
    """The level of the last look at a study."""
    scheme = read_scheme(folder)
    return float(scheme["levels"][scheme["done"] - 1]) if scheme else ALPHA


def looks_text(folder: Path) -> list[str]:
    """What a page says of the looks."""
    if not (scheme := read_scheme(folder)):
        return []
    done, looks = scheme["done"], scheme["looks"]
    return [
        f"Seeds were added within {scheme['budget_minutes']:g} minutes of runs: look {done} of at most {len(looks)}, "
        f"after {looks[done - 1]} of at most {looks[-1]} seeds. Intervals are of {1 - 2 * alpha_of(folder):.1%} here, "
        "so that all looks together are wrong as rarely as one; p is for all of them."
    ]


class SeedAdder:
    """Adds seeds to the study `noted` in `folder` while a claim is undecided and within reach.

    launch: makes runs, `at_once` of them at a time.
    """

    def __init__(
        self, noted: plan.Plan, changes: plan.Changes, folder: Path,
        launch: Callable[[Sequence[plan.Point]], list[JobReturn]], at_once: int = 1,
    ) -> None:  # fmt: skip
        self.noted, self.changes, self.folder, self.launch = noted, changes, folder, launch
        self.budget, self.at_once = 60 * float(noted.study["budget_minutes"]), at_once

    def run(self) -> list[JobReturn]:
        """What the added runs returned. Killed and repeated, it takes the same looks again over runs read back.

        Raises ConfigError where looks were planned for another budget.
        """
        results: list[JobReturn] = []
        scheme = self._scheme()
        for number, (count, level) in enumerate(zip(scheme["looks"], scheme["levels"], strict=True), 1):
            if number > 1:
                seeds = scheme["seeds"][scheme["looks"][number - 2] : count]
                points = plan.points(self.noted.study, replace(self.changes, axes={**self.changes.axes, "seed": seeds}))
                done = plan.finished_runs(self.folder)
                missing = sum(settings(point.overrides) not in done for point in points)
                spent = sum(record["seconds"]["total"] for _, record in done.values()) / self.at_once
                if missing and spent + missing * scheme["seconds_a_run"] > self.budget:
                    log.info("The budget of %g minutes is spent.", self.budget / 60)
                    break
                self.noted.points.extend(points)
                plan.write_plan(self.folder, self.noted)
                results += self.launch(points)
            scheme |= {"done": max(number, scheme["done"])}
            write_atomically(self.folder / SEQUENTIAL, json.dumps(scheme, indent=1) + "\n")
            rows = table.read(self.folder)
            if rows.empty or table.why_not_judged(rows):
                break
            within = self._within_reach(rows, level, scheme)
            log.info(
                "Look %d of %d, %d seeds: within reach: %s", number, len(scheme["looks"]), count, within or "no claim"
            )
            if not within:
                break
        return results

    def _scheme(self) -> dict[str, Any]:
        """The plan of looks, made once, when the first seeds are done."""
        if scheme := read_scheme(self.folder):
            if scheme["budget_minutes"] != self.noted.study["budget_minutes"]:
                given, before = self.noted.study["budget_minutes"], scheme["budget_minutes"]
                raise ConfigError([f"study.budget_minutes={given}: the looks at this study were planned for {before}"])
            return scheme
        planned = {settings(point.overrides) for point in self.noted.points}
        done = plan.finished_runs(self.folder)
        seconds = [record["seconds"]["total"] / self.at_once for key, (_, record) in done.items() if key in planned]
        if not seconds:
            return {"looks": [], "levels": [], "seeds": [], "done": 0}
        seeds = plan.seeds_of(self.noted.study, self.changes)
        looks = planned_looks(len(seeds), sum(seconds), self.budget)
        taken = {*seeds, *(self.noted.study.get("confirm") or ())}
        more = [seed for seed in range(max(seeds) + 1, max(taken) + MOST_SEEDS + 1) if seed not in taken]
        return {
            "budget_minutes": self.noted.study["budget_minutes"], "seconds_a_run": sum(seconds) / len(seconds),
            "seeds": [*seeds, *more][: looks[-1]], "looks": looks, "levels": spending(looks), "done": 1,
        }  # fmt: skip

    def _within_reach(self, rows: pd.DataFrame, level: float, scheme: Mapping[str, Any]) -> str:
        """The undecided claims that the last look may decide, in words."""
        found = []
        for entry in self.noted.study.get("claims") or ():
            if judge(rows, entry, whole=False, alpha=level)["verdict"] != UNDECIDED:
                continue
            claim = CLAIMS[entry["effect"]].model_validate(entry)
            points, sd, _ = measured(rows, claim.effect, claim.parameters, claim.assumed_sd)
            is_share = metric_of(columns_of(claim.effect, claim.parameters)) == SHARE
            if is_share or np.isnan(sd).any():  # its spread is known with the next seeds
                found.append(claim.id)
            elif len(points):
                _, chance = forecast(points, sd, scheme["looks"][-1], claim, scheme["levels"][-1], 40)
                found += [f"{claim.id} ({chance:.0%})"] * (chance >= REACH)
        return ", ".join(found)
