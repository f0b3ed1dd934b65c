"""Signals that ask a run to stop: SIGINT (Ctrl-C), SIGTERM, SIGUSR1, which SLURM sends before it kills, and SIGHUP.

While training they are noted, so that the step can end and be saved; at all other times, and where the step takes too
long, they end the run at once: the checkpoint before is whole. A second Ctrl-C never waits.

Python answers signals between its own instructions only. Where the main thread is deep in a library, as when it waits
for another rank, a thread beside ends the process in time.
"""

import contextlib
import multiprocessing.resource_tracker
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = tuple(
    getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, n)
)  # not on Windows
ALARM = getattr(signal, "SIGALRM", None)  # not on Windows
EXIT_WITHIN_S = 4.5  # after the signal; a scheduler or a person may wait for no more than five
STEP_WITHIN_S = 2.0  # of these, what the step that is under way gets to end


class Interrupted(BaseException):
    """A signal ends the run. Not an Exception, so that nothing takes it for a failure."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Listens from `with` on; the handlers that were there before come back at its end.

    Args:
        end: ends the process with an exit code, where a signal could not be answered in time; a door's `leave`. In a
            process that others rely on (a worker of joblib or ray) nothing does, and the process lives on.
    """

    def __init__(self, end: Callable[[int], NoReturn] | None = None) -> None:
        self.end = end
        self.received: int | None = None
        self.at = 0.0
        self.noting = False
        self.before: dict[int, Any] = {}
        self.last_words: Callable[[int], object] = lambda _: None  # where the thread beside has to end the process

    def __reduce__(self) -> tuple[type["Interrupts"], tuple[()]]:
        return Interrupts, ()  # in another process, another one

    @property
    def of_a_door(self) -> bool:
        """Whether the process ends with what is interrupted."""
        return self.end is not None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            nohup = [n for n in SIGNALS if n.name == "SIGHUP" and signal.getsignal(n) == signal.SIG_IGN]
            self.before = {n: signal.signal(n, self._handle) for n in SIGNALS if n not in nohup}
            if ALARM is not None:
                self.before[ALARM] = signal.signal(ALARM, self._too_long)
                arrivals, self.wakeup = os.pipe()
                os.set_blocking(self.wakeup, False)
                self.wakeup_before = signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)
                threading.Thread(target=self._watch, args=(arrivals,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._set_alarm(0)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if ALARM in self.before:
            signal.set_wakeup_fd(self.wakeup_before)
            os.close(self.wakeup)  # ends the thread

    def _watch(self, arrivals: int) -> None:
        """Ends the process where the main thread has not done so in time. `arrivals`: a byte for each signal."""
        first = 0
        while True:
            late = not select.select([arrivals], [], [], self.seconds_left() if first else None)[0]
            number = 0 if late else int.from_bytes(os.read(arrivals, 1), "big")
            if self.end is not None and (late or (first and number == signal.SIGINT)):
                try:
                    self.last_words(first)
                finally:
                    self.end(128 + (number or first))
            if not number:
                os.close(arrivals)
                return
            if number in SIGNALS and not first:
                first, self.at = number, time.monotonic()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT and self.end is not None:
                self.end(128 + number)
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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what a process blocks, those it starts block too
    multiprocessing.resource_tracker.ensure_running()  # python starts it with some of them, and then unblocks signals
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave(code: int) -> NoReturn:
    """Ends the process now, with its worker processes, and without waiting for any thread."""
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where a worker is killed
        children = multiprocessing.active_children()
        for child in children:
            child.kill()
        for child in children:
            child.join(1)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)
