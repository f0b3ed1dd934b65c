"""Which jobs of a sweep's folder belong to the sweep as it is asked for now: those of the same configuration.

Two jobs of a sweep differ by swept keys alone. A folder may hold more: a command may come again with another fixed
value, after a change of conf/ or of the images. The command that came last counts.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from s9.config.identity import differences
from s9.sweeps.table import SEED
from s9.sweeps.values import meaning

SAID = 3  # differences in the line for the user
VARIES = "(varies)"
# What else of an identity changes with a swept key: by the key or, with a dot, by the part that the key is or is in.
TOO = {
    "aug.": ("order of",),
    "data.": ("images", "aug.transforms"),  # images of another size are cropped to another size
    "init_from.": ("weights of", "model", "order of"),
    "model.": ("order of",),
    "teacher.": ("weights of",),
    "trainer": ("device", "precision"),
    "trainer.device": ("device",),
    "trainer.precision": ("precision",),
}


class Noted(Protocol):
    """What `jobs.Job` has."""

    @property
    def digest(self) -> str: ...
    @property
    def values(self) -> Mapping[str, str]: ...
    @property
    def cell(self) -> str: ...


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """{"optimizer.lr": 0.1} for {"optimizer": {"lr": 0.1}}."""
    if not isinstance(node, dict) or not node:
        return {path: node}
    found: dict[str, Any] = {}
    for name, value in node.items():
        found |= flat(value, f"{path}.{name}" if path else name)
    return found


def common(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """All keys, each with its value or, where not both have the same value, VARIES."""
    found = dict.fromkeys([*one, *other], VARIES)
    return found | {key: value for key, value in one.items() if key in other and other[key] == value}


def changes(before: Mapping[str, Any], now: Mapping[str, Any], keys: Collection[str]) -> list[str]:
    """Phrases about what two commands' jobs have in common and the swept keys do not explain."""
    if "experiment" in keys:  # which may change anything
        return []
    swept = {SEED, *keys}
    for key in keys:
        swept |= {*TOO.get(key, ()), *TOO.get(f"{key.partition('.')[0]}.", ())}
    left_out = {key for known in (before, now) for key, value in known.items() if value == VARIES}
    left_out |= {key for key in [*before, *now] if any(key == name or key.startswith(f"{name}.") for name in swept)}
    alike = ({key: value for key, value in known.items() if key not in left_out} for known in (before, now))
    return differences(next(alike), next(alike))


def strangers(
    known: Mapping[str, Any], keys: Collection[str], jobs: Collection[Noted], fixed: Mapping[str, Any]
) -> tuple[set[str], str]:
    """(the jobs of sweep.json that do not belong to what is asked for now, why).

    Args:
        known: sweep.json. keys, jobs, fixed: what is asked for now, as for `SweepFolder.note`.
    """
    asked = {job.digest for job in jobs}
    others = {job: values for job, values in known.get("jobs", {}).items() if job not in asked}
    before = known.get("fixed")  # older versions did not store it
    differ = changes(before, fixed, {*known.get("keys", []), *keys}) if before and fixed else []
    if differ:
        more = f" and {len(differ) - SAID} more" if len(differ) > SAID else ""
        return set(others), ", ".join(differ[:SAID]) + more
    cells = {_cell(job.values): job.cell for job in jobs if job.cell}
    held = known.get("cells", {})
    changed = {
        job for job, values in others.items() if job in held and cells.get(_cell(values), held[job]) != held[job]
    }
    return changed, "what the same values stand for has changed"


def _cell(values: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((key, meaning(value)) for key, value in values.items() if key != SEED)
