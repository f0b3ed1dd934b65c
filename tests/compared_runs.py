"""Folders of made-up runs for comparisons: files as a run writes them, with invented numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s9.config.identity import identity
from s9.config.schema import Config
from s9.data.image_set import ImageFacts
from s9.tracking.folder import RunFolder
from tests.conftest import composed

SMALL = ("data=digits", "model=strided", "aug=none", "trainer.epochs=2", "wandb=disabled")
CLASSES = ("ant", "bee", "cat")
MACHINE: dict[str, Any] = {
    "processor": "AMD EPYC, 2 cores",
    "capability": "AVX2",
    "device": "cpu",
    "system": "Linux",
    "versions": {"torch": "2.15.0"},
    "commit": "0123456789abcdef",
    "dirty": False,
    "precision": "float32",
    "threads": 2,
}


def facts(test: str = "t", train: str = "n", classes: Sequence[str] = CLASSES, **splits: str) -> ImageFacts:
    """Two runs have the same images of a split where they have the same text."""
    digests = {"train": train, "test": test, **splits}
    contents = {split: {name: (4, f"{text}-{name}") for name in classes} for split, text in digests.items()}
    return ImageFacts("insects", tuple(classes), 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), contents)


def make_run(
    path: Path,
    right: Sequence[int] | None = None,
    *,
    config: Config | None = None,
    images: ImageFacts | None = None,
    names: Sequence[str] = (),
    machine: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
) -> Path:
    """A run that is done.

    Args:
        right: 1 or 0 for each test image; the images' classes take turns. None: the run has no predictions.
    """
    folder, images = RunFolder(path), images or facts()
    config = config or composed(*SMALL)
    path.mkdir(parents=True)
    folder.write_config(config)
    folder.write_images(images)
    folder.write_identity(identity(config, device="cpu", precision="float32", donors={}))
    state = {"state": "done", "group": None, "command": "python -m s9.train", "minutes": 1.5} | (status or {})
    folder.status.write_text(json.dumps(state))
    for epoch in (1, 2):
        record = {"epoch": epoch, "lr": 0.1, "train/loss": 1 / epoch, "train/accuracy": 0.3 * epoch}
        folder.add_epoch(folder.metrics, record | {"val/loss": 2 / epoch, "val/accuracy": 0.25 * epoch})
    summary: dict[str, Any] = {"name": path.name, "seed": config.seed, "epochs": 2, "parameters": 1234}
    summary |= {"best": {"epoch": 2, "val/accuracy": 0.5}, "machine": MACHINE | (machine or {})}
    summary |= {"images": images.fingerprint, "val": {"accuracy": 0.5, "accuracy_flip": 0.52, "loss": 1.25}}
    if right is not None:
        write_predictions(folder, right, images, names)
        accuracy = sum(right) / len(right)
        summary["test"] = {"accuracy": accuracy, "accuracy_flip": accuracy, "loss": 0.75}
    folder.write_summary(summary)
    return path


def write_predictions(folder: RunFolder, right: Sequence[int], images: ImageFacts, names: Sequence[str] = ()) -> None:
    count = len(images.class_names)
    labels = np.arange(len(right)) % count
    preds = np.where(np.array(right, bool), labels, (labels + 1) % count)
    probs = np.full((len(right), count), 0.2 / (count - 1), np.float32)
    probs[np.arange(len(right)), preds] = 0.8
    pictures = np.full((len(right), 8, 8, 3), 100, np.uint8)
    folder.write_predictions(probs, labels, pictures, images.class_names, names=tuple(names))


def as_before_names(path: Path) -> None:
    """Takes the names out of the predictions, as in a run from before December 2026."""
    folder = RunFolder(path)
    kept = {key: array for key, array in folder.read_arrays(folder.predictions).items() if key != "names"}
    np.savez(folder.predictions, **kept)  # type: ignore[arg-type]


def rewritten(path: Path, **changes: Any) -> Path:
    """The run with these values of summary.json replaced; None takes a value out."""
    folder = RunFolder(path)
    summary = {key: value for key, value in (folder.read_summary() | changes).items() if value is not None}
    folder.write_summary(summary)
    return path
