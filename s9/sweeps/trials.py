"""The trials of a study as Optuna stores them, and the parameters that Optuna's sampler suggests for the next one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from s9.config.study import Choices, Range, StudyConfig
from s9.sweeps.rungs import Standing

OURS = "s9"  # the user attribute of an Optuna trial that holds a `Kept`
DIGITS = 4  # of a number without steps, so that a command with that number can be read
STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "paused", TrialState.FAIL: "failed"}

Params = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What Optuna has no place for. Written whole, so that a killed process leaves all of it or nothing.

    trial: the number, from 0; that of an Optuna trial differs where one continues another. folder: the name of the
    run's; "": the trial could not be composed. owner: the search process that trains the trial, or died while it did;
    "": none. deaths: of the run's process. rungs: val accuracy there, by epoch, as text for JSON.
    """

    trial: int
    seed: int
    folder: str = ""
    owner: str = ""
    paused: bool = False
    rungs: dict[str, float] = field(default_factory=dict)
    deaths: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Trial(Standing):
    """One trial of the study. stored: the newest Optuna trial of it."""

    params: Params
    kept: Kept
    stored: FrozenTrial


def trials_of(study: optuna.Study) -> list[Trial]:
    """The study's trials by number. What other programs have added is left out."""
    found: dict[int, Trial] = {}
    for stored in study.get_trials(deepcopy=False):
        if OURS not in stored.user_attrs:
            continue
        kept = Kept(**stored.user_attrs[OURS])
        found[kept.trial] = Trial(
            number=kept.trial,
            state=STATES.get(stored.state, "paused" if kept.paused else "running"),
            values={int(epoch): value for epoch, value in kept.rungs.items()},
            end=stored.value if stored.state == TrialState.COMPLETE else None,
            params=stored.params,
            kept=kept,
            stored=stored,
        )
    return [found[number] for number in sorted(found)]


def distributions(study: StudyConfig) -> dict[str, BaseDistribution]:
    return {key: _distribution(spec) for key, spec in study.specs.items()}


def _distribution(spec: Range | Choices) -> BaseDistribution:
    if not isinstance(spec, Range):
        return CategoricalDistribution(spec)
    if spec.whole:
        return IntDistribution(int(spec.low), int(spec.high), log=spec.log, step=int(spec.step or 1))
    return FloatDistribution(spec.low, spec.high, log=spec.log, step=spec.step)


def new_trial(study: StudyConfig, params: Params, kept: Kept, *, state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    values = {int(epoch): value for epoch, value in kept.rungs.items()}
    return create_trial(
        state=state,
        params=params,
        distributions=distributions(study),
        user_attrs={OURS: asdict(kept)},
        intermediate_values=values,
    )


def suggest(study: StudyConfig, trials: Sequence[Trial]) -> Params:
    """What TPE suggests after these trials; paused ones count as pruned, by their values at the rungs.

    The same trials give the same suggestion in every process: the sampler's seed is made from the study's and their
    number.
    """
    settings = study.sampler
    sampler = TPESampler(
        seed=(settings.seed * 1_000_003 + len(trials)) % 2**32,
        n_startup_trials=settings.n_startup_trials,
        constant_liar=True,  # keeps trials that train at the same time apart
    )
    memory = optuna.create_study(direction="maximize", sampler=sampler)
    memory.add_trials([_as_known(study, trial) for trial in trials])
    suggested = memory.ask(distributions(study)).params
    return {key: _short(suggested[key], spec) for key, spec in study.specs.items()}


def _as_known(study: StudyConfig, trial: Trial) -> FrozenTrial:
    state = {"done": TrialState.COMPLETE, "paused": TrialState.PRUNED, "failed": TrialState.FAIL}.get(trial.state)
    return create_trial(
        state=state or TrialState.RUNNING,
        value=trial.end,
        params=trial.params,
        distributions=distributions(study),
        intermediate_values=trial.values,
    )


def _short(value: Any, spec: Range | Choices) -> Any:
    """A number in few digits, inside its range: what is stored is then what is trained, and what people read."""
    if not isinstance(spec, Range) or spec.whole:
        return value
    short = float(f"{value:.{DIGITS}g}") if spec.step is None else float(f"{value:.12g}")
    return min(max(short, float(spec.low)), float(spec.high))
