"""Values, differences and probabilities of a sweep's answer, as people read them."""

from collections.abc import Mapping, Sequence

from s9.sweeps.analysis import Difference
from s9.sweeps.power import MOST


def named(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items()) or "the only cell"


def points(value: float | None) -> str:
    """A fraction in percent or points."""
    return "" if value is None else f"{100 * value:.2f}"


def size_of(difference: Difference) -> str:
    return f"{points(abs(difference.mean))} points"


def signed(difference: Difference) -> str:
    return f"{size_of(difference)} {'higher' if difference.mean >= 0 else 'lower'}"


def interval_of(difference: Difference) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def seen_from(value: str, difference: Difference) -> Difference:
    if difference.first == value:
        return difference
    d = difference
    return Difference(d.second, d.first, mean=-d.mean, low=-d.high, high=-d.low, p=d.p)


def p_of(p: float) -> str:
    return "p below 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def count_of(seeds: int) -> str:
    return f"{seeds:,}" if seeds < MOST else f"more than {MOST:,}"


def listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
