"""Trains tasks of a sweep or a search: one in this process, or all that arrive, in a process that does nothing else.

A process that trains one task after another keeps the loaded images for the next.
"""

import os
import queue
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from s9.data.sources.load import keep_images
from s9.runs.job import done, job
from s9.sweeps.task import Outcome, Task
from s9.system.errors import UserError
from s9.system.interrupt import EXIT_WITHIN_S, SIGNALS, leave
from s9.system.output import keep_output_from_failing
from s9.tracking.folder import RunFolder
from s9.tracking.run_log import logged_to


def run_task(task: Task) -> Outcome:
    """Trains or resumes the task's run in this process and returns how it ended; the process lives on."""
    folder = RunFolder(task.folder)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with logged_to(folder.log):
            outcome = job(
                lambda: task.config,
                folder,
                command=task.command,
                group=task.group,
                swept=task.swept,
                resumed=True,  # begins where no checkpoint is; another process may have begun the run a moment ago
                until_epoch=task.until_epoch,
            )
    except OSError as error:
        return Outcome("failed", f"{error.filename}: {error.strerror}", exit_code=2)
    except UserError as error:
        return Outcome("failed", str(error), exit_code=2)
    return done(folder) if outcome.state == "taken" and folder.is_done() else outcome


def work(connection: Connection, screen: Path) -> None:
    """The whole of a worker process: trains what it is sent, sends back each outcome, ends when the sender has ended.

    Args:
        screen: the file that takes what libraries print.
    """
    os.setsid()  # Ctrl-C in the terminal reaches the sweep alone, which then tells its workers
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by the sweep until here
    to = os.open(screen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(to, stream)
    os.close(to)
    keep_output_from_failing()  # the disk may be full
    keep_images()
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    while (task := tasks.get()) is not None:
        outcome = run_task(task)
        with suppress(OSError):  # the sweep has ended
            connection.send(outcome)
    leave(0)


def _listen(connection: Connection, tasks: "queue.SimpleQueue[Task | None]") -> None:
    """Passes on what arrives. When the sender has ended, however it did, the run here saves and the process ends."""
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            break
    tasks.put(None)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(EXIT_WITHIN_S)
    leave(128 + signal.SIGTERM)
