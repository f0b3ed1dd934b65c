"""The statistics of sweeps against scipy's own tests, textbook sums and made-up sweeps of which the truth is known."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from s9.sweeps.analysis import Analysis, Sample
from s9.sweeps.power import power_of, seeds_needed
from s9.sweeps.statistics import _holm, analyse
from tests.statistics_table import made_up, rates


def sample(*values: str, scores: Sequence[float], first_seed: int = 0) -> Sample:
    return Sample(values, {str(first_seed + at): score for at, score in enumerate(scores)})


def noisy(shape: Sequence[int], seeds: int, number: int = 0) -> list[Sample]:
    return made_up(shape, seeds, 1.0, np.random.default_rng(number))


@pytest.mark.parametrize("counts", [(3, 3, 3, 3), (2, 5, 3, 2)], ids=["balanced", "unbalanced"])
def test_the_leads_of_the_best_cell_are_scipys_tukey_hsd(counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    groups = [0.8 + 0.01 * at + 0.01 * rng.standard_normal(count) for at, count in enumerate(counts)]
    analysis = analyse(["a"], [sample(str(at), scores=list(group)) for at, group in enumerate(groups)])
    best = max(range(len(groups)), key=lambda at: groups[at].mean())
    interval = stats.tukey_hsd(*groups).confidence_interval(0.95)
    for at, lead in enumerate(analysis.leads):
        if at != best:
            assert lead is not None
            assert lead.low == pytest.approx(interval.low[best, at], abs=1e-6)
            assert lead.high == pytest.approx(interval.high[best, at], abs=1e-6)
    assert analysis.leads[best] is None


def test_a_single_keys_p_value_is_that_of_its_widest_pair_in_scipys_tukey_hsd() -> None:
    rng = np.random.default_rng(5)
    groups = [0.8 + 0.01 * rng.standard_normal(4) for _ in range(3)]
    (effect,) = analyse(["a"], [sample(str(at), scores=list(group)) for at, group in enumerate(groups)]).effects
    assert effect.p == pytest.approx(stats.tukey_hsd(*groups).pvalue.min(), abs=1e-6)


def test_a_key_of_two_values_is_tested_as_by_a_t_test() -> None:
    one, other = [0.81, 0.83, 0.82], [0.84, 0.86, 0.83]
    (effect,) = analyse(["a"], [sample("x", scores=one), sample("y", scores=other)]).effects
    assert effect.p == pytest.approx(stats.ttest_ind(one, other).pvalue, abs=1e-8)


def test_the_interaction_of_two_keys_is_the_f_test_of_a_balanced_two_way_table() -> None:
    table = np.random.default_rng(6).normal(0.8, 0.01, (2, 3, 4))
    samples = [sample(str(i), str(j), scores=list(table[i, j])) for i in range(2) for j in range(3)]
    (interaction,) = analyse(["a", "b"], samples).interactions
    cells = table.mean(2)
    left = cells - cells.mean(0) - cells.mean(1, keepdims=True) + cells.mean()
    within = ((table - cells[..., None]) ** 2).sum() / 18
    assert interaction.p == pytest.approx(stats.f.sf(4 * (left**2).sum() / 2 / within, 2, 18), abs=1e-9)


def test_the_standard_deviation_is_pooled_over_the_cells() -> None:
    samples = noisy((3, 3), 3)
    variances = [np.var(list(one.scores.values()), ddof=1) for one in samples]
    analysis = analyse(["a", "b"], samples)
    assert analysis.sd == pytest.approx(math.sqrt(np.mean(variances)))
    assert analysis.df == 18


def test_means_of_a_balanced_grid_are_plain_means() -> None:
    samples = noisy((3, 2), 3)
    effect = analyse(["a", "b"], samples).effects[0]
    for level in effect.levels:
        own = [score for one in samples if one.values[0] == level.value for score in one.scores.values()]
        assert level.mean == pytest.approx(np.mean(own))


def test_a_missing_cell_does_not_shift_the_means_of_keys() -> None:
    # Additive scores: a is worth 2 points, b ten; the cell (1, 1) is missing.
    samples = [
        sample(a, b, scores=[0.5 + 0.02 * int(a) + 0.1 * int(b) + shift for shift in (-0.001, 0.0, 0.001)])
        for a, b in itertools.product("01", "01")
        if (a, b) != ("1", "1")
    ]
    (difference,) = analyse(["a", "b"], samples).effects[0].differences
    assert difference.mean == pytest.approx(-0.02)


def test_keys_that_change_together_cannot_be_told_apart() -> None:
    samples = [sample("0", "x", scores=[0.7, 0.71]), sample("1", "y", scores=[0.8, 0.82])]
    effects = analyse(["a", "b"], samples).effects
    assert [effect.p for effect in effects] == [None, None]
    assert [level.mean for level in effects[0].levels] == [None, None]


def pairs(effect: float, number: int) -> Analysis:
    """Three pairs of values instead of a grid: each key's values occur with one value of the other alone."""
    rng = np.random.default_rng(number)
    cells = [
        sample(str(at), str(at), scores=list(0.8 + effect * at + 0.003 * rng.standard_normal(3))) for at in range(3)
    ]
    return analyse(["a", "b"], cells)


def test_cells_of_keys_that_change_together_are_still_compared() -> None:
    analysis = pairs(0.02, 0)
    assert analysis.together and analysis.declared
    assert analysis.like_best == (False, False, True)


@pytest.mark.slow
def test_cells_of_keys_that_change_together_differ_by_chance_in_5_of_100() -> None:
    assert np.mean([pairs(0.0, number).declared for number in range(500)]) <= 0.07


def test_holm_spends_more_on_a_key_once_the_one_before_is_declared() -> None:
    samples = made_up((3, 3), 5, 3.0, np.random.default_rng(1))
    first, second = sorted(analyse(["a", "b"], samples).effects, key=lambda effect: effect.p or 0)
    assert first.differs
    assert (first.confidence, second.confidence) == pytest.approx((0.98, 0.96))


@pytest.mark.parametrize("number", range(20))
def test_an_interval_leaves_out_0_only_where_its_key_is_declared(number: int) -> None:
    for effect in analyse(["a", "b"], noisy((3, 3), 3, number)).effects:
        assert any(d.low > 0 or d.high < 0 for d in effect.differences) == effect.differs


def test_where_nothing_is_declared_every_cell_is_like_the_best() -> None:
    analysis = analyse(["a", "b"], made_up((3, 3), 3, 0.0, np.random.default_rng(1)))
    assert not analysis.declared
    assert all(analysis.like_best)


def test_one_seed_a_cell_tells_nothing() -> None:
    analysis = analyse(["a"], [sample("0", scores=[0.5]), sample("1", scores=[0.9])])
    assert analysis.sd is None
    assert analysis.like_best == (True, True)


def test_seeds_without_any_spread_tell_nothing() -> None:
    analysis = analyse(["a"], [sample("0", scores=[0.5, 0.5]), sample("1", scores=[0.9, 0.9])])
    assert (analysis.sd, analysis.declared) == (None, False)


def test_a_cell_without_scores_is_neither_like_the_best_nor_below_it() -> None:
    samples = [sample("0", scores=[0.5, 0.51]), sample("1", scores=[0.9, 0.91]), sample("2", scores=[])]
    analysis = analyse(["a"], samples)
    assert (analysis.like_best[2], analysis.leads[2]) == (False, None)


def test_no_scores_at_all_tell_nothing() -> None:
    assert analyse(["a"], [sample("0", scores=[]), sample("1", scores=[])]).sd is None


def of_seeds(shares: float, number: int) -> list[Sample]:
    """Nine cells of eight seeds; the seed's own part of each score is `shares` of the variance."""
    rng = np.random.default_rng(number)
    common = math.sqrt(shares) * rng.standard_normal(8)
    return [
        sample(a, b, scores=list(0.8 + 0.01 * (common + math.sqrt(1 - shares) * rng.standard_normal(8))))
        for a, b in itertools.product("012", "012")
    ]


def test_the_correlation_of_seeds_is_measured() -> None:
    def mean(shares: float) -> float:
        found = [analyse(["a", "b"], of_seeds(shares, number)).correlation for number in range(40)]
        return float(np.mean([one for one in found if one is not None]))

    assert mean(0.0) == pytest.approx(0.0, abs=0.05)
    assert mean(0.9) == pytest.approx(0.9, abs=0.1)


def test_pairing_narrows_intervals_where_seeds_correlate() -> None:
    def width(paired: bool) -> float:
        difference = analyse(["a", "b"], of_seeds(0.9, 3), paired=paired).effects[0].differences[0]
        return difference.high - difference.low

    assert width(paired=True) < 0.5 * width(paired=False)


def test_pairing_of_two_cells_is_the_paired_t_test() -> None:
    one, other = [0.81, 0.83, 0.82, 0.85], [0.84, 0.86, 0.83, 0.86]
    (effect,) = analyse(["a"], [sample("x", scores=one), sample("y", scores=other)], paired=True).effects
    assert effect.p == pytest.approx(stats.ttest_rel(one, other).pvalue, abs=1e-8)


def test_pairing_without_shared_seeds_tells_nothing() -> None:
    samples = [sample("x", scores=[0.8, 0.9]), sample("y", scores=[0.7, 0.6], first_seed=5)]
    assert (
        analyse(["a"], samples, paired=True).effects == () or analyse(["a"], samples, paired=True).effects[0].p is None
    )


@pytest.mark.parametrize(("sd", "gap"), [(0.003, 0.005), (0.01, 0.005), (0.002, 0.005)])
def test_the_seeds_that_are_needed_are_the_fewest_with_the_power(sd: float, gap: float) -> None:
    n = seeds_needed(sd, gap)
    assert power_of(n, sd, gap) >= 0.8
    assert n == 2 or power_of(n - 1, sd, gap) < 0.8


def test_the_power_is_how_often_a_t_test_finds_the_difference() -> None:
    rng = np.random.default_rng(0)
    one, other = 0.003 * rng.standard_normal((2, 20_000, 7))
    found = stats.ttest_ind(one + 0.005, other, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(power_of(7, 0.003, 0.005), abs=0.01)


@pytest.mark.slow
def test_of_1000_sweeps_in_which_nothing_differs_at_most_6_in_100_declare_anything() -> None:
    assert rates((3, 3, 3), 3, 0.0, 1000).alarm <= 0.06


@pytest.mark.slow
def test_a_value_that_is_1_sd_better_is_found_with_the_stated_power() -> None:
    assert rates((3, 3, 3), 3, 1.0, 300).found == pytest.approx(STATED, abs=0.06)


STATED = 0.902  # s9/sweeps/README.md


def test_of_two_keys_with_equal_adjusted_p_values_the_smaller_one_is_tested_first() -> None:
    adjusted, levels = _holm([0.045, 0.024], 0.05)
    assert adjusted == pytest.approx([0.048, 0.048]) and levels == pytest.approx([0.05, 0.025])


NARROW = (-0.001, 0.0, 0.001)


def test_a_cell_that_spreads_far_more_than_the_others_is_found() -> None:
    wide = sample("2", scores=[0.7, 0.8, 0.9])
    cells = [sample(str(at), scores=[0.8 + 0.001 * at + shift for shift in NARROW]) for at in range(2)]
    assert analyse(["a"], [*cells, wide]).uneven == 2
    assert analyse(["a"], [cells[0], wide]).uneven == 1
    assert analyse(["a"], [*cells, sample("2", scores=[0.8, 0.802, 0.803])]).uneven is None


def test_a_cell_is_called_uneven_by_chance_in_5_of_100_sweeps_at_most() -> None:
    found = [analyse(["a"], noisy((2,), 2, number)).uneven is not None for number in range(200)]
    assert np.mean(found) <= 0.08


# Seed 2 scores ten points more than the others, and b has that seed alone.
BY_SEED = {"b": {"2": 0.89}, "a": {"0": 0.80, "1": 0.802, "2": 0.90}, "c": {"0": 0.79, "1": 0.80, "2": 0.90}}


def test_of_paired_cells_the_best_is_that_of_equal_seeds() -> None:
    analysis = analyse(["k"], [Sample((name,), scores) for name, scores in BY_SEED.items()], paired=True)
    assert analysis.best == 1
    assert [lead is None for lead in analysis.leads] == [False, True, False]


def test_paired_cells_that_share_no_seed_are_not_compared() -> None:
    apart = {**BY_SEED, "d": {"7": 0.99, "8": 0.98}}
    analysis = analyse(["k"], [Sample((name,), scores) for name, scores in apart.items()], paired=True)
    assert analysis.best == 1 and analysis.leads[3] is None and analysis.like_best[3]
