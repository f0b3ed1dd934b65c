"""`python -m s9.tune`: searches a study in a pool of processes, says what happens to each trial, and shows the best."""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from s9.cli.best import write_best
from s9.cli.compose import with_model_of_donor
from s9.cli.launchers import environments
from s9.cli.study import AskedStudy, read_asked
from s9.config.components import allow_words
from s9.config.sweep import SweepConfig
from s9.runs.prepare import digest_of, fingerprint_of, identity_as_asked
from s9.runs.worker import work
from s9.sweeps.jobs import record
from s9.sweeps.local import LocalPool
from s9.sweeps.rungs import correlation, epochs_trained, ranked
from s9.sweeps.search import Search
from s9.sweeps.table import Row, show
from s9.sweeps.task import Outcome, Pool, Task
from s9.sweeps.trials import Params, Trial
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts
from s9.tracking.folder import RunFolder

LOOK_S = 0.3  # between looks at signals
ELSEWHERE_S = 2.0  # between looks at trials that other processes train
SAVES_S = 0.5  # of the time until the process must have ended, what is kept for the last lines
SHOWN = 10  # trials in the table
FAILURES = 3  # trials in a row that fail before any trial of the study has reached anything: the search stops


def tune(arguments: Sequence[str], interrupts: Interrupts, usage: str) -> int:
    """Searches until the study has as many trials as were asked for; returns the exit code.

    Raises:
        UserError: in one line, what is wrong; no trial has begun.
    """
    asked, config = read_asked(arguments, usage)
    images = fingerprint_of(config)
    epochs = config.trainer.epochs
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
        search = Search(asked.folder, asked.study, epochs=epochs, seed=asked.seed, storage=asked.storage)
    except OSError as error:
        raise UserError(f"{error.filename or asked.folder}: {error.strerror}; folder= names another place") from None
    try:
        search.settle(identity_as_asked(config, images))
        if not (trials := search.trials()):
            asked.check_space()
        places = environments("joblib", {"n_jobs": asked.jobs}, SweepConfig(), config)
        pool = LocalPool(work, places, asked.folder / ".workers")
        hunt = Hunt(asked=asked, search=search, pool=pool, images=images, epochs=epochs)
        at_one_point = replace(asked.asked, overrides=asked.arguments(asked.point, asked.seed))
        for line in (*with_model_of_donor(at_one_point)[1], f"{asked.folder}: {counted(trials, asked.trials)}"):
            hunt.say(line)
        code = hunted(hunt, interrupts, arguments)
    finally:
        search.close()
    return code


def hunted(hunt: "Hunt", interrupts: Interrupts, arguments: Sequence[str]) -> int:
    """Runs the search and shows what was found, however the search ends."""
    code = 0
    with interrupts:
        try:
            with interrupts.noted():
                hunt.run(interrupts)
        except Interrupted as stop:
            hunt.pool.stop(stop.number, interrupts.seconds_left() - SAVES_S)
            hunt.say(f"interrupted by {stop}; go on with: python -m s9.tune {shlex.join(arguments)}{allow_words()}")
            code = 128 + stop.number
        finally:
            hunt.pool.close()
    if code:
        return code
    if hunt.stopped:
        print(f"error: the search has stopped: the first {FAILURES} trials failed ({hunt.failed[-1]})", file=sys.stderr)
    return show_study(hunt)


@dataclass(kw_only=True)
class Hunt:
    """A search under way in this process. images: their fingerprint. epochs: of each trial."""

    asked: AskedStudy
    search: Search
    pool: Pool
    images: str | None
    epochs: int
    training: dict[Path, int] = field(default_factory=dict)  # from folders of runs to numbers of trials
    failed: list[str] = field(default_factory=list)  # reasons, until a trial of the study has reached anything

    def run(self, interrupts: Interrupts) -> None:
        """Trains until no trial is left for this process and none trains elsewhere. Raises Interrupted."""
        looked = 0.0
        while True:
            interrupts.stop_if_received()
            if self.pool.room() and time.monotonic() - looked >= ELSEWHERE_S:
                while self.pool.room() and not self.stopped and self.begin():
                    interrupts.stop_if_received()
                looked = time.monotonic()
            if self.search.over or (self.stopped and not self.training):
                return
            for task, outcome in self.pool.wait(LOOK_S):
                self.end(task, outcome)
                looked = 0.0

    @property
    def stopped(self) -> bool:
        return len(self.failed) >= FAILURES

    def begin(self) -> bool:
        """Starts the trial that comes next, if there is one now."""
        found = self.search.next(self.asked.trials, self.name_of)
        if found is None:
            return False
        trial, seed = found.trial, found.trial.kept.seed
        values = " ".join(f"{key}={value}" for key, value in trial.params.items())
        said = f"trial {trial.number} of {self.asked.trials} {found.how}: {values} seed={seed}"
        if trial.state == "failed":
            self.say(f"{said}: {trial.kept.reason}")
            self.note_failure(trial)
            return True
        until, folder = self.search.until_epoch(trial), self.asked.run_of(trial)
        self.say(f"{said}; to epoch {until or self.epochs} of {self.epochs}")
        self.training[folder] = trial.number
        command, config = self.asked.command(trial.params, seed), self.asked.config(trial.params, seed)
        swept = {key: str(value) for key, value in trial.params.items()} | {"seed": str(seed)}
        of_study: dict[str, Any] = {"group": self.asked.folder.name, "swept": swept}
        self.pool.start([Task(folder=folder, config=config, command=command, until_epoch=until, **of_study)])
        return True

    def name_of(self, params: Params, seed: int) -> str:
        """The folder's name of the run of these parameters. Raises UserError where they do not fit each other."""
        return digest_of(self.asked.config(params, seed), self.images)

    def end(self, task: Task, outcome: Outcome) -> None:
        """Notes and says how a run has ended."""
        if outcome.state != "taken":
            record(RunFolder(task.folder), outcome)
        trial = self.search.report(self.training.pop(task.folder), outcome)
        trials = self.search.trials()
        if trial.state == "running":
            self.say(f"trial {trial.number} was cut short and will be resumed: {outcome.reason}")
        elif trial.state == "failed":
            self.say(f"trial {trial.number} failed: {trial.kept.reason}")
            self.note_failure(trial)
        elif trial.state == "paused":
            at = ranked(trials, trial.rung)
            place = [one.number for one in at].index(trial.number) + 1
            value = trial.values[trial.rung]
            self.say(
                f"trial {trial.number}: val {percent(value)} at epoch {trial.rung}, number {place} of {len(at)} there"
            )
        else:
            best = best_of(trials)[0]
            ended = sum(one.state != "running" for one in trials)
            said = f"best so far {percent(best.end)} (trial {best.number}); {ended} of {self.asked.trials} trials"
            self.say(f"trial {trial.number}: val {percent(trial.end)} at its end; {said} have ended or wait")

    def note_failure(self, trial: Trial) -> None:
        if any(one.values or one.end is not None for one in self.search.trials()):
            self.failed.clear()
        else:
            self.failed.append(trial.kept.reason)

    def say(self, line: str) -> None:
        print(line, flush=True)


def counted(trials: Sequence[Trial], total: int) -> str:
    """`40 trials: 12 done, 3 paused, 25 to begin`."""
    states = Counter(trial.state for trial in trials)
    said = [f"{states[state]} {state}" for state in ("done", "paused", "running", "failed") if states[state]]
    begin = max(0, total - len(trials))
    return f"{total} trials: {', '.join([*said, *([f'{begin} to begin'] if begin else [])])}"


def best_of(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that have ended well, the best first; of equal ones, the one that began first."""
    return sorted((t for t in trials if t.end is not None), key=lambda t: (-(t.end or 0), t.number))


def percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.2f} %"


def show_study(hunt: Hunt) -> int:
    """Prints the best trials, how far the rungs can be trusted, and how to train the best again."""
    trials, asked = hunt.search.trials(), hunt.asked
    ended = best_of(trials)
    keys = [*asked.study.space, "seed"]
    show(keys, [row_of(asked, trial) for trial in ended[:SHOWN]], Console(highlight=False))
    for trial in trials:
        if trial.state == "failed":
            hunt.say(f"failed: trial {trial.number}: {trial.kept.reason}")
    hunt.say(counted(trials, asked.trials))
    for rung in hunt.search.rungs:
        hunt.say(
            f"rank correlation of epoch {rung} with the end, of the trials trained to it: {correlation(trials, rung)}"
        )
    trained, whole = epochs_trained(trials, hunt.epochs)
    if whole:
        hunt.say(f"epochs: {trained} of the {whole} without rungs, {100 * (1 - trained / whole):.0f} % saved")
    if not ended:
        return 1
    command = write_best(asked, ended[0], len(ended))
    hunt.say(f"best: trial {ended[0].number}, val {percent(ended[0].end)}; train it again with: {command}")
    return 0


def row_of(asked: AskedStudy, trial: Trial) -> Row:
    folder = asked.run_of(trial)
    values = {key: str(value) for key, value in trial.params.items()} | {"seed": str(trial.kept.seed)}
    return Row(
        job=str(trial.number),
        values=values,
        state=trial.state,
        accuracy=trial.end,
        minutes=RunFolder(folder).read_status().get("minutes"),
        folder=str(folder),
    )
