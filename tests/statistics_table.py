"""The table of s9/sweeps/README.md: false alarms and power in made-up sweeps.   python -m tests.statistics_table

Scores are normal with one standard deviation (sd). `effect`: the second value of the first key is better by so many sd.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s9.sweeps.analysis import Analysis, Sample
from s9.sweeps.statistics import analyse

DESIGNS = [((3, 3, 3), 2), ((3, 3, 3), 3), ((3, 3, 3), 5), ((3, 3), 3), ((3, 3), 5), ((3, 3), 8), ((4,), 3), ((4,), 8)]
MEAN, SD = 0.85, 0.003


def made_up(shape: Sequence[int], seeds: int, effect: float, rng: np.random.Generator) -> list[Sample]:
    """A sweep of len(shape) keys."""
    cells = itertools.product(*(range(count) for count in shape))
    return [
        Sample(
            tuple(map(str, cell)),
            {str(seed): MEAN + SD * (effect * (cell[0] == 1) + rng.standard_normal()) for seed in range(seeds)},
        )
        for cell in cells
    ]


@dataclass
class Rates:
    """Parts of the sweeps. alarm: anything was declared that is not so; found: the key that has an effect."""

    alarm: float
    found: float


def rates(shape: Sequence[int], seeds: int, effect: float, repeats: int) -> Rates:
    rng = np.random.default_rng([*shape, seeds, round(100 * effect)])
    keys = "abc"[: len(shape)]
    analyses = [analyse(keys, made_up(shape, seeds, effect, rng)) for _ in range(repeats)]
    found = sum(analysis.effects[0].differs for analysis in analyses) / repeats
    return Rates(sum(false_alarm(analysis, effect) for analysis in analyses) / repeats, found)


def false_alarm(analysis: Analysis, effect: float) -> bool:
    """Whether it declares something that is not so: without an effect that is anything, with one the other keys."""
    others = [*(one.differs for one in analysis.effects[1:]), *(one.differs for one in analysis.interactions)]
    return any(others) if effect else analysis.declared


def naive(repeats: int = 200_000) -> float:
    """How often the best of nine equal cells with three seeds leads the next by more than its own sd."""
    scores = np.random.default_rng(0).standard_normal((repeats, 9, 3))
    means, sds = scores.mean(2), scores.std(2, ddof=1)
    *_, second, best = np.sort(means).T
    return float((best - second > sds[np.arange(repeats), means.argmax(1)]).mean())


def main(repeats: int) -> None:
    columns = (
        "grid, seeds a cell",
        "nothing differs: anything is declared",
        "1 sd: found",
        "2 sd: found",
        "others declared",
    )
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|")
    for shape, seeds in DESIGNS:
        none, one, two = (rates(shape, seeds, effect, repeats) for effect in (0.0, 1.0, 2.0))
        said = " | ".join(f"{100 * part:.1f} %" for part in (none.alarm, one.found, two.found))
        said += f" | {100 * two.alarm:.1f} %" if len(shape) > 1 else " | -"
        print(f"| {' x '.join(map(str, shape))}, {seeds} | {said} |", flush=True)
    print(f"nine equal cells, three seeds: the best leads by more than its own sd in {100 * naive():.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
