"""The data group: from a checked configuration to images in memory. A new data set is a line here."""

from s9.config import Cifar10Config, DataConfig, DigitsConfig, FolderConfig
from s9.data.image_set import ImageSet
from s9.errors import UserError


def load(config: DataConfig, seed: int) -> ImageSet:
    """The data set of `config`; its `val_seed`, else `seed`, fixes which images of train are held out as val."""
    seed = config.val_seed_of(seed)
    match config:
        case Cifar10Config():
            from s9.data.cifar10 import load_cifar10

            return load_cifar10(config, seed)
        case FolderConfig():
            from s9.data.folder import load_folder

            return load_folder(config, seed)
        case DigitsConfig():
            from s9.data.digits import load_digits

            return load_digits(config, seed)
        case _:
            raise UserError(f"data.name={config.name}: nothing in s9/data/sources.py loads it")
