"""The runs of a comparison that were tested on the same images, and what each says of each image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s9.tracking.compared_run import Arrays, ComparedRun


@dataclass(frozen=True)
class SameImages:
    """The runs (R) that were tested on the same images (N), in the first one's order.

    names, true: (N,) str. predicted: (R, N) str. probs: (R, N), of the predicted class. right: (R, N) bool.
    pictures: uint8 (H, W, 3) of the images that some run has stored. left_out: why other runs are missing, a line each.
    """

    labels: tuple[str, ...]
    names: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    probs: np.ndarray
    right: np.ndarray
    pictures: dict[int, np.ndarray]
    left_out: tuple[str, ...]

    def disputed(self) -> np.ndarray:
        """Indices of the images on which one run is right and another wrong."""
        return np.flatnonzero(self.right.any(0) & ~self.right.all(0))

    def wrong_by_all(self) -> np.ndarray:
        return np.flatnonzero(~self.right.any(0))

    def only(self, label: str) -> np.ndarray:
        """Indices of the images that this run alone gets right; where the others are surest of a wrong class first."""
        own = self.labels.index(label)
        found = np.flatnonzero(self.right[own] & (self.right.sum(0) == 1))
        others = np.delete(self.probs, own, axis=0).max(0, initial=0.0)
        return found[np.argsort(-others[found], kind="stable")]


def same_images(runs: Sequence[ComparedRun]) -> SameImages:
    """The largest set of runs whose predictions are of the same test images; may hold one run or none."""
    usable = [run for run in runs if run.predictions is not None]
    without = ", ".join(run.label for run in runs if run.predictions is None)
    reasons = (
        [f"no readable predictions of {without} (shipped weights and unfinished runs have none)"] if without else []
    )
    best: dict[str, np.ndarray] = {}
    apart: list[str] = []
    for first in usable:
        orders = {run.label: order_as(first, run) for run in usable}
        fits = {label: order for label, order in orders.items() if isinstance(order, np.ndarray)}
        if len(fits) > len(best):
            best = fits
            apart = [f"{label}: {order}" for label, order in orders.items() if isinstance(order, str)]
        if len(best) == len(usable):
            break
    members = [run for run in usable if run.label in best]
    return _aligned(members, best, tuple(reasons + apart))


def order_as(first: ComparedRun, run: ComparedRun) -> np.ndarray | str:
    """The indices that bring `run`'s test images into the order of `first`, or why they are not the same images."""
    if first is run:
        return np.arange(len(_held(run)["labels"]))
    if not _same_contents(first, run):
        known = all(one.facts or one.summary.get("images") for one in (first, run))
        other = "was tested on other images" if known else "which test images it used is not recorded"
        return f"{other} than {first.label}" if known else other
    one, other_run = _held(first), _held(run)
    true, true_too = _true(one), _true(other_run)
    if one["named"] and other_run["named"]:
        by_name = _by_name(one["names"], other_run["names"])
        if by_name is not None and np.array_equal(true, true_too[by_name]):
            return by_name
        if set(one["names"]) != set(other_run["names"]):  # of the same folder, another part was held out
            return f"was tested on other images than {first.label}"
    if np.array_equal(true, true_too):
        return np.arange(len(true))
    return f"its test images have another order than those of {first.label}, and no names"


def _same_contents(first: ComparedRun, run: ComparedRun) -> bool:
    """Whether the digests of names and contents are equal; for runs without images.json, that of all splits."""
    contents = [one.facts.contents.get("test") if one.facts else None for one in (first, run)]
    if all(contents):
        return contents[0] == contents[1]
    prints = [one.facts.fingerprint if one.facts else one.summary.get("images") for one in (first, run)]
    return prints[0] is not None and prints[0] == prints[1]


def _by_name(names: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    place = {str(name): index for index, name in enumerate(others)}
    if len(place) != len(others) or place.keys() != {str(name) for name in names} or len(names) != len(others):
        return None
    return np.array([place[str(name)] for name in names])


def _held(run: ComparedRun) -> Arrays:
    assert run.predictions is not None
    return run.predictions


def _true(arrays: Arrays) -> np.ndarray:
    """The name of each image's class: the numbers of classes may differ between runs."""
    return arrays["class_names"].astype(np.str_)[arrays["labels"]]


def _aligned(members: Sequence[ComparedRun], orders: dict[str, np.ndarray], left_out: tuple[str, ...]) -> SameImages:
    if not members:
        empty = np.empty(0, np.str_)
        return SameImages(
            (),
            empty,
            empty,
            np.empty((0, 0), np.str_),
            probs=np.empty((0, 0)),
            right=np.empty((0, 0), bool),
            pictures={},
            left_out=left_out,
        )
    named = next((run for run in members if _held(run)["named"]), members[0])
    predicted, probs, pictures = [], [], dict[int, np.ndarray]()
    for run in members:
        arrays, order = _held(run), orders[run.label]
        preds = arrays["probs"].argmax(1)
        predicted.append(arrays["class_names"].astype(np.str_)[preds][order])
        probs.append(arrays["probs"].max(1)[order])
        pictures |= _pictures(arrays, order)
    true = _true(_held(members[0]))[orders[members[0].label]]
    right = np.stack(predicted) == true
    names = _held(named)["names"].astype(np.str_)[orders[named.label]]
    labels = tuple(run.label for run in members)
    return SameImages(
        labels,
        names,
        true,
        np.stack(predicted),
        probs=np.stack(probs),
        right=right,
        pictures=pictures,
        left_out=left_out,
    )


def _pictures(arrays: Arrays, order: np.ndarray) -> dict[int, np.ndarray]:
    """The stored images, by their index in the common order."""
    worst, images = arrays.get("worst", np.empty(0)), arrays.get("worst_images", np.empty(0))
    fits = worst.dtype.kind in "iu" and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
    if not fits or len(worst) != len(images):
        return {}
    place = {int(own): index for index, own in enumerate(order)}
    return {place[int(own)]: image for own, image in zip(worst, images, strict=True) if int(own) in place}
