"""A sweep's folder: how each job stands, read from the files of its run whatever has happened to them."""

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s9.sweeps.belonging import changes, common
from s9.sweeps.drive import Drive
from s9.sweeps.jobs import SWEEPS, Job, SweepFolder, record
from s9.sweeps.screen import Screen
from s9.sweeps.table import cells_of
from s9.sweeps.task import Outcome
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.tracking.status import Status, standing
from tests.conftest import claimed, composed

HERE = {"host": platform.node(), "pid": os.getpid()}
SUMMARY = {
    "val": {"accuracy": 0.9, "loss": 0.3},
    "test": {"accuracy": 0.125, "loss": 0.625},
    "machine": {
        "device": "cpu",
        "processor": "A Processor",
        "precision": "float32",
        "versions": {"torch": "2.9", "torchvision": "0.24", "numpy": "2.3"},
    },
}
Make = Callable[..., RunFolder]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.chdir(tmp_path)
    return SweepFolder(SWEEPS / "mine")


@pytest.fixture
def make(sweep: SweepFolder) -> Make:
    """A run's folder as a job has left it: with this status, and with a configuration."""

    def made(job: str, *, sweep: SweepFolder = sweep, config: bool = True, **status: Any) -> RunFolder:
        folder = RunFolder(sweep.path / job)
        folder.path.mkdir(parents=True)
        if config:
            folder.config.write_text("seed: 0\n")
        if status:
            folder.status.write_text(json.dumps(status))
        if status.get("state") == "done":
            folder.summary.write_text(json.dumps(SUMMARY))
        return folder

    return made


def job(digest: str, **values: str) -> Job:
    return Job(digest, values, composed("data=digits"), f"python -m s9.train {digest}")


def noted(sweep: SweepFolder, *jobs: Job, keys: tuple[str, ...] = ("seed",)) -> None:
    sweep.note(["-m", "seed=0,1"], keys, jobs)


# --- how a job stands


def test_a_job_without_a_folder_is_missing(sweep: SweepFolder) -> None:
    assert standing(sweep.run("a")) == "missing"


def test_a_job_whose_folder_holds_nothing_of_a_run_is_missing(make: Make) -> None:
    assert standing(make("a", config=False)) == "missing"


@pytest.mark.parametrize("state", ["done", "failed", "paused"])
def test_a_job_that_has_ended_stands_as_it_says(make: Make, state: str) -> None:
    assert standing(make("a", state=state)) == state


def test_a_job_that_was_interrupted_is_cut(make: Make) -> None:
    assert standing(make("a", state="interrupted")) == "cut"


def test_a_job_that_another_process_trains_is_running(make: Make) -> None:
    folder = make("a", state="running", **HERE)
    with claimed(folder):
        assert standing(folder) == "running"


def test_a_job_whose_process_has_died_is_cut(make: Make) -> None:
    assert standing(make("a", state="running", **HERE)) == "cut"


def test_a_job_whose_process_was_killed_is_cut(make: Make) -> None:
    folder = make("a", state="running", **HERE)
    code = f"""
import os, signal
from pathlib import Path
from s9.tracking.folder import RunFolder
lock = RunFolder(Path({str(folder.path.absolute())!r})).claim()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert folder.lease.exists() and standing(folder) == "cut"


def test_a_job_of_another_machine_is_running_while_its_lease_is_there(make: Make) -> None:
    folder = make("a", state="running", host="another-machine", pid=1)
    folder.lease.write_text("anything")
    assert standing(folder) == "running"


def test_a_job_of_another_machine_whose_lease_somebody_has_taken_over_is_cut(make: Make) -> None:
    folder = make("a", state="running", host="another-machine", pid=1)
    folder.lock.touch()  # stays when the lock is released
    assert standing(folder) == "cut"


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"state": 5}', "null"])
def test_a_job_whose_status_cannot_be_read_is_cut(make: Make, content: str) -> None:
    folder = make("a")
    folder.status.write_text(content)
    assert standing(folder) == "cut"


def test_looking_leaves_nothing_in_the_folder_of_a_job_that_has_ended(make: Make) -> None:
    folder = make("a", state="done")
    before = sorted(folder.path.iterdir())
    standing(folder)
    assert sorted(folder.path.iterdir()) == before


# --- where a job's folder is


def test_a_done_job_is_found_in_a_sweep_beside(sweep: SweepFolder, make: Make) -> None:
    other = SweepFolder(sweep.path.parent / "other")
    folder = make("a", sweep=other, state="done")
    assert sweep.run("a").path == folder.path


def test_a_done_job_beside_is_found_although_its_own_folder_was_made_and_never_used(
    sweep: SweepFolder, make: Make
) -> None:
    folder = make("a", sweep=SweepFolder(sweep.path.parent / "other"), state="done")
    make("a", config=False)
    assert sweep.run("a").path == folder.path


@pytest.mark.parametrize("state", ["failed", "interrupted", "running"])
def test_a_job_beside_that_is_not_done_is_not_used(sweep: SweepFolder, make: Make, state: str) -> None:
    make("a", sweep=SweepFolder(sweep.path.parent / "other"), state=state)
    assert sweep.run("a").path == sweep.path / "a"


def test_a_sweep_in_a_folder_of_its_own_does_not_look_beside(tmp_path: Path, make: Make) -> None:
    make("a", sweep=SweepFolder(tmp_path / "other"), state="done")
    mine = SweepFolder(tmp_path / "mine")
    assert mine.run("a").path == mine.path / "a"


def test_its_own_folder_comes_before_one_beside(sweep: SweepFolder, make: Make) -> None:
    make("a", sweep=SweepFolder(sweep.path.parent / "another"), state="done")
    own = make("a", state="interrupted")
    assert sweep.run("a").path == own.path


# --- what the sweep itself stores


def test_every_job_that_was_ever_asked_for_is_kept(sweep: SweepFolder) -> None:
    noted(sweep, job("a", seed="0"))
    noted(sweep, job("b", lr="0.1"), keys=("lr",))
    keys, rows = sweep.rows()
    assert keys == ["seed", "lr"]
    assert [(row.job, row.values) for row in rows] == [("a", {"seed": "0"}), ("b", {"lr": "0.1"})]


def test_the_last_command_is_kept(sweep: SweepFolder) -> None:
    noted(sweep, job("a"))
    sweep.note(["-m", "seed=5"], (), [job("a")])
    assert sweep.read()["arguments"] == ["-m", "seed=5"]


def test_sweeps_that_begin_together_lose_no_job(sweep: SweepFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: noted(SweepFolder(sweep.path), job(str(number), seed=str(number))), range(40)))
    assert {row.job for row in sweep.rows()[1]} == {str(number) for number in range(40)}


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", '{"jobs": 5}', '{"jobs": [], "keys": [], "arguments": []}'])
def test_a_damaged_record_is_written_anew(sweep: SweepFolder, content: str) -> None:
    sweep.path.mkdir(parents=True)
    sweep.asked.write_text(content)
    noted(sweep, job("a", seed="0"))
    assert [row.job for row in sweep.rows()[1]] == ["a"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"choose with hydra\.sweep\.dir="):
        noted(SweepFolder(tmp_path / "file" / "mine"), job("a"))


def of_cell(digest: str, cell: str, **values: str) -> Job:
    return replace(job(digest, **values), cell=cell)


def held(sweep: SweepFolder) -> list[str]:
    return [row.job for row in sweep.rows()[1]]


def test_jobs_with_another_fixed_value_are_no_part_of_the_sweep_any_more(sweep: SweepFolder) -> None:
    fives = [job("a", seed="0"), job("b", seed="1")]
    sweep.note(["-m"], ["seed"], fives, fixed={"trainer.epochs": 5.0, "seed": 0.0})
    sweep.note(["-m"], ["seed"], [job("c", seed="2")], fixed={"trainer.epochs": 12.0, "seed": 2.0})
    assert held(sweep) == ["c"]
    sweep.note(["-m"], ["seed"], fives[:1], fixed={"trainer.epochs": 5.0, "seed": 0.0})
    assert held(sweep) == ["a"]


def test_a_key_that_is_swept_before_or_now_may_differ(sweep: SweepFolder) -> None:
    sweep.note(["-m"], ["seed"], [job("a", seed="0")], fixed={"model.dropout": 0.0, "images": "x"})
    sweep.note(["-m"], ["model.dropout"], [job("b")], fixed={"model.dropout": 0.1, "images": "x"})
    assert held(sweep) == ["a", "b"]
    sweep.note(["-m"], ["model.dropout"], [job("c")], fixed={"images": "y"})
    assert held(sweep) == ["c"]


def test_a_fixed_key_that_came_or_went_counts_as_changed(sweep: SweepFolder) -> None:
    sweep.note(["-m"], ["seed"], [job("a", seed="0")], fixed={"trainer.epochs": 5.0})
    sweep.note(["-m"], ["seed"], [job("b", seed="1")], fixed={"trainer.epochs": 5.0, "data.balance": True})
    assert held(sweep) == ["b"]
    sweep.note(["-m"], ["seed"], [job("c", seed="2")], fixed={"trainer.epochs": 5.0})
    assert held(sweep) == ["c"]


@pytest.mark.parametrize(
    ("key", "too"),
    [("data", "aug.transforms.crop.height"), ("data.image_size", "aug.transforms.crop.height"), ("trainer", "device")],
)
def test_what_a_swept_key_changes_too_may_differ(key: str, too: str) -> None:
    assert not changes({too: "x"}, {too: "y"}, [key])
    assert changes({too: "x"}, {too: "y"}, ["trainer.epochs"])


def test_a_key_that_only_some_jobs_have_varies() -> None:
    some = common({"model.depth": 3.0}, {"optimizer.momentum": 0.9, "model.depth": 3.0})
    assert not changes(some, {"model.depth": 3.0}, []) and not changes({"model.depth": 3.0}, some, [])
    assert changes(some, {"model.depth": 4.0}, []) == ["model.depth was 3, is 4"]


def test_jobs_of_a_cell_that_has_changed_are_left_out_with_their_seeds(sweep: SweepFolder) -> None:
    first = [of_cell("a", "x", model="strided", seed="0"), of_cell("b", "y", model="dilated", seed="0")]
    sweep.note(["-m"], ["model", "seed"], first)
    sweep.note(["-m"], ["model", "seed"], [of_cell("c", "z", model="strided", seed="1")])
    assert held(sweep) == ["b", "c"]


def test_a_record_of_an_older_version_keeps_its_jobs(sweep: SweepFolder) -> None:
    sweep.path.mkdir(parents=True)
    sweep.asked.write_text('{"arguments": ["-m"], "keys": ["seed"], "jobs": {"a": {"seed": "0"}}}')
    sweep.note(["-m"], ["seed"], [of_cell("b", "x", seed="1")], fixed={"trainer.epochs": 5.0})
    assert held(sweep) == ["a", "b"]


def test_values_that_are_spelled_in_two_ways_make_one_cell(sweep: SweepFolder) -> None:
    noted(sweep, job("a", dropout="0", seed="0"), keys=("dropout", "seed"))
    noted(sweep, job("b", dropout="0.0", seed="1"), job("c", dropout="0.10", seed="1"), keys=("dropout", "seed"))
    cells = cells_of(*sweep.rows())
    assert [(cell.values, len(cell.rows)) for cell in cells] == [({"dropout": "0"}, 2), ({"dropout": "0.10"}, 1)]


# --- the table


def test_a_done_job_has_its_scores_on_val_and_where_they_come_from(sweep: SweepFolder, make: Make) -> None:
    make("a", state="done", minutes=1.5, commit="0123456789abcdef", dirty=True)
    row = sweep.row("a", {"seed": "0"})
    assert (row.state, row.accuracy, row.loss, row.minutes, row.commit) == ("done", 0.9, 0.3, 1.5, "012345678+")
    assert (row.processor, row.precision) == ("A Processor", "float32")
    assert row.versions == "torch 2.9, torchvision 0.24, numpy 2.3"


def test_a_failed_job_has_its_reason_and_the_file_of_its_traceback(sweep: SweepFolder, make: Make) -> None:
    folder = make("a", state="failed", reason="the loss is nan")
    folder.traceback.write_text("Traceback")
    row = sweep.row("a", {})
    assert (row.reason, row.traceback) == ("the loss is nan", str(folder.traceback))


def test_a_failed_job_without_a_traceback_names_none(sweep: SweepFolder, make: Make) -> None:
    make("a", state="failed", reason="data.val_size=5: must be 0")
    assert sweep.row("a", {}).traceback == ""


def test_a_killed_job_says_that_it_was_killed(sweep: SweepFolder, make: Make) -> None:
    make("a", state="running", **HERE)
    assert (sweep.row("a", {}).state, sweep.row("a", {}).reason) == ("cut", "killed")


def test_a_done_job_whose_summary_is_damaged_says_so_and_has_no_scores(sweep: SweepFolder, make: Make) -> None:
    make("a", state="done").summary.write_text("{")
    row = sweep.row("a", {})
    assert (row.state, row.accuracy) == ("done", None) and "is damaged" in row.reason


def test_the_summary_is_written_from_the_files_of_the_runs(sweep: SweepFolder, make: Make) -> None:
    noted(sweep, job("a", seed="0"), job("b", seed="1"), job("c", seed="2"))
    make("a", state="done", minutes=1.0)
    failed = make("b", state="failed", reason="the loss is nan")
    sweep.write_summary()
    stood = {line["job"]: line["status"] for line in sweep.read_summary()}
    assert stood == {"a": "done", "b": "failed", "c": "missing"}
    failed.status.write_text('{"state": "done"}')
    failed.summary.write_text(json.dumps(SUMMARY))
    sweep.write_summary()
    assert {line["job"]: line["status"] for line in sweep.read_summary()}["b"] == "done"


def test_a_summary_that_somebody_has_damaged_is_whole_again(sweep: SweepFolder, make: Make) -> None:
    noted(sweep, job("a", seed="0"))
    make("a", state="done")
    sweep.summary.write_bytes(b"\x00\xff")
    sweep.write_summary()
    assert [line["job"] for line in sweep.read_summary()] == ["a"]


def test_a_summary_that_cannot_be_written_costs_the_sweep_nothing(
    sweep: SweepFolder, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    noted(sweep, job("a", seed="0"))
    make("a", state="done")
    sweep.summary.mkdir()
    _, rows = sweep.write_summary()
    assert [row.state for row in rows] == ["done"]
    assert f"{sweep.summary} cannot be written" in caplog.text


def test_summaries_that_are_written_together_are_whole(sweep: SweepFolder, make: Make) -> None:
    noted(sweep, *(job(str(number), seed=str(number)) for number in range(5)))
    make("0", state="done")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: SweepFolder(sweep.path).write_summary(), range(20)))
    with sweep.summary.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5


def test_the_summary_never_has_test(sweep: SweepFolder, make: Make) -> None:
    noted(sweep, job("a", seed="0"))
    make("a", state="done")
    sweep.write_summary()
    text = sweep.summary.read_text()
    assert "test" not in text.partition("\n")[0] and "0.125" not in text and "0.625" not in text


def test_a_damaged_line_of_metrics_costs_the_bar_an_epoch_and_the_sweep_nothing(
    sweep: SweepFolder, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    make("a", state="running", **HERE).metrics.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    never: Any = None
    drive = Drive(pool=never, folder=sweep, max_failures=3, begun=False, heard=never, told=never, shown=never)
    drive.running["a"] = (job("a", seed="0"), 0.0)
    screen = Screen([], 1, None)
    screen.show(drive)
    assert screen.progress.tasks[0].fields["now"].startswith("seed=0 epoch ?/")


# --- how a job ended whose process could not say so


def test_a_killed_job_gets_its_reason(make: Make) -> None:
    folder = make("a", state="running", starts=1, **HERE)
    record(folder, Outcome("interrupted", "killed by SIGKILL"))
    said = folder.read_status()
    assert (said["state"], said["reason"], said["starts"]) == ("interrupted", "killed by SIGKILL", 1)


def test_a_job_that_never_began_gets_its_reason(sweep: SweepFolder) -> None:
    folder = RunFolder(sweep.path / "a")
    record(folder, Outcome("failed", "ended its process with exit code 0"))
    assert standing(folder) == "failed"


@pytest.mark.parametrize("state", ["done", "failed", "interrupted", "paused"])
def test_what_a_run_has_said_of_its_end_stays(make: Make, state: str) -> None:
    folder = make("a", state=state, reason="its own")
    record(folder, Outcome("failed", "another"))
    assert folder.read_status() == {"state": state, "reason": "its own"}


def test_a_run_that_another_process_trains_is_left_alone(make: Make) -> None:
    folder = make("a", state="running", **HERE)
    with claimed(folder):
        Status(folder, {})
        record(folder, Outcome("interrupted", "killed by SIGKILL"))
        assert folder.read_status()["state"] == "running"


def test_where_the_end_of_a_job_cannot_be_written_the_sweep_goes_on(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("a", state="running", **HERE)
    folder.status.unlink()
    folder.status.mkdir()
    record(folder, Outcome("interrupted", "killed by SIGKILL"))
    assert f"{folder.status} cannot be written" in caplog.text


@pytest.mark.parametrize("state", ["done", "paused", "taken"])
def test_an_end_that_a_run_has_to_say_itself_is_not_said_for_it(make: Make, state: str) -> None:
    folder = make("a", state="running", **HERE)
    record(folder, Outcome(state))
    assert folder.read_status()["state"] == "running"


def test_pairing_is_what_the_sweeps_first_command_says(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    for paired in (False, True):
        folder.note(["-m"], ("seed",), [], paired=paired)
    assert folder.read()["paired"] is False
