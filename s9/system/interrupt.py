"""Signals that ask a run to stop: SIGINT (Ctrl-C), SIGTERM, SIGUSR1, which SLURM sends before it kills, and SIGHUP.

While training, signals are only noted, so that the step can end and be saved. At all other times, and if the step takes
too long, they end the run at once; the previous checkpoint is complete. A second Ctrl-C never waits.

Python handles signals only between its own instructions. If the main thread is inside a library, for example waiting
for another rank, a watcher thread ends the process in time.
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
STEP_WITHIN_S = 2.0  # of these, the time that the current step gets to end


class Interrupted(BaseException):
    """A signal ends the run. Not an Exception, so that nothing takes it for a failure."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Listens inside a `with` block, whose end restores the previous handlers.

    In a command that a signal ends, signals that come after the block are ignored, but for Ctrl-C: a scheduler sends
    its signals more than once, and the exit code is that of the first.

    Args:
        end: ends the process with an exit code if a signal could not be handled in time; `leave` for a command. None
            in a process that others rely on (a worker of joblib or ray), which then lives on.
    """

    def __init__(self, end: Callable[[int], NoReturn] | None = None) -> None:
        self.end = end
        self.received: int | None = None
        self.at = 0.0
        self.noting = False
        self.wakeup: int | None = None
        self.before: dict[int, Any] = {}
        self.last_words: Callable[[int], object] = lambda _: None  # called if the watcher thread must end the process

    def __reduce__(self) -> tuple[type["Interrupts"], tuple[()]]:
        return Interrupts, ()  # another process gets a new one

    @property
    def of_a_door(self) -> bool:
        """Whether the process ends when its run is interrupted."""
        return self.end is not None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            nohup = [n for n in SIGNALS if n.name == "SIGHUP" and signal.getsignal(n) == signal.SIG_IGN]
            self.before = {n: signal.signal(n, self._handle) for n in SIGNALS if n not in nohup}
            if ALARM is not None:
                self.before[ALARM] = signal.signal(ALARM, self._too_long)
                if self.end is not None:
                    self._start_watch(self.end)
        return self

    def _start_watch(self, end: Callable[[int], NoReturn]) -> None:
        arrivals, self.wakeup = os.pipe()
        os.set_blocking(self.wakeup, False)
        self.wakeup_before = signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(arrivals, end), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._set_alarm(0)
        late = SIGNALS[1:] if self.of_a_door and self.received is not None else ()
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_IGN if number in late else handler)
        if self.wakeup is not None:
            signal.set_wakeup_fd(self.wakeup_before)
            os.close(self.wakeup)  # ends the thread
            self.wakeup = None

    def _watch(self, arrivals: int, end: Callable[[int], NoReturn]) -> None:
        """Ends the process if the main thread has not ended it in time. `arrivals`: one byte per signal."""
        first = 0
        while True:
            late = not select.select([arrivals], [], [], self.seconds_left() if first else None)[0]
            number = 0 if late else int.from_bytes(os.read(arrivals, 1), "big")
            if late or (first and number == signal.SIGINT):
                try:
                    self.last_words(first)
                finally:
                    end(128 + (number or first))
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
        """Inside the `with` block, a signal is only noted, in `received`."""
        self.noting = True
        try:
            yield
        finally:
            self.noting = False

    def stop_if_received(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.received is not None:
            self._set_alarm(0)
            raise Interrupted(self.received)

    def seconds_left(self) -> float:
        """The seconds until the process must have ended."""
        return max(0.1, self.at + EXIT_WITHIN_S - time.monotonic())


@contextmanager
def shielded() -> Iterator[None]:
    """Processes started inside the `with` block ignore SIGNALS from their first instant on.

    Only the run itself handles a signal to the process group: without its workers it could not end the step and save.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # child processes inherit the blocked signals
    multiprocessing.resource_tracker.ensure_running()  # else python starts it with a process, then unblocks signals
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
