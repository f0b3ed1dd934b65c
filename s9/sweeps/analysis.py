"""What goes into the statistics of a sweep and what comes out: samples, effects, interactions, differences."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """The scores of one cell. values: of the swept keys without the seed. scores: val accuracies by seed."""

    values: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Level:
    """One value of a swept key. mean: adjusted for the other keys, None where they cannot be told apart; n: jobs."""

    value: str
    mean: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """first minus second, with an interval; p: of the range test, where it was computed."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float | None = None


@dataclass(frozen=True)
class Effect:
    """A key's main effect. differences: of all pairs of levels; the interval leaves out 0 only if the key differs.

    p: adjusted by Holm; None where the key cannot be told from another one. confidence: of the intervals.
    """

    key: str
    levels: tuple[Level, ...]
    differences: tuple[Difference, ...]
    p: float | None
    differs: bool
    confidence: float


@dataclass(frozen=True)
class Interaction:
    keys: tuple[str, str]
    p: float  # adjusted by Holm
    differs: bool


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the seeds say. sd: pooled over the cells, None where no cell has two seeds or all seeds score the same.

    best: the place of the cell from which leads are measured, None where sd is. like_best, leads: for each cell as
    given; a lead is the best cell minus this one, None of the best, of cells without scores, and of cells that seeds
    do not link with the best where differences between seeds were taken out. uneven: the place of a cell whose seeds
    spread far more than those of the others. together: whether values of keys occur only together, so that some
    effects cannot be told. correlation: of the scores of different cells with the same seed, None where no seeds are
    shared. paired: whether differences between seeds were taken out.
    """

    sd: float | None = None
    df: int
    sd_low: float | None = None
    sd_high: float | None = None
    effects: tuple[Effect, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    best: int | None = None
    like_best: tuple[bool, ...]
    leads: tuple[Difference | None, ...]
    uneven: int | None = None
    declared: bool = False
    together: bool = False
    correlation: float | None
    paired: bool
