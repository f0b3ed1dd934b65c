"""Holds images out: how many, and which, stratified by class and fixed by a seed."""

import numpy as np

from s9.config.data import Size
from s9.data.image_set import Split
from s9.system.errors import UserError

MOST_VAL, MOST_TEST = 5_000, 10_000  # images that are held out if no size is given
HALF = 0.5  # of a given val becomes test


def count_of(size: Size, total: int, classes: int, most: int = MOST_VAL) -> int:
    """How many of `total` images `size` holds out: itself, or that share; None: a fifth, at most `most`.

    A share and None hold out at least one image for each of `classes`.
    """
    if size is None:
        return max(classes, min(total // 5, most))
    if 0 < size < 1:
        return max(classes, round(size * total))
    return int(size)


def hold_out(
    train: Split, size: Size, seed: int, *, key: str = "data.val_size", most: int = MOST_VAL
) -> tuple[Split, Split]:
    """Splits train into (train, held out), stratified by class and fixed by seed.

    Raises:
        UserError: `size`, which `key` names, leaves nothing to train on, or is too small for one image per class.
    """
    kept, held = held_out(train.labels, size, seed, key=key, most=most)
    return train.take(kept), train.take(held)


def held_out(
    labels: np.ndarray, size: Size, seed: int, *, key: str = "data.val_size", most: int = MOST_VAL
) -> tuple[np.ndarray, np.ndarray]:
    """As `hold_out`, as the sorted indices (kept, held out) of int64 `labels` (N,)."""
    everything, classes = np.arange(len(labels)), len(np.unique(labels))
    count = count_of(size, len(labels), classes, most)
    if count == 0:
        return everything, everything[:0]
    said, largest = f"{key}={'null' if size is None else size}", len(labels) - classes
    if largest < classes:
        raise UserError(f"{said}: {len(labels)} images of {classes} classes are too few to hold some of each out")
    if not classes <= count <= largest:
        nothing = "0, or " if key == "data.val_size" else ""
        raise UserError(
            f"{said}: must be {nothing}from {classes} (one per class) to {largest}, since there are "
            f"{len(labels)} images to hold out of"
        )
    from sklearn.model_selection import train_test_split  # here: takes a second, and not every data set needs it

    if np.bincount(labels)[np.unique(labels)].min() < 2:
        raise UserError(f"{said}: a class has only 1 image left to hold out of; add images of it, or remove the class")
    kept, held = train_test_split(everything, test_size=count, stratify=labels, random_state=seed)
    return _with_each_class(labels, np.sort(kept), np.sort(held))


def _with_each_class(labels: np.ndarray, kept: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with an image of each class: a rare one's is exchanged for one of the class that is most above its share.

    A stratified draw may leave a class of a few images out of one of the parts.
    """
    shares = np.bincount(labels) / len(labels)
    for here, there in ((held, kept), (kept, held)):
        for label in np.setdiff1d(labels, labels[here]):
            counts = np.bincount(labels[here], minlength=len(shares))
            most = np.where(counts > 1, counts - shares * len(here), -np.inf).argmax()
            give = np.flatnonzero(labels[here] == most)[0]
            take = np.flatnonzero(labels[there] == label)[0]
            here[give], there[take] = there[take], here[give]
    return np.sort(kept), np.sort(held)
