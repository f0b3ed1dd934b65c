"""The live view of a sweep, of real folders: what it shows, when it ends, and that a signal ends it."""

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

from s9.sweeps.jobs import SweepFolder
from s9.sweeps.watch import Watch, watch
from s9.system.errors import UserError
from tests.conftest import claimed, composed
from tests.doors import shell
from tests.made_up_sweep import write_made_up_sweep

KEYS = {"optimizer.lr": ["0.01", "0.02"]}


def shown(folder: SweepFolder) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    watch(folder, lambda: None, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Six jobs: one has failed, one is missing."""
    return write_made_up_sweep(tmp_path / "sweep", KEYS, seeds=3, epochs=3, failed=1, missing=1)


def test_the_view_counts_the_states(folder: SweepFolder) -> None:
    assert "6 jobs: 1 failed, 4 done, 1 missing" in shown(folder)


def test_the_view_has_the_best_cells(folder: SweepFolder) -> None:
    lines = shown(folder).splitlines()
    assert any(line.startswith("optimizer.lr=0.01 ") and line.endswith("2/3") for line in lines)


def test_values_that_are_spelled_in_two_ways_are_one_cell_of_the_view(folder: SweepFolder) -> None:
    stored = folder.read()
    values = next(values for values in stored["jobs"].values() if values == {"optimizer.lr": "0.01", "seed": "2"})
    values["optimizer.lr"] = "1e-2"
    folder.asked.write_text(json.dumps(stored))
    lines = shown(folder).splitlines()
    assert any(line.startswith("optimizer.lr=0.01 ") and line.endswith("2/3") for line in lines)


def test_the_view_has_the_reason_of_a_failure(folder: SweepFolder) -> None:
    assert "failed: optimizer.lr=0.01 seed=0: loss is nan in epoch 3 (made up)" in shown(folder)


def test_a_running_job_shows_its_epoch(folder: SweepFolder) -> None:
    job = next(iter(folder.read()["jobs"]))
    run = folder.run(job)
    run.write_config(composed("trainer.epochs=9"))
    run.status.write_text(json.dumps({"state": "running", "host": "another"}))
    with claimed(run):
        text = shown(folder)
    assert "1 running" in text and "3 of 9" in text


def test_a_job_that_ends_is_seen_at_the_next_look(folder: SweepFolder) -> None:
    view, (job, *_) = Watch(folder), folder.read()["jobs"]
    view.look()
    run = folder.run(job)
    run.status.write_text(json.dumps({"state": "done", "minutes": 1.0}))
    run.write_summary({"val": {"accuracy": 0.5, "loss": 1.0}})
    view.look()
    assert "5 done" in view.standing()


@pytest.mark.slow
def test_the_view_lasts_while_no_job_is_running_between_two_and_ends_with_the_last(folder: SweepFolder) -> None:
    """In a terminal; the missing job ends while it is watched."""
    (job,) = [row.job for row in folder.rows()[1] if row.state == "missing"]
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    began = time.monotonic()

    def heard() -> None:
        if time.monotonic() - began > 3 and not folder.run(job).summary.exists():
            folder.run(job).path.mkdir()
            folder.run(job).write_summary({"val": {"accuracy": 0.5, "loss": 1.0}})
            folder.run(job).status.write_text(json.dumps({"state": "done", "minutes": 1.0}))

    watch(folder, heard, console)
    assert isinstance(console.file, io.StringIO)
    assert "5 done" in console.file.getvalue() and "all jobs have ended" in console.file.getvalue()


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no sweep\.json in it"):
        watch(SweepFolder(tmp_path), lambda: None)


@pytest.mark.slow
def test_ctrl_c_ends_the_view_and_gives_the_cursor_back(folder: SweepFolder) -> None:
    """In a real terminal, while a job seems to run."""
    import pty

    run = folder.run(next(iter(folder.read()["jobs"])))
    run.status.write_text(json.dumps({"state": "running", "host": "another"}))
    run.lease.write_text("{}")
    command = shell("report", f"sweep={folder.path}", "watch=true")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, os.environ | {"TERM": "xterm"})
    seen = b""
    while b"1 running" not in seen:
        seen += os.read(terminal, 4096)
    time.sleep(0.5)
    os.kill(pid, signal.SIGINT)
    try:
        while part := os.read(terminal, 4096):
            seen += part
    except OSError:  # the terminal is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert b"\x1b[?25h" in seen.rpartition(b"\x1b[?25l")[2]
    assert b"Traceback" not in seen
