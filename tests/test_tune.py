"""python -m s9.tune: real searches on runs of seconds, killed and shared; its mistakes; the best as an experiment."""

import os
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from s9.cli.best import as_experiment, command_of
from s9.cli.compose import Asked, checked, compose
from s9.cli.grid import as_argument
from s9.cli.help import CONF
from s9.cli.launch import asked_of, read_flags
from s9.cli.study import read_asked
from s9.config.study import read_study
from s9.sweeps.journal import JOURNAL
from s9.sweeps.search import Search
from s9.sweeps.trials import Trial
from s9.system.errors import UserError
from tests.conftest import composed
from tests.doors import (
    SMALL,
    Done,
    Started,
    command,
    environment,
    error_line,
    left,
    nobody_left,
    run,
    started,
    status,
    until,
)
from tests.processes import content, differing, finish, state

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
ONE_KEY = "space: { optimizer.lr: [0.02, 0.2] }"
RANGE = "space: { optimizer.lr: { low: 0.01, high: 0.5, log: true }, model.dropout: [0.0, 0.1] }"
EPOCHS = 4
RUNS = [*SMALL, f"trainer.epochs={EPOCHS}", "trainer.steps_per_epoch=4"]
RUNS = [word for word in RUNS if not word.startswith("optimizer.lr")]


def write_study(folder: Path, space: str = RANGE, rungs: str = "[0.25, 0.5]") -> list[str]:
    """A study of quick runs; returns the arguments that search it."""
    place = folder / "conf" / "study" / "quick.yaml"
    place.parent.mkdir(parents=True, exist_ok=True)
    overrides = ", ".join(f'"{word}"' for word in RUNS)
    sampler = "sampler: { seed: 0, n_startup_trials: 3 }"
    place.write_text(f"overrides: [{overrides}]\n{space}\nrungs: {rungs}\nkeep: 0.5\n{sampler}\n")
    return ["--config-dir", "conf", "study=quick"]


def study_folder(folder: Path) -> Path:
    return folder / "outputs" / "studies" / "quick"


def trials_in(folder: Path) -> list[Trial]:
    """The trials of the study that a door in `folder` has searched."""
    study = read_study(folder / "conf" / "study" / "quick.yaml")
    search = Search(study_folder(folder), study, epochs=EPOCHS)
    search.close()
    return search.trials()


def folders_in(folder: Path) -> list[str]:
    """The names of the runs' folders."""
    return sorted(path.parent.name for path in study_folder(folder).glob("*/config.yaml"))


# A search from its start to its end


@dataclass(frozen=True)
class Searched:
    folder: Path
    done: Done
    trials: list[Trial]

    def run_of(self, trial: Trial) -> Path:
        return study_folder(self.folder) / trial.kept.folder

    @property
    def best(self) -> Trial:
        return max((trial for trial in self.trials if trial.end is not None), key=lambda trial: trial.end or 0)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("searched")
    done = run(folder, "tune", *write_study(folder), "trials=6")
    assert done.returncode == 0, done.stderr + done.stdout
    return Searched(folder, done, trials_in(folder))


@pytest.mark.slow
def test_a_study_has_the_trials_that_were_asked_for(searched: Searched) -> None:
    assert [trial.number for trial in searched.trials] == list(range(6))
    assert folders_in(searched.folder) == sorted(trial.kept.folder for trial in searched.trials)


@pytest.mark.slow
def test_some_trials_are_trained_to_their_end_and_the_others_wait(searched: Searched) -> None:
    states = [trial.state for trial in searched.trials]
    assert set(states) == {"done", "paused"}
    assert [state(searched.run_of(trial)) for trial in searched.trials] == states


@pytest.mark.slow
def test_a_promoted_trial_has_the_bytes_of_a_run_that_never_paused(searched: Searched, tmp_path: Path) -> None:
    trial = searched.best
    assert trial.values
    told = shlex.split(str(status(searched.run_of(trial))["command"]))[3:]
    (tmp_path / "conf").symlink_to(searched.folder / "conf")
    finish(tmp_path, *told, "hydra.run.dir=run")
    there = content(searched.run_of(trial))
    assert [name for name in differing(tmp_path / "run", there) if name != "summary.json"] == []


@pytest.mark.slow
def test_the_best_is_an_experiment_that_trains_it_again(searched: Searched) -> None:
    found = re.search(r"train it again with: python -m s9\.train (.*)", searched.done.stdout)
    assert found
    finish(searched.folder, *shlex.split(found[1]), "hydra.run.dir=again")
    there = content(searched.run_of(searched.best))
    assert [n for n in differing(searched.folder / "again", there) if n != "summary.json"] == []


@pytest.mark.slow
def test_it_says_what_happens_to_each_trial(searched: Searched) -> None:
    said = searched.done.stdout
    for trial in searched.trials:
        assert f"trial {trial.number} of 6 begins: optimizer.lr={trial.params['optimizer.lr']}" in said
    assert "is promoted" in said and re.search(r"trial \d: val \d+\.\d\d % at epoch 1, number 1 of 1 there", said)


@pytest.mark.slow
def test_it_tells_how_far_the_rungs_can_be_trusted(searched: Searched) -> None:
    ends = sum(trial.end is not None for trial in searched.trials)
    assert f"rank correlation of epoch 1 with the end, of the trials trained to it: too few ({ends} trials)" in (
        searched.done.stdout
    )


@pytest.mark.slow
def test_it_tells_what_the_rungs_have_saved(searched: Searched) -> None:
    trained = sum(EPOCHS if t.state == "done" else t.rung for t in searched.trials)
    assert f"epochs: {trained} of the 24 without rungs, {100 - round(100 * trained / 24)} % saved" in (
        searched.done.stdout
    )


@pytest.mark.slow
def test_test_is_never_shown(searched: Searched) -> None:
    assert "test" not in searched.done.stdout.replace("s9-tests", "")


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(searched: Searched) -> None:
    again = run(searched.folder, "tune", *write_study(searched.folder), "trials=6")
    assert again.returncode == 0 and "begins" not in again.stdout
    assert trials_in(searched.folder) == searched.trials


# Failures


@pytest.mark.slow
def test_a_failed_trial_is_passed_over_and_told(tmp_path: Path) -> None:
    arguments = write_study(tmp_path, "space: { optimizer.lr: [0.02, 1e30] }", "[]")
    done = run(tmp_path, "tune", *arguments, "trials=4")
    trials = trials_in(tmp_path)
    assert (done.returncode, len(trials)) == (0, 4), done.stderr
    assert {trial.params["optimizer.lr"] for trial in trials if trial.state == "failed"} == {1e30}
    assert re.search(r"failed: trial \d: (loss|weights)", done.stdout)


@pytest.mark.slow
def test_a_search_whose_first_trials_all_fail_stops(tmp_path: Path) -> None:
    arguments = write_study(tmp_path, "space: { optimizer.lr: [1e29, 1e30] }", "[]")
    done = run(tmp_path, "tune", *arguments, "trials=20")
    assert (done.returncode, len(trials_in(tmp_path))) == (1, 3)
    assert "error: the search has stopped: the first 3 trials failed" in done.stderr


@pytest.mark.slow
def test_repeated_parameters_get_the_next_seed(tmp_path: Path) -> None:
    done = run(tmp_path, "tune", *write_study(tmp_path, ONE_KEY, "[]"), "trials=4", "seed=5")
    assert done.returncode == 0, done.stderr
    cells: dict[float, list[int]] = {}
    for trial in trials_in(tmp_path):
        cells.setdefault(trial.params["optimizer.lr"], []).append(trial.kept.seed)
    assert all(seeds == list(range(5, 5 + len(seeds))) for seeds in cells.values())
    assert len(folders_in(tmp_path)) == 4


# Signals and several processes


def trial_trains(door: Started, number: int) -> Callable[[], bool]:
    return lambda: f"trial {number} of " in door.said or door.code is not None


@linux
@pytest.mark.slow
def test_ctrl_c_saves_and_names_the_command_that_goes_on(tmp_path: Path) -> None:
    arguments = [*write_study(tmp_path), "trials=5"]
    with started(tmp_path, command("tune", *arguments)) as door:
        until(trial_trains(door, 2))
        os.kill(door.pid, signal.SIGINT)
        ended = door.end(5)
    assert ended.returncode == 130, ended.stderr
    assert nobody_left(tmp_path)
    assert f"go on with: python -m s9.tune {shlex.join(arguments)}" in ended.stdout
    assert run(tmp_path, "tune", *arguments).returncode == 0
    assert len(trials_in(tmp_path)) == len(folders_in(tmp_path)) == 5


@linux
@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_and_started_again_share_the_trials(tmp_path: Path) -> None:
    arguments = [*write_study(tmp_path), "trials=12"]
    with started(tmp_path, command("tune", *arguments)) as first:  # whose end kills what is left of all of them
        second = Started(tmp_path, command("tune", *arguments), environment(tmp_path))
        until(lambda: "begins" in second.said)
        os.kill(second.pid, signal.SIGKILL)
        third = Started(tmp_path, command("tune", *arguments), environment(tmp_path))
        ends = [first.end(250), second.end(5), third.end(250)]
    assert [end.returncode for end in ends] == [0, -signal.SIGKILL, 0], ends
    trials = trials_in(tmp_path)
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} <= {"done", "paused"}
    assert folders_in(tmp_path) == sorted({trial.kept.folder for trial in trials})
    assert len(folders_in(tmp_path)) == 12


@linux
@pytest.mark.slow
def test_a_killed_run_is_resumed_and_the_search_goes_on(tmp_path: Path) -> None:
    longer = "trainer.steps_per_epoch=100"
    with started(tmp_path, command("tune", *write_study(tmp_path), "trials=4", longer)) as door:
        until(lambda: [path for path in study_folder(tmp_path).glob("*") if state(path) == "running"])
        worker = next(pid for pid in left(tmp_path) if pid != door.pid and is_worker(pid))
        os.kill(worker, signal.SIGKILL)
        done = door.end()
    assert done.returncode == 0, done.stderr
    assert re.search(r"trial \d was cut short and will be resumed: killed by SIGKILL", done.stdout)
    assert [trial.state in ("done", "paused") for trial in trials_in(tmp_path)] == [True] * 4


def is_worker(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
def test_two_jobs_train_at_the_same_time(tmp_path: Path) -> None:
    done = run(tmp_path, "tune", *write_study(tmp_path), "trials=4", "jobs=2")
    assert (done.returncode, len(trials_in(tmp_path))) == (0, 4), done.stderr
    assert len(list((study_folder(tmp_path) / ".workers").iterdir())) == 2


@pytest.mark.slow
def test_more_trials_later_go_on_with_the_study(tmp_path: Path) -> None:
    arguments = write_study(tmp_path)
    for trials in (2, 4):
        assert run(tmp_path, "tune", *arguments, f"trials={trials}").returncode == 0
    assert len(trials_in(tmp_path)) == len(folders_in(tmp_path)) == 4
    assert (study_folder(tmp_path) / JOURNAL).exists()


# What is asked for


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a study in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tune"])
    return [*write_study(tmp_path), "trials=4"]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["optimizer.lr=0.1"], "optimizer.lr=0.1: optimizer.lr is in the study's space"),
        (["model.dropuot=0.1"], "model.dropuot=0.1: there is no such key; did you mean model.dropout"),
        (["seed=1,2"], "seed=1,2: names several values"),
        (["hydra.run.dir=x"], "hydra.run.dir=x: has no effect in a search"),
        (["-m"], "--multirun: a search does not take this flag"),
        (["study.keep=2"], "study.keep=2.0: must be more than 0 and less than 1"),
        (["study.rung=[]"], "study.rung: there is no such key; did you mean rungs"),
        (["data.val_size=0"], "data.val_size=0: must be 1 or more in a search"),
        (["jobs=0"], "jobs=0: must be a whole number, 1 or more"),
        (["experiment=best"], "experiment=best: is what the search calls its own best"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(here: list[str], more: list[str], wanted: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(wanted)}"):
        read_asked([*here, *more], "usage")


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        ("{ seed: [0, 1] }", "study.space.seed: cannot be searched"),
        ("{ data.val_size: [10, 20] }", "study.space.data.val_size: cannot be searched"),
        ("{ trainer.epochs: [10, 20] }", "study.space.trainer.epochs: cannot be searched"),
        ("{ optimizer.lr: 0.1 }", "study.space.optimizer.lr=0.1: must be a list of choices, or a range"),
        ("{ optimizer.lr: [0.1] }", "study.space.optimizer.lr=[0.1]: must be two or more"),
        ("{ optimizer.lr: { low: 1 } }", "study.space.optimizer.lr.high=None: must be a number"),
        ("{ optimizer.lr: { low: 1, high: 0 } }", "study.space.optimizer.lr.high=0: must be more than low=1"),
        ("{ optimizer.lr: { low: 0, high: 1, log: true } }", "study.space.optimizer.lr.low=0: must be more than 0"),
        ("{ optimizer.lr: { low: 0, high: 1, step: 0.3 } }", "study.space.optimizer.lr.step=0.3: must be a whole part"),
        ("{ optimizer.lr: { lo: 0, high: 1 } }", "study.space.optimizer.lr.lo: there is no such key; did you mean low"),
        ("{}", "study.space={}: must be a mapping"),
    ],
)
def test_a_mistake_in_a_space_is_one_line(here: list[str], space: str, wanted: str) -> None:
    write_study(Path(), f"space: {space}")
    with pytest.raises(UserError, match=f"^{re.escape(wanted)}"):
        read_asked(here, "usage")


def test_an_end_of_a_range_that_cannot_be_trained_is_found_before_the_start(here: list[str]) -> None:
    write_study(Path(), "space: { model.dropout: { low: 0.0, high: 1.5 } }")
    with pytest.raises(UserError, match=r"^study\.space\.model\.dropout: model\.dropout=1\.5"):
        read_asked(here, "usage")[0].check_space()


def test_a_study_that_is_not_there_names_those_that_are(here: list[str]) -> None:
    with pytest.raises(UserError, match=r"^study=quikc: there is no such study; did you mean quick"):
        read_asked([*here[:2], "study=quikc", "trials=4"], "usage")


def test_the_command_line_wins_over_the_study(here: list[str]) -> None:
    _, config = read_asked([*here, "trainer.epochs=7", "seed=3"], "usage")
    assert (config.trainer.epochs, config.seed) == (7, 3)


@pytest.mark.parametrize("options", [True, False])
def test_the_command_of_the_best_has_the_users_own_configuration(here: list[str], options: bool) -> None:
    Path("conf/my.yaml").write_text("defaults: [config, _self_]\nname: mine\n")
    if options:
        Path("conf/model").mkdir()
    asked, _ = read_asked([*here, "--config-name", "my"], "usage")
    best = asked.folder / "experiment" / "best.yaml"
    best.parent.mkdir(parents=True)
    best.write_text("# @package _global_\ndefaults: [override /data: digits]\nseed: 3\n")
    config = checked(compose(asked_of(read_flags(shlex.split(command_of(asked, []))[3:])))[0])
    assert (config.name, config.seed) == ("mine", 3)


def test_the_command_of_a_trial_trains_its_configuration(here: list[str]) -> None:
    asked, _ = read_asked(here, "usage")
    words = shlex.split(asked.command(asked.point, 3))
    assert words[:5] == ["python", "-m", "s9.train", "--config-dir", "conf"]
    assert checked(compose(Asked(words[5:], "conf"))[0]) == asked.config(asked.point, 3)


@pytest.mark.parametrize("value", [0.1, 1e-05, 3, True, None, "muon", "a b", "it's", "1", "null", "x=1", "a,b"])
def test_a_value_of_a_space_is_read_again_as_it_was(value: object) -> None:
    made = compose(Asked([*SMALL, f"+optimizer.{as_argument('extra', value)}"]))[0]
    assert made.optimizer.extra == value and type(made.optimizer.extra) is type(value)


def test_a_mistake_is_one_line_of_the_door(tmp_path: Path) -> None:
    assert error_line(run(tmp_path, "tune", "study=nothing", "trials=1"), 2).startswith("error: study=nothing")


def test_the_help_names_every_key(tmp_path: Path) -> None:
    done = run(tmp_path, "tune", "--help")
    assert all(f"{key}=" in done.stdout for key in ("study", "trials", "jobs", "folder", "storage"))


@pytest.mark.parametrize("file", sorted((CONF / "study").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_study_of_conf_can_be_composed_at_its_ends(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tune"])
    asked, _ = read_asked([f"study={file.stem}", "trials=1", "data=digits"], "usage")
    asked.check_space()


# The best as an experiment


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=teacher", "aug=none", "optimizer=adamw", "optimizer.lr=0.01", "seed=4"],
        ["experiment=fast", "trainer.batch_size=7"],
        ["experiment=teacher", "trainer.epochs=3", "aug=none"],
        ["experiment=frontier", "model=teacher"],
        ["optimizer=adamw", "optimizer.betas=[0.8,0.99]", "init_from=null", "wandb.tags=[a,b]", "name='x=1 y'"],
    ],
)
def test_an_experiment_is_what_its_arguments_are(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "best.yaml").write_text(f"# @package _global_\n{as_experiment(arguments)}")
    made = checked(compose(Asked(["experiment=best"], str(tmp_path)))[0])
    assert made == composed(*arguments)
