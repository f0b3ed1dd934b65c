"""`python -m s9.confirm` as a real process on real sweeps of a tiny network; its mistakes are one line each."""

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from s9.config.schema import Config
from s9.sweeps.answer import answer_of
from s9.sweeps.confirmation import ConfirmationFolder
from s9.sweeps.jobs import SweepFolder
from s9.tracking.folder import RunFolder
from tests.doors import SHORT, Done, command, run, started, until
from tests.sweeps import LONG, all_done, sweep

NAME = "outputs/sweeps/x"
LOW, HIGH = "optimizer.lr=0.0001", "optimizer.lr=0.05"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a sweep of two cells with two seeds each."""
    cwd = tmp_path_factory.mktemp("confirm")
    done = sweep(cwd, *SHORT, "trainer.steps_per_epoch=20", "optimizer.lr=0.0001,0.05", "seed=0,1", "sweep.name=x")
    assert done.returncode == 0, done.stderr
    return cwd


def confirm(cwd: Path, *arguments: str) -> Done:
    return run(cwd, "confirm", *arguments)


@pytest.fixture(scope="module")
def confirmed(swept: Path) -> Done:
    return confirm(swept, f"sweep={NAME}", "seeds=2")


pytestmark = pytest.mark.slow


def test_a_confirmation_runs_both_cells_on_fresh_seeds(swept: Path, confirmed: Done) -> None:
    assert confirmed.returncode == 0, confirmed.stderr
    _, rows = SweepFolder(swept / f"{NAME}-confirm").rows()
    held = sorted((row.values["optimizer.lr"], row.values["seed"], row.state) for row in rows)
    assert held == [(lr, seed, "done") for lr in ("0.0001", "0.05") for seed in "23"]


def test_a_confirmation_ends_with_its_result(confirmed: Done) -> None:
    assert "Confirmed on 2 fresh seeds each, without bias: optimizer.lr=" in confirmed.stdout


def test_the_same_command_again_runs_nothing(swept: Path, confirmed: Done) -> None:
    again = confirm(swept, f"sweep={NAME}", "seeds=2")
    assert "4 jobs: 4 done" in again.stdout and "Confirmed on 2 fresh seeds" in again.stdout


def test_a_dry_run_of_a_confirmation_leaves_nothing(swept: Path, confirmed: Done) -> None:
    before = ConfirmationFolder(swept / NAME).read()
    done = confirm(swept, f"sweep={NAME}", "seeds=5", "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert ConfirmationFolder(swept / NAME).read() == before


def test_where_the_best_is_the_configurations_own_the_next_cell_is_the_baseline(swept: Path) -> None:
    words = ["optimizer.lr=0.02,0.0001", "seed=0,1", "sweep.name=own"]  # 0.02 is what SHORT has
    assert sweep(swept, *SHORT, "trainer.steps_per_epoch=20", *words).returncode == 0
    done = confirm(swept, "sweep=outputs/sweeps/own", "best=optimizer.lr=0.02", "sweep.dry_run=true")
    assert "baseline: optimizer.lr=0.0001" in done.stdout


def test_fewer_seeds_than_before_are_said_to_change_nothing(swept: Path, confirmed: Done) -> None:
    run(swept, "confirm", f"sweep={NAME}", "seeds=3")
    assert "3 seeds were asked for before" in confirm(swept, f"sweep={NAME}", "seeds=2").stdout


def test_the_baseline_can_be_named(swept: Path, confirmed: Done) -> None:
    (asked,) = ConfirmationFolder(swept / NAME).read()
    done = confirm(swept, f"sweep={NAME}", f"baseline={' '.join(f'{k}={v}' for k, v in asked.best.items())}")
    assert done.returncode == 2 and "best and baseline are the same cell" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["seeds=2"], "sweep= is missing"),
        (["sweep=nowhere"], "sweep=nowhere: there is no sweep.json in it"),
        ([f"sweep={NAME}", "seeds=1"], "seeds=1: must be a number of seeds, 2 or more"),
        ([f"sweep={NAME}", "seeds=x"], "seeds=x: must be a number of seeds, 2 or more"),
        ([f"sweep={NAME}", "baseline=optimizer.lr=7"], "no cell with a score has these values"),
        ([f"sweep={NAME}", "model=dilated"], "model=dilated: there is no such key"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[-30:],
)
def test_a_mistake_is_one_line(swept: Path, arguments: list[str], error: str) -> None:
    done = confirm(swept, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and error in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of this process, in which sweeps are done without any training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])
    return tmp_path


def test_a_seed_that_the_sweep_had_in_all_jobs_is_not_fresh(here: Path) -> None:
    all_done(["-m", *SHORT, "seed=5", "model.dropout=0,0.1", "sweep.name=x"])
    assert "fresh seeds: 6, 7\n" in confirm(here, f"sweep={NAME}", "seeds=2", "sweep.dry_run=true").stdout


def test_cells_of_added_keys_and_of_texts_in_mappings_are_confirmed(here: Path) -> None:
    mixes = "aug.mix={name: mixup, alpha: 0.2, p: 1},{name: 'mixup', alpha: 0.2, p: 0.5}"
    params = "{sweeper: {params: {+optimizer.dampening: '0,0.1', optimizer.momentum: '0.7'}}}"
    (here / "own" / "experiment").mkdir(parents=True)
    (here / "own" / "experiment" / "swept.yaml").write_text(f"# @package _global_\nhydra: {params}\n")
    own = ["--config-dir=own", "experiment=swept", "optimizer.nesterov=false", mixes, "seed=0,1"]
    all_done(["-m", *SHORT, *own, "sweep.name=x"])
    best = "best=optimizer.dampening=0.1 aug.mix={name: mixup, alpha: 0.2, p: 0.5}"
    done = confirm(here, f"sweep={NAME}", "seeds=2", best)
    assert done.returncode == 0, done.stderr
    assert "Confirmed on 2 fresh seeds each" in done.stdout or "nothing says what is chance" in done.stdout
    held = SweepFolder(here / f"{NAME}-confirm")
    configs = [RunFolder(Path(row.folder)).read_config() for row in held.rows()[1]]
    assert sorted(config.optimizer["dampening"] for config in configs) == [0, 0, 0.1, 0.1]
    assert {config.optimizer["momentum"] for config in configs} == {0.7}


def of_both(here: Path) -> list[Config]:
    """The configurations that the confirmation has trained."""
    rows = SweepFolder(here / f"{NAME}-confirm").rows()[1]
    return [RunFolder(Path(row.folder)).read_config() for row in rows]


def test_cells_of_two_commands_are_confirmed_as_they_were_trained(here: Path) -> None:
    all_done(["-m", *SHORT, "optimizer.lr=0.1,0.2", "seed=0,1", "sweep.name=x"])
    all_done(["-m", *SHORT, "optimizer.lr=0.2", "model.dropout=0.1,0.2", "seed=0,1", "sweep.name=x"])
    pair = ["best=model.dropout=0.1 optimizer.lr=0.2", "baseline=optimizer.lr=0.1"]
    done = confirm(here, f"sweep={NAME}", "seeds=2", *pair)
    assert done.returncode == 0, done.stderr
    assert "Confirmed on 2 fresh seeds each" in done.stdout or "nothing says what is chance" in done.stdout
    trained = sorted((config.model.dropout, config.optimizer["lr"]) for config in of_both(here))
    assert trained == [(0, 0.1), (0, 0.1), (0.1, 0.2), (0.1, 0.2)]


def test_a_cell_whose_values_no_longer_say_what_it_was_is_refused(here: Path) -> None:
    plan = all_done(["-m", *SHORT, "optimizer.lr=0.1,0.2", "seed=0,1", "sweep.name=x"])
    stored = plan.folder.read()
    stored["arguments"].append("model.dropout=0.3")  # as a file of conf/ that has changed
    plan.folder.asked.write_text(json.dumps(stored))
    done = confirm(here, f"sweep={NAME}", "seeds=2", "best=optimizer.lr=0.2", "sweep.dry_run=true")
    assert done.returncode == 2
    assert "best: optimizer.lr=0.2 does not stand for the configuration of its jobs any more" in done.stderr


def test_a_seed_that_a_second_command_gave_to_all_its_jobs_is_not_fresh(here: Path) -> None:
    for seeds in ("seed=0,1,2", "seed=3"):
        all_done(["-m", *SHORT, seeds, "model.dropout=0,0.1", "sweep.name=x"])
    folder = SweepFolder(here / NAME)
    assert {row.values["seed"] for row in folder.rows()[1]} == set("0123")
    assert folder.read_summary()[0].keys() >= {"seed", "model.dropout"}
    assert "fresh seeds: 4, 5\n" in confirm(here, f"sweep={NAME}", "seeds=2", "sweep.dry_run=true").stdout


def test_a_confirmation_of_a_former_configuration_is_left_out(here: Path) -> None:
    wanted = ["-m", *SHORT, "model.dropout=0,0.1", "seed=0,1", "sweep.name=x"]
    all_done(wanted)
    assert confirm(here, f"sweep={NAME}", "seeds=2").returncode == 0
    (first,) = answer_of(SweepFolder(Path(NAME))).confirmations
    all_done([*wanted, "trainer.batch_size=32"])
    answer = answer_of(SweepFolder(Path(NAME)))
    assert (first.former, first.whole, answer.confirmations[0].former) == (False, True, True)
    assert "Confirmations of cells that this sweep no longer has are left out: 1." in answer.sentences
    assert not [line for line in answer.sentences if line.startswith("Confirm") and "dropout" in line]


def test_a_fixed_argument_may_need_the_option_that_is_swept(here: Path) -> None:
    own = [a for a in SHORT if not a.startswith("aug")]
    all_done(["-m", *own, "aug=full,strong", "aug.transforms.shift_scale_rotate.p=0.4", "seed=0,1", "sweep.name=x"])
    done = confirm(here, f"sweep={NAME}", "seeds=2", "best=aug=strong", "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "best: aug=strong; baseline: aug=full; fresh seeds: 2, 3\n" in done.stdout


def test_a_cell_without_an_experiment_is_confirmed(here: Path) -> None:
    (here / "own" / "experiment").mkdir(parents=True)
    (here / "own" / "experiment" / "drop.yaml").write_text("# @package _global_\nmodel: {dropout: 0.1}\n")
    cells = "sweep.cells=[{}, {optimizer.lr: 0.1}, {experiment: drop}]"
    all_done(["-m", "--config-dir=own", *SHORT, "seed=0,1", cells, "sweep.name=x"])
    done = confirm(here, f"sweep={NAME}", "seeds=2", "best=experiment=drop")
    assert "baseline: optimizer.lr=0.02 experiment=null; fresh seeds: 2, 3\n" in done.stdout, done.stderr
    assert sorted(config.model.dropout for config in of_both(here)) == [0, 0, 0.1, 0.1]
    done = confirm(here, f"sweep={NAME}", "seeds=2", "best=optimizer.lr=0.1", "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr


def test_another_launcher_takes_none_of_the_settings_of_the_sweeps_own(here: Path) -> None:
    slurm = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    all_done(["-m", *SHORT, *slurm, "seed=0,1", "model.dropout=0,0.1", "sweep.name=x"])
    done = confirm(here, f"sweep={NAME}", "seeds=2", "hydra/launcher=joblib", "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr


def test_a_confirmation_that_cannot_be_planned_is_not_stored(here: Path) -> None:
    all_done(["-m", *SHORT, "seed=0,1", "model.dropout=0,0.1", "sweep.name=x"])
    done = confirm(here, f"sweep={NAME}", "seeds=2", "hydra/launcher=none")
    assert done.returncode == 2 and "hydra/launcher=none" in done.stderr
    assert not (here / f"{NAME}-confirm").exists()


def test_ctrl_c_prints_the_command_that_confirms_when_it_is_pasted(tmp_path: Path) -> None:
    done = sweep(tmp_path, *LONG, "optimizer.lr=0.0001,0.05", "seed=0,1", "sweep.name=x")
    assert done.returncode == 0, done.stderr
    with started(tmp_path, command("confirm", f"sweep={NAME}", "seeds=2")) as door:
        until(lambda: list(tmp_path.glob(f"{NAME}-confirm/*/metrics.jsonl")))
        os.killpg(door.pid, signal.SIGINT)
        stopped = door.end()
    assert stopped.returncode == 130
    found = re.search(r"go on with: python -m s9\.confirm (.*)$", stopped.stdout, re.MULTILINE)
    assert found, stopped.stdout
    assert "Confirmed on 2 fresh seeds each" in confirm(tmp_path, *shlex.split(found[1])).stdout
