"""What a file of weights says about itself, so that it can be used without the run and without its images."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from s9.config.data import FolderConfig
from s9.config.identity import Identity
from s9.config.model import ModelConfig
from s9.config.schema import Config
from s9.config.stored import read_model
from s9.data.image_set import ImageFacts
from s9.models.shipped import SHIPPED, shipped
from s9.runs.donor_folders import WEIGHTS, folder_of
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.training.weights import read_about

Metrics = Mapping[str, Mapping[str, float]]  # split -> score -> value, as in summary.json


@dataclass(frozen=True)
class About:
    """name: of the run. images: without the list of its contents. resize: crop, pad or stretch, of images that are no
    squares. identity: digest of all that could change the result; empty for runs from before December 2026.
    """

    name: str
    model: ModelConfig
    images: ImageFacts
    resize: str
    identity: str = ""
    metrics: Metrics = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which `about_of` reads."""
        return asdict(replace(self, images=replace(self.images, contents={})))


def about_run(config: Config, images: ImageFacts, identity: Identity | None, metrics: Metrics | None = None) -> About:
    """What the weights of this run are to say about themselves."""
    resize = config.data.resize if isinstance(config.data, FolderConfig) else "crop"  # others have squares
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest() if identity else ""
    return About(config.run_name, config.model, images, resize, identity=digest, metrics=metrics or {})


def scores_of_val(record: Mapping[str, float]) -> dict[str, float]:
    """The scores of val in an epoch's record, named as in the summary."""
    return {key.removeprefix("val/"): value for key, value in record.items() if key.startswith("val/")}


def about_weights(given: str, weights: str = "final") -> tuple[About, Path]:
    """(what is known about the weights, their file), from the file itself or, for older runs, from the run's folder.

    Args:
        given: the name of shipped weights, a run's folder, or a file of weights.
        weights: final or best, of a folder.

    Raises:
        UserError: there are no such weights, they are damaged, or their images are not recorded.
    """
    folder, file = folder_of(given)
    if weights == "best" and not given.endswith(WEIGHTS):
        file = folder.best
    if not file.is_file():
        raise UserError(f"run={given}: {_missing(given, folder, weights)}")
    if stored := read_about(file):
        return _read(file, stored), file
    if not folder.config.exists():
        raise UserError(
            f"run={given}: its weights do not say their classes, mean and std; give the folder of their run"
        )
    return _of_older_run(folder), file


def _missing(given: str, folder: RunFolder, weights: str) -> str:
    """Why there are no such weights, and what to give."""
    path = Path(given).expanduser()
    if folder.path.parent == SHIPPED:
        return f"weights that come with s9 are final; there are none of weights={weights}"
    if folder.config.exists():
        return f"has no {weights} weights yet; python -m s9.train resume={folder} goes on with the run"
    wanted = f"give the folder of a run, a file of weights ({WEIGHTS}), or one of {', '.join(shipped())}"
    if path.exists():
        return f"is {'no run' if path.is_dir() else f'no {WEIGHTS} file'}; {wanted}"
    close = get_close_matches(given, shipped(), n=1)
    return f"there is no such run; {f'did you mean {close[0]}?' if close else wanted}"


def _read(file: Path, stored: Mapping[str, Any]) -> About:
    try:
        images = dict(stored["images"])
        images |= {key: tuple(images[key]) for key in ("class_names", "mean", "std")}
        values = dict(stored) | {"model": read_model(stored["model"]), "images": ImageFacts(**images)}
        return About(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: its metadata cannot be read ({type(error).__name__}: {error})") from None


def _of_older_run(folder: RunFolder) -> About:
    images = folder.read_images()
    if images is None:
        raise UserError(
            f"run={folder}: which images it was trained on is not recorded, as in runs of before November 2026"
        )
    summary = folder.read_summary() if folder.summary.exists() else {}
    metrics: Metrics = {split: summary[split] for split in ("val", "test") if split in summary}
    return about_run(folder.read_config(), images, folder.read_identity(), metrics)
