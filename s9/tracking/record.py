"""The files of a run's folder: their names, how they are written, how they are read again.

config.yaml, metrics.jsonl (a flushed line an epoch), summary.json, samples.npz, predictions.npz, weights/, figures/,
train.log. They are the truth; W&B mirrors them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from s9.config import Config, register_schemas, to_config
from s9.data.image_set import Rows
from s9.errors import UserError

CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.jsonl", "summary.json"
SAMPLES, PREDICTIONS = "samples.npz", "predictions.npz"
FINAL, BEST = "weights/final.safetensors", "weights/best.safetensors"
FIGURES = "figures"
SHOWN_MISTAKES = 40  # images kept for the misclassified grid


def write_config(folder: Path, config: Config) -> None:
    """The whole configuration with every value in place; `read_config` gives it back."""
    (folder / CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True))


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries of plain values."""
    plain: dict[str, Any] = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    return plain


def read_config(folder: Path) -> Config:
    """The configuration of a finished run.

    Raises:
        UserError: the folder is no run's, or its configuration is not valid (a `_target_` outside the allow-list too).
    """
    from hydra.core.config_store import ConfigStore

    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"run={folder}: there is no {CONFIG} in it; give the folder of a run, as outputs/<date>/<time>-<suffix>"
        )
    register_schemas()
    stored = OmegaConf.load(path)
    name = OmegaConf.select(stored, "data.name")
    repo = ConfigStore.instance().repo
    schema = (
        OmegaConf.create({"data": repo["data"][f"{name}_schema.yaml"].node})
        if f"{name}_schema.yaml" in repo["data"]
        else {}
    )
    merged = OmegaConf.merge(repo["schema.yaml"].node, schema, stored)
    return to_config(OmegaConf.create(merged))


def add_metrics(folder: Path, record: dict[str, float]) -> None:
    """Appends one epoch's line; on disk when this returns."""
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_metrics(folder: Path) -> list[dict[str, float]]:
    path = folder / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")


def read_summary(folder: Path) -> dict[str, Any]:
    """Raises UserError where the run has not finished."""
    path = folder / SUMMARY
    if not path.is_file():
        raise UserError(f"run={folder}: there is no {SUMMARY} in it; the run has not finished")
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def write_samples(folder: Path, original: np.ndarray, augmented: np.ndarray, names: list[str]) -> None:
    """original: uint8 (N, H, W, 3); augmented: uint8 (N, K, H, W, 3), each image in K epochs; names: (N,)."""
    np.savez_compressed(folder / SAMPLES, original=original, augmented=augmented, names=np.array(names))


def write_predictions(
    folder: Path, probs: np.ndarray, labels: np.ndarray, images: np.ndarray | Rows, class_names: tuple[str, ...]
) -> None:
    """What the final weights say of the test split, with the images of the most confident mistakes.

    Args:
        probs: float32 (N, num_classes). labels: (N,). images: uint8 (N, H, W, 3).
    """
    preds = probs.argmax(1)
    wrong = np.flatnonzero(preds != labels)
    worst = wrong[np.argsort(-probs[wrong, preds[wrong]], kind="stable")][:SHOWN_MISTAKES]
    np.savez_compressed(
        folder / PREDICTIONS,
        probs=probs,
        labels=labels,
        class_names=np.array(class_names),
        worst=worst,
        worst_images=images[worst],
    )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
