"""The data group: from a checked configuration to images in memory. A new kind of data set is a line here."""

from s9.config.data import Cifar10Config, DataConfig, DigitsConfig, FolderConfig, OwnConfig
from s9.data.image_set import ImageFacts, ImageSet
from s9.data.sources.cifar10 import FACTS, load_cifar10
from s9.data.sources.digits import load_digits
from s9.data.sources.folder import load_folder
from s9.data.sources.own import load_own
from s9.system.errors import UserError

# What was asked for last, and its data set; None: nothing is kept.
_kept: list[tuple[tuple[DataConfig, int, int | None], ImageSet]] | None = None


def keep_images() -> None:
    """From now on this process keeps the last data set: for one that trains one job of a sweep after another."""
    global _kept
    _kept = []


def load_images(config: DataConfig, seed: int, bits: int | None = None) -> ImageSet:
    """The data set of `config`; its `val_seed`, else `seed`, fixes which images of train are held out as val.

    Args:
        bits: as for `folder_decode.decoded`.

    Raises:
        UserError: the images are missing, damaged or not of the form that the data set needs.
    """
    asked = (config, config.val_seed_of(seed), bits)
    for known, images in _kept or []:
        if known == asked:
            return images
    if _kept is not None:
        _kept.clear()  # before the next is loaded: both may not fit into memory
    images = _load(*asked)
    if _kept is not None:
        _kept.append((asked, images))
    return images


def _load(config: DataConfig, seed: int, bits: int | None) -> ImageSet:
    match config:
        case Cifar10Config():
            return load_cifar10(config, seed)
        case FolderConfig():
            return load_folder(config, seed, bits)
        case DigitsConfig():
            return load_digits(config, seed)
        case OwnConfig():
            return load_own(config, seed)
        case _:
            raise UserError(f"data.kind={config.kind}: nothing in s9/data/sources/load.py loads it")


def image_facts(config: DataConfig, seed: int) -> ImageFacts:
    """What a network must know about the images. CIFAR-10's facts are constants; other data sets must be loaded."""
    return FACTS if isinstance(config, Cifar10Config) else load_images(config, seed).facts
