"""The keys of a data set: types, units and ranges. The values are in conf/data/; nothing is stated twice."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from s9.config.components import check_allowed
from s9.system.errors import UserError, is_number, require

LOADERS = ("auto", "resident", "workers")
RESIZE = ("crop", "pad", "stretch")
DUPLICATES = ("drop", "keep", "refuse")
BROKEN = ("drop", "refuse")
HIGH_DEPTH = ("scale", "refuse")
Size = int | float | None  # of a split that is held out: images, a share of them, or null: as many as fit


def _require_size(key: str, size: Any) -> None:
    whole = size is None or (is_number(size) and (0 <= size < 1 or (size >= 1 and float(size).is_integer())))
    require(key, size, whole, "a number of images, a share of them such as 0.1, or null")


@dataclass
class DataConfig:
    """The keys of every data set."""

    name: str = MISSING  # the option's name, for people
    val_size: Any = MISSING  # a Size, held out of train, stratified; 0: none. Any: omegaconf cannot merge a union
    loader: str = MISSING  # resident: the images live on the device; workers: processes read them; auto: what fits
    workers: int = MISSING  # processes, with loader=workers; 0: the training process itself
    kind: str = field(default=MISSING, kw_only=True)  # which class of this file
    val_seed: int | None = field(default=None, kw_only=True)  # fixes the val images; null: `seed` does, as in old runs
    balance: bool = field(default=False, kw_only=True)  # train on as many images of each class, the rare ones repeated

    def __post_init__(self) -> None:
        fits = DATA_CONFIGS.get(self.kind) is type(self)
        require("data.kind", self.kind, fits, "left as it is; an option of conf/data chooses it by its schema")
        _require_size("data.val_size", self.val_size)
        require("data.val_seed", self.val_seed, 0 <= (self.val_seed or 0) < 2**32, "from 0 to 4294967295, or null")
        require("data.loader", self.loader, self.loader in LOADERS, " or ".join(LOADERS))
        require("data.workers", self.workers, 0 <= self.workers <= 256, "from 0 to 256")
        none = self.loader != "resident" or self.workers == 0
        require("data.workers", self.workers, none, "0 with data.loader=resident; add data.loader=workers")

    def val_seed_of(self, seed: int) -> int:
        return seed if self.val_seed is None else self.val_seed


@dataclass
class DigitsConfig(DataConfig):
    """scikit-learn's digits need no other keys."""

    kind: str = field(default="digits", kw_only=True)


@dataclass
class Cifar10Config(DataConfig):
    archive: str | None = MISSING
    urls: list[str] = MISSING
    cache: str | None = None  # folder; null: S9_CACHE of the environment, else ~/.cache/s9
    kind: str = field(default="cifar10", kw_only=True)


@dataclass
class FolderConfig(DataConfig):
    """A folder of images. The defaults here are those of runs older than these keys."""

    root: str = MISSING  # folder with a folder for each class, or train, val and test; made absolute, links followed
    image_size: int | None = MISSING  # pixels; null: chosen from the images
    cache: str | None = None  # as above
    kind: str = field(default="folder", kw_only=True)
    high_depth: str = field(default="scale", kw_only=True)  # more than 8 bits per channel: scale to 8, or refuse
    test_size: Any = field(default=None, kw_only=True)  # a Size, held out where the folder has no test
    resize: str = field(default="stretch", kw_only=True)  # to a square: crop the middle, pad, or stretch
    duplicates: str = field(default="keep", kw_only=True)  # the same image in two splits: drop, keep or refuse
    broken: str = field(default="refuse", kw_only=True)  # files that are no readable image: drop, or refuse

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.image_size is None or 8 <= self.image_size <= 1024
        require("data.image_size", self.image_size, fits, "from 8 to 1024 pixels, or null")
        _require_size("data.test_size", self.test_size)
        require("data.test_size", self.test_size, self.test_size != 0, "more than 0: every run needs a test split")
        words = {"high_depth": HIGH_DEPTH, "resize": RESIZE, "duplicates": DUPLICATES, "broken": BROKEN}
        for key, allowed in words.items():
            require(f"data.{key}", getattr(self, key), getattr(self, key) in allowed, " or ".join(allowed))
        try:
            self.root = str(Path(self.root).expanduser().resolve())
        except (OSError, RuntimeError) as error:  # no home folder, no working folder, a link to itself
            raise UserError(f"data.root={self.root}: cannot be found ({error}); give the whole path") from None


@dataclass
class OwnConfig(DataConfig):
    """Images that a function of the user's own gives: see s9/data/sources/own.py."""

    _target_: str = MISSING
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = field(default="own", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_allowed("data", self._target_, "data")


DATA_CONFIGS: dict[str, type[DataConfig]] = {
    "cifar10": Cifar10Config,
    "folder": FolderConfig,
    "digits": DigitsConfig,
    "own": OwnConfig,
}
