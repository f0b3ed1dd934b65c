"""Applies a function to files, in order: by processes where there are many, by threads where there are few.

Threads do not help with small images: most of the time for one is spent inside Python, of which only one thread runs at
a time. Processes take a second to start.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import parent_process
from pathlib import Path
from typing import TypeVar

from s9.data.image_set import CHUNK
from s9.system.errors import UserError

MANY = 2000  # files
AT_A_TIME = 25  # files that a process gets at once

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(function: Callable[[Item], Made], items: Sequence[Item]) -> Iterator[Made]:
    """What `function` makes of each item; no more than CHUNK results wait to be taken.

    Raises:
        UserError: a process was killed. And what `function` raises.
    """
    try:
        with _pool(len(items)) as pool:
            for start in range(0, len(items), CHUNK):
                yield from pool.map(function, items[start : start + CHUNK], chunksize=AT_A_TIME)
    except BrokenProcessPool:
        raise UserError("a process that decodes images was killed, perhaps because memory ran out") from None


def _pool(count: int) -> Executor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < MANY or cores == 1 or multiprocessing.current_process().daemon:  # a daemon may have no children
        return ThreadPoolExecutor(cores)
    return ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _begin_process)


def _begin_process() -> None:
    """Signals are for the parent, which says what happened; when the parent is killed, this process ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # for as long as the process lives
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
