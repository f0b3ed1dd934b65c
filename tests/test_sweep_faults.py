"""Sweeps that are killed, stopped, started twice, or have jobs that fail: nothing is lost and nothing is run twice."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.doors import SHORT, Done, Started, command, left, metrics, nobody_left, run, shell, started, status, until
from tests.processes import content, differing
from tests.sweeps import (
    EPOCHS,
    LONG,
    all_done,
    alone,
    folder_of,
    in_the_middle,
    rows,
    starts,
    states,
    sweep,
    words,
    workers,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc"),
]
TWO = [*LONG, "seed=0,1"]
FAULTY = """
import sys
import torch

class Faulty(torch.optim.SGD):
    def __init__(self, params, lr, how):
        super().__init__(params, lr)
        self.how = how

    def step(self, closure=None):
        if self.how == "raise":
            raise RuntimeError("a fault of its own")
        if self.how == "exit":
            sys.exit(0)
        return super().step(closure)
"""
CELLS = (
    "sweep.cells=[{optimizer.how: raise}, {optimizer.how: exit}, {optimizer.how: fine, optimizer.lr: 1e30}, "
    "{optimizer.how: fine, optimizer.lr: 0.02}]"
)
OF_OWN = ["-m", "--config-dir", "conf", *(argument for argument in SHORT if not argument.startswith("optimizer"))]
OF_OWN += ["optimizer=faulty", "allow=faulty", CELLS]


def end_now(door: Started, number: int) -> None:
    os.kill(door.pid, number)
    until(lambda: door.code is not None)


# Killed


def test_a_killed_sweep_leaves_no_process_and_the_same_command_ends_it_bit_identical(tmp_path: Path) -> None:
    with started(tmp_path, command("train", "-m", *TWO)) as door:
        cut = until(lambda: in_the_middle(tmp_path))
        end_now(door, signal.SIGKILL)
        until(lambda: not left(tmp_path), 8)  # they save what they have
    assert status(cut)["state"] == "interrupted"
    done = sweep(tmp_path, *TWO)
    assert (done.returncode, "2 jobs: 1 to resume, 1 to run" in done.stdout) == (0, True), done.stderr
    folder = folder_of(tmp_path)
    assert [starts(folder)[row["job"]] for row in rows(folder)] == [2, 1]
    for row in rows(folder):
        job = folder / row["job"]
        assert len(metrics(job)) == EPOCHS
        assert differing(job, content(alone(tmp_path, job))) == []


def test_a_killed_worker_loses_its_job_alone_and_the_same_command_resumes_that_job(tmp_path: Path) -> None:
    with started(tmp_path, command("train", "-m", *TWO)) as door:
        until(lambda: in_the_middle(tmp_path))
        (worker,) = workers(door.pid)
        os.kill(worker, signal.SIGKILL)
        done = door.end()
    folder = folder_of(tmp_path)
    assert (done.returncode, states(folder)) == (1, {"0": "cut", "1": "done"})
    assert rows(folder)[0]["reason"].startswith("killed by SIGKILL")
    assert "cut: seed=0: killed by SIGKILL" in done.stdout
    assert sweep(tmp_path, *TWO).returncode == 0
    assert [starts(folder)[row["job"]] for row in rows(folder)] == [2, 1]
    job = folder / rows(folder)[0]["job"]
    assert differing(job, content(alone(tmp_path, job))) == []


def test_failures_alike_stop_no_sweep_of_which_jobs_were_done_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])
    all_done(["-m", *SHORT, "optimizer.lr=choice(0.1)", "seed=0,1", "sweep.name=x"])
    done = sweep(tmp_path, *SHORT, "optimizer.lr=0.1,1e30,0.2", "seed=0,1", "sweep.name=x", "sweep.max_failures=2")
    found = [(row["optimizer.lr"], row["status"]) for row in rows(tmp_path / "outputs/sweeps/x")]
    assert found == [(lr, how) for lr, how in (("0.1", "done"), ("1e+30", "failed"), ("0.2", "done")) for _ in "01"]
    assert "the sweep has stopped" not in done.stderr


# Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_saves_shows_all_jobs_and_prints_the_command_that_goes_on(tmp_path: Path, number: int) -> None:
    with started(tmp_path, command("train", "-m", *TWO)) as door:
        until(lambda: in_the_middle(tmp_path))
        (os.killpg if number == signal.SIGINT else os.kill)(door.pid, number)  # a terminal signals the whole group
        until(lambda: door.code is not None, 8)
        assert not left(tmp_path)
        done = door.end()
    folder = folder_of(tmp_path)
    assert (done.returncode, states(folder)) == (128 + number, {"0": "cut", "1": "missing"})
    assert "1 cut" in done.stdout and "1 missing" in done.stdout
    found = re.search(r"^interrupted by SIG\w+; go on with: (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    resumed = run(tmp_path, "train", *words(found[1]))
    assert (resumed.returncode, states(folder)) == (0, {"0": "done", "1": "done"}), resumed.stderr
    assert [starts(folder)[row["job"]] for row in rows(folder)] == [2, 1]


def test_ctrl_c_while_the_first_worker_starts_is_quiet(tmp_path: Path) -> None:
    with started(tmp_path, command("train", "-m", *TWO)) as door:
        until(lambda: workers(door.pid))
        os.killpg(door.pid, signal.SIGINT)
        done = door.end()
        assert nobody_left(tmp_path)
    assert (done.returncode, states(folder_of(tmp_path))) == (130, {"0": "missing", "1": "missing"})
    assert "Traceback" not in done.stderr


def test_a_sweep_whose_reader_has_gone_ends_on_sigterm(tmp_path: Path) -> None:
    line = f'"{sys.executable}" -m s9.train -m "$@" | head -1'
    with started(tmp_path, ["sh", "-c", line, "sh", *TWO]):
        cut = until(lambda: in_the_middle(tmp_path))
        (pid,) = (
            pid for pid in left(tmp_path) if b"s9.train" in Path(f"/proc/{pid}/cmdline").read_bytes() and workers(pid)
        )
        os.kill(pid, signal.SIGTERM)
        assert nobody_left(tmp_path)
    assert status(cut)["state"] == "interrupted"
    assert states(folder_of(tmp_path)) == {"0": "cut", "1": "missing"}


# Started twice


def test_a_command_that_is_started_twice_runs_each_job_once(tmp_path: Path) -> None:
    both = command("train", "-m", *SHORT, "seed=0,1,2,3")
    with started(tmp_path, both) as one, started(tmp_path, both) as other:
        ends = [one.end(), other.end()]
    folder = folder_of(tmp_path)
    assert [(done.returncode, done.stderr) for done in ends] == [(0, ""), (0, "")]
    assert list(starts(folder).values()) == [1, 1, 1, 1]
    assert set(states(folder).values()) == {"done"}


def test_of_two_sweeps_one_is_killed_and_the_other_ends_its_jobs(tmp_path: Path) -> None:
    with started(tmp_path, command("train", "-m", *TWO)) as one:
        cut = until(lambda: in_the_middle(tmp_path))
        worker = status(cut)["pid"]
        os.kill(worker, signal.SIGSTOP)  # else the job may have ended before the other sweep looks
        with started(tmp_path, command("train", "-m", *TWO)) as other:
            other.has_said("1 being run by another process")
            end_now(one, signal.SIGKILL)
            os.kill(worker, signal.SIGCONT)
            done = other.end()
    folder = folder_of(tmp_path)
    assert (done.returncode, set(states(folder).values())) == (0, {"done"}), done.stderr
    assert (starts(folder)[cut.name], sum(starts(folder).values())) == (2, 3)


# Jobs that fail


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a sweep has ended with four jobs, of which the last alone is done; its screen is in out.txt."""
    cwd = tmp_path_factory.mktemp("failed")
    (cwd / "faulty.py").write_text(FAULTY)
    (cwd / "conf" / "optimizer").mkdir(parents=True)
    (cwd / "conf" / "optimizer" / "faulty.yaml").write_text("_target_: faulty.Faulty\nlr: 0.02\nhow: fine\n")
    done = of_own(cwd, *OF_OWN)
    assert done.returncode == 1
    (cwd / "out.txt").write_text(done.stdout)
    return cwd


@pytest.fixture
def copied(failed: Path, tmp_path: Path) -> Path:
    shutil.copytree(failed, tmp_path, dirs_exist_ok=True)
    return tmp_path


def of_own(cwd: Path, *arguments: str) -> Done:
    """`python -m s9.train ...` as a new python, which finds the package in `cwd`."""
    with started(cwd, shell("train", *arguments), PYTHONPATH=f"{cwd}{os.pathsep}{ROOT}") as door:
        return door.end()


def test_jobs_that_fail_or_exit_fail_alone_with_their_reasons(failed: Path) -> None:
    folder = folder_of(failed)
    assert [row["status"] for row in rows(folder)] == ["failed", "failed", "failed", "done"]
    raised, ended, exploded = [row["reason"] for row in rows(folder)][:3]
    assert "a fault of its own" in raised
    assert ended == "ended its process with exit code 0"
    assert exploded.startswith("loss is")


def test_a_failed_job_shows_its_reason_and_the_file_of_its_traceback(failed: Path) -> None:
    row = rows(folder_of(failed))[0]
    assert "a fault of its own" in (failed / row["traceback"]).read_text()
    (line,) = (
        line for line in (failed / "out.txt").read_text().splitlines() if line.startswith("failed: optimizer.how=raise")
    )
    assert "a fault of its own" in line and row["traceback"] in line


def test_failed_jobs_are_not_run_again_unasked(copied: Path) -> None:
    before = starts(folder_of(copied))
    done = of_own(copied, *OF_OWN)
    assert (done.returncode, starts(folder_of(copied))) == (1, before)
    assert "4 jobs: 1 done, 3 failed (sweep.retry=failed runs them again)" in done.stdout


def test_a_resumed_sweep_runs_failed_jobs_again_with_retry(copied: Path) -> None:
    (copied / "faulty.py").write_text(FAULTY.replace("raise RuntimeError", "RuntimeError"))  # the fault is mended
    more = ["allow=faulty", "sweep.retry=failed"]
    place = f"resume={folder_of(copied).relative_to(copied)}"
    done = of_own(copied, place, *more)
    assert "4 jobs: 1 done, 3 to run again" in done.stdout, done.stderr
    assert done.returncode == 1
    assert [row["status"] for row in rows(folder_of(copied))] == ["done", "failed", "failed", "done"]
    assert [starts(folder_of(copied))[row["job"]] for row in rows(folder_of(copied))] == [2, 2, 2, 1]


@pytest.mark.parametrize("most", [1, 3])
def test_a_sweep_whose_first_jobs_all_fail_alike_stops_and_says_so(tmp_path: Path, most: int) -> None:
    more = [] if most == 3 else [f"sweep.max_failures={most}"]  # 3 is the default
    done = sweep(tmp_path, *SHORT, "optimizer.lr=1e30,2e30,3e30,0.02", *more)
    assert done.returncode == 1
    assert f"error: the sweep has stopped: the first {most} jobs all ended alike" in done.stderr
    assert list(states(folder_of(tmp_path), "optimizer.lr").values()) == ["failed"] * most + ["missing"] * (4 - most)
