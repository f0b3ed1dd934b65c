"""Signals that ask a run to stop: SIGINT (Ctrl-C), SIGTERM, and SIGUSR1, which SLURM sends before it kills.

While training they are noted, so that the step can end and be saved; at all other times, and where the step takes too
long, they end the run at once: the checkpoint before is whole. A second Ctrl-C never waits.
"""

import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n))  # not on Windows
ALARM = getattr(signal, "SIGALRM", None)  # not on Windows
EXIT_WITHIN_S = 4.5  # after the signal; a scheduler or a person may wait for no more than five
STEP_WITHIN_S = 2.0  # of these, what the step that is under way gets to end


class Interrupted(BaseException):
    """A signal ends the run. Not an Exception, so that nothing takes it for a failure."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Listens from `with` on; the handlers that were there before come back at its end."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.at = 0.0
        self.noting = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            self.before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            if ALARM is not None:
                self.before[ALARM] = signal.signal(ALARM, self._too_long)
        return self

    def __exit__(self, *_: object) -> None:
        self._set_alarm(0)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                leave(128 + number)
            return  # a scheduler sends its signals more than once
        self.received, self.at = number, time.monotonic()
        if not self.noting:
            raise Interrupted(number)
        self._set_alarm(STEP_WITHIN_S)

    def _too_long(self, *_: object) -> None:
        if self.noting:
            self.noting = False
            self.stop_if_received()

    def _set_alarm(self, seconds: float) -> None:
        if ALARM in self.before:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, a signal is only noted; look at `received`."""
        self.noting = True
        try:
            yield
        finally:
            self.noting = False

    def stop_if_received(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self.received is not None:
            self._set_alarm(0)
            raise Interrupted(self.received)

    def seconds_left(self) -> float:
        """Before the process has to be gone."""
        return max(0.1, self.at + EXIT_WITHIN_S - time.monotonic())


@contextmanager
def shielded() -> Iterator[None]:
    """Processes that are started inside take no notice of SIGNALS, from their first instant on.

    A signal to the whole group is the run's own affair: without its workers it could not end the step and save.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # python starts it with some, and then unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what a process blocks, those it starts block too
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave(code: int) -> NoReturn:
    """Ends the process now, with its worker processes, and without waiting for any thread."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
