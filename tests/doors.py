"""Doors as real processes on a network so small that a run takes a second; what is said of a failure, and who is left.

They come from a process that has imported everything (processes.py), where the shell's way is not asked for. Linux only
where it looks into /proc.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests import processes

ROOT = Path(__file__).parent.parent
RUN = "run"  # the folder of a run, below the one that its door was started in
SMALL = [
    *("data=digits", "model=strided", "aug=none", "wandb=disabled", "trainer.precision=float32", "model.whiten=false"),
    *("~model.blocks.C2", "~model.blocks.C3", "~model.blocks.C4"),
    *("model.blocks.C1.conv1.channels=8", "+model.blocks.C1.conv1.stride=2"),
    *("model.blocks.C1.conv2.channels=8", "model.blocks.C1.conv3.channels=16"),
    *("optimizer=sgd", "optimizer.lr=0.02", "trainer.batch_size=64"),
]
SHORT = [*SMALL, "trainer.epochs=1", "trainer.steps_per_epoch=2"]
HERE = f"hydra.run.dir={RUN}"

Done = subprocess.CompletedProcess[str]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a process that neither reads nor writes anything of the user's; MARK names the processes below it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "S9_"))}
    own = {"HOME": str(folder), "S9_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    drawing = {"MPLCONFIGDIR": str(Path(tempfile.gettempdir()) / "s9-tests-matplotlib")}
    return kept | own | drawing | {"NO_ALBUMENTATIONS_UPDATE": "1", "MARK": str(folder), "no_proxy": "*"} | more


def command(door: str, *arguments: str) -> list[str]:
    """What `started` takes for `python -m s9.<door> ...`."""
    return [f"s9.{door}", *arguments]


def shell(door: str, *arguments: str) -> list[str]:
    """The same as a new python: seconds slower to start."""
    return [sys.executable, "-m", *command(door, *arguments)]


class Started:
    """A door that is running."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str]):
        self.folder, self.arguments = folder, arguments
        self.screen = Path(tempfile.mkdtemp(prefix="s9-tests-screen-"))
        self.out, self.err = self.screen / "out", self.screen / "err"
        self.process: BaseProcess | subprocess.Popen[bytes]
        if arguments[0].startswith("s9."):
            door = arguments[0].removeprefix("s9.")
            self.process = processes.launch(door, arguments[1:], folder, environment, self.out, self.err)
        else:
            with self.out.open("wb") as out, self.err.open("wb") as err:
                self.process = subprocess.Popen(
                    arguments, cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
                )
        assert self.process.pid is not None
        self.pid: int = self.process.pid
        _sessions.setdefault(folder, set()).add(self.pid)

    @property
    def code(self) -> int | None:
        """The exit code, as soon as it has ended; below zero: the signal."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.out.read_text()

    def has_said(self, wanted: str) -> None:
        """Returns as soon as it has printed this."""
        until(lambda: wanted in self.said or self.code is not None)
        assert wanted in self.said, self.said + self.err.read_text()

    def end(self, timeout: float = 120) -> Done:
        """Waits for its end."""
        with suppress(subprocess.TimeoutExpired):
            wait = self.process.wait if isinstance(self.process, subprocess.Popen) else self.process.join
            wait(timeout)
        if self.code is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout, self.said, self.err.read_bytes())
        return Done(self.arguments, self.code, self.said, self.err.read_text())


_sessions: dict[Path, set[int]] = {}  # of the doors that were started in each folder


@contextmanager
def started(folder: Path, arguments: list[str], **more: str) -> Iterator[Started]:
    """A command in `folder`; it and all that it started are killed at the end."""
    door = Started(folder, arguments, environment(folder, **more))
    try:
        yield door
    finally:
        kill_all(door)
        shutil.rmtree(door.screen)


def kill_all(door: Started) -> None:
    for pid in (door.pid, *left(door.folder)):
        if pid != door.pid or door.code is None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    until(lambda: door.code is not None)


def run(folder: Path, door: str, *arguments: str, timeout: float = 120, **more: str) -> Done:
    """`python -m s9.<door> ...` in `folder`, to its end; what it leaves behind stays, for `left`."""
    running = Started(folder, command(door, *arguments), environment(folder, **more))
    try:
        return running.end(timeout)
    except BaseException:
        kill_all(running)
        raise
    finally:
        shutil.rmtree(running.screen)


def until(holds: Callable[[], Any], timeout: float = 90) -> Any:
    """What `holds` gives, as soon as that is something."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{holds} did not come to hold")


def left(folder: Path) -> list[int]:
    """The processes that a door in `folder` has left behind: of its session, or with its mark in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, *numbers = (place / "stat").read_text().rpartition(") ")[2].split()
            ended, session = state in "ZX", int(numbers[2])
            marked = f"MARK={folder}".encode() in (place / "environ").read_bytes().split(b"\0")
        except OSError:  # it has gone, or is another user's
            continue
        if not ended and (marked or session in _sessions.get(folder, ())):
            found.append(int(place.name))
    return found


def nobody_left(folder: Path) -> bool:
    """Whether all processes of `folder` end within a few seconds."""
    try:
        return bool(until(lambda: not left(folder), 10))
    except TimeoutError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return content


def error_line(done: Done, code: int) -> str:
    """The one line on stderr of a door that has ended with `code`."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*.pt"))


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
