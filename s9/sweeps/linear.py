"""Least squares on cells, keys and seeds: what the tests of statistics.py compare; balanced or not."""

import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

UNEVEN = 3.0  # ratio of cells' standard deviations from which one spread for all is doubtful


class Linear:
    """A least-squares fit. rss: sum of squares of the residuals; df: observations less the design's rank."""

    def __init__(self, design: np.ndarray, y: np.ndarray):
        self.design = design
        normal = design.T @ design
        self.inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)
        self.rank = round(float(np.trace(self.inverse @ normal)))
        self.coefficients = self.inverse @ (design.T @ y)
        self.residuals = y - design @ self.coefficients
        self.rss = float((self.residuals**2).sum())
        self.df = len(y) - self.rank

    def spread_of(self, first: int, second: int) -> float:
        """The variance of the difference of two coefficients, in units of the residual variance."""
        inverse = self.inverse
        return float(inverse[first, first] + inverse[second, second] - 2 * inverse[first, second])

    def has(self, contrast: np.ndarray) -> bool:
        """Whether the data can estimate this combination of coefficients."""
        projected = self.inverse @ (self.design.T @ (self.design @ contrast))
        return bool(np.allclose(projected, contrast, atol=1e-6))


class CellMeans:
    """What Linear gives for cells alone, without the matrices: thousands of cells take no time."""

    def __init__(self, cell: np.ndarray, y: np.ndarray):
        _, place, self.counts = np.unique(cell, return_inverse=True, return_counts=True)
        self.coefficients = np.bincount(place, weights=y, minlength=len(self.counts)) / self.counts
        self.residuals = y - self.coefficients[place]
        self.rss = float((self.residuals**2).sum())
        self.df = len(y) - len(self.counts)

    def spread_of(self, first: int, second: int) -> float:
        """The variance of the difference of two means, in units of the residual variance."""
        return float(1 / self.counts[first] + 1 / self.counts[second])


@dataclass(frozen=True)
class Additive:
    """A grand mean, an effect of each value of each key, and of each seed where these are blocks."""

    fit: Linear
    levels: list[list[str]]  # for each key, in order of appearance
    starts: list[int]  # the first column of each key

    def contrast(self, key: int, first: int, second: int) -> np.ndarray:
        contrast = np.zeros(self.fit.design.shape[1])
        contrast[self.starts[key] + first], contrast[self.starts[key] + second] = 1, -1
        return contrast

    def estimable(self, key: int, first: int, second: int) -> bool:
        return self.fit.has(self.contrast(key, first, second))

    def separable(self) -> bool:
        """Whether all pairs of levels can be told apart."""
        return all(self.estimable(key, 0, at) for key, levels in enumerate(self.levels) for at in range(1, len(levels)))

    def difference(self, key: int, first: int, second: int, variance: float) -> tuple[float, float]:
        """(the difference of two levels, its standard error)."""
        at, to = self.starts[key] + first, self.starts[key] + second
        mean = float(self.fit.coefficients[at] - self.fit.coefficients[to])
        return mean, math.sqrt(variance * self.fit.spread_of(at, to))

    def mean(self, key: int, level: int) -> float | None:
        """What the model expects at this level, averaged over all levels of the other keys, and over the seeds."""
        contrast = self.averages()
        start, count = self.starts[key], len(self.levels[key])
        contrast[start : start + count] = 0
        contrast[start + level] = 1
        return float(contrast @ self.fit.coefficients) if self.fit.has(contrast) else None

    def averages(self) -> np.ndarray:
        contrast = np.zeros(self.fit.design.shape[1])
        contrast[0] = 1
        end = 1
        for start, levels in zip(self.starts, self.levels, strict=True):
            end = start + len(levels)
            contrast[start:end] = 1 / len(levels)
        if blocks := len(contrast) - end:
            contrast[end:] = 1 / blocks
        return contrast


def additive(values: Sequence[Sequence[str]], blocks: np.ndarray, y: np.ndarray) -> Additive:
    """Fits main effects alone. values: of each key, for each observation; blocks: columns of the seeds, or none."""
    columns, levels, starts = [np.ones((len(y), 1))], [], []
    for of_key in values:
        found, made = columns_of(of_key)
        starts.append(sum(part.shape[1] for part in columns))
        levels.append(found)
        columns.append(made)
    return Additive(Linear(np.hstack([*columns, blocks]), y), levels, starts)


def columns_of(values: Sequence[Hashable]) -> tuple[list[Any], np.ndarray]:
    """(the values in order of appearance, a column of 0 and 1 for each of them)."""
    found = list(dict.fromkeys(values))
    place = {value: at for at, value in enumerate(found)}
    return found, cells_design(np.array([place[value] for value in values], dtype=int))


def cells_design(cell: np.ndarray) -> np.ndarray:
    """A column of 0 and 1 for each number that occurs in `cell`, in their order."""
    return (cell[:, None] == np.unique(cell)[None]).astype(float)


@functools.cache
def critical_range(confidence: float, groups: int, df: int) -> float:
    """The studentized range that `groups` equal groups exceed in 1 - confidence of cases."""
    return float(stats.studentized_range.ppf(confidence, groups, df))


def uneven(residuals: np.ndarray, cell: np.ndarray, df: int) -> int | None:
    """The cell whose residuals spread UNEVEN times as much as those of the others together, by more than chance.

    Chance: an F test, Bonferroni over the cells. Where seeds were taken out, each cell has its share of `df`.
    """
    found, place, counts = np.unique(cell, return_inverse=True, return_counts=True)
    squares = np.bincount(place, weights=residuals**2, minlength=len(found))
    own = (counts - 1) * df / max(1, (counts - 1).sum())
    rest, others = squares.sum() - squares, df - own
    tested = (own > 0) & (others > 0) & (rest > 0)
    if not tested.any():
        return None
    ratios = np.zeros(len(found))
    ratios[tested] = squares[tested] / own[tested] / (rest[tested] / others[tested])
    most = int(ratios.argmax())
    by_chance = stats.f.sf(ratios[most], own[most], others[most]) * int(tested.sum())
    return int(found[most]) if ratios[most] > UNEVEN**2 and by_chance < 0.05 else None


def intraclass_correlation(table: np.ndarray) -> float | None:
    """Of the rows within columns, for (rows, columns) without gaps, by mean squares; None without any spread."""
    rows, columns = table.shape
    residual = table - table.mean(1, keepdims=True)
    of_columns = rows * float((residual.mean(0) ** 2).sum()) / (columns - 1)
    left = float(((residual - residual.mean(0)) ** 2).sum()) / ((rows - 1) * (columns - 1))
    total = of_columns + (rows - 1) * left
    return (of_columns - left) / total if total > 0 else None
