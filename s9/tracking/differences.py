"""How the runs of a comparison differ: the keys of their configurations, and what makes comparing them unfair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s9.config.identity import FREE
from s9.data.image_set import ImageFacts, in_short
from s9.tracking.compared_run import ComparedRun
from s9.tracking.comparison import SAME_MACHINE
from s9.tracking.held_out import test_of, val_of

NAMES = ("model.name", "aug.name", "data.name")  # change no result, but say in short what differs
# FREE for a reason that another file holds: without this file such a key may stand for a difference in results.
BY_IDENTITY = ("init_from", "teacher", "trainer.device", "trainer.precision")
WEIGHTS_OF = ("init_from", "teacher")  # which file it is changes no result, but that there is one does
BY_IMAGES = ("data.root", "data.archive")
OF_IDENTITY = ("device", "precision", "weights of", "order of")  # what identity.json has besides the configuration
MISSING, UNKNOWN = "not set", "not recorded"
SHORT = 12  # characters of a digest or commit
TOLD = {
    "processor": "minutes cannot be compared, and sums are rounded differently",
    "capability": "sums are rounded differently",
    "device": "minutes cannot be compared, and sums are rounded differently",
    "system": "",
    "threads": "minutes cannot be compared, and sums are rounded differently",
    "precision": "the numbers are rounded differently in every step",
    "torch": "",
}


@dataclass(frozen=True)
class KeyDifference:
    """values: of each run, as text. free: the key changes no result."""

    key: str
    values: tuple[str, ...]
    free: bool


def differing_keys(runs: Sequence[ComparedRun]) -> list[KeyDifference]:
    """Names first, then what can change a result, then what cannot."""
    flat = [_flat(run.config) for run in runs]
    known = [bool(run.config) for run in runs]
    found = [_difference(key, flat, known, MISSING) for key in dict.fromkeys(key for one in flat for key in one)]
    parts = [_flat(_identity_parts(run)) for run in runs]
    recorded = [run.identity is not None for run in runs]
    found += [_difference(key, parts, recorded, UNKNOWN) for key in dict.fromkeys(key for one in parts for key in one)]
    differing = [one for one in found if one is not None]
    kept = {
        *NAMES,
        *WEIGHTS_OF,
        *(() if all(recorded) else BY_IDENTITY),
        *(() if all(run.facts for run in runs) else BY_IMAGES),
    }
    differing = [replace(one, free=one.free and one.key not in kept) for one in differing]
    return sorted(differing, key=lambda one: (one.free, one.key not in NAMES))


def _difference(
    key: str, flat: Sequence[Mapping[str, Any]], known: Sequence[bool], missing: str
) -> KeyDifference | None:
    """None where all runs of which the values are known have the same."""
    held = [one.get(key, missing) for one, is_known in zip(flat, known, strict=True) if is_known]
    if all(_equal(value, held[0]) for value in held):
        return None
    texts = [_shown(one.get(key, missing)) if k else UNKNOWN for one, k in zip(flat, known, strict=True)]
    free = any(key == name or key.startswith(f"{name}.") for name in FREE)
    return KeyDifference(key, tuple(texts), free)


def _identity_parts(run: ComparedRun) -> dict[str, Any]:
    """Digests in short; the order of layers and transforms alone, not which they are."""
    parts = {key: value for key, value in (run.identity or {}).items() if key in OF_IDENTITY}
    weights = parts.get("weights of")
    if isinstance(weights, dict):
        short = {key: [str(one)[:SHORT] for one in of] for key, of in weights.items() if isinstance(of, list)}
        parts["weights of"] = short
    return parts


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    """From dotted keys to values; an empty mapping is a value."""
    if not isinstance(node, Mapping) or (not node and path):
        return {path: node}
    parts = [_flat(value, f"{path}.{name}" if path else str(name)) for name, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def _equal(one: Any, other: Any) -> bool:
    """1 and 1.0 are equal, 1 and True are not; lists and tuples are."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _shown(value: Any) -> str:
    """As YAML and the command line have it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return "{}" if not value else str(dict(value))
    named = {None: "null", True: "true", False: "false"}
    return named[value] if value is None or isinstance(value, bool) else str(value)


def unfair(runs: Sequence[ComparedRun]) -> list[str]:
    """What makes comparing these runs unfair, a line each; empty where nothing does."""
    return [
        *_unfinished(runs),
        *_other_images(runs),
        *_other_held_out(runs),
        *_other_training(runs),
        *_other_source(runs),
    ]


def _unfinished(runs: Sequence[ComparedRun]) -> list[str]:
    lines = []
    for run in runs:
        if run.state != "done":
            trained, asked = run.epochs
            reason = f" ({run.status['reason']})" if run.status.get("reason") else ""
            lines.append(f"{run.label} is {run.state}{reason}, after {trained or 0} of {asked or 'unknown'} epochs")
    return lines


def _other_images(runs: Sequence[ComparedRun]) -> list[str]:
    """Of train and test, by the digests in images.json."""
    facts = [(run, run.facts) for run in runs if run.facts is not None]
    unknown = [run.label for run in runs if run.facts is None]
    lines = [f"which images {_listed(unknown)} had is not recorded"] if unknown else []
    told = {"train": "the networks learned from different images", "test": "test scores are not of the same images"}
    for split, consequence in told.items():
        first = facts[0] if facts else None
        others = [
            (run, of) for run, of in facts[1:] if first and of.contents.get(split) != first[1].contents.get(split)
        ]
        if first and others:
            how = _how_images_differ(first[1], others[0][1], split)
            labels = _listed([run.label for run, _ in others])
            lines.append(f"other {split} images in {labels} than in {first[0].label}: {consequence}{how}")
    return lines


def _how_images_differ(first: ImageFacts, other: ImageFacts, split: str) -> str:
    changes = [change for change in first.changes(other, (split,)) if change.startswith(f"{split}/")]
    same_names = set(first.contents.get(split, {})) & set(other.contents.get(split, {}))
    if not same_names:
        return f" ({first.variant} and {other.variant})"
    return f" ({in_short(changes)})"


def _other_held_out(runs: Sequence[ComparedRun]) -> list[str]:
    """Val and test, where they are no folders of their own but held out of the same images."""
    parts = {"val": _groups(runs, val_of), "test": _groups(runs, test_of)}
    return [
        f"other {part} images: {_told(groups)}: {part} scores are not of the same images"
        for part, groups in parts.items()
        if len(groups) > 1
    ]


def _other_training(runs: Sequence[ComparedRun]) -> list[str]:
    lines = []
    epochs = _groups(runs, lambda run: run.epochs[1] and f"{run.epochs[1]:,}")
    if len(epochs) > 1:
        lines.append(f"other numbers of epochs: {_told(epochs)}")
    for key, what in (("init_from", "started from trained weights"), ("teacher", "learned from a teacher")):
        having = [run.label for run in runs if run.value(key)]
        if having and len(having) < len(runs):
            lines.append(f"{_listed(having)} {what} ({key}), the others did not")
    return lines


def _other_source(runs: Sequence[ComparedRun]) -> list[str]:
    """Commit, versions and machine; of unfinished runs none is stored but the commit."""
    lines = []
    commits = _groups(runs, lambda run: run.commit[:SHORT] or UNKNOWN)
    if len(commits) > 1:
        lines.append(f"other commits: {_told(commits)}: the source of s9 may train differently")
    changed = [run.label for run in runs if run.machine.get("dirty") or run.status.get("dirty")]
    if changed:
        lines.append(f"{_listed(changed)} ran a source with uncommitted changes: which source is unknown")
    finished = [run for run in runs if run.machine]
    for key in SAME_MACHINE:
        groups = _groups(finished, lambda run, key=key: _of_machine(run, key))
        if len(groups) > 1:
            consequence = f": {TOLD[key]}" if TOLD[key] else ""
            lines.append(f"other {key}: {_told(groups)}{consequence}")
    return lines


def _of_machine(run: ComparedRun, key: str) -> str:
    versions = run.machine.get("versions")
    held = (versions if isinstance(versions, dict) else {}) if key == "torch" else run.machine
    return str(held.get(key, UNKNOWN))


def _groups(runs: Sequence[ComparedRun], value: Any) -> dict[str, list[str]]:
    """From a value as text to the labels of the runs that have it; runs without a value are left out."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        text = value(run)
        if text is not None:
            groups.setdefault(text, []).append(run.label)
    return groups


def _told(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{_listed(labels)} {value}" for value, labels in groups.items())


def _listed(labels: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
