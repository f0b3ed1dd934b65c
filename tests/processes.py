"""Runs as processes of their own, which can be killed. They come from one that has imported everything: quick to start.

Each has its own session, so its own process group, and writes its screen to a file. `command` is the shell's way, which
takes seconds more. What takes most of a short run is left out where it is not asked for: drawing its figures.
"""

import atexit
import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from s9.tracking.folder import RunFolder

# What every run uses, of others only: s9 itself is imported by each process, from where the test imports it. Not wandb,
# which looks at the environment when it is imported.
PRELOADED = [
    "captum.attr",
    "filelock",
    "hydra",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "sklearn.datasets",
]
PRELOADED += ["sklearn.metrics", "torch._dynamo"]
QUICK = (
    *("data=digits", "model=strided", "aug=basic", "optimizer=sgd", "wandb=disabled", "trainer.device=cpu"),
    *("trainer.epochs=2", "trainer.steps_per_epoch=6", "trainer.batch_size=32", "trainer.save_every=0"),
)
WORKERS = ("data.loader=workers", "data.workers=2", "aug.backend=albumentations")
SAME = (
    *("config.yaml", "metrics.jsonl", "summary.json", "samples.npz", "predictions.npz", "insight.npz"),
    *("weights/final.safetensors", "weights/best.safetensors"),
)
FIGURES = "DRAW"  # in the environment of a run, DRAW="1": its figures are drawn; else only where W&B is to have them
PR_SET_PDEATHSIG = 1  # of prctl.h
PATIENCE_S = 100  # on a machine that does much else beside

_processes = multiprocessing.get_context("forkserver")


@dataclass
class Started:
    """A run that is under way, and what it has said so far."""

    process: BaseProcess
    output: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """The exit code; below zero: the signal."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"did not end within {seconds:g} s: {self.text}")
        return self.process.exitcode

    def when(self, holds: Callable[[], object]) -> None:
        """Returns as soon as something holds."""
        until(holds, lambda: self.process.exitcode is not None, lambda: self.text)

    def signal_group(self, number: int) -> None:
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group, as `kill -9 -<pid>`; returns when it is gone."""
        self.signal_group(signal.SIGKILL)
        self.process.join()


def launch(
    door: str, arguments: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path
) -> BaseProcess:
    """`python -m s9.<door>` with these arguments and this environment alone; its screen goes into new files.

    Returns when the process has its own session, whose number is its pid.
    """
    _processes.set_forkserver_preload(PRELOADED)
    process = _processes.Process(target=_door, args=(door, arguments, cwd, environment, out, err))
    process.start()
    until(out.exists, lambda: process.exitcode is not None, lambda: "")
    return process


def start(cwd: Path, *arguments: str) -> Started:
    """`python -m s9.train` with these arguments in the folder `cwd`, in the background."""
    screen = cwd / f"screen-{time.monotonic_ns()}.txt"
    return Started(launch("train", list(arguments), cwd, dict(os.environ), screen, screen), screen)


def run(cwd: Path, *arguments: str) -> Started:
    """The same, and waits for its end."""
    started = start(cwd, *arguments)
    started.wait()
    return started


def finish(cwd: Path, *arguments: str) -> None:
    """The same, and it must end well."""
    done = run(cwd, *arguments)
    assert done.process.exitcode == 0, done.text


def command(cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A new python, as from a shell, in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "s9.train", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(holds: Callable[[], object], ended: Callable[[], bool], said: Callable[[], str]) -> None:
    """Looks every millisecond, so that what follows comes at the instant that is meant."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if ended() and not holds():
            raise AssertionError(f"ended before it came so far: {said()}")
        if time.monotonic() > end:
            raise AssertionError(f"did not come so far within {PATIENCE_S} s: {said()}")
        time.sleep(0.001)


def group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def group(number: int) -> list[int]:
    """The processes of a group."""
    pids = [int(place.name) for place in Path("/proc").glob("[0-9]*")]
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            found += [pid] if os.getpgid(pid) == number else []
    return found


def reached_step(folder: Path, step: int) -> Callable[[], bool]:
    """Whether the run has a checkpoint of this step or a later one."""
    return lambda: any(int(p.stem[5:]) >= step for p in folder.glob("checkpoints/step-*.pt"))


def state(folder: Path) -> str:
    return str(RunFolder(folder).read_status().get("state", "none"))


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of each file that a resumed run must have as if it had not been cut."""
    return {name: (folder / name).read_bytes() for name in SAME if (folder / name).exists()}


def differing(folder: Path, wanted: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, or whose bytes are others."""
    have = content(folder)
    return [name for name in SAME if have.get(name) != wanted.get(name) or name not in have]


def _door(door: str, arguments: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    """What `python -m s9.<door>` does from its start to its end, in a process that is there already."""
    os.setsid()
    with suppress(OSError, AttributeError):  # where it is not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no run outlives the tests
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, place in ((2, err), (1, out)):  # `out` last: when it is there, all is
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = [f"{door}.py", *arguments]
    from s9.tracking import figures

    if door == "train" and FIGURES not in environment:
        draw_all = figures.draw_all

        def where_wandb_has_them(folder: RunFolder, *_: object) -> list[Path]:
            return draw_all(folder) if folder.read_config().wandb.mode != "disabled" else []

        setattr(figures, "draw_all", where_wandb_has_them)  # noqa: B010  # mypy refuses to assign to a function

    try:
        runpy.run_module(f"s9.{door}", run_name="__main__", alter_sys=True)
    finally:  # multiprocessing leaves out what was registered for the end of python
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
