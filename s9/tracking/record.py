"""The files of a run's folder: their names, how they are written, how they are read again.

config.yaml, images.json (what the network must know of its images), metrics.jsonl (a flushed line an epoch),
times.jsonl, summary.json, samples.npz, predictions.npz, weights/, figures/, train.log. They are the truth; W&B mirrors
them. Times are in files of their own: all else is the same, byte for byte, when a run is repeated or resumed on the
same machine.
"""

import io
import json
import os
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from s9.config import Config, register_schemas, to_config
from s9.data.image_set import ImageFacts, Rows
from s9.errors import UserError
from s9.files import write_whole

CONFIG, METRICS, TIMES, SUMMARY = "config.yaml", "metrics.jsonl", "times.jsonl", "summary.json"
IMAGES = "images.json"
SAMPLES, PREDICTIONS = "samples.npz", "predictions.npz"
FINAL, BEST = "weights/final.safetensors", "weights/best.safetensors"
FIGURES = "figures"
SHOWN_MISTAKES = 40  # images kept for the misclassified grid


def write_config(folder: Path, config: Config) -> None:
    """The whole configuration with every value in place; `read_config` gives it back."""
    write_whole(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True).encode())


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
    try:
        stored = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(stored, DictConfig) or not stored:
        raise UserError(f"{path}: is not the configuration of a run")
    name = OmegaConf.select(stored, "data.name")
    repo = ConfigStore.instance().repo
    schema = (
        OmegaConf.create({"data": repo["data"][f"{name}_schema.yaml"].node})
        if f"{name}_schema.yaml" in repo["data"]
        else {}
    )
    try:
        merged = OmegaConf.merge(repo["schema.yaml"].node, schema, stored)
    except OmegaConfBaseException as error:  # a key that this version does not know, a value of another type
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None
    return to_config(OmegaConf.create(merged))


def write_images(folder: Path, facts: ImageFacts) -> None:
    """What the run's network must know of its images; `read_images` gives it back."""
    write_whole(folder / IMAGES, (json.dumps(asdict(facts), indent=1) + "\n").encode())


def read_images(folder: Path) -> ImageFacts | None:
    """None for a run of before November 2026, which has no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / IMAGES
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_bytes())
        contents = {
            split: {name: (int(count), str(digest)) for name, (count, digest) in classes.items()}
            for split, classes in stored["contents"].items()
        }
        tuples = {key: tuple(stored[key]) for key in ("class_names", "mean", "std")}
        return ImageFacts(stored["variant"], image_size=int(stored["image_size"]), contents=contents, **tuples)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({type(error).__name__}: {error})") from None


def add_line(folder: Path, name: str, record: dict[str, float]) -> None:
    """Appends one epoch's line to metrics.jsonl or times.jsonl; on disk when this returns."""
    with (folder / name).open("a") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_lines(folder: Path, name: str, records: list[dict[str, float]]) -> None:
    """Replaces metrics.jsonl or times.jsonl: a run that was killed may have written more than its checkpoint has."""
    write_whole(folder / name, "".join(json.dumps(record) + "\n" for record in records).encode())


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The epochs' lines. A last one that a crash has cut off is left out; resuming writes it again.

    Raises:
        UserError: another line is damaged.
    """
    path = folder / METRICS
    text = path.read_text(errors="replace") if path.exists() else ""
    try:
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error})") from None


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    write_whole(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def read_summary(folder: Path) -> dict[str, Any]:
    """Raises UserError where the run has not finished, or the file is damaged."""
    path = folder / SUMMARY
    if not path.is_file():
        raise UserError(f"run={folder}: there is no {SUMMARY} in it; the run has not finished")
    try:
        summary: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error})") from None
    return summary


def write_samples(folder: Path, original: np.ndarray, augmented: np.ndarray, names: list[str]) -> None:
    """original: uint8 (N, H, W, 3); augmented: uint8 (N, K, H, W, 3), each image in K epochs; names: (N,)."""
    _write_arrays(folder / SAMPLES, original=original, augmented=augmented, names=np.array(names))


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
    _write_arrays(
        folder / PREDICTIONS,
        probs=probs,
        labels=labels,
        class_names=np.array(class_names),
        worst=worst,
        worst_images=images[worst],
    )


def _write_arrays(path: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # takes the arrays for allow_pickle
    write_whole(path, buffer.getbuffer())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Raises UserError where the file is missing, damaged or holds pickles."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
