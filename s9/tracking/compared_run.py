"""One run of a comparison, read from its folder alone; what is missing or damaged is a note, not an error."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from yaml import YAMLError

from s9.config.identity import Identity
from s9.config.stored import as_dict
from s9.data.image_set import ImageFacts
from s9.system.errors import UserError, is_number
from s9.tracking.folder import RunFolder
from s9.tracking.status import standing

Arrays = dict[str, np.ndarray]
COUNTED, SCORE, LOSS = "counted", "score", "loss"  # how a result is shown


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """label: A, B, ... config: nested plain values. predictions: as in RunFolder, with `named`. notes: a line each."""

    label: str
    folder: RunFolder
    config: Mapping[str, Any]
    identity: Identity | None
    facts: ImageFacts | None
    summary: Mapping[str, Any]
    status: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    times: Sequence[Mapping[str, float]]
    predictions: Arrays | None
    notes: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """done, running, cut, running or cut, failed, interrupted, paused or unfinished. Shipped weights: done."""
        state = str(self.status.get("state", "done" if self.summary else "unfinished"))
        try:
            return standing(self.folder) if state == "running" else state
        except UserError:  # only who may write a folder can ask whether its process lives
            return "running or cut"

    @property
    def machine(self) -> Mapping[str, Any]:
        return _mapping(self.summary.get("machine"))

    @property
    def commit(self) -> str:
        """Of the source; empty where none is recorded."""
        for held in (self.machine, self.status):
            if held.get("commit") or held.get("wheel"):
                return str(held.get("commit") or held.get("wheel"))
        return ""

    @property
    def name(self) -> str:
        """As `strided-basic-digits, seed 0`, as far as known."""
        seed = self.summary.get("seed", self.config.get("seed"))
        name = self.summary.get("name") or self.config.get("name") or self.folder.path.absolute().name
        return f"{name}, seed {seed}" if seed is not None else str(name)

    @property
    def minutes(self) -> float | None:
        """As status.json says, else the sum over the epochs; None for shipped weights."""
        if is_number(self.status.get("minutes")):
            return float(self.status["minutes"])
        seconds = [line["time/epoch_s"] for line in self.times if is_number(line.get("time/epoch_s"))]
        return sum(seconds) / 60 if seconds else None

    @property
    def epochs(self) -> tuple[int | None, int | None]:
        """(trained, asked for)"""
        asked = self.value("trainer.epochs")
        asked = int(asked) if is_number(asked) else self.summary.get("epochs")
        trained = self.metrics[-1].get("epoch") if self.metrics else self.summary.get("epochs")
        return (None if trained is None or not is_number(trained) else int(trained), asked)

    def value(self, key: str) -> Any:
        """Of the configuration; None where the configuration has no such key."""
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    def scores(self, split: str) -> Mapping[str, Any]:
        """Of the final weights; empty for an unfinished run, and for val where none was held out."""
        return _mapping(self.summary.get(split))

    def best(self) -> tuple[float | None, int | None]:
        """(best val accuracy, its epoch)"""
        stored = _mapping(self.summary.get("best"))
        held = [stored] if is_number(stored.get("val/accuracy")) else self.metrics
        known = [line for line in held if is_number(line.get("val/accuracy"))]
        if not known:
            return None, None
        first = max(known, key=lambda line: line["val/accuracy"])
        return first["val/accuracy"], int(first["epoch"]) if is_number(first.get("epoch")) else None

    def results(self) -> dict[str, tuple[str, Any]]:
        """From what it is to (how it is shown, its value, or None)."""
        best, epoch = self.best()
        val, test = self.scores("val"), self.scores("test")
        return {
            "val accuracy": (SCORE, val.get("accuracy")),
            "val accuracy, flip": (SCORE, val.get("accuracy_flip")),
            "val loss": (LOSS, val.get("loss")),
            "best val accuracy": (SCORE, best),
            "epoch of the best val": (COUNTED, epoch),
            "test accuracy": (SCORE, test.get("accuracy")),
            "test accuracy, flip": (SCORE, test.get("accuracy_flip")),
            "test loss": (LOSS, test.get("loss")),
            "epochs trained": (COUNTED, self.epochs[0]),
            "minutes": ("minutes", self.minutes),
            "parameters": (COUNTED, self.summary.get("parameters")),
            "multiplies": (COUNTED, self.summary.get("multiplies")),
            "operations, 1e12": (COUNTED, _in(1e12, self.summary.get("operations"))),
            "receptive field": (COUNTED, self.summary.get("receptive_field")),
        }


def _in(unit: float, value: Any) -> Any:
    return value / unit if is_number(value) else value


def shown_result(kind: str, value: Any) -> str:
    """An accuracy in percent, a loss with four decimals, minutes with one; `-` where there is none."""
    if not is_number(value):
        return "-"
    forms = {SCORE: f"{100 * value:.2f} %", LOSS: f"{value:.4f}", "minutes": f"{value:.1f}"}
    return forms.get(kind, f"{value:,.0f}")


def read_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """The runs, labelled in their order.

    Raises:
        UserError: a folder does not exist, is given twice, or has no run in it.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: {'is no folder' if path.exists() else 'there is no such folder'}")
        if path.resolve() in seen:
            raise UserError(f"{path}: is given twice; a comparison needs different runs")
        seen[path.resolve()] = path
        folder = RunFolder(path)
        if not (folder.config.is_file() or folder.summary.is_file()):
            wanted = "give runs, as outputs/<date>/<time>-<suffix> or outputs/sweeps/<name>/<job>"
            raise UserError(f"{path}: there is no run in it; {wanted}")
    return [_read(RunFolder(path), _letters(number)) for number, path in enumerate(paths)]


def _read(folder: RunFolder, label: str) -> ComparedRun:
    notes: list[str] = []

    def tried(read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return read()
        except UserError as error:
            notes.append(" ".join(str(error).split()))
            return otherwise

    summary = tried(folder.read_summary, {}) if folder.summary.is_file() else {}
    return ComparedRun(
        label=label,
        folder=folder,
        config=_config(folder, notes),
        identity=folder.read_identity(),
        facts=tried(folder.read_images, None),
        summary=_mapping(summary),
        status=folder.read_status(),
        metrics=_lines(tried(folder.read_metrics, [])),
        times=_lines(_times(folder)),
        predictions=tried(lambda: _predictions(folder), None),
        notes=notes,
    )


def _config(folder: RunFolder, notes: list[str]) -> Mapping[str, Any]:
    """As this version completes it; as it is stored, where this version or the allow-list refuses it."""
    if not folder.config.is_file():
        notes.append(f"{folder.config}: is missing, so the keys are unknown")
        return {}
    try:
        return as_dict(folder.read_config())
    except UserError as error:
        notes.append(f"{' '.join(str(error).split())}; the keys are compared as they are stored")
    try:
        stored = OmegaConf.to_container(OmegaConf.load(folder.config), resolve=False)
    except (OSError, ValueError, YAMLError):
        return {}
    return {str(key): value for key, value in stored.items()} if isinstance(stored, dict) else {}


def _times(folder: RunFolder) -> list[Any]:
    """Empty where a line is damaged: nothing but the minutes depends on them."""
    try:
        return [json.loads(line) for line in folder.times.read_text().splitlines()]
    except (OSError, ValueError):
        return []


def _predictions(folder: RunFolder) -> Arrays | None:
    """None where there are none. `named`: whether the names are those of files. Raises UserError if damaged."""
    if not folder.predictions.is_file():
        return None
    arrays = folder.read_predictions()
    probs, labels, classes = (arrays.get(key, np.empty(0)) for key in ("probs", "labels", "class_names"))
    fits = probs.ndim == 2 and labels.shape == probs.shape[:1] and classes.shape == probs.shape[1:]
    if not (fits and labels.dtype.kind in "iu" and len(labels) and 0 <= labels.min() <= labels.max() < len(classes)):
        raise UserError(f"{folder.predictions}: is damaged (arrays that do not fit together)")
    unnamed = np.array([f"test image {index}" for index in range(len(labels))], np.str_)
    return arrays | {"named": np.array(not np.array_equal(arrays["names"], unnamed))}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _lines(records: Any) -> list[Mapping[str, float]]:
    return [line for line in records if isinstance(line, dict)]


def _letters(number: int) -> str:
    """A to Z, then AA, AB, ..."""
    first, last = divmod(number, len(ascii_uppercase))
    return (_letters(first - 1) if first else "") + ascii_uppercase[last]
