"""A study on disk, which all processes that search it share: its trials, and which of them trains next.

Optuna stores the trials and suggests parameters; which trial trains next is decided here, by the rules in rungs.py.
What Optuna has been told as a trial's end is final. So a paused trial stays RUNNING until the study has all its trials,
and is then told PRUNED; where more trials come later and promote it, a new Optuna trial continues it.

Every method holds the study's lock, so that processes together neither exceed the number of trials nor share one.
"""

import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import TrialState

from s9.config.identity import Identity, differences
from s9.config.study import StudyConfig
from s9.data.image_set import in_short
from s9.sweeps.journal import mend, open_storage
from s9.sweeps.rungs import furthest, next_rung, promotable, rung_epochs
from s9.sweeps.task import Outcome
from s9.sweeps.trials import OURS, Kept, Params, Trial, new_trial, suggest, trials_of
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.tracking.lock import RunLock

LIVES = 3  # deaths of a trial's process, as for want of memory, after which the trial has failed
SETTINGS = "s9"  # the user attribute of the Optuna study that holds what may not change


@dataclass(frozen=True)
class Next:
    """A trial to train now. how: begins, is promoted, is resumed, or cannot begin, as its configuration is refused."""

    trial: Trial
    how: str


Plan = Callable[[Params, int], str]  # the name of the folder for a run of these parameters and this seed


class Search:
    """The trials of a study as one search process sees and changes them.

    Args:
        folder: of the study, shared by all its processes. storage: the URL of a database; None: a journal in `folder`.
        epochs: of each trial. seed: of the first run of each parameters.
    """

    def __init__(self, folder: Path, study: StudyConfig, *, epochs: int, seed: int = 0, storage: str | None = None):
        self.folder, self.config, self.seed = folder, study, seed
        self.rungs = rung_epochs(study.rungs, epochs)
        self.name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.mine: set[int] = set()  # numbers of the trials that this process trains now
        self.over = False  # whether `next` found that every trial has ended or is paused for good
        self.lock = RunLock(folder / "study.lock", folder / "study.lease")
        self.processes: dict[str, RunLock] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._lock_of(self.name).acquire()
        with self._locked():
            self.storage = open_storage(folder, storage)
            self.optuna = optuna.create_study(
                storage=self.storage, study_name=folder.name, direction="maximize", load_if_exists=True
            )

    def settle(self, identity: Identity) -> None:
        """Notes, or compares, what all trials of the study have in common.

        Args:
            identity: of a run at one point of the space.

        Raises:
            UserError: the study was begun with other settings.
        """
        now = {"space": self.config.space, "rungs as epochs": self.rungs} | identity
        with self._locked():
            before = self.optuna.user_attrs.get(SETTINGS)
            if before is None:
                self.optuna.set_user_attr(SETTINGS, now)
            elif found := differences(before, now):
                own = "give this search a folder of its own: folder=outputs/studies/<name>"
                raise UserError(f"{self.folder}: holds a study with other settings: {in_short(found)}; {own}")

    def trials(self) -> list[Trial]:
        with self._locked():
            return trials_of(self.optuna)

    def next(self, total: int, plan: Plan) -> Next | None:
        """The trial to train now; None: other trials have to end first, or, where `over`, all have ended.

        Args:
            total: of all processes.
        """
        with self._locked():
            trials = trials_of(self.optuna)
            for trial in trials:
                if self._is_cut(trial):
                    return Next(self._take(trial), "is resumed")
            number = promotable(trials, self.rungs, self.config.keep)
            if number is not None:
                return Next(self._take(trials[number]), "is promoted")
            if len(trials) < total:
                trial = self._begin(trials, plan)
                return Next(trial, "begins" if trial.state == "running" else "cannot begin")
            if any(trial.state == "running" for trial in trials):
                return None
            number = furthest(trials)
            if number is not None:
                return Next(self._take(trials[number]), "is promoted")
            self.over = True
            for trial in trials:
                if trial.state == "paused" and not trial.stored.state.is_finished():
                    self.optuna.tell(trial.stored.number, state=TrialState.PRUNED)
            return None

    def until_epoch(self, trial: Trial) -> int | None:
        """Where the trial pauses next; None: at no epoch."""
        return next_rung(self.rungs, trial)

    def report(self, number: int, outcome: Outcome) -> Trial:
        """Notes how the run of a trial has ended, for now or for good; returns the trial as it is then."""
        with self._locked():
            self.mine.discard(number)
            trial = trials_of(self.optuna)[number]
            if trial.kept.owner != self.name or trial.state != "running":  # this process slept, and another took over
                return trial
            kept = replace(trial.kept, owner="")
            state = outcome.state
            if state in ("done", "paused") and outcome.value is None:
                state, outcome = "failed", Outcome("failed", "has no val images to compare trials by")
            if state == "interrupted" and outcome.exit_code == 128 + 9:
                kept = replace(kept, deaths=kept.deaths + 1)
                state = "failed" if kept.deaths >= LIVES else state
            if state == "failed":
                kept = replace(kept, reason=outcome.reason)
            if state == "paused":
                rung = next_rung(self.rungs, trial)
                assert rung is not None and outcome.value is not None
                kept = replace(kept, paused=True, rungs=kept.rungs | {str(rung): outcome.value})
                self._write(trial, kept)
                self.storage.set_trial_intermediate_value(trial.stored._trial_id, rung, outcome.value)
            else:
                self._write(trial, kept)
            if state == "done":
                self.optuna.tell(trial.stored.number, outcome.value)
            elif state == "failed":
                self.optuna.tell(trial.stored.number, state=TrialState.FAIL)
            return trials_of(self.optuna)[number]

    def close(self) -> None:
        """Ends this process's part; trials that it still trains may be taken by others."""
        self._lock_of(self.name).release()
        self._place_of(self.name).unlink(missing_ok=True)

    def _is_cut(self, trial: Trial) -> bool:
        """Whether the trial should be training and no process trains it."""
        if trial.state != "running" or trial.number in self.mine:
            return False
        owner = trial.kept.owner
        if owner not in ("", self.name):
            lock = self._lock_of(owner)
            if not lock.acquire():
                return False
            lock.release()
        run = self.folder / trial.kept.folder
        return not run.exists() or RunFolder(run).is_free()

    def _take(self, trial: Trial) -> Trial:
        kept = replace(trial.kept, owner=self.name, paused=False)
        if trial.stored.state.is_finished():
            self.optuna.add_trial(new_trial(self.config, trial.params, kept))
        else:
            self._write(trial, kept)
        self.mine.add(trial.number)
        return trials_of(self.optuna)[trial.number]

    def _begin(self, trials: Sequence[Trial], plan: Plan) -> Trial:
        """A new trial. Parameters that were suggested before get the next seed, so that no run is done twice."""
        params = suggest(self.config, trials)
        taken = {trial.kept.folder for trial in trials}
        kept = Kept(trial=len(trials), seed=self.seed + sum(t.params == params for t in trials), owner=self.name)
        state = TrialState.RUNNING
        try:
            while (folder := plan(params, kept.seed)) in taken:  # of other parameters, where a searched key is free
                kept = replace(kept, seed=kept.seed + 1)
            kept = replace(kept, folder=folder)
            self.mine.add(kept.trial)
        except UserError as error:
            kept, state = replace(kept, owner="", reason=str(error)), TrialState.FAIL
        self.optuna.add_trial(new_trial(self.config, params, kept, state=state))
        return trials_of(self.optuna)[kept.trial]

    def _write(self, trial: Trial, kept: Kept) -> None:
        self.storage.set_trial_user_attr(trial.stored._trial_id, OURS, asdict(kept))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        while not self.lock.acquire():
            time.sleep(0.02)
        try:
            mend(self.folder)
            yield
        finally:
            self.lock.release()

    def _place_of(self, process: str) -> Path:
        return self.folder / "processes" / f"{process}.lock"

    def _lock_of(self, process: str) -> RunLock:
        """The lock that the search process holds until its end."""
        place = self._place_of(process)
        place.parent.mkdir(parents=True, exist_ok=True)
        return self.processes.setdefault(process, RunLock(place, place.with_name(f"{place.stem}.lease")))
