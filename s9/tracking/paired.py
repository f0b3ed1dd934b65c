"""Whether two networks differ by more than chance on the same test images.

The test is McNemar's, exact: of the images that only one of two networks gets right, each is as likely to be the one's
as the other's, if the two are equally good on such images. The interval is method 10 of Newcombe, Statistics in
Medicine 17 (1998), 2635-2650, from Wilson's intervals of both accuracies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt

import numpy as np
from scipy.stats import binomtest

from s9.tracking.same_images import SameImages

LEVEL = 0.05  # a smaller p is called more than chance
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Pair:
    """Two runs, by label. low, high: of the difference of accuracies, first - second. adjusted: p by Holm."""

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    adjusted: float
    low: float
    high: float

    @property
    def images(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second, a fraction."""
        return (self.only_first - self.only_second) / self.images

    @property
    def differs(self) -> bool:
        return self.adjusted < LEVEL


def pairs_of(same: SameImages) -> list[Pair]:
    """Every two runs, in their order; p adjusted by Holm over all of these pairs."""
    found = [
        pair_of(same.labels[one], same.labels[other], same.right[one], same.right[other])
        for one, other in combinations(range(len(same.labels)), 2)
    ]
    adjusted = holm([pair.p for pair in found])
    return [replace(pair, adjusted=p) for pair, p in zip(found, adjusted, strict=True)]


def pair_of(first: str, second: str, right: np.ndarray, right_too: np.ndarray) -> Pair:
    """right, right_too: bool (N,), of the first and the second run on the same images, N above 0."""
    both, neither = int((right & right_too).sum()), int((~right & ~right_too).sum())
    only_first, only_second = int((right & ~right_too).sum()), int((~right & right_too).sum())
    p = mcnemar(only_first, only_second)
    low, high = newcombe(both, only_first, only_second, neither)
    return Pair(
        first, second, both, only_first, only_second=only_second, neither=neither, p=p, adjusted=p, low=low, high=high
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test; 1 where both are right on the same images."""
    apart = only_first + only_second
    return float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """95 % interval of (accuracy of the first - accuracy of the second), for paired images; fractions."""
    images = both + only_first + only_second + neither
    rights = both + only_first, both + only_second
    difference = (only_first - only_second) / images
    below, above = [], []  # how far Wilson's limits lie from each accuracy
    for right in rights:
        limits = binomtest(right, images).proportion_ci(CONFIDENCE, method="wilson")
        below.append(right / images - limits.low)
        above.append(limits.high - right / images)
    spread = rights[0] * (images - rights[0]) * rights[1] * (images - rights[1])
    agreement = float(both * neither - only_first * only_second)
    if agreement > 0:  # corrected for continuity
        agreement = max(agreement - images / 2, 0.0)
    phi = agreement / sqrt(spread) if spread else 0.0

    def reach(one: float, other: float) -> float:
        return sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))

    return difference - reach(below[0], above[1]), difference + reach(above[0], below[1])


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's method, in the order given."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted
