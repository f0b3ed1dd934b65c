"""How many seeds a comparison of two cells needs, by the noncentral t distribution."""

import math

from scipy import stats

ALPHA, POWER = 0.05, 0.8
MOST = 10_000  # seeds


def seeds_needed(sd: float, gap: float, *, power: float = POWER) -> int:
    """Seeds for each of two cells, so that a two-sided t test at 5 % finds a true difference of `gap` with this power.

    sd: between seeds, in the unit of `gap`. At least 2, at most MOST.
    """
    enough = 2
    while enough < MOST and power_of(enough, sd, gap) < power:
        enough = min(MOST, 2 * enough)
    low = max(2, enough // 2)
    while low < enough:
        middle = (low + enough) // 2
        low, enough = (low, middle) if power_of(middle, sd, gap) >= power else (middle + 1, enough)
    return enough


def power_of(n: int, sd: float, gap: float) -> float:
    """How often a two-sided t test at 5 % of two cells with n seeds each finds a true difference of `gap`."""
    df, shift = 2 * n - 2, gap / sd * math.sqrt(n / 2)
    if shift > 30:  # where scipy loses the tail: found in all cases but one in 1e9
        return 1.0
    limit = stats.t.ppf(1 - ALPHA / 2, df)
    return float(stats.nct.sf(limit, df, shift)) + float(stats.nct.cdf(-limit, df, shift))
