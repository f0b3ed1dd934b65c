"""Doors as real processes on a network so small that a run takes seconds; what is said of a failure, and who is left.

Linux only where it looks into /proc.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUN = "run"  # the folder of a run, below the one that its door was started in
SMALL = [
    *("data=digits", "model=strided", "aug=none", "wandb=disabled", "trainer.precision=float32", "model.whiten=false"),
    *("~model.blocks.C2", "~model.blocks.C3", "~model.blocks.C4"),
    *("model.blocks.C1.conv1.channels=8", "+model.blocks.C1.conv1.stride=2"),
    *("model.blocks.C1.conv2.channels=8", "model.blocks.C1.conv3.channels=16"),
    *("optimizer.lr=0.02", "trainer.batch_size=64"),
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
    return [sys.executable, "-m", f"s9.{door}", *arguments]


def run(folder: Path, door: str, *arguments: str, timeout: float = 120, **more: str) -> Done:
    """`python -m s9.<door> ...` in `folder`, to its end."""
    return subprocess.run(
        command(door, *arguments),
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


class Started:
    """A door that is running."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]"):
        self.folder, self.process = folder, process
        self.pid = process.pid

    def end(self, timeout: float = 120) -> Done:
        out, err = self.process.communicate(timeout=timeout)
        return Done(self.process.args, self.process.returncode, out, err)


@contextmanager
def started(folder: Path, arguments: list[str], **more: str) -> Iterator[Started]:
    """A command in `folder`; it and all that it started are killed at the end."""
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Started(folder, process)
    finally:
        for pid in (process.pid, *left(folder)):
            if pid != process.pid or process.poll() is None:
                os.kill(pid, 9)
        process.communicate(timeout=60)


def until(holds: Callable[[], Any], timeout: float = 90) -> Any:
    """What `holds` gives, as soon as that is something."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{holds} did not come to hold")


def left(folder: Path) -> list[int]:
    """The processes that a door in `folder` has left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={folder}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
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
