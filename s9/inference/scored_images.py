"""The images that a network is scored on: of any data set, in the network's classes and size, with a name for each."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s9.config.data import DataConfig, FolderConfig
from s9.data.image_set import ImageFacts, ImageSet, Rows, Split
from s9.data.sources.folder import all_of_folder
from s9.data.sources.folder_files import folder_files
from s9.data.sources.folder_parts import Part
from s9.data.sources.layout import layout_of
from s9.data.sources.load import load_images
from s9.system.errors import UserError

HELD_OUT_BY = ("test_size", "high_depth", "broken")  # which images are in test
SIZES = ("val_size", "test_size")

ChosenData = Callable[[DataConfig | None], DataConfig]  # from the run's data, if they are known, to those to score


@dataclass(frozen=True)
class Chosen:
    """Which images to score. config: if they are the run's. of_others: if they are not.

    The run's own val_size and test_size are numbers for its own images; of others, as many are held out as fit, unless
    the user has given a size.
    """

    config: DataConfig
    of_others: DataConfig

    def taken_for(self, split: str, known: ImageFacts | None, resize: str | None) -> "Chosen":
        """The same in the network's size; without a val, which nothing but its own scores needs."""
        return Chosen(*(_as_taken(config, split, known, resize) for config in (self.config, self.of_others)))

    def said(self) -> list[str]:
        """Which sizes of the run are not used for other images."""
        sizes = [(key, *(getattr(of, key, None) for of in (self.config, self.of_others))) for key in SIZES]
        return [
            f"data.{key}=null: the run's {ours} is for its own images, and these are others"
            for key, ours, theirs in sizes
            if ours != theirs
        ]


def choose(own: DataConfig | None, data: ChosenData | None) -> Chosen | None:
    """What `data` chooses, else the run's own images; None where there is neither.

    Args:
        own: the run's data; None: they are not known.
    """
    config = data(own) if data else own
    if config is None:
        return None
    if data is None or own is None or getattr(config, "root", None) == getattr(own, "root", None):
        return Chosen(config, config)
    unsized = replace(own, test_size=None) if isinstance(own, FolderConfig) else own
    unsized = replace(unsized, val_size=None)
    return Chosen(config, data(unsized))


@dataclass(frozen=True)
class ScoredImages:
    """parts: one split, or all that the data set has; their labels are those of the network's classes.

    names: of all images, in order. found: facts of the data set as it is. said: lines on what was taken and left out.
    warned: those of them that are warnings.
    """

    parts: tuple[Split, ...]
    names: tuple[str, ...]
    found: ImageFacts
    said: tuple[str, ...]
    warned: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,)."""
        return np.concatenate([part.labels for part in self.parts])

    def take(self, index: np.ndarray) -> Split:
        """The images at int64 `index`, in this order, in memory."""
        side = self.parts[0].images.shape[1]
        images, start = np.empty((len(index), side, side, 3), np.uint8), 0
        for part in self.parts:
            here = (index >= start) & (index < start + len(part))
            images[here] = part.images[index[here] - start]
            start += len(part)
        return Split(images, self.labels[index])


def images_to_score(
    chosen: Chosen, seed: int, split: str, *, known: ImageFacts | None = None, resize: str | None = None
) -> ScoredImages:
    """The images of a split, or of all splits together.

    Args:
        seed: of the run, which fixes what is held out where the configuration does not. split: test, val, train or all.
        known: facts of the run's images; the images get their classes and size. None: these are not recorded.
        resize: how the run brought its images to squares; None: as `config` says.

    Raises:
        UserError: the images cannot be read, are of a class that the run does not know, or the split is empty.
    """
    taken = chosen.taken_for(split, known, resize)
    config, changed = taken.config, list[str]()
    if config != taken.of_others and not _are_of_run(config, seed, known):
        config, changed = taken.of_others, taken.said()
    with _logged() as records:
        found, splits, names = _everything(config, seed, known) if split == "all" else _one(config, seed, split, known)
    if known and found.image_size != known.image_size:
        sizes = f"{found.image_size} pixels, and the network takes {known.image_size}"
        raise UserError(f"the images are of {sizes}; give a folder of them: data=folder data.root=<folder>")
    if not names:
        raise UserError(f"split={split}: this run held none out (data.val_size=0)")
    order = _order(known, found)
    parts = tuple(Split(of.images, order[of.labels]) for of in splits)
    said, warned = ([r.getMessage() for r in records if r.levelno >= of] for of in (logging.INFO, logging.WARNING))
    return ScoredImages(parts, tuple(names), found, said=(*changed, *said), warned=tuple(warned))


def _as_taken(config: DataConfig, split: str, known: ImageFacts | None, resize: str | None) -> DataConfig:
    if split != "val":  # test is held out first, so that it stays the same
        config = replace(config, val_size=0)
    if isinstance(config, FolderConfig):
        size = known.image_size if known else config.image_size
        config = replace(config, image_size=size, resize=resize or config.resize)
    return config


def _are_of_run(config: DataConfig, seed: int, known: ImageFacts | None) -> bool:
    """Whether all images together, with their splits, are those of the run."""
    if known is None:
        return False
    with _logged():
        found, _, _ = _everything(config, seed, known)
    return found.fingerprint == known.fingerprint


def _one(
    config: DataConfig, seed: int, split: str, known: ImageFacts | None
) -> tuple[ImageFacts, list[Split], list[str]]:
    """(facts, the images, their names) of train, val or test."""
    if known and isinstance(config, FolderConfig):  # a run without facts needs mean and std, which are those of train
        folders = layout_of(Path(config.root)).folders
        if "train" not in folders and split in folders:
            facts, parts = all_of_folder(config, known.bits)
            return facts, [parts[split].split], _names_of(parts[split])
    data = load_images(config, seed, known.bits if known else None)
    part = {"train": data.train, "val": data.val, "test": data.test}[split]
    return data.facts, [part], list(_names(config, data, split, part))


def _everything(config: DataConfig, seed: int, known: ImageFacts | None) -> tuple[ImageFacts, list[Split], list[str]]:
    """The same of all images."""
    if isinstance(config, FolderConfig):
        facts, parts = all_of_folder(config, known.bits if known else None)
        names = [name for part in parts.values() for name in _names_of(part)]
        return facts, [part.split for part in parts.values()], names
    data = load_images(replace(config, val_size=0), seed)
    splits = {name: of for name, of in (("train", data.train), ("test", data.test)) if len(of)}
    names = [name for split, part in splits.items() for name in _names(config, data, split, part)]
    return data.facts, list(splits.values()), names


def _names_of(part: Part) -> list[str]:
    return [part.file(place).name for place in range(len(part.rows))]


def _order(known: ImageFacts | None, found: ImageFacts) -> np.ndarray:
    """int64: the run's label of each class of the images, which may be a part of the run's classes.

    Raises:
        UserError: the run does not know one of the classes.
    """
    ours = found.class_names
    if known is None:
        return np.arange(len(ours))
    if other := sorted(set(ours) - set(known.class_names)):
        found_in = ", ".join(other[:5]) + (", ..." if len(other) > 5 else "")
        learned = ", ".join(known.class_names[:10]) + (", ..." if known.num_classes > 10 else "")
        raise UserError(f"the images are of classes that the network does not know: {found_in}; it knows {learned}")
    return np.array([known.class_names.index(name) for name in ours])


def _names(config: DataConfig, data: ImageSet, split: str, part: Split) -> Iterable[str]:
    """class/file of each image; `val image 17` where the data set has no names."""
    if split == "test" and data.test_names:
        return data.test_names
    if isinstance(config, FolderConfig) and isinstance(part.images, Rows):
        of_disk = Path(str(part.images.array.filename)).stem.removesuffix("_images")  # what is held out is of train
        files = folder_files(Path(config.root), drop_gone=config.broken == "drop").splits[of_disk]
        return [files[row].name for row in part.images.index.tolist()]
    return [f"{split} image {number}" for number in range(len(part))]


def held_out_alike(one: DataConfig, other: DataConfig, split: str) -> bool:
    """Whether both hold the same images out of the same train as `split`."""
    keys = HELD_OUT_BY if split == "test" else (*HELD_OUT_BY, "val_size", "val_seed", "duplicates")
    return all(getattr(one, key, None) == getattr(other, key, None) for key in keys)


def learned_images(known: ImageFacts, found: ImageFacts, split: str) -> int:
    """How many of the images from which `split` is taken are in class folders that the run was trained on.

    A run stores one digest for each class of a split, so single images that are the same are not found.
    """
    source = [split] if split in found.contents and split != "train" else list(found.contents)
    learned = {digest for count, digest in known.contents.get("train", {}).values() if count}
    return sum(
        count
        for of in source
        for name, (count, digest) in found.contents[of].items()
        if digest in learned and (of == "train" or known.contents.get(of, {}).get(name) != (count, digest))
    )


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _logged() -> Iterator[list[logging.LogRecord]]:
    """Collects what is logged on the images in the meantime, instead of showing it."""
    log, kept = logging.getLogger("s9"), _Kept()
    level, shown = log.level, log.propagate
    log.addHandler(kept)
    log.propagate = False
    log.setLevel(logging.INFO)
    try:
        yield kept.records
    finally:
        log.removeHandler(kept)
        log.propagate = shown
        log.setLevel(level)
