"""A study: which space `python -m s9.tune` searches, and where its trials pause. Values are in conf/study/."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from s9.system.errors import UserError, is_number, nearest, require

# Keys that a space cannot have, by their first part, each with the reason.
NOT_SEARCHED = {
    "seed": "parameters that are suggested again get the next seed by themselves",
    "trainer.epochs": "the rungs are fractions of one number of epochs",
    "data": "the val accuracies of different images cannot be compared",
    "experiment": "an experiment may set the searched keys, and the epochs",
    "sweep": "a search has no sweep in it",
    "hydra": "trials are not started by Hydra",
    "name": "changes no result",
    "wandb": "changes no result",
}
RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included: whole ones if low, high and step are. step: null for any number."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        return not any(isinstance(value, float) for value in (self.low, self.high, self.step))


Choices = tuple[Any, ...]


@dataclass
class SamplerConfig:
    """Optuna's TPESampler."""

    seed: int = MISSING
    n_startup_trials: int = MISSING  # drawn at random, before the sampler learns from what has ended

    def __post_init__(self) -> None:
        require("study.sampler.seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")
        require("study.sampler.n_startup_trials", self.n_startup_trials, self.n_startup_trials >= 1, "1 or more")


@dataclass
class StudyConfig:
    """What all trials share, the space they are drawn from, and which of them are promoted."""

    overrides: list[str] = MISSING  # arguments of s9.train that all trials share
    space: dict[str, Any] = MISSING  # from keys to a range {low, high, log, step} or a list of choices
    rungs: list[float] = MISSING  # fractions of the epochs where a trial pauses; []: every trial is trained to its end
    keep: float = MISSING  # fraction of the trials at a rung that may be promoted
    sampler: SamplerConfig = MISSING

    def __post_init__(self) -> None:
        require("study.space", self.space, bool(self.space), "a mapping from keys to ranges or lists of choices")
        for key, spec in self.space.items():
            parts = key.split(".")
            for name in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
                if name in NOT_SEARCHED:
                    raise UserError(f"study.space.{key}: cannot be searched: {NOT_SEARCHED[name]}")
            spec_of(key, spec)
        rising = all(before < after for before, after in pairwise(self.rungs))
        inside = all(0 < rung < 1 for rung in self.rungs)
        require("study.rungs", self.rungs, rising and inside, "rising fractions of the epochs, such as [0.25, 0.5]")
        require("study.keep", self.keep, 0 < self.keep < 1, "more than 0 and less than 1")

    @property
    def specs(self) -> dict[str, Range | Choices]:
        return {key: spec_of(key, spec) for key, spec in self.space.items()}


def spec_of(key: str, given: Any) -> Range | Choices:
    """The values that a key of the space may take. Raises UserError in one line."""
    place = f"study.space.{key}"
    if isinstance(given, list):
        plain = all(value is None or isinstance(value, str | int | float) for value in given)
        require(place, given, plain and len(given) > 1, "two or more single values")
        different = len({(type(value), value) for value in given}) == len(given)
        require(place, given, different, "different values")
        return tuple(given)
    if not isinstance(given, dict):
        raise UserError(f"{place}={given}: must be a list of choices, or a range such as {{low: 0.01, high: 0.1}}")
    for name in given:
        if name not in RANGE_KEYS:
            raise UserError(f"{place}.{name}: there is no such key{nearest(str(name), RANGE_KEYS)}")
    low, high, log, step = (given.get(name) for name in RANGE_KEYS)
    for name, value in (("low", low), ("high", high)):
        require(f"{place}.{name}", value, is_number(value) and math.isfinite(value or 0), "a number")
    assert low is not None and high is not None
    require(f"{place}.high", high, high > low, f"more than low={low}")
    require(f"{place}.log", log, log in (None, True, False), "true or false")
    require(f"{place}.low", low, not log or low > 0, "more than 0 with log=true")
    require(f"{place}.step", step, step is None or not log, "left out with log=true")
    require(f"{place}.step", step, step is None or (is_number(step) and step > 0), "a number more than 0")
    steps = (high - low) / (step or high - low)
    fits = steps >= 1 and abs(steps - round(steps)) < 1e-6
    require(f"{place}.step", step, fits, f"a whole part of the range from {low} to {high}")
    return Range(low, high, bool(log), step)


def read_study(path: Path, changes: Sequence[str] = ()) -> StudyConfig:
    """The study in `path`, with changes such as `study.keep=0.3`.

    Raises:
        UserError: in one line, what is wrong with which key.
    """
    try:
        stored = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    known = [f.name for f in fields(StudyConfig)]
    for name in [*stored, *(change.removeprefix("study.").partition("=")[0].partition(".")[0] for change in changes)]:
        if name not in known:
            raise UserError(f"study.{name}: there is no such key{nearest(str(name), known)}")
    try:
        changed = OmegaConf.from_dotlist([change.removeprefix("study.") for change in changes])
        merged = OmegaConf.merge(OmegaConf.structured(StudyConfig), stored, changed)
        study = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError) as error:
        key = getattr(error, "full_key", None) or "study"
        raise UserError(f"{path}: {key}: {str(error).splitlines()[0]}") from None
    assert isinstance(study, StudyConfig)
    return study
