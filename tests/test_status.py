"""status.json and the lock: what they say, what survives a new start, and that a run belongs to one process."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.tracking.status import Status

FACTS = {"command": "python -m s9.train seed=1", "group": None, "wandb_id": "0a1b2c3d", "commit": "abc", "dirty": False}
HOLDER = """
import sys, time
from pathlib import Path
from s9.tracking.folder import RunFolder
from s9.tracking.status import Status
folder = RunFolder(Path(sys.argv[1]))
lock = folder.claim()
Status(folder, {})
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def holder(folder: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which has claimed the folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder.path], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_start_says_running(folder: RunFolder) -> None:
    Status(folder, FACTS)
    assert folder.read_status()["state"] == "running"


def test_the_facts_are_in_it(folder: RunFolder) -> None:
    Status(folder, FACTS)
    assert folder.read_status().items() >= FACTS.items()


def test_it_names_the_process(folder: RunFolder) -> None:
    Status(folder, FACTS)
    assert folder.read_status()["pid"] == os.getpid()


def test_times_are_utc_to_the_second(folder: RunFolder) -> None:
    Status(folder, FACTS)
    said = folder.read_status()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said[key]) for key in ("started", "updated"))


@pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
def test_an_end_is_said(folder: RunFolder, state: str) -> None:
    Status(folder, FACTS).set(state, reason="SIGTERM")
    said = folder.read_status()
    assert (said["state"], said["reason"]) == (state, "SIGTERM")


def test_a_reason_does_not_outlive_its_state(folder: RunFolder) -> None:
    status = Status(folder, FACTS)
    status.set("failed", reason="disk full", log="error.txt")
    status.set("done")
    assert not {"reason", "log"} & folder.read_status().keys()


def test_the_facts_of_the_first_start_stay(folder: RunFolder) -> None:
    Status(folder, FACTS)
    Status(folder, FACTS | {"wandb_id": "ffffffff", "commit": "def"})
    assert folder.read_status().items() >= FACTS.items()


def test_the_time_of_the_first_start_stays(folder: RunFolder) -> None:
    folder.status.write_text('{"started": "2020-01-01T00:00:00Z"}')
    Status(folder, FACTS)
    assert folder.read_status()["started"] == "2020-01-01T00:00:00Z"


def test_starts_are_counted(folder: RunFolder) -> None:
    for _ in range(3):
        Status(folder, FACTS)
    assert folder.read_status()["starts"] == 3


@pytest.mark.parametrize("content", [b"", b'{"state": "run', b"[1]", b"\xff\xfe\x00", b"null"])
def test_one_that_cannot_be_read_is_none(folder: RunFolder, content: bytes) -> None:
    folder.status.write_bytes(content)
    assert folder.read_status() == {}


def test_one_that_cannot_be_read_is_written_anew(folder: RunFolder) -> None:
    folder.status.write_bytes(b"\xff")
    Status(folder, FACTS)
    assert folder.read_status()["starts"] == 1


def test_a_reader_never_finds_a_half(folder: RunFolder) -> None:
    status = Status(folder, FACTS)

    def write() -> None:
        for _ in range(50):
            status.set("running", note="x" * 50_000)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert json.loads(folder.status.read_text())["state"] == "running"
    writer.join()


def test_nothing_is_left_beside_it(folder: RunFolder) -> None:
    Status(folder, FACTS).set("done")
    assert list(folder.path.iterdir()) == [folder.status]


def test_a_status_that_cannot_be_written_does_not_end_the_run(folder: RunFolder) -> None:
    status = Status(folder, FACTS)
    folder.status.unlink()
    folder.status.mkdir()
    status.set("done")
    assert status.content["state"] == "done"


def test_a_second_process_is_refused_with_the_pid_of_the_first(
    folder: RunFolder, holder: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(UserError, match=rf"another process \(pid {holder.pid} on {re.escape(platform.node())}\)"):
        folder.claim()


def test_a_claimed_run_is_not_free(folder: RunFolder, holder: "subprocess.Popen[str]") -> None:
    assert not folder.is_free()


def test_looking_whether_it_is_free_takes_nothing(folder: RunFolder) -> None:
    assert folder.is_free() and folder.is_free()


def test_a_killed_process_holds_nothing(folder: RunFolder, holder: "subprocess.Popen[str]") -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    folder.claim().release()


def test_what_a_killed_process_has_forked_holds_nothing(folder: RunFolder) -> None:
    forks = HOLDER.replace(
        'print("held"', 'import os; child = os.fork()\nif not child: print("held"'
    )  # when it has let go
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", forks, folder.path],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        free = folder.is_free()
        os.killpg(process.pid, signal.SIGKILL)
    assert free


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_what_comes_after_a_run_is_done_takes_nothing_from_it(folder: RunFolder, state: str) -> None:
    """Its figures and W&B are optional."""
    status = Status(folder, FACTS)
    status.set("done", minutes=1.5)
    status.end(state, reason="while drawing")
    assert folder.read_status().items() >= {"state": "done", "minutes": 1.5}.items()
    other = RunFolder(folder.path / "other")
    other.path.mkdir()
    Status(other, FACTS).end(state, reason="while training")
    assert other.read_status()["state"] == state
