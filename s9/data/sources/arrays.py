"""An ImageSet from arrays that are in memory."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from s9.config.data import Size
from s9.data.image_set import Contents, ImageFacts, ImageSet, Split, channel_statistics
from s9.data.split import hold_out
from s9.system.errors import UserError


def image_set_of(
    variant: str, class_names: Sequence[str], splits: Mapping[str, Split], *, val_size: Size, seed: int
) -> ImageSet:
    """An ImageSet from arrays that are in memory; mean and std are those of train.

    Args:
        splits: train, test and optionally val; without val, `val_size` of train is held out by `seed`.

    Raises:
        UserError: a split is missing, empty or not of uint8 images of one square size; val_size does not fit.
    """
    names = tuple(class_names)
    for split in ("train", "test", *splits):
        if split not in splits:
            raise UserError(f"{variant}: {split} is missing; there are {', '.join(splits) or 'none'}")
        if not _fits(splits[split], len(names)):
            found = f"{splits[split].images.dtype} {splits[split].images.shape} and labels {splits[split].labels.shape}"
            wanted = f"uint8 (N, S, S, 3) and labels (N,) from 0 to {len(names) - 1}, N above 0"
            raise UserError(f"{variant}: {split} has images {found}; wanted {wanted}")
    sizes = sorted({of.images.shape[1] for of in splits.values()})
    if len(sizes) > 1:
        raise UserError(f"{variant}: images are of {' and '.join(map(str, sizes))} pixels; they must be of one size")
    contents = contents_of(**{split: (np.asarray(of.images), of.labels, names) for split, of in splits.items()})
    mean, std = channel_statistics(np.asarray(splits["train"].images))
    facts = ImageFacts(variant, names, sizes[0], mean=mean, std=std, contents=contents)
    given = splits.get("val")
    train, val = hold_out(splits["train"], 0 if given else val_size, seed)
    return ImageSet(facts, train, given or val, splits["test"])


def _fits(split: Split, num_classes: int) -> bool:
    images, labels = split.images, split.labels
    square = len(images.shape) == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
    whole = len(labels) == images.shape[0] > 0 and labels.dtype == np.int64
    return bool(square and images.dtype == np.uint8 and whole and labels.min() >= 0 and labels.max() < num_classes)


def contents_of(**splits: tuple[np.ndarray, np.ndarray, tuple[str, ...]]) -> Contents:
    """Contents by split name, from each split's uint8 images (N, H, W, 3), int64 labels (N,) and class names."""
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for split, (images, labels, class_names) in splits.items():
        of_class = {name: images[labels == label] for label, name in enumerate(class_names)}
        found[split] = {
            name: (len(some), hashlib.sha256(some.tobytes()).hexdigest()[:24]) for name, some in of_class.items()
        }
    return found
