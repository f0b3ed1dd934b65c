"""Which trial trains next: asynchronous successive halving, in which the worse part waits and is never thrown away.

At a rung a trial pauses. It is promoted as soon as it is in the better part of all trials that have reached the rung,
so that no process waits for others; a trial that is overtaken later has been trained in vain, but nothing is lost.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from scipy.stats import spearmanr

FEWEST = 4  # trials below which a rank correlation says nothing


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a trial is. state: running, paused, done or failed.

    values: from rungs, as epochs, to val accuracy there; end: val accuracy of the final weights. All are fractions.
    """

    number: int
    state: str
    values: dict[int, float] = field(default_factory=dict)
    end: float | None = None

    @property
    def rung(self) -> int:
        """The last rung that the trial has reached, as an epoch; 0: none yet."""
        return max(self.values, default=0)


def rung_epochs(rungs: Sequence[float], epochs: int) -> list[int]:
    """The epochs at whose ends trials pause: whole ones, none twice, and not the last."""
    found = sorted({max(1, round(rung * epochs)) for rung in rungs})
    return [epoch for epoch in found if epoch < epochs]


def next_rung(rungs: Sequence[int], standing: Standing) -> int | None:
    """Where the trial pauses next; None: at no epoch before its end."""
    return min((epoch for epoch in rungs if epoch > standing.rung), default=None)


def ranked(trials: Sequence[Standing], rung: int) -> list[Standing]:
    """The trials that have reached the rung, the best first; of equal ones, the one that began first."""
    return sorted((t for t in trials if rung in t.values), key=lambda t: (-t.values[rung], t.number))


def promotable(trials: Sequence[Standing], rungs: Sequence[int], keep: float) -> int | None:
    """The number of the paused trial that trains on next, the one nearest to its end first; None: all wait."""
    for rung in sorted(rungs, reverse=True):
        at = ranked(trials, rung)
        for trial in at[: math.floor(keep * len(at) + 1e-9)]:  # 0.7 * 10 is a little less than 7
            if trial.state == "paused" and trial.rung == rung:
                return trial.number
    return None


def furthest(trials: Sequence[Standing]) -> int | None:
    """The paused trial that trains on where no trial would reach the end, as in a study of few; None: one has."""
    paused = [trial for trial in trials if trial.state == "paused"]
    if not paused or any(trial.state == "done" for trial in trials):
        return None
    return min(paused, key=lambda t: (-t.rung, -t.values[t.rung], t.number)).number


@dataclass(frozen=True)
class Correlation:
    """Of the ranks at a rung with those at the end, over the trials that have both; rank: None where n is too small."""

    rung: int
    n: int
    rank: float | None

    def __str__(self) -> str:
        return f"too few ({self.n} trials)" if self.rank is None else f"{self.rank:.2f} ({self.n} trials)"


def correlation(trials: Sequence[Standing], rung: int) -> Correlation:
    """Spearman's. Trials that were not promoted have no end, so that this is of the better part of the trials alone."""
    pairs = [(t.values[rung], t.end) for t in trials if rung in t.values and t.end is not None]
    if len(pairs) < FEWEST:
        return Correlation(rung, len(pairs), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all values equal: the correlation is NaN
        rank = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return Correlation(rung, len(pairs), None if math.isnan(rank) else rank)


def epochs_trained(trials: Sequence[Standing], epochs: int) -> tuple[int, int]:
    """(epochs of the trials that are done or paused, epochs that these would have without rungs)."""
    counted = [t for t in trials if t.state in ("done", "paused")]
    return sum(epochs if t.state == "done" else t.rung for t in counted), epochs * len(counted)
