"""Output that cannot fail: what nobody can be shown is lost, and the process goes on.

Readers go away (`| head`, a closed terminal), disks under a redirected log fill up, and a reader that is there may not
read (`| less`, Ctrl-S, a frozen connection). None of these is a failure of what is being trained.
"""

import contextlib
import errno
import io
import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from python 3.12 on

PATIENCE_S = 1.0  # how long a reader that is there but does not read is waited for, once, until it reads again
AGAIN_S = 0.01  # between tries at a terminal that takes less than what it is given
AT_ONCE = getattr(select, "PIPE_BUF", 512)  # bytes that a pipe takes without waiting, where it is ready
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk may have room again; who has closed a pipe never returns


def keep_output_from_failing() -> None:
    """From here on no print, log record or progress bar raises an error, nor does python's own flush at exit.

    Handlers of `logging` write to the stream that they were made with: call this before any is made. Streams that are
    no descriptors (a notebook's, a test's) stay as they are, and so do all on Windows.
    """
    if not hasattr(os, "ttyname"):  # Windows, whose console takes no bytes
        return
    for name in ("stdout", "stderr"):
        setattr(sys, name, _unfailing(getattr(sys, name)))


def _unfailing(stream: TextIO | None) -> TextIO | None:
    if stream is None:  # the process was started without it
        return Path(os.devnull).open("w")
    if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, "raw", stream.buffer), Outlet):
        return stream
    try:
        outlet = Outlet(stream.fileno(), stream.name)
    except (OSError, ValueError):
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        outlet if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(outlet),  # raw: python -u
        stream.encoding,
        errors="backslashreplace",  # a letter that the terminal's encoding lacks is no failure either
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class Outlet(io.RawIOBase):
    """Passes bytes on to a descriptor. What cannot be written is lost: no method raises OSError.

    Once the reader is gone, the descriptor leads to /dev/null, for child processes and libraries in C as well.
    """

    def __init__(self, descriptor: int, name: str):
        self.descriptor, self.name = descriptor, name
        self.is_read = True
        self.target = descriptor
        if os.isatty(descriptor):  # a stopped terminal may keep who writes waiting even where it says that it is ready
            with contextlib.suppress(OSError):
                self.target = os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: "Buffer") -> int:
        """Returns the size of `data`, whether written or lost."""
        left = memoryview(data).cast("B")
        size = len(left)
        end = time.monotonic() + (PATIENCE_S if self.is_read else 0)
        self.is_read = False  # also after a signal that raises an error here: its last words do not wait again
        try:
            while left and self._is_ready(end):
                try:
                    left = left[os.write(self.target, left[:AT_ONCE]) :]
                except BlockingIOError:
                    if time.monotonic() > end:
                        return size
                    time.sleep(AGAIN_S)
                else:
                    end = time.monotonic() + PATIENCE_S
            self.is_read = not left
        except OSError as error:
            if error.errno in PASSING:
                self.is_read = True
            else:
                self._close_for_good()
        return size

    def _is_ready(self, end: float) -> bool:
        """Whether the reader takes something before `end`, a time of time.monotonic()."""
        waiting = select.poll()
        waiting.register(self.target, select.POLLOUT)
        return bool(waiting.poll(max(0.0, end - time.monotonic()) * 1000))

    def _close_for_good(self) -> None:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.descriptor)
            os.close(nowhere)
        self.target = self.descriptor
