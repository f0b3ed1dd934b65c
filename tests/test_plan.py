"""What a sweep's command asks for: its jobs, its folder, the command of each job, and what is said before it starts."""

import shlex
from pathlib import Path

import pytest

from s9.cli.compose import Asked, compose
from s9.cli.launch import quoted
from s9.cli.mistakes import parse
from s9.cli.plan import Plan, plan_of
from s9.cli.sweep import go_on
from s9.system.errors import UserError

DIGITS = "data=digits"


def plan(*arguments: str, config_dir: Path | None = None) -> Plan:
    return plan_of(Asked([DIGITS, *arguments], str(config_dir) if config_dir else None))


def said(*arguments: str) -> str:
    """The error's one line."""
    with pytest.raises(UserError) as error:
        plan(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of a user's own options."""
    folder = tmp_path / "my configs"
    (folder / "optimizer").mkdir(parents=True)
    (folder / "optimizer" / "mine.yaml").write_text("_target_: torch.optim.SGD\nlr: 0.9\n")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "cells.yaml").write_text(
        "# @package _global_\nsweep:\n  cells:\n    - {optimizer.lr: 0.1}\n    - {optimizer.lr: 0.2}\n"
    )
    return folder


# --- the folder


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["sweep.name=mine"], "outputs/sweeps/mine"),
        (["hydra.sweep.dir='my sweeps/one, two'"], "my sweeps/one, two"),
        (["hydra.sweep.dir=a", "hydra.sweep.dir=b"], "b"),
        (["hydra.sweep.dir=a/${hydra:job.name}"], "a/train"),
        (["hydra.sweep.dir=a", "sweep.name=mine"], "a"),
    ],
)
def test_a_sweep_has_the_folder_that_it_is_given(arguments: list[str], folder: str) -> None:
    assert plan("seed=0,1", *arguments).folder.path == Path(folder)


def test_a_name_beside_a_folder_is_said_to_have_no_effect() -> None:
    (line,) = plan("seed=0,1", "hydra.sweep.dir=a", "sweep.name=mine").said
    assert line == "sweep.name=mine has no effect: hydra.sweep.dir=a is the sweep's own folder"
    for place in ("outputs/sweeps/mine", Path("outputs/sweeps/mine").absolute()):  # as resume= gives both
        assert not plan("seed=0,1", f"hydra.sweep.dir={place}", "sweep.name=mine").said


def test_otherwise_it_is_named_by_what_is_swept() -> None:
    assert plan("seed=0,1", "optimizer.lr=0.1,0.2").folder.name.startswith("lr-seed-")


def test_the_same_sweep_with_more_values_has_the_same_folder() -> None:
    assert plan("seed=0,1").folder.path == plan("seed=0,1,2").folder.path


@pytest.mark.parametrize("argument", ["seed=0,1,2 optimizer.lr=0.1", "optimizer.lr=0.1 seed=0,1"])
def test_the_order_of_arguments_is_no_part_of_the_name(argument: str) -> None:
    assert plan(*argument.split()).folder.path == plan("optimizer.lr=0.1", "seed=0,1").folder.path


def test_a_sweep_with_another_fixed_value_has_another_folder() -> None:
    assert plan("seed=0,1", "optimizer.lr=0.1").folder.path != plan("seed=0,1", "optimizer.lr=0.2").folder.path


# --- commands


def test_the_command_of_a_job_trains_it_alone_wherever_the_options_are(own: Path) -> None:
    found = plan("seed=0,1", "optimizer=mine", config_dir=own).jobs[1]
    words = shlex.split(found.command)
    assert words == ["python", "-m", "s9.train", "--config-dir", str(own), DIGITS, "seed=1", "optimizer=mine"]


def test_the_command_of_a_job_keeps_what_it_needs_of_hydra_and_nothing_of_the_sweep() -> None:
    arguments = ["hydra.verbose=true", "hydra.sweep.dir=x", "sweep.name=mine", "hydra.job.chdir=true"]
    assert plan("seed=0,1", *arguments).jobs[0].command == f"python -m s9.train hydra.verbose=true {DIGITS} seed=0"


def test_an_odd_value_in_the_command_of_a_job_is_the_same_in_a_shell() -> None:
    value = 'name="it\'s [1], $HOME"'
    found = plan("seed=0,1", value).jobs[0]
    assert compose(Asked(shlex.split(found.command)[3:]))[0].name == found.config.name == "it's [1], $HOME"


def test_the_command_that_goes_on_runs_failed_jobs_again_where_that_was_asked_for() -> None:
    assert go_on(plan("seed=0,1", "sweep.name=x")) == "python -m s9.train resume=outputs/sweeps/x"
    again = go_on(plan("seed=0,1", "sweep.name=x", "sweep.retry=failed"))
    assert again == "python -m s9.train resume=outputs/sweeps/x sweep.retry=failed"


@pytest.mark.parametrize("path", ["a b", "it's", "a\\", "a\\'b", "${x}"])
def test_a_quoted_path_is_read_as_it_was(path: str) -> None:
    assert parse(f"x={quoted(path)}").value() == path


# --- cells and exclusions


def test_a_cell_has_the_configurations_own_value_of_a_key_that_it_does_not_name() -> None:
    jobs = plan("optimizer=sgd", "sweep.cells=[{}, {optimizer.lr: 0.7}, {model: dilated}]").jobs
    assert [job.values["optimizer.lr"] for job in jobs] == [str(job.config.optimizer["lr"]) for job in jobs]
    assert [job.values["model"] for job in jobs] == ["strided", "strided", "dilated"]


def test_the_cells_of_a_sweep_can_be_in_a_file(own: Path) -> None:
    found = plan("experiment=cells", "seed=0,1", config_dir=own)
    assert [job.config.optimizer["lr"] for job in found.jobs] == [0.1, 0.1, 0.2, 0.2]


def test_a_cell_can_choose_an_option() -> None:
    found = plan("sweep.cells=[{model: dilated, optimizer.lr: 0.1}, {model: strided}]")
    assert [(job.config.model.name, job.values) for job in found.jobs] == [
        ("dilated", {"model": "dilated", "optimizer.lr": "0.1"}),
        ("strided", {"model": "strided", "optimizer.lr": "0.05"}),
    ]


def test_a_condition_sees_of_each_job_the_values_that_its_option_gives() -> None:
    found = plan("optimizer=sgd,muon", "sweep.exclude='optimizer.lr > 0.06'")
    kept = [job.config.optimizer["lr"] for job in found.jobs]
    assert len(kept) == 1 and kept[0] <= 0.06
    assert found.said == ["sweep.exclude leaves out 1 of 2 jobs"]


def test_a_condition_sees_the_options_that_no_argument_names() -> None:
    assert said("seed=0,1", "sweep.exclude='model == \"strided\"'") == (
        "this sweep has no jobs: sweep.exclude leaves out all of them"
    )


def test_a_condition_sees_what_is_inside_a_mapping_that_is_swept() -> None:
    mixes = "aug.mix={name: mixup, alpha: 0.2, p: 1},{name: mixup, alpha: 0.2, p: 0.5}"
    assert len(plan(mixes, "sweep.exclude='aug.mix.p < 1'").jobs) == 1


def test_a_condition_on_a_key_that_is_not_there_is_one_line() -> None:
    assert (
        said("seed=0,1", "sweep.exclude='model.dropot > 1'")
        == "sweep.exclude: there is no key model.dropot; did you mean model.dropout?"
    )


def test_a_condition_leaves_out_jobs_that_would_be_refused() -> None:
    assert len(plan("model.dropout=0.1,1.5", "sweep.exclude='model.dropout >= 1'").jobs) == 1


# --- what is refused, and what is only said


@pytest.mark.parametrize("argument", ["sweep.max_failures=1,2", "hydra.sweep.dir=a,b", "sweep.name=glob(*)"])
def test_what_belongs_to_the_whole_sweep_takes_one_value(argument: str) -> None:
    assert said("seed=0,1", argument) == f"{argument}: belongs to the whole sweep, which takes one value"


@pytest.mark.parametrize("key", ["hydra.job.chdir=true", "hydra.sweep.subdir=x"])
def test_what_of_hydra_has_no_effect_is_said(key: str) -> None:
    (line,) = plan("seed=0,1", key).said
    assert line.startswith(f"{key.partition('=')[0]} has no effect in a sweep")


def test_a_rate_that_leaves_the_rest_of_the_network_alone_is_said_once() -> None:
    lines = plan("optimizer=muon", "optimizer.lr=0.1,0.2", "seed=0,1").said
    assert [line for line in lines if "optimizer.other_lr" in line] == lines and len(lines) == 1


def test_the_values_of_a_sweeper_in_a_file_count_too(own: Path) -> None:
    swept = "# @package _global_\nhydra: {sweeper: {params: {seed: '3,4', optimizer.lr: 'choice(0.1,0.2)'}}}\n"
    (own / "experiment" / "swept.yaml").write_text(swept)
    found = plan("experiment=swept", "seed=5", config_dir=own)
    assert found.keys == ("seed", "optimizer.lr")
    assert [(job.config.seed, job.config.optimizer["lr"]) for job in found.jobs] == [(5, 0.1), (5, 0.2)]
