"""A run's figures, drawn by a thread beside the training."""

import logging
import shlex
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from s9.runs import failure
from s9.tracking.folder import RunFolder

log = logging.getLogger("s9")


class Drawing:
    """Draws nothing before it is allowed to, which is after the first step, or when no step will come.

    The first step forks the workers of the loader. A worker that is forked while this thread loads the libraries of
    matplotlib may wait forever: for glibc's lock of exit functions, which the worker inherits as taken (found and
    traced in ultralytics/ultralytics pull 26085).
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.allowed = threading.Event()

    def allow(self) -> None:
        self.allowed.set()

    def draw(self, folder: RunFolder) -> "Future[list[Path]]":
        """The pictures of the run's files so far; if that fails, none, and a warning: the run continues."""
        return self.thread.submit(self._draw, folder)

    def _draw(self, folder: RunFolder) -> list[Path]:
        self.allowed.wait()
        try:
            from s9.tracking.figures import draw_all  # here, in its own thread: matplotlib takes half a second

            return draw_all(folder)
        except Exception as error:
            later = f"later: python -m s9.report {shlex.quote(f'run={folder}')}"
            log.warning(f"figures cannot be drawn ({failure.in_one_line(error, None)}); {later}")
            return []

    def close(self, *, wait: bool) -> None:
        """Waits for what is being drawn, if asked to."""
        self.thread.shutdown(wait=wait)
