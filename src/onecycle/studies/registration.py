"""Pre-registration: the design and claims of a study, written before its first run, and every later change of them.

registration.json has the date, how many runs were finished then, the design as flat keys and its SHA-256; `changes` are
appended, each with the same and what changed. The hashes show that the file was edited by hand, unless these were, too.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from onecycle.config.compose import without_hydra
from onecycle.config.validate import flat, validated
from onecycle.errors import ConfigError
from onecycle.runs.identity import comparable, override_key, settings
from onecycle.runs.record import write_atomically
from onecycle.studies.plan import Changes, finished_runs

log = logging.getLogger(__name__)

REGISTRATION = "registration.json"
DESIGN = ("scale", "records_of", "derive", "seeds", "fixed", "runs", "searches", "starts", "confirm", "budget_minutes")
WORDING = ("text", "unit", "source", "margin_from", "if_not", "id")  # of a claim; all else decides its verdict


def design_of(study: Mapping[str, Any]) -> dict[str, Any]:
    """What a study at its scale will run and claim, as flat keys; values that are not set are left out."""
    parts: dict[str, Any] = {key: study.get(key) for key in DESIGN}
    for key in ("runs", "searches"):
        parts[key] = {
            f"{number} {block.get('arm') or ''}".strip(): block for number, block in enumerate(parts[key] or ())
        }
    parts["claims"] = {
        claim["id"]: {key: value for key, value in claim.items() if key not in WORDING}
        for claim in study.get("claims") or ()
    }
    return _as_in_a_file({f"study.{key}": value for key, value in flat(parts).items() if value not in ([], {})})


def register(folder: Path, study: Mapping[str, Any], changes: Changes, config: DictConfig) -> None:
    """Write a study's registration, or append to it what differs now; nothing where nothing differs.

    Raises ConfigError where the file cannot be read.
    """
    given: dict[str, Any] = {f"axes.{key}": values for key, values in changes.axes.items()}
    given["overrides"] = list(settings(changes.common)) or None
    apart = {"seed", *changes.axes, *map(override_key, changes.common)}
    own = {key: value for key, value in comparable(validated(without_hydra(config)), {}).items() if key not in apart}
    design = design_of(study) | _as_in_a_file(given | own)
    entry = {"date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}", "runs": len(finished_runs(folder))}
    entries = read_registration(folder)
    if not entries:
        entries = {**entry, "sha256": digest(design), "design": design, "changes": []}
    elif changed := differences(latest(entries), design):
        entries["changes"].append({**entry, "sha256": digest(design), "changed": changed})
        log.warning(
            "The registered design is changed, which the page will say:\n%s", "\n".join(map(change_text, changed))
        )
    else:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / REGISTRATION, json.dumps(entries, indent=1) + "\n")


def _as_in_a_file(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps({key: value for key, value in values.items() if value is not None}))
    return found


def read_registration(folder: Path) -> dict[str, Any]:
    """A study's registration; empty where there is none, as for one that an earlier version began."""
    path = folder / REGISTRATION
    try:
        entries: dict[str, Any] = json.loads(path.read_text())
        latest(entries)
        return entries
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path}: is not a study's registration ({error})"]) from None


def latest(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The design after all changes."""
    design = dict(entries["design"])
    for change in entries["changes"]:
        design |= {one["key"]: one["after"] for one in change["changed"]}
    return {key: value for key, value in design.items() if value is not None}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys whose values differ, each with both values; None for one that is not set."""
    return [
        {"key": key, "before": before.get(key), "after": after.get(key)}
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def digest(design: Mapping[str, Any]) -> str:
    """SHA-256 of a design, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(design, sort_keys=True).encode()).hexdigest()


def change_text(change: Mapping[str, Any]) -> str:
    """A changed key in words."""
    values = change["before"], change["after"]
    before, after = ("not set" if one is None else json.dumps(one, ensure_ascii=False) for one in values)
    return f"{change['key']}: {before} → {after}"


def registration_text(folder: Path, study: Mapping[str, Any]) -> list[str]:
    """What a page says: when design and claims were registered, and after how many runs what of them was changed.

    study: what the page is made from; claims or runs in it that are not those of the registration are named.
    """
    if not (entries := read_registration(folder)):
        return ["Not registered: margins, metrics, sizes or seeds may have been chosen after runs had been seen."]
    when = f"after {entries['runs']} runs" if entries["runs"] else "before the first run"
    changes, lines = entries["changes"], []
    unchanged = "" if changes else " and not changed since"
    lines.append(
        f"Design and claims were registered {when}, on {entries['date']}{unchanged} (SHA-256 {entries['sha256']})."
    )
    for number, change in enumerate(changes, 1):
        texts = "; ".join(map(change_text, change["changed"]))
        lines.append(f"Changed after {change['runs']} runs, on {change['date']}: {texts} (SHA-256 {change['sha256']}).")
        if digest(latest({**entries, "changes": changes[:number]})) != change["sha256"]:
            lines.append(f"The hash of this change is not that of its design: {REGISTRATION} was edited.")
    if digest(entries["design"]) != entries["sha256"]:
        lines.append(f"The first hash is not that of the registered design: {REGISTRATION} was edited.")
    registered = {key: value for key, value in latest(entries).items() if key.startswith("study.")}
    if unregistered := differences(registered, design_of(study)):
        lines.append(f"Changed without registration: {'; '.join(map(change_text, unregistered))}.")
    return lines
