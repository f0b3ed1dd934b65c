"""Atomic writes: a reader finds a file complete or not at all, whatever happens to the machine meanwhile."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Replaces `path` in one step: writes a temporary file, flushes it to disk, renames it, flushes the folder.

    Raises:
        OSError: the write failed, and `path` is unchanged.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # an error of write() does not name the file
    except BaseException:  # a signal
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
