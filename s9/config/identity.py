"""Which runs are the same: the dictionary of all that can change a result, and how two such dictionaries differ.

Resuming, checkpoints and the search of resume=auto all use this module.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from s9.config.schema import Config
from s9.config.stored import as_dict

# Keys that may differ between two starts of one run, each with the reason why the key changes no result.
FREE = {
    "wandb": "W&B mirrors the run's files",
    "name": "names are for people",
    "sweep": "which jobs a sweep has changes none of them",
    "model.name": "as above",
    "aug.name": "as above",
    "data.name": "as above",
    "model.known_weak_points": "explains rules of s9.check; builds nothing",
    "trainer.save_every": "a resumed run gives the bytes of one that was never cut",
    "data.root": "which images they are is judged by their contents",
    "data.cache": "as above",
    "data.archive": "as above",
    "data.urls": "as above",
    "data.loader": "both loaders give the same batches",
    "data.workers": "any number of workers gives the same batches",
    "trainer.device": "its type is part of the identity, as `device`; which of several equal ones is not",
    "trainer.precision": "what it means on this machine is part of the identity, as `precision`",
    "init_from": "the sha256 of the weights is part of the identity, wherever they lie",
    "teacher": "as above",
}

# Keys that older runs lack, each with the value that they had in effect: with that value a key is no part of the
# identity, so that an older run is found and resumed.
ABSENT = {
    "data.balance": False,
    "data.test_size": None,
    "data.resize": "stretch",
    "data.duplicates": "keep",
    "data.broken": "refuse",
    "distillation.views": None,
    "model.blocks.*.*.pool": 1,
    "trainer.resolution.start": 1.0,
    "trainer.resolution.hold": 0.5,
    "trainer.resolution.full": 0.8,
    "transfer_lr": 0.2,  # before this key no run began with weights of other classes
}

Identity = dict[str, Any]


def identity(config: Config, *, device: str, precision: str, donors: Mapping[str, Sequence[str]]) -> Identity:
    """All that can change the result of a run, except its images, as plain values; numbers are floats.

    Args:
        device: the device's type, such as cpu. precision: float32 or bfloat16.
        donors: for the keys init_from and teacher, the sha256 of the weights of each donor.
    """
    layers = [f"{block}.{row}" for block, rows in config.model.blocks.items() for row in rows]
    more = {
        "device": device,
        "precision": precision,
        "weights of": {key: list(donors.get(key, ())) for key in ("init_from", "teacher")},
        "order of": {"transforms": list(config.aug.transforms), "layers": layers},  # dict equality ignores the order
    }
    found: Identity = _numbers_as_floats(_without_free(as_dict(config), "") | more)
    return found


def digest(found: Identity) -> str:
    """Ten hexadecimal digits, by which a job is named."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:10]


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """The differences between two identities, as phrases such as `optimizer.lr was 0.1, is 0.3`."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{key} was {_shown(before)}, is {_shown(now)}"]
    found = []
    for name in sorted(before.keys() | now.keys()):
        pair = before.get(name, "missing"), now.get(name, "missing")
        found += differences(*pair, f"{key}.{name}" if key else name)
    return found


def _without_free(node: Any, path: str) -> Any:
    if not isinstance(node, dict):
        return node
    kept = {
        name: _without_free(value, f"{path}{name}.")
        for name, value in node.items()
        if (key := f"{path}{name}") not in FREE and not _as_in_older_runs(key, value)
    }
    return {name: value for name, value in kept.items() if value != {} or node[name] == {}}  # a map of such keys alone


def _as_in_older_runs(key: str, value: Any) -> bool:
    return any(fnmatchcase(key, pattern) and value == theirs for pattern, theirs in ABSENT.items())


def _numbers_as_floats(node: Any) -> Any:
    """Makes all numbers floats, so that 1 and 1.0 are equal."""
    if isinstance(node, dict):
        return {str(name): _numbers_as_floats(value) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_numbers_as_floats(value) for value in node]
    return float(node) if isinstance(node, int) and not isinstance(node, bool) else node


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
