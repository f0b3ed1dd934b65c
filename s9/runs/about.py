"""What a file of weights says about itself, so that it can be used without the run and without its images."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
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

FOLDER = "folder"  # how the variant of a folder's images begins
Metrics = Mapping[str, Mapping[str, float]]  # split -> score -> value, as in summary.json


@dataclass(frozen=True)
class About:
    """images: without the list of their contents. resize: crop, pad or stretch, of images that are no squares.
    identity: digest of all that could change the result; empty for runs from before December 2026.
    """

    model: ModelConfig
    images: ImageFacts
    resize: str
    identity: str = ""
    metrics: Metrics = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which `_read` reads, without names: two runs of one identity end with the same bytes."""
        images = replace(self.images, contents={}, variant=self.images.variant if self.is_of_known else FOLDER)
        found = asdict(replace(self, images=images, model=replace(self.model, name="", known_weak_points={})))
        if images.bits is None:  # left out, so that earlier versions of s9 read these weights too
            del found["images"]["bits"]
        return found

    @property
    def is_of_known(self) -> bool:
        """Whether the images are known by name, wherever they lie."""
        return not self.images.variant.startswith(FOLDER)


def about_run(config: Config, images: ImageFacts, identity: Identity | None, metrics: Metrics | None = None) -> About:
    """What the weights of this run are to say about themselves."""
    resize = config.data.resize if isinstance(config.data, FolderConfig) else "crop"  # others have squares
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest() if identity else ""
    return About(config.model, images, resize, identity=digest, metrics=metrics or {})


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
    folder, file = folder_of(given, weights)
    if not file.is_file():
        raise UserError(f"run={given}: {_missing(given, folder, weights)}")
    if stored := read_about(file):
        return _with_name(_read(file, stored), folder), file
    if not folder.config.exists():
        raise UserError(
            f"run={given}: its weights do not say their classes, mean and std; give the folder of their run"
        )
    return _of_older_run(folder), file


def _with_name(about: About, folder: RunFolder) -> About:
    """The images of a folder get their name from the run, where the weights still lie there."""
    if about.images.variant != FOLDER or (known := folder.read_images()) is None:
        return about
    alike = known.class_names == about.images.class_names
    return replace(about, images=replace(about.images, variant=known.variant)) if alike else about


def _missing(given: str, folder: RunFolder, weights: str) -> str:
    """Why there are no such weights, and what to give."""
    path = Path(given).expanduser()
    if folder.path.parent == SHIPPED:
        return f"weights that come with s9 are final; there are none of weights={weights}"
    if folder.config.exists():
        return f"has no {weights} weights yet; to go on: python -m s9.train {shlex.quote(f'resume={folder}')}"
    wanted = f"give the folder of a run, a file of weights ({WEIGHTS}), or one of {', '.join(shipped())}"
    if path.exists():
        return f"is {'no run' if path.is_dir() else f'no {WEIGHTS} file'}; {wanted}"
    close = get_close_matches(given, shipped(), n=1)
    return f"there is no such run; {f'did you mean {close[0]}?' if close else wanted}"


def _read(file: Path, stored: Mapping[str, Any]) -> About:
    try:
        images = dict(stored["images"])
        images |= {key: tuple(images[key]) for key in ("class_names", "mean", "std")}
        known = {f.name for f in fields(About)}  # a later version may say more
        values = {key: value for key, value in stored.items() if key in known}
        return About(**values | {"model": read_model(stored["model"]), "images": ImageFacts(**images)})
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
