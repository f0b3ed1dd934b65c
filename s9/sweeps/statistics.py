"""Whether the cells and keys of a sweep differ by more than chance: linear models, F and studentized range by scipy.

All differences are measured against one standard deviation, pooled from the seeds of all cells. In this order:

1. Each key's main effect: pairs of its values by Tukey and Kramer's range test; Holm over the keys.
2. Interactions of two keys: F test; Holm over the pairs.
3. Each cell against the best: Tukey and Kramer, only where 1 or 2 has declared a difference.

Where values of keys occur only together, so that 1 cannot tell them apart, the cells take part in 1 as one more key.

So, where nothing differs, anything is declared in at most 5 % of sweeps: 4 % are spent on 1 and 1 % on 2, and 3 comes
after both. Where no interaction can be tested, 1 has all 5 %.
Sources: Kramer, Biometrics 12 (1956); Holm, Scand. J. Statist. 6 (1979).
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from s9.sweeps.analysis import Analysis, Difference, Effect, Interaction, Level, Sample
from s9.sweeps.linear import (
    Additive,
    CellMeans,
    Linear,
    additive,
    cells_design,
    columns_of,
    critical_range,
    intraclass_correlation,
    uneven,
)
from s9.tracking.paired import holm

ALPHA, ALPHA_INTERACTIONS = 0.05, 0.01  # of which the second is a part of the first


def analyse(keys: Sequence[str], samples: Sequence[Sample], *, paired: bool = False) -> Analysis:
    """Tests keys and cells.

    Args:
        keys: those of `Sample.values`, each with two values or more.
        paired: takes the differences between seeds out, which must have been decided before the first result.
    """
    y = np.array([score for sample in samples for score in sample.scores.values()])
    cell = np.array([at for at, sample in enumerate(samples) for _ in sample.scores], dtype=int)
    seeds = [seed for sample in samples for seed in sample.scores]
    values = [[samples[at].values[k] for at in cell] for k in range(len(keys))]
    blocks = columns_of(seeds)[1] if paired else np.empty((len(y), 0))
    full = Linear(np.hstack([cells_design(cell), blocks]), y) if paired else CellMeans(cell, y)
    correlation = _correlation(samples)
    if full.df == 0 or full.rss <= 1e-12 * max(1.0, float(y @ y)):
        like = tuple(bool(sample.scores) for sample in samples)
        none = tuple(None for _ in samples)
        return Analysis(df=full.df, like_best=like, leads=none, correlation=correlation, paired=paired)
    variance = full.rss / full.df
    model = additive(values, blocks, y)
    interactions = _interactions(keys, values, model, y, variance=variance, df=full.df)
    alpha = ALPHA - ALPHA_INTERACTIONS if interactions else ALPHA
    best, leads = _leads(samples, full, variance, paired=paired)
    together = not model.separable()
    of_cells = _p_of_cells(leads, full.df) if together else None
    effects, differ = _effects(keys, values, model, variance=variance, df=full.df, alpha=alpha, of_cells=of_cells)
    declared = differ or any(effect.differs for effect in effects) or any(one.differs for one in interactions)
    like = tuple(
        bool(sample.scores) and not (declared and lead is not None and lead.low > 0)
        for sample, lead in zip(samples, leads, strict=True)
    )
    low, high = (math.sqrt(full.rss / stats.chi2.ppf(part, full.df)) for part in (0.975, 0.025))
    return Analysis(
        sd=math.sqrt(variance),
        df=full.df,
        sd_low=low,
        sd_high=high,
        effects=effects,
        interactions=interactions,
        best=best,
        like_best=like,
        leads=leads,
        uneven=uneven(full.residuals, cell, full.df),
        declared=declared,
        together=together,
        correlation=correlation,
        paired=paired,
    )


def _effects(
    keys: Sequence[str],
    values: Sequence[Sequence[str]],
    model: Additive,
    *,
    variance: float,
    df: int,
    alpha: float,
    of_cells: float | None,
) -> tuple[tuple[Effect, ...], bool]:
    """(the keys' effects, whether cells differ by a p value that takes part in Holm's method as one more key)."""
    pairs_of: list[list[tuple[int, int, float, float]]] = []  # (first, second, difference, its standard error)
    p_of: list[float | None] = []
    for k in range(len(keys)):
        count = len(model.levels[k])
        found = [
            (first, second, *model.difference(k, first, second, variance))
            for first, second in itertools.combinations(range(count), 2)
            if model.estimable(k, first, second)
        ]
        pairs_of.append(found)
        ranges = [abs(difference) / error for _, _, difference, error in found]
        p_of.append(float(stats.studentized_range.sf(max(ranges) * math.sqrt(2), count, df)) if found else None)
    (*adjusted, cells), spent = _holm([*p_of, of_cells], alpha)
    effects = []
    for k, key in enumerate(keys):
        levels = model.levels[k]
        half = critical_range(1 - spent[k], len(levels), df) / math.sqrt(2)
        differences = tuple(
            _around(mean, half * error, levels[first], levels[second]) for first, second, mean, error in pairs_of[k]
        )
        marginal = tuple(Level(v, model.mean(k, at), values[k].count(v)) for at, v in enumerate(levels))
        p, sure = adjusted[k], 1 - spent[k]
        effects.append(Effect(key, marginal, differences, p=p, differs=p is not None and p <= alpha, confidence=sure))
    return tuple(effects), cells is not None and cells <= alpha


def _interactions(
    keys: Sequence[str], values: Sequence[Sequence[str]], model: Additive, y: np.ndarray, *, variance: float, df: int
) -> tuple[Interaction, ...]:
    base = model.fit
    pairs, p_of = [], list[float | None]()
    for one, other in itertools.combinations(range(len(keys)), 2):
        together = columns_of(list(zip(values[one], values[other], strict=True)))[1]
        wider = Linear(np.hstack([base.design, together]), y)
        if (more := wider.rank - base.rank) > 0:
            pairs.append((keys[one], keys[other]))
            p_of.append(float(stats.f.sf(max(0.0, base.rss - wider.rss) / more / variance, more, df)))
    adjusted, _ = _holm(p_of, ALPHA_INTERACTIONS)
    return tuple(
        Interaction(pair, p, p <= ALPHA_INTERACTIONS) for pair, p in zip(pairs, adjusted, strict=True) if p is not None
    )


def _leads(
    samples: Sequence[Sample], full: Linear | CellMeans, variance: float, *, paired: bool
) -> tuple[int, tuple[Difference | None, ...]]:
    """(the best cell, that cell minus each other one, by Tukey and Kramer over all cells that can be compared)."""
    scored = [at for at, sample in enumerate(samples) if sample.scores]
    means = {at: float(full.coefficients[place]) for place, at in enumerate(scored)}
    compared = set(_linked(samples) if paired else scored)
    best = max(sorted(compared), key=lambda at: means[at])
    half = critical_range(1 - ALPHA, max(2, len(compared)), full.df) / math.sqrt(2)
    leads: list[Difference | None] = []
    for at, sample in enumerate(samples):
        if at == best or at not in compared:
            leads.append(None)
            continue
        error = math.sqrt(variance * full.spread_of(scored.index(best), scored.index(at)))
        names = " ".join(samples[best].values), " ".join(sample.values)
        leads.append(_around(means[best] - means[at], half * error, *names))
    return best, tuple(leads)


def _linked(samples: Sequence[Sample]) -> list[int]:
    """The largest group of cells that seeds link: without the differences between seeds no others can be compared."""
    groups: list[tuple[list[int], set[str]]] = []
    for at, sample in enumerate(samples):
        own = ([at], set(sample.scores))
        for group in [group for group in groups if group[1] & own[1]]:
            groups.remove(group)
            own = ([*group[0], *own[0]], group[1] | own[1])
        groups.append(own)
    return max((sorted(cells) for cells, seeds in groups if seeds), key=len)


def _p_of_cells(leads: Sequence[Difference | None], df: int) -> float:
    """Of the widest lead, by the studentized range over all cells that can be compared."""
    known = [lead for lead in leads if lead is not None]
    critical = critical_range(1 - ALPHA, len(known) + 1, df)
    widest = max(lead.mean / (lead.high - lead.mean) for lead in known) * critical
    return float(stats.studentized_range.sf(widest, len(known) + 1, df))


def _around(mean: float, half: float, first: str, second: str) -> Difference:
    return Difference(first, second, mean=mean, low=mean - half, high=mean + half)


def _holm(p_of: Sequence[float | None], alpha: float) -> tuple[list[float | None], list[float]]:
    """(the adjusted p values, the level at which each was tested; those after the first failure have its level)."""
    known = [at for at, p in enumerate(p_of) if p is not None]
    adjusted = dict(zip(known, holm([p for p in p_of if p is not None]), strict=True))
    declared = sum(p <= alpha for p in adjusted.values())
    spent = dict.fromkeys(range(len(p_of)), alpha / max(1, len(known)))
    for rank, at in enumerate(sorted(known, key=lambda at: p_of[at] or 0.0)):  # adjusted ones tie
        spent[at] = alpha / (len(known) - min(rank, declared))
    return [adjusted.get(at) for at in range(len(p_of))], list(spent.values())


def _correlation(samples: Sequence[Sample]) -> float | None:
    """Of cells within seeds, over the seeds that all cells with scores share."""
    scored = [sample.scores for sample in samples if sample.scores]
    shared = sorted(set.intersection(*(set(scores) for scores in scored))) if scored else []
    if len(scored) < 2 or len(shared) < 2:
        return None
    return intraclass_correlation(np.array([[scores[seed] for seed in shared] for scores in scored]))
