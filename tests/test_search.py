"""A study on disk: which trial trains next, what is shared by all its processes, and what survives their deaths."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from s9.config.study import SamplerConfig, StudyConfig
from s9.sweeps.rungs import Standing, correlation, epochs_trained, furthest, next_rung, promotable, rung_epochs
from s9.sweeps.search import LIVES, Next, Search
from s9.sweeps.task import Outcome
from s9.sweeps.trials import Params
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from tests.doors import ROOT

EPOCHS = 12
SPACE = {"model.dropout": {"low": 0.0, "high": 0.3, "step": 0.1}, "optimizer.lr": {"low": 0.01, "high": 0.1}}
KILLED = Outcome("interrupted", "killed by SIGKILL", exit_code=128 + 9)
HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.test_search import begun, searching
search = searching(Path(sys.argv[1]))
print(begun(search).trial.number, flush=True)
time.sleep(600)
"""


# Rungs


def paused(number: int, **values: float) -> Standing:
    return Standing(number=number, state="paused", values={int(epoch[1:]): value for epoch, value in values.items()})


def test_rungs_are_whole_epochs_before_the_last() -> None:
    assert rung_epochs([0.25, 0.5], 12) == [3, 6]


def test_rungs_that_fall_together_are_one() -> None:
    assert rung_epochs([0.1, 0.25, 0.5], 2) == [1]


def test_a_single_epoch_has_no_rung() -> None:
    assert rung_epochs([0.25, 0.5], 1) == []


def test_a_trial_pauses_at_the_next_rung() -> None:
    assert [next_rung([3, 6], paused(0, **values)) for values in ({}, {"e3": 0.5}, {"e3": 0.5, "e6": 0.6})] == [
        3,
        6,
        None,
    ]


def test_a_trial_alone_at_its_rung_waits() -> None:
    assert promotable([paused(0, e3=0.5)], [3, 6], 0.5) is None


def test_the_better_of_two_is_promoted() -> None:
    assert promotable([paused(0, e3=0.5), paused(1, e3=0.6)], [3, 6], 0.5) == 1


def test_of_equal_ones_the_first_is_promoted() -> None:
    assert promotable([paused(0, e3=0.5), paused(1, e3=0.5)], [3, 6], 0.5) == 0


def test_those_that_were_promoted_count_among_the_better_part() -> None:
    gone_on = Standing(number=0, state="running", values={3: 0.9})
    assert promotable([gone_on, paused(1, e3=0.5), paused(2, e3=0.6)], [3, 6], 0.5) is None


def test_the_one_nearest_to_its_end_is_promoted_first() -> None:
    trials = [paused(0, e3=0.5, e6=0.6), paused(1, e3=0.4, e6=0.5), paused(2, e3=0.9), paused(3, e3=0.8)]
    assert promotable(trials, [3, 6], 0.5) == 0


def test_a_trial_that_failed_behind_a_rung_is_not_promoted() -> None:
    failed = Standing(number=0, state="failed", values={3: 0.9})
    assert promotable([failed, paused(1, e3=0.5)], [3, 6], 0.5) is None


def test_the_better_part_is_not_one_less_by_rounding() -> None:
    trials = [paused(number, e3=number / 10) for number in range(10)]
    left = [Standing(number=t.number, state="done", values=t.values) if t.number > 3 else t for t in trials]
    assert promotable(left, [3], 0.7) == 3


def test_where_no_trial_would_reach_the_end_the_best_of_the_furthest_does() -> None:
    assert furthest([paused(0, e3=0.9), paused(1, e3=0.4, e6=0.5), paused(2, e3=0.4, e6=0.6)]) == 2


def test_where_a_trial_has_reached_the_end_all_others_wait() -> None:
    assert furthest([paused(0, e3=0.9), Standing(number=1, state="done", end=0.5)]) is None


def test_equal_orders_correlate_fully() -> None:
    trials = [Standing(number=n, state="done", values={3: n / 10}, end=n / 5) for n in range(5)]
    found = correlation(trials, 3)
    assert found.rank == pytest.approx(1) and found.n == 5


def test_opposite_orders_correlate_negatively() -> None:
    trials = [Standing(number=n, state="done", values={3: n / 10}, end=-n / 5) for n in range(5)]
    assert correlation(trials, 3).rank == pytest.approx(-1)


def test_of_three_trials_no_correlation_is_told() -> None:
    trials = [Standing(number=n, state="done", values={3: n / 10}, end=n / 5) for n in range(3)]
    assert str(correlation(trials, 3)) == "too few (3 trials)"


def test_of_equal_values_no_correlation_is_told() -> None:
    trials = [Standing(number=n, state="done", values={3: 0.5}, end=n / 5) for n in range(5)]
    assert correlation(trials, 3).rank is None


def test_paused_trials_have_saved_the_epochs_after_their_rung() -> None:
    trials = [Standing(number=0, state="done", values={3: 0.5}, end=0.9), paused(1, e3=0.1), paused(2, e3=0.2, e6=0.3)]
    assert epochs_trained(trials, EPOCHS) == (12 + 3 + 6, 36)


# The study on disk


def searching(folder: Path, *, storage: str | None = None, **changed: object) -> Search:
    settings = {"overrides": [], "space": SPACE, "rungs": [0.25, 0.5], "keep": 0.5} | changed
    study = StudyConfig(**settings, sampler=SamplerConfig(seed=0, n_startup_trials=3))  # type: ignore[arg-type]
    return Search(folder, study, epochs=EPOCHS, storage=storage)


def named(params: Params, seed: int) -> str:
    return f"{'-'.join(str(value) for value in params.values())}-{seed}"


def begun(search: Search, total: int = 40, plan: Callable[[Params, int], str] = named) -> Next:
    found = search.next(total, plan)
    assert found is not None
    return found


def done(search: Search, value: float, total: int = 40) -> int:
    """Trains a trial to its end; returns its number."""
    trial = begun(search, total).trial
    search.report(trial.number, Outcome("done", value=value))
    return trial.number


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return searching(tmp_path / "study")


@pytest.fixture
def whole(tmp_path: Path) -> Search:
    """A study without rungs."""
    return searching(tmp_path / "study", rungs=[])


def test_there_are_as_many_trials_as_were_asked_for(whole: Search) -> None:
    assert [done(whole, 0.5, total=3) for _ in range(3)] == [0, 1, 2]
    assert (whole.next(3, named), whole.over) == (None, True)


def test_two_processes_share_the_number_of_trials(tmp_path: Path, whole: Search) -> None:
    other = searching(tmp_path / "study", rungs=[])
    found = [s.next(5, named) for _ in range(4) for s in (whole, other)]
    assert [one.trial.number if one else None for one in found] == [0, 1, 2, 3, 4, None, None, None]


def test_a_process_waits_for_the_trials_of_another(tmp_path: Path, whole: Search) -> None:
    begun(whole)
    other = searching(tmp_path / "study", rungs=[])
    assert (other.next(1, named), other.over) == (None, False)


def test_the_trials_are_there_for_a_later_process(tmp_path: Path, whole: Search) -> None:
    done(whole, 0.5)
    whole.close()
    assert [trial.end for trial in searching(tmp_path / "study").trials()] == [0.5]


def test_more_trials_can_be_asked_for_later(whole: Search) -> None:
    done(whole, 0.5, total=1)
    assert begun(whole, total=2).trial.number == 1


def test_the_same_trials_give_the_same_suggestion_in_another_process(tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        one = searching(tmp_path / folder, rungs=[])
        for value in (0.1, 0.5, 0.3, 0.4):
            done(one, value)
            one.close()
            one = searching(tmp_path / folder, rungs=[])
        found.append([trial.params for trial in one.trials()])
    assert found[0] == found[1]


def test_what_is_stored_is_what_is_trained(whole: Search) -> None:
    begun(whole)
    params = [dict(trial.params) for trial in whole.trials()]
    assert params[0]["optimizer.lr"] == float(f"{params[0]['optimizer.lr']:.4g}")


def test_parameters_that_come_again_get_the_next_seed(tmp_path: Path) -> None:
    search = searching(tmp_path / "study", rungs=[], space={"model.dropout": [0.0, 0.1]})
    for _ in range(6):
        done(search, 0.5)
    seeds: dict[float, list[int]] = {}
    for trial in search.trials():
        seeds.setdefault(trial.params["model.dropout"], []).append(trial.kept.seed)
    assert all(of == list(range(len(of))) for of in seeds.values()) and sum(map(len, seeds.values())) == 6


def test_other_parameters_that_compute_the_same_get_the_next_seed(whole: Search) -> None:
    for _ in range(3):
        number = begun(whole, plan=lambda params, seed: f"run-{seed}").trial.number
        whole.report(number, Outcome("done", value=0.5))
    assert [trial.kept.folder for trial in whole.trials()] == ["run-0", "run-1", "run-2"]


def test_a_failed_trial_is_recorded_and_passed_over(whole: Search) -> None:
    begun(whole)
    whole.report(0, Outcome("failed", "the loss is nan", exit_code=1))
    assert (whole.trials()[0].state, whole.trials()[0].kept.reason) == ("failed", "the loss is nan")
    assert begun(whole).trial.number == 1


def test_a_trial_whose_configuration_is_refused_is_recorded_and_passed_over(whole: Search) -> None:
    def refuse(params: Params, seed: int) -> str:
        raise UserError("optimizer.lr=1: must be less")

    found = begun(whole, plan=refuse)
    assert (found.how, found.trial.kept.reason) == ("cannot begin", "optimizer.lr=1: must be less")
    assert begun(whole).trial.number == 1


def test_without_val_a_trial_has_failed(whole: Search) -> None:
    begun(whole)
    assert whole.report(0, Outcome("done", value=None)).state == "failed"


def test_a_signalled_run_is_resumed(whole: Search) -> None:
    begun(whole)
    whole.report(0, Outcome("interrupted", "SIGTERM", exit_code=143))
    found = begun(whole)
    assert (found.trial.number, found.how) == (0, "is resumed")


def test_a_run_whose_process_dies_again_and_again_has_failed(whole: Search) -> None:
    states = []
    for _ in range(LIVES):
        begun(whole)
        states.append(whole.report(0, KILLED).state)
    assert states == ["running"] * (LIVES - 1) + ["failed"]


# At the rungs


def pause(search: Search, value: float, total: int = 40) -> Next:
    found = begun(search, total)
    search.report(found.trial.number, Outcome("paused", value=value))
    return found


def test_a_trial_pauses_with_its_value(search: Search) -> None:
    pause(search, 0.4)
    assert (search.trials()[0].state, search.trials()[0].values) == ("paused", {3: 0.4})


def test_the_better_half_is_promoted_before_another_trial_begins(search: Search) -> None:
    pause(search, 0.4)
    pause(search, 0.5)
    found = begun(search)
    assert (found.trial.number, found.how, search.until_epoch(found.trial)) == (1, "is promoted", 6)


def test_a_trial_that_is_promoted_twice_trains_to_its_end(search: Search) -> None:
    for value in (0.4, 0.5, 0.6, 0.3, 0.2, 0.3):
        pause(search, value)
    found = begun(search)
    assert (found.trial.values, search.until_epoch(found.trial)) == ({3: 0.5, 6: 0.6}, None)


def test_optuna_has_the_values_at_the_rungs(tmp_path: Path, search: Search) -> None:
    pause(search, 0.4)
    assert stored(tmp_path / "study")[0].intermediate_values == {3: 0.4}


def stored(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """What Optuna itself reads from the journal."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    return optuna.load_study(study_name="study", storage=optuna.storages.JournalStorage(backend)).trials


def ended_study(search: Search) -> None:
    """Two trials; the second is better at every rung and is trained to its end."""
    for value in (0.4, 0.5, 0.6):
        pause(search, value, total=2)
    assert done(search, 0.7, total=2) == 1
    assert search.next(2, named) is None and search.over


def test_what_was_never_promoted_is_pruned_at_the_end_of_the_study(tmp_path: Path, search: Search) -> None:
    ended_study(search)
    found = [(trial.state, trial.intermediate_values) for trial in stored(tmp_path / "study")]
    assert found == [(TrialState.PRUNED, {3: 0.4}), (TrialState.COMPLETE, {3: 0.5, 6: 0.6})]


def test_while_trials_are_to_come_nothing_is_pruned(tmp_path: Path, search: Search) -> None:
    pause(search, 0.4)
    assert stored(tmp_path / "study")[0].state == TrialState.RUNNING


def test_when_more_trials_come_a_pruned_one_may_still_be_promoted(tmp_path: Path, search: Search) -> None:
    ended_study(search)
    other = searching(tmp_path / "study")
    pause(other, 0.1, total=4)
    pause(other, 0.1, total=4)
    found = begun(other, total=4)
    assert (found.trial.number, found.how, found.trial.values) == (0, "is promoted", {3: 0.4})


def test_a_trial_that_was_pruned_and_promoted_counts_once(tmp_path: Path, search: Search) -> None:
    ended_study(search)
    for value in (0.1, 0.1, 0.7):
        pause(search, value, total=4)
    assert [trial.number for trial in search.trials()] == [0, 1, 2, 3]
    assert [trial.user_attrs["s9"]["trial"] for trial in stored(tmp_path / "study")] == [0, 1, 2, 3, 0]


# Deaths


@pytest.fixture
def holder(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that trains trial 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "study", str(ROOT)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "0\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_trial_of_a_living_process_is_left_alone(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    try:
        assert begun(searching(tmp_path / "study")).trial.number == 1
    finally:
        kill(holder)


def test_a_trial_of_a_killed_process_is_resumed_first(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    kill(holder)
    found = begun(searching(tmp_path / "study"))
    assert (found.trial.number, found.how) == (0, "is resumed")


def test_only_one_process_takes_over_a_killed_one(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    kill(holder)
    both = [searching(tmp_path / "study") for _ in range(2)]
    assert [begun(search).trial.number for search in both] == [0, 1]


def test_a_run_that_outlives_the_killed_process_is_left_alone(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    kill(holder)
    search = searching(tmp_path / "study")
    run = tmp_path / "study" / search.trials()[0].kept.folder
    run.mkdir()
    lock = RunFolder(run).claim()
    assert begun(search).trial.number == 1
    lock.release()
    assert begun(search).trial.number == 0


def test_a_process_that_was_replaced_changes_nothing(tmp_path: Path, whole: Search) -> None:
    begun(whole)
    whole.close()  # as if it had died
    other = searching(tmp_path / "study", rungs=[])
    begun(other)
    assert whole.report(0, Outcome("failed", "slept")).state == "running"
    assert other.report(0, Outcome("done", value=0.5)).state == "done"


def test_half_a_line_in_the_journal_loses_nothing(tmp_path: Path, whole: Search) -> None:
    done(whole, 0.5)
    with (tmp_path / "study" / "journal.log").open("a") as file:
        file.write('{"op_code": 4, "wor')
    assert done(whole, 0.6) == 1
    assert [trial.end for trial in searching(tmp_path / "study", rungs=[]).trials()] == [0.5, 0.6]
    for line in (tmp_path / "study" / "journal.log").read_text().splitlines():
        json.loads(line)


# Settings


def test_a_study_with_another_space_is_refused(tmp_path: Path, search: Search) -> None:
    search.settle({"model": {"dropout": 0.0}})
    other = searching(tmp_path / "study", space=SPACE | {"optimizer.lr": {"low": 0.01, "high": 0.2}})
    with pytest.raises(UserError, match=r"holds a study with other settings: space.optimizer.lr.high was 0.1, is 0.2"):
        other.settle({"model": {"dropout": 0.0}})


def test_a_study_of_other_runs_is_refused(tmp_path: Path, search: Search) -> None:
    search.settle({"trainer": {"epochs": 12.0}})
    with pytest.raises(UserError, match=r"trainer.epochs was 12, is 13"):
        searching(tmp_path / "study").settle({"trainer": {"epochs": 13.0}})


def test_a_study_may_keep_another_part_later(tmp_path: Path, search: Search) -> None:
    search.settle({"seed": 0.0})
    searching(tmp_path / "study", keep=0.3).settle({"seed": 0.0})


def test_a_database_holds_a_study_as_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    done(searching(tmp_path / "study", storage=url, rungs=[]), 0.5)
    assert [trial.end for trial in searching(tmp_path / "study", storage=url, rungs=[]).trials()] == [0.5]


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^storage=nonsense: cannot be opened"):
        searching(tmp_path / "study", storage="nonsense")
