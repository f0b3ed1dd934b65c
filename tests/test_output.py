"""Readers that go away or do not read, full disks under a log: real pipes and terminals, and runs that do not mind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests import doors, processes
from tests.conftest import ROOT
from tests.doors import HERE, RUN, SHORT, SMALL, checkpoints, environment, status, until

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")

FULL = Path("/dev/full")
LONG = [*SMALL, HERE, "trainer.epochs=5000", "trainer.save_every=1000"]
UNFAILING = "import logging, os, sys, time\nfrom s9.system.output import keep_output_from_failing\n"
UNFAILING += "keep_output_from_failing()\n"


def program(then: str, *, out: int | Path, timeout: float = 60, **more: str) -> "subprocess.CompletedProcess[str]":
    """A new python whose output cannot fail, which then does this; its stderr is kept."""
    target = out if isinstance(out, int) else os.open(out, os.O_WRONLY)
    known = os.environ | {"PYTHONPATH": str(ROOT)} | more
    command = [sys.executable, "-c", UNFAILING + then]
    try:
        return subprocess.run(command, stdout=target, stderr=subprocess.PIPE, env=known, text=True, timeout=timeout)
    finally:
        os.close(target)


def closed_pipe() -> int:
    """The end to write to of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


EVERY_WAY = """
print('a print', flush=True)
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
logging.info('a record')
sys.stdout.buffer.write(b'bytes')
sys.stdout.writelines(['lines'])
print('left for the flush at exit', end='')
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("out", ["closed pipe", "full disk"])
def test_nothing_that_writes_fails(out: str, unbuffered: str) -> None:
    done = program(EVERY_WAY, out=closed_pipe() if out == "closed pipe" else FULL, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (0, "")


def test_child_processes_too_write_into_nothing_once_the_reader_has_gone() -> None:
    done = program("print(flush=True)\nsys.exit(os.system('echo x'))", out=closed_pipe())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bar_and_a_traceback_on_a_closed_stderr_change_no_exit_code() -> None:
    bar = "from tqdm import tqdm\nfor _ in tqdm(range(3), mininterval=0): pass\nos._exit(7)"
    done = program(f"os.dup2(1, 2)\n{bar}", out=closed_pipe())
    assert done.returncode == 7


@pytest.mark.parametrize("number", [1, 2])
def test_a_process_that_was_started_without_a_stream_goes_on(number: int) -> None:
    code = f"{UNFAILING}print('x', flush=True)\nprint('x', file=sys.stderr, flush=True)\nos._exit(7)"
    command = f'exec {number}>&-; exec "$0" -c "$1"'
    done = subprocess.run(["sh", "-c", command, sys.executable, code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, (done.stdout + done.stderr).split()) == (7, ["x"])


def test_a_letter_that_the_encoding_lacks_is_written_as_its_number() -> None:
    reader, writer = os.pipe()
    assert program("print('Käfer')", out=writer, PYTHONIOENCODING="ascii").returncode == 0
    assert os.read(reader, 99) == b"K\\xe4fer\n"


def test_what_is_written_arrives_in_order_and_whole() -> None:
    text = "for i in range(20000): print(i)\nos.write(1, b'') or print('Käfer', end='')"
    command = [sys.executable, "-c", UNFAILING + text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"".join(b"%d\n" % i for i in range(20000)) + "Käfer".encode()


def test_a_log_on_a_disk_that_has_room_again_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    full = (
        "import resource as r\nlimits = r.getrlimit(r.RLIMIT_FSIZE)\nr.setrlimit(r.RLIMIT_FSIZE, (1000, limits[1]))\n"
    )
    again = "r.setrlimit(r.RLIMIT_FSIZE, limits)\nprint('again', flush=True)"
    filling = "for i in range(500): print('a line', flush=True)\n"
    assert program(full + filling + again, out=tmp_path / "log").returncode == 0
    assert (tmp_path / "log").read_text().endswith("again\n")


MUCH = "for _ in range(30000): print('nobody reads this')\n"


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting() -> None:
    reader, writer = os.pipe()
    assert program(MUCH, out=writer).returncode == 0
    os.close(reader)


def test_a_terminal_that_nobody_reads_keeps_nobody_waiting() -> None:
    master, slave = os.openpty()
    assert program(MUCH, out=slave).returncode == 0
    os.close(master)


def test_who_reads_again_sees_what_comes_then() -> None:
    reader, writer = os.pipe()
    code = UNFAILING + MUCH + "print(0, file=sys.stderr, flush=True)\ninput()\nprint('now')"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        assert process.stdin and process.stderr and process.stderr.readline() == b"0\n"
        os.set_blocking(reader, False)
        with suppress(BlockingIOError):
            while os.read(reader, 65536):
                pass
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(30) == 0
    assert os.read(reader, 65536).endswith(b"now\n")
    os.close(reader)


# Runs


Launch = Callable[..., BaseProcess]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts `python -m s9.train ...` in `tmp_path` with its stdout and stderr at these places."""
    made: list[BaseProcess] = []

    def train(arguments: list[str], out: Path, err: Path) -> BaseProcess:
        made.append(processes.launch("train", arguments, tmp_path, environment(tmp_path), out, err))
        return made[-1]

    yield train
    for process in made:
        process.kill()


def code_of(process: BaseProcess) -> int | None:
    process.join(processes.PATIENCE_S)
    return process.exitcode


def read_until(descriptor: int, wanted: bytes) -> None:
    """Reads, as a screen does, until this has been said."""
    said = b""
    while wanted not in said:
        part = os.read(descriptor, 65536)
        assert part, said
        said += part


def assert_done(folder: Path) -> None:
    assert status(folder)["state"] == "done"
    log = (folder / "train.log").read_text()
    assert "everything is in" in log and "Traceback" not in log


def test_a_run_whose_reader_has_gone_trains_to_its_end(launch: Launch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    run = launch([*SHORT, HERE], tmp_path / "pipe", tmp_path / "err")
    with (tmp_path / "pipe").open() as reader:
        assert reader.readline()  # as | head -1
    assert (code_of(run), (tmp_path / "err").read_text()) == (0, "")
    assert_done(tmp_path / RUN)


def test_a_run_whose_output_is_on_a_full_disk_trains_to_its_end(launch: Launch, tmp_path: Path) -> None:
    assert code_of(launch([*SHORT, HERE], FULL, FULL)) == 0
    assert_done(tmp_path / RUN)


def test_a_mistake_that_cannot_be_said_keeps_its_exit_code(launch: Launch, tmp_path: Path) -> None:
    assert code_of(launch([*SHORT, HERE, "data.val_size=5000"], FULL, FULL)) == 2
    assert not (tmp_path / RUN).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_ends_a_run_whose_reader_has_gone(launch: Launch, tmp_path: Path, number: signal.Signals) -> None:
    os.mkfifo(tmp_path / "pipe")
    run = launch(LONG, tmp_path / "pipe", tmp_path / "pipe")
    with (tmp_path / "pipe").open() as reader:
        until(lambda: "epoch 1/" in reader.readline())
    time.sleep(0.2)  # it goes on, and finds that nobody reads
    assert run.pid
    os.kill(run.pid, number)
    assert code_of(run) == 128 + number
    assert (status(tmp_path / RUN)["state"], status(tmp_path / RUN)["reason"]) == ("interrupted", number.name)
    assert checkpoints(tmp_path / RUN)


class InTerminal:
    """A run in a terminal of its own, which is closed after the run's first epoch."""

    def __init__(self, folder: Path, *arguments: str, before: str = ""):
        master, slave = os.openpty()
        command = ["setsid", "-c", "sh", "-c", f'{before} exec "$@"', "sh", *doors.shell("train", *arguments)]
        with subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdin=slave, stdout=slave, stderr=slave
        ) as run:
            os.close(slave)
            try:
                read_until(master, b"epoch 1/")
                os.close(master)  # the kernel sends SIGHUP
                self.code = run.wait(processes.PATIENCE_S)
            finally:
                run.kill()


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_its_run_which_can_go_on(tmp_path: Path) -> None:
    assert InTerminal(tmp_path, *LONG).code == 128 + signal.SIGHUP
    assert (status(tmp_path / RUN)["state"], status(tmp_path / RUN)["reason"]) == ("interrupted", "SIGHUP")
    assert checkpoints(tmp_path / RUN)


@pytest.mark.slow
def test_a_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    assert InTerminal(tmp_path, *SHORT, HERE, "trainer.epochs=20", before='trap "" HUP;').code == 0
    assert_done(tmp_path / RUN)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_signal_ends_a_run_whose_screen_nobody_reads(launch: Launch, tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "pipe")
        place, reader = tmp_path / "pipe", os.open(tmp_path / "pipe", os.O_RDWR)
    else:
        reader, slave = os.openpty()
        place = Path(os.ttyname(slave))
    filler = os.open(place, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(filler, bytes(4096))
    run = launch(LONG, place, place)
    until(lambda: (tmp_path / RUN / "metrics.jsonl").exists())
    sent = time.monotonic()
    assert run.pid
    os.kill(run.pid, signal.SIGTERM)
    assert (code_of(run), status(tmp_path / RUN)["state"]) == (143, "interrupted")
    assert time.monotonic() - sent < processes.PATIENCE_S / 4
    os.close(reader)


@pytest.mark.slow
def test_a_door_that_only_prints_ends_with_its_reader_and_without_a_traceback() -> None:
    command = 'set -o pipefail; "$0" -m s9.check data=digits | true'  # which has ended before anything is printed
    done = subprocess.run(["bash", "-c", command, sys.executable], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
