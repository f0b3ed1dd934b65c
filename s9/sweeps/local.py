"""Jobs on this machine: one process a slot, which trains one task after another and is replaced when it dies."""

import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from s9.sweeps.task import Outcome, Task
from s9.system.interrupt import shielded
from s9.tracking.folder import RunFolder

_processes = multiprocessing.get_context("spawn")


@dataclass
class Slot:
    """Room for one job at a time. environment: what its process gets besides this process's own."""

    environment: Mapping[str, str] = field(default_factory=dict)
    process: BaseProcess | None = None
    connection: Connection | None = None
    task: Task | None = None


class LocalPool:
    """Trains as many tasks at the same time as there are slots; a task that kills its process ends alone.

    Args:
        work: the whole of a worker process, given a connection and the file for what libraries print.
        environments: one a slot. logs: the folder for those files.
    """

    def __init__(
        self, work: Callable[[Connection, Path], None], environments: Sequence[Mapping[str, str]], logs: Path
    ) -> None:
        self.work, self.logs = work, logs
        self.slots = [Slot(environment) for environment in environments]

    def room(self) -> int:
        return sum(slot.task is None for slot in self.slots)

    def start(self, tasks: Sequence[Task]) -> None:
        free = [slot for slot in self.slots if slot.task is None]
        for slot, task in zip(free, tasks, strict=False):
            if slot.process is None or not slot.process.is_alive():
                self._start_process(slot)
            slot.task = task
            assert slot.connection is not None
            with suppress(OSError):  # it has died since: found by `wait`
                slot.connection.send(task)

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        busy = [slot for slot in self.slots if slot.task is not None]
        if not busy:
            time.sleep(seconds)
            return []
        connections = [slot.connection for slot in busy if slot.connection is not None]
        wait([*connections, *(slot.process.sentinel for slot in busy if slot.process is not None)], seconds)
        found = [(slot.task, outcome) for slot in busy if (outcome := _outcome(slot)) is not None and slot.task]
        for slot in busy:
            if any(task is slot.task for task, _ in found):
                slot.task = None
        return found

    def stop(self, number: int, within_s: float) -> None:
        end = time.monotonic() + within_s
        alive = [slot for slot in self.slots if slot.process is not None and slot.process.is_alive()]
        for slot in alive:
            assert slot.process is not None and slot.process.pid is not None
            with suppress(ProcessLookupError):
                os.kill(slot.process.pid, number if _has_begun(slot) else signal.SIGKILL)
        while time.monotonic() < end and any(_works(slot) for slot in alive):
            self.wait(0.05)
        self.close()

    def close(self) -> None:
        for slot in self.slots:
            if slot.connection is not None:
                slot.connection.close()
            if slot.process is not None:
                slot.process.kill()
                slot.process.join()
            slot.process = slot.connection = slot.task = None

    def _start_process(self, slot: Slot) -> None:
        slot.connection, theirs = _processes.Pipe()
        self.logs.mkdir(parents=True, exist_ok=True)
        screen = self.logs / f"{platform.node()}-{os.getpid()}-{self.slots.index(slot)}.txt"
        slot.process = _processes.Process(target=self.work, args=(theirs, screen))
        with _environment(slot.environment), shielded():  # Ctrl-C while it imports torch would show a traceback
            slot.process.start()
        theirs.close()  # so that the death of either side is seen by the other


def _works(slot: Slot) -> bool:
    return slot.task is not None and slot.process is not None and slot.process.is_alive()


def _has_begun(slot: Slot) -> bool:
    """Whether the slot's process has a run that can save."""
    return (
        slot.task is not None
        and slot.process is not None
        and RunFolder(slot.task.folder).read_status().get("pid") == slot.process.pid
    )


def _outcome(slot: Slot) -> Outcome | None:
    """How the slot's task has ended; None while it runs."""
    assert slot.connection is not None and slot.process is not None
    try:
        if slot.connection.poll():
            outcome: Outcome = slot.connection.recv()
            return outcome
    except (EOFError, OSError):
        slot.process.join(1)
    if slot.process.is_alive():
        return None
    slot.process.join()
    slot.connection.close()
    return _of_death(slot.process.exitcode or 0)


def _of_death(code: int) -> Outcome:
    """The outcome of a task whose process has ended in the middle: below zero, `code` is a signal's number."""
    if code >= 0:
        return Outcome("failed", f"ended its process with exit code {code}", exit_code=1)
    name = signal.Signals(-code).name
    memory = "; most likely memory ran out, or it was killed by hand" if name == "SIGKILL" else ""
    state = "interrupted" if name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP") else "failed"
    return Outcome(state, f"killed by {name}{memory}", exit_code=128 - code)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """Inside the `with` block, a process that starts gets these variables too."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
