"""The lock of a run: one process holds it, whatever happened to the one before, here and on other machines."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

from s9.tracking import lock
from s9.tracking.lock import RunLock
from tests.conftest import ROOT
from tests.doors import until

LEASE_S, HEARTBEAT_S = 0.8, 0.1  # here; runs wait half a minute
HOLDER = f"""
import sys, time
from pathlib import Path
from s9.tracking import lock
lock.LEASE_S, lock.HEARTBEAT_S = {LEASE_S}, {HEARTBEAT_S}
held = lock.RunLock(Path(sys.argv[1]) / "lock", Path(sys.argv[1]) / "lease", stop=sys.argv[2] == "stop")
print(held.acquire(), flush=True)
time.sleep(600)
"""

Hold = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_S", LEASE_S)
    monkeypatch.setattr(lock, "HEARTBEAT_S", HEARTBEAT_S)


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Starts another process, which holds the lock."""
    processes: list[subprocess.Popen[str]] = []

    def start(stop: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLDER, str(tmp_path), stop]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout and processes[-1].stdout.readline() == "True\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def holder(hold: Hold) -> "subprocess.Popen[str]":
    return hold("")


def run_lock(folder: Path) -> RunLock:
    return RunLock(folder / "lock", folder / "lease")


def lease_of_another_machine(folder: Path) -> Path:
    """As another machine has left it; its lock of the operating system is not seen here."""
    held = run_lock(folder)
    assert held.acquire()
    text = (folder / "lease").read_text()
    held.release()
    other = re.sub("^host=.*$", "host=another-machine", text, flags=re.M)
    assert other != text
    (folder / "lease").write_text(other)
    return folder / "lease"


def test_a_lock_that_is_free_is_acquired_and_leaves_no_lease_when_released(tmp_path: Path) -> None:
    held = run_lock(tmp_path)
    assert held.acquire() and (tmp_path / "lease").exists()
    held.release()
    assert not (tmp_path / "lease").exists() and run_lock(tmp_path).acquire()


def test_one_that_another_process_holds_is_not_acquired(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    assert not run_lock(tmp_path).acquire()


def test_one_that_another_process_holds_is_not_acquired_either_where_the_file_system_passes_no_locks_on(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    (tmp_path / "lock").unlink()  # a new file is another lock
    assert not run_lock(tmp_path).acquire()


def test_one_whose_process_was_killed_is_acquired_at_once(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "lease").exists()
    assert run_lock(tmp_path).acquire()


def test_one_whose_process_is_frozen_is_not_acquired_however_long(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    waiting, end = run_lock(tmp_path), time.monotonic() + 2.5 * LEASE_S
    while time.monotonic() < end:
        assert not waiting.acquire()
        time.sleep(HEARTBEAT_S)


def test_one_of_another_machine_is_acquired_once_it_has_been_still_for_long_enough(tmp_path: Path) -> None:
    lease_of_another_machine(tmp_path)
    waiting, began = run_lock(tmp_path), time.monotonic()
    assert not waiting.acquire()
    until(waiting.acquire)
    assert time.monotonic() - began >= LEASE_S


def test_one_of_another_machine_whose_heart_beats_is_not_acquired(tmp_path: Path) -> None:
    lease, waiting, end = lease_of_another_machine(tmp_path), run_lock(tmp_path), time.monotonic() + 2.5 * LEASE_S
    while time.monotonic() < end:
        lease.touch()
        assert not waiting.acquire()
        time.sleep(HEARTBEAT_S)


def test_where_the_lease_is_not_acquired_the_other_lock_is_not_kept(tmp_path: Path) -> None:
    lease_of_another_machine(tmp_path)
    assert not run_lock(tmp_path).acquire()
    FileLock(tmp_path / "lock").acquire(blocking=False)


def test_the_heartbeat_of_one_that_is_held_goes_on(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    before = (tmp_path / "lease").stat().st_mtime_ns
    until(lambda: (tmp_path / "lease").stat().st_mtime_ns > before)


def test_a_process_that_has_lost_its_lease_to_another_machine_is_told_to_stop(tmp_path: Path, hold: Hold) -> None:
    loser = hold("stop")
    (tmp_path / "other").mkdir()
    lease_of_another_machine(tmp_path / "other").replace(tmp_path / "lease")
    assert loser.wait(60) == -signal.SIGTERM


def test_one_that_only_looked_is_not_stopped(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    (tmp_path / "other").mkdir()
    lease_of_another_machine(tmp_path / "other").replace(tmp_path / "lease")
    with pytest.raises(subprocess.TimeoutExpired):
        holder.wait(10 * HEARTBEAT_S)


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run_lock(tmp_path / "file").acquire()


def test_on_a_file_system_without_locks_the_lease_alone_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError

    first, second = run_lock(tmp_path), run_lock(tmp_path)
    for made in (first, second):
        monkeypatch.setattr(made.here, "acquire", none)
    assert first.acquire() and not second.acquire()
    first.release()
    assert second.acquire()


def test_one_of_a_dead_process_of_another_machine_is_acquired_by_who_is_patient(tmp_path: Path) -> None:
    lease_of_another_machine(tmp_path)
    assert run_lock(tmp_path).acquire(patient=True)


def test_one_whose_heart_beats_on_another_machine_is_not_acquired_by_who_is_patient(tmp_path: Path) -> None:
    lease, ended = lease_of_another_machine(tmp_path), threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            lease.touch()

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        assert not run_lock(tmp_path).acquire(patient=True)
    finally:
        ended.set()
        heart.join()


def test_an_old_empty_lease_as_a_power_cut_leaves_it_is_of_nobody(tmp_path: Path) -> None:
    (tmp_path / "lease").touch()
    os.utime(tmp_path / "lease", (0, 0))
    assert run_lock(tmp_path).acquire()
