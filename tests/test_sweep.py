"""Sweeps: which jobs run, what a repeated command finds, what is said; on digits, as real processes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from s9.cli.compose import Asked, compose
from s9.cli.launch import resume_sweep
from s9.cli.plan import plan_of
from s9.cli.sweep import run_sweep
from s9.data.sources import load
from s9.system.interrupt import Interrupts
from s9.system.process import available_cores
from s9.tracking.folder import RunFolder
from tests.conftest import composed
from tests.doors import SHORT, command, left, started, status, until
from tests.sweeps import GRID, LONG, all_done, files, folder_of, rows, states, sweep, workers

slow = pytest.mark.slow
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a sweep of four jobs has ended well; its screen is in out.txt."""
    cwd = tmp_path_factory.mktemp("sweep")
    done = sweep(cwd, *SHORT, *GRID)
    assert (done.returncode, done.stderr) == (0, "")
    (cwd / "out.txt").write_text(done.stdout)
    return cwd


@pytest.fixture
def finished(first: Path, tmp_path: Path) -> Path:
    """A copy of the place where a sweep of four jobs has ended well."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
    return tmp_path


def statuses(cwd: Path) -> dict[Path, bytes]:
    return {path.relative_to(cwd): path.read_bytes() for path in cwd.glob("outputs/sweeps/*/*/status.json")}


# What a command finds


@slow
def test_a_repeated_command_runs_nothing_again(finished: Path) -> None:
    before = statuses(finished)
    done = sweep(finished, *SHORT, *GRID)
    assert (done.returncode, "4 jobs: 4 done\n" in done.stdout, done.stderr) == (0, True, "")
    assert statuses(finished) == before


@slow
def test_a_wider_command_runs_only_what_is_missing(finished: Path) -> None:
    before = statuses(finished)
    done = sweep(finished, *SHORT, "model.dropout=0,0.1,0.2", "seed=0")
    assert (done.returncode, "3 jobs: 2 done, 1 to run" in done.stdout) == (0, True), done.stderr
    after = statuses(finished)
    assert len(after) == 5 and {path: after[path] for path in before} == before


@slow
def test_another_order_of_the_arguments_finds_the_same_jobs(finished: Path) -> None:
    done = sweep(finished, "seed=1,0", *reversed(SHORT), "model.dropout=0.1,0")
    assert (done.returncode, "4 jobs: 4 done\n" in done.stdout) == (0, True), done.stderr
    assert folder_of(finished).name in done.stdout


@slow
def test_a_job_that_another_sweep_has_done_is_found_there(finished: Path) -> None:
    before = folder_of(finished)
    done = sweep(finished, *SHORT, *GRID, "sweep.name=mine")
    assert (done.returncode, "outputs/sweeps/mine: 4 jobs: 4 done\n" in done.stdout) == (0, True), done.stderr
    assert {Path(row["folder"]).parent.name for row in rows(finished / "outputs/sweeps/mine")} == {before.name}


@slow
def test_a_job_knows_its_values_its_sweep_and_the_command_that_trains_it_alone(first: Path) -> None:
    folder = folder_of(first)
    for row in rows(folder):
        job = folder / row["job"]
        assert (job / "job.txt").read_text() == f"model.dropout={row['model.dropout']}\nseed={row['seed']}\n"
        assert status(job)["group"] == folder.name
        assert {f"model.dropout={row['model.dropout']}", f"seed={row['seed']}"} <= set(status(job)["command"].split())


@slow
def test_other_values_in_the_same_folder_are_run_and_shown_and_count_for_the_exit_code(finished: Path) -> None:
    folder = folder_of(finished)
    place = f"hydra.sweep.dir={folder.relative_to(finished)}"
    done = sweep(finished, *SHORT, place, "seed=7", "optimizer.lr=1e30,0.02")
    assert done.returncode == 1 and "optimizer.lr=1e+30" in done.stdout and "with 4 more jobs" in done.stdout
    assert states(folder, "optimizer.lr") == {"": "done", "1e+30": "failed", "0.02": "done"}


# What is said


@slow
def test_the_table_has_a_line_for_each_cell_and_never_test(first: Path) -> None:
    said = (first / "out.txt").read_text()
    lines = said[said.index("model.dropout  ") :].splitlines()[2:4]
    assert {line.split()[0]: line.split()[3] for line in lines} == {"0": "2", "0.1": "2"}  # n
    assert "test" not in said and "test" not in (folder_of(first) / "summary.csv").read_text().splitlines()[0]


@slow
def test_each_job_is_told_when_it_ends_with_the_best_so_far_and_the_time_left(first: Path) -> None:
    said = [line for line in (first / "out.txt").read_text().splitlines() if line.startswith("[")]
    assert [line[:5] for line in said] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert all("best so far" in line for line in said)
    assert ["left" in line for line in said] == [True, True, True, False]


@slow
def test_a_dry_run_starts_and_writes_nothing_and_estimates_from_timed_steps(tmp_path: Path) -> None:
    done = sweep(tmp_path, *SHORT, *GRID, "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "4 jobs: 4 to run, about " in last and "timed steps" in last and "nothing was started" in last
    assert not (tmp_path / "outputs").exists()


@slow
def test_a_dry_run_shows_how_each_job_stands_and_estimates_from_those_that_are_done(finished: Path) -> None:
    folder = folder_of(finished)
    shutil.rmtree(folder / rows(folder)[0]["job"])
    before = files(folder)
    done = sweep(finished, *SHORT, *GRID, "sweep.dry_run=true")
    last = done.stdout.splitlines()[-1]
    assert "4 jobs: 3 done, 1 to run, about " in last and "(from the jobs that are done)" in last
    assert "1 missing" in done.stdout
    assert files(folder) == before


@slow
def test_what_of_hydra_has_no_effect_is_said(finished: Path) -> None:
    done = sweep(finished, *SHORT, *GRID, "hydra.job.chdir=true", "hydra.sweep.subdir=x")
    assert (done.returncode, "4 jobs: 4 done" in done.stdout) == (0, True), done.stderr
    for key in ("hydra.job.chdir", "hydra.sweep.subdir"):
        assert [line.startswith(f"{key} has no effect in a sweep: ") for line in done.stdout.splitlines()].count(
            True
        ) == 1


@slow
def test_jobs_of_several_commits_and_processors_are_warned_about(finished: Path) -> None:
    folder = folder_of(finished)
    one = RunFolder(folder / rows(folder)[0]["job"])
    one.status.write_text(json.dumps(one.read_status() | {"commit": "0123456789", "dirty": False}))
    summary = one.read_summary()
    summary["machine"]["processor"] = "another"
    one.summary.write_text(json.dumps(summary))
    done = sweep(finished, *SHORT, *GRID)
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert ["2 commits" in warnings[0], "2 processors" in warnings[1]] == [True, True]


def test_a_value_that_computes_nothing_else_is_said_and_makes_no_job() -> None:
    plan = plan_of(Asked([*SHORT, "wandb.tags=[a],[b]", "data.loader=workers", "data.workers=0,2"]))
    assert len(plan.jobs) == 1
    without = {f"{key} does not change what is computed" for key in ("data.workers", "wandb.tags")}
    assert {line.partition(":")[0] for line in plan.said} == without and len(plan.said) == 2


@slow
def test_300_done_jobs_are_found_without_composing_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*SHORT, "seed=range(0,300)"]
    plan = plan_of(Asked(arguments))
    for job in plan.jobs:
        folder = RunFolder(plan.folder.path / job.digest)
        folder.path.mkdir(parents=True)
        folder.status.write_text('{"state": "done", "minutes": 0.5}')
        folder.write_summary({"val": {"accuracy": 0.5}})
    calls = []

    def counted(asked: Asked) -> tuple[DictConfig, DictConfig]:
        calls.append(asked)
        return compose(asked)

    for module in ("jobs", "plan"):
        monkeypatch.setattr(f"s9.cli.{module}.compose", counted)
    assert run_sweep(Asked(arguments), arguments, Interrupts()) == 0
    assert "300 jobs: 300 done" in capsys.readouterr().out
    assert len(calls) <= 3


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])
    return tmp_path


def test_a_sweep_stands_for_the_configuration_that_was_asked_for_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["-m", *SHORT, "sweep.name=x", "optimizer.lr=0.1,0.2"]
    first = all_done([*wanted, "seed=0,1"])
    capsys.readouterr()
    second = all_done([*wanted, "seed=1,2", "trainer.epochs=12"])
    assert {row.job for row in second.folder.rows()[1]} == {job.digest for job in second.jobs}
    assert "outputs/sweeps/x: 4 earlier jobs left out, since trainer.epochs was 1, is 12;" in capsys.readouterr().out
    all_done([*wanted, "seed=0,1,2"])
    held = {row.job for row in first.folder.rows()[1]}
    assert len(held) == 6 and held > {job.digest for job in first.jobs}


def test_a_swept_option_whose_file_has_changed_is_another_cell(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    option = here / "conf" / "optimizer" / "mine.yaml"
    option.parent.mkdir(parents=True)
    plans = []
    for lr, seeds in (("0.1", "0,1"), ("0.2", "2")):
        option.write_text(f"_target_: torch.optim.SGD\nlr: {lr}\n")
        own = [a for a in SHORT if not a.startswith("optimizer")]
        plans.append(all_done(["-m", "--config-dir=conf", *own, "sweep.name=x", "optimizer=mine,sgd", f"seed={seeds}"]))
    held = {row.job: row.values["optimizer"] for row in plans[0].folder.rows()[1]}
    assert sorted(held.values()) == ["mine", "sgd", "sgd", "sgd"]
    assert "2 earlier jobs left out, since what the same values stand for has changed" in capsys.readouterr().out


def test_retry_belongs_to_its_own_command_and_the_folder_is_stored_once(here: Path) -> None:
    plan = all_done(["-m", *SHORT, "sweep.name=x", "seed=0,1"])
    for _ in range(2):
        assert resume_sweep("outputs/sweeps/x", ["sweep.retry=failed"], Interrupts()) == 0
    place = "hydra.sweep.dir='outputs/sweeps/x'"
    assert plan.folder.read()["arguments"] == ["-m", *SHORT, "sweep.name=x", "seed=0,1", place]


# Where jobs run


def test_jobs_of_one_process_share_the_loaded_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_kept", [])
    same, other = composed("data=digits").data, composed("data=digits", "data.val_seed=null").data
    first = load.load_images(same, seed=0)
    assert load.load_images(same, seed=1) is first
    assert load.load_images(other, seed=1) is not first


@slow
def test_with_joblib_two_jobs_train_at_the_same_time_and_share_the_cores(tmp_path: Path) -> None:
    own = ["env", "-u", "OMP_NUM_THREADS", sys.executable, "-m", *command("train", "-m", *LONG)]
    with started(tmp_path, [*own, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1"]) as door:
        until(lambda: [status["state"] for status in map(json.loads, statuses(tmp_path).values())] == ["running"] * 2)
        assert door.end().returncode == 0, door.err.read_text()
    threads = [
        RunFolder(tmp_path / row["folder"]).read_summary()["machine"]["threads"] for row in rows(folder_of(tmp_path))
    ]
    assert threads == [max(1, available_cores() // 2)] * 2


@slow
def test_jobs_are_spread_evenly_over_the_visible_gpus(tmp_path: Path) -> None:
    wanted = ["seed=0,1,2,3", "sweep.jobs_per_gpu=2", "trainer.device=cpu"]
    with started(tmp_path, command("train", "-m", *SHORT, *wanted), CUDA_VISIBLE_DEVICES="7,8") as door:
        until(lambda: len(workers(door.pid)) == 4 or door.code is not None)
        gpus = [environment_of(pid)["CUDA_VISIBLE_DEVICES"] for pid in workers(door.pid)]
    assert gpus == ["7", "8", "7", "8"]


def environment_of(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


@slow
def test_a_sweep_whose_reader_has_gone_runs_to_its_end(tmp_path: Path) -> None:
    line = f'"{sys.executable}" -m s9.train -m "$@" | head -1'
    with started(tmp_path, ["sh", "-c", line, "sh", *SHORT, "seed=0,1"]) as door:
        assert door.end().stdout.count("\n") == 1
        until(lambda: not left(tmp_path))
    assert states(folder_of(tmp_path)) == {"0": "done", "1": "done"}
