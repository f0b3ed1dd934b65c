"""The learning rate range test: what a run with rising learning rates tells, and the learning rates that it suggests.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2015 (arXiv 1506.01186).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from s9.config.schema import Config
from s9.tracking.folder import RunFolder

SCHEDULE = "s9.training.optim.exponential"
RATES = ("lr", "other_lr")  # the keys of an optimizer that its schedule multiplies
SUGGESTED = "suggested"  # key of the summary
FIGURE = "lr_range"
SPREAD = 0.15  # decades: standard deviation of the Gaussian that smooths the loss over the learning rate
MOST = 2.0  # times the loss at first: a larger one counts as that, and the test ends; else it would hide its neighbours
FALL = 0.1  # nats: a smoothed loss that falls by less tells nothing


class RangeTest(NamedTuple):
    """What a range test has measured, by point, from the lowest learning rate to the highest.

    factors: what all learning rates were multiplied by. losses: of train, in nats. smooth: the same, smoothed.
    best: the suggested factor; None where the loss has not fallen, or still falls at the last point.
    """

    factors: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    best: float | None


def is_range_test(config: Config) -> bool:
    """Whether the run's learning rates rise from its first step to its last."""
    return bool(config.scheduler["_target_"] == SCHEDULE)


def has_range_test(folder: RunFolder) -> bool:
    """Whether the run is a range test with at least one point."""
    there = all(path.is_file() and path.stat().st_size for path in (folder.config, folder.metrics))
    return there and SCHEDULE in folder.config.read_text(errors="replace")


def range_test(config: Config, records: Sequence[Mapping[str, float]]) -> RangeTest:
    """What the epochs of a range test tell; each epoch is a point, in the middle of its steps."""
    steps, losses = (np.array([record[key] for record in records]) for key in ("step", "train/loss"))
    per_epoch = records[0]["step"] / records[0]["epoch"]
    progress = (steps - (per_epoch + 1) / 2) / (per_epoch * config.trainer.epochs)
    low, high = (np.log10(config.scheduler[key]) for key in ("low", "high"))
    decades = low + (high - low) * progress  # of the factor, as optim.exponential has it
    weights = np.exp(-0.5 * ((decades[:, None] - decades) / SPREAD) ** 2)
    smooth = weights @ np.minimum(losses, MOST * losses[0]) / weights.sum(1)
    least = int(smooth.argmin())
    tells = smooth[0] - smooth[least] >= FALL and least < len(smooth) - 1
    return RangeTest(10**decades, losses, smooth, best=float(10 ** decades[least]) if tells else None)


def rates_at(config: Config, factor: float) -> dict[str, float]:
    """The optimizer's learning rates times `factor`, by key of the configuration, to two digits."""
    return {
        f"optimizer.{key}": float(f"{config.optimizer[key] * factor:.2g}") for key in RATES if key in config.optimizer
    }


def suggested(config: Config, records: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What the summary of a range test says besides: the suggested rates by key, or none; of other runs nothing."""
    if not is_range_test(config):
        return {}
    best = range_test(config, records).best
    return {SUGGESTED: {} if best is None else rates_at(config, best)}


def suggestion_in_words(rates: Mapping[str, float]) -> str:
    """The last line of a range test."""
    if not rates:
        return (
            "suggested: no learning rate, since the smoothed loss did not fall and rise again; the range lies around "
            "optimizer.lr: try another one, or more trainer.epochs"
        )
    keys = " ".join(f"{key}={value:g}" for key, value in rates.items())
    why = "where the smoothed loss was lowest; a starting point: a short test does not know how long a run will be"
    return f"suggested: {keys} ({why})"
