"""status.json and the lock: what they say, what survives a new start, and that a run belongs to one process."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from s9.errors import UserError
from s9.tracking.status import STATUS, Status, claim, is_free, read_status

FACTS = {"command": "python -m s9.train seed=1", "group": None, "wandb_id": "0a1b2c3d", "commit": "abc", "dirty": False}
HOLDER = """
import sys, time
from pathlib import Path
from s9.tracking.status import Status, claim
lock = claim(Path(sys.argv[1]))
Status(Path(sys.argv[1]), {})
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which has claimed the folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_start_says_running(tmp_path: Path) -> None:
    Status(tmp_path, FACTS)
    assert read_status(tmp_path)["state"] == "running"


def test_the_facts_are_in_it(tmp_path: Path) -> None:
    Status(tmp_path, FACTS)
    assert read_status(tmp_path).items() >= FACTS.items()


def test_it_names_the_process(tmp_path: Path) -> None:
    Status(tmp_path, FACTS)
    assert read_status(tmp_path)["pid"] == os.getpid()


def test_times_are_utc_to_the_second(tmp_path: Path) -> None:
    Status(tmp_path, FACTS)
    said = read_status(tmp_path)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said[key]) for key in ("started", "updated"))


@pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
def test_an_end_is_said(tmp_path: Path, state: str) -> None:
    Status(tmp_path, FACTS).set(state, reason="SIGTERM")
    assert (read_status(tmp_path)["state"], read_status(tmp_path)["reason"]) == (state, "SIGTERM")


def test_a_reason_does_not_outlive_its_state(tmp_path: Path) -> None:
    status = Status(tmp_path, FACTS)
    status.set("failed", reason="disk full", log="error.txt")
    status.set("done")
    assert not {"reason", "log"} & read_status(tmp_path).keys()


def test_the_facts_of_the_first_start_stay(tmp_path: Path) -> None:
    Status(tmp_path, FACTS)
    Status(tmp_path, FACTS | {"wandb_id": "ffffffff", "commit": "def"})
    assert read_status(tmp_path).items() >= FACTS.items()


def test_the_time_of_the_first_start_stays(tmp_path: Path) -> None:
    (tmp_path / STATUS).write_text('{"started": "2020-01-01T00:00:00Z"}')
    Status(tmp_path, FACTS)
    assert read_status(tmp_path)["started"] == "2020-01-01T00:00:00Z"


def test_starts_are_counted(tmp_path: Path) -> None:
    for _ in range(3):
        Status(tmp_path, FACTS)
    assert read_status(tmp_path)["starts"] == 3


@pytest.mark.parametrize("content", [b"", b'{"state": "run', b"[1]", b"\xff\xfe\x00", b"null"])
def test_one_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATUS).write_bytes(content)
    assert read_status(tmp_path) == {}


def test_one_that_cannot_be_read_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / STATUS).write_bytes(b"\xff")
    Status(tmp_path, FACTS)
    assert read_status(tmp_path)["starts"] == 1


def test_a_reader_never_finds_a_half(tmp_path: Path) -> None:
    status = Status(tmp_path, FACTS)

    def write() -> None:
        for _ in range(50):
            status.set("running", note="x" * 50_000)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert json.loads((tmp_path / STATUS).read_text())["state"] == "running"
    writer.join()


def test_nothing_is_left_beside_it(tmp_path: Path) -> None:
    Status(tmp_path, FACTS).set("done")
    assert [p.name for p in tmp_path.iterdir()] == [STATUS]


def test_a_status_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    status = Status(tmp_path, FACTS)
    (tmp_path / STATUS).unlink()
    (tmp_path / STATUS).mkdir()
    status.set("done")
    assert status.content["state"] == "done"


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    with pytest.raises(UserError, match=rf"another process \(pid {holder.pid}\)"):
        claim(tmp_path)


def test_a_claimed_run_is_not_free(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    assert not is_free(tmp_path)


def test_looking_whether_it_is_free_takes_nothing(tmp_path: Path) -> None:
    assert is_free(tmp_path) and is_free(tmp_path)


def test_a_killed_process_holds_nothing(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    claim(tmp_path).release()


def test_what_a_killed_process_has_forked_holds_nothing(tmp_path: Path) -> None:
    forks = HOLDER.replace(
        'print("held"', 'import os; child = os.fork()\nif not child: print("held"'
    )  # when it has let go
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", forks, tmp_path],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        free = is_free(tmp_path)
        os.killpg(process.pid, signal.SIGKILL)
    assert free


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_what_comes_after_a_run_is_done_takes_nothing_from_it(tmp_path: Path, state: str) -> None:
    """Its figures and W&B are optional."""
    status = Status(tmp_path, FACTS)
    status.set("done", minutes=1.5)
    status.end(state, reason="while drawing")
    assert read_status(tmp_path).items() >= {"state": "done", "minutes": 1.5}.items()
    other = tmp_path / "other"
    other.mkdir()
    Status(other, FACTS).end(state, reason="while training")
    assert read_status(other)["state"] == state
