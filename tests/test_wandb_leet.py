"""`wandb leet outputs/sweeps/<name>`: all jobs of an offline sweep, accuracy and loss first."""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s9.tracking.wandb_leet import FIRST, STATE, show_in_leet
from tests.doors import environment, run
from tests.test_wandb_online import BASE, serving, sync

SIZE = (50, 200)  # lines and columns of the terminal


def began(sweep: Path, job: str, name: str) -> Path:
    """W&B's folder of a job that has begun."""
    place = sweep / job / "wandb" / f"offline-run-20261126_{name}"
    place.mkdir(parents=True)
    show_in_leet(place, sweep / job, of_sweep=True)
    return place


def state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / STATE).read_text())
    return content


def links(sweep: Path) -> dict[str, Path]:
    return {path.name: path.resolve() for path in sweep.iterdir() if path.is_symlink()}


def test_the_folder_of_a_sweep_links_every_jobs_wandb_folder(tmp_path: Path) -> None:
    places = [began(tmp_path, job, f"00000{job}-id{job}") for job in "12"]
    assert links(tmp_path) == {place.name: place.resolve() for place in places}


def test_links_hold_where_the_sweeps_folder_is_moved(tmp_path: Path) -> None:
    place = began(tmp_path / "sweep", "1", "000001-id1")
    (tmp_path / "sweep").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / place.name).is_dir()


def test_a_job_that_is_resumed_is_listed_once_by_its_newest_folder(tmp_path: Path) -> None:
    first, other, again = (began(tmp_path, *of_job) for of_job in (("1", "01-id1"), ("2", "02-id2"), ("1", "03-id1")))
    assert set(links(tmp_path)) == {other.name, again.name} and first.is_dir()
    assert state(tmp_path)["selected_runs"] == [other.name, again.name]


def test_the_charts_that_come_first_are_accuracy_and_loss(tmp_path: Path) -> None:
    place = began(tmp_path, "1", "000001-id1")
    assert [state(folder)["metrics_filter"] for folder in (tmp_path, place.parent)] == [{"query": FIRST}] * 2


def test_a_filter_that_the_user_has_changed_stays(tmp_path: Path) -> None:
    place = began(tmp_path, "1", "000001-id1")
    for folder in (tmp_path, place.parent):
        (folder / STATE).write_text('{"metrics_filter": {"query": "lr"}, "selected_runs": ["a"]}')
    began(tmp_path, "1", "000002-id1")
    assert [state(folder)["metrics_filter"] for folder in (tmp_path, place.parent)] == [{"query": "lr"}] * 2
    assert state(tmp_path)["selected_runs"] == ["a", "offline-run-20261126_000002-id1"]


def test_what_leet_has_kept_may_be_damaged(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text("{")
    place = began(tmp_path, "1", "000001-id1")
    assert state(tmp_path) == {"metrics_filter": {"query": FIRST}, "selected_runs": [place.name]}


def test_jobs_that_begin_at_the_same_time_are_all_selected(tmp_path: Path) -> None:
    threads = [threading.Thread(target=began, args=(tmp_path, f"{i}", f"{i:06}-id{i}")) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(state(tmp_path)["selected_runs"]) == sorted(links(tmp_path))


def test_a_run_that_is_no_job_is_not_listed_beside_its_folder(tmp_path: Path) -> None:
    place = tmp_path / "run" / "wandb" / "offline-run-20261126_000001-id"
    place.mkdir(parents=True)
    show_in_leet(place, tmp_path / "run", of_sweep=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_wandb_folder_elsewhere_is_not_linked(tmp_path: Path) -> None:
    """As where W&B cannot write into the run's folder."""
    place = tmp_path / "elsewhere" / "wandb" / "offline-run-20261126_000001-id"
    place.mkdir(parents=True)
    (tmp_path / "sweep" / "job").mkdir(parents=True)
    show_in_leet(place, tmp_path / "sweep" / "job", of_sweep=True)
    assert links(tmp_path / "sweep") == {}


# With W&B's own commands


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which an offline sweep of two jobs was run."""
    folder = tmp_path_factory.mktemp("leet")
    sweep = ["-m", *(word for word in BASE if not word.startswith("hydra.run.dir")), "trainer.epochs=2"]
    done = run(folder, "train", *sweep, "wandb=offline", "optimizer.lr=0.003,0.02", "sweep.name=mine")
    assert done.returncode == 0, done.stderr
    yield folder


def shown(folder: Path, path: str, wanted: str) -> str:
    """What `wandb leet` draws on a terminal until `wanted` is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        words = [str(Path(sys.executable).parent / "wandb"), "leet", path]
        os.execve(words[0], words, environment(folder, TERM="xterm-256color"))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    said, end = b"", time.monotonic() + 60
    try:
        while wanted not in said.decode(errors="replace") and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                said += os.read(terminal, 65536)
        return said.decode(errors="replace")
    finally:
        os.write(terminal, b"q")
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.slow
def test_leet_lists_all_jobs_and_shows_accuracy_and_loss_of_train_and_val_first(offline: Path) -> None:
    text = shown(offline, "outputs/sweeps/mine", "4 filtered from")
    assert "Runs" in text and "[2 items]" in text
    assert "[1-4 of 4 filtered from" in text


@pytest.mark.slow
def test_a_whole_offline_sweep_is_sent_by_one_command(offline: Path) -> None:
    with serving() as server:
        sync(offline, server, *sorted((offline / "outputs/sweeps/mine").glob("offline-run-*")))
        assert sorted(run.facts["displayName"] for run in server.runs.values()) == ["lr=0.003", "lr=0.02"]
        assert {run.state for run in server.runs.values()} == {"finished"}
