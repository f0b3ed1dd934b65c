"""What went wrong with a run, in one line for the person and whole for the log."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s9.config import Config
from s9.errors import UserError

log = logging.getLogger("s9")

TRACEBACK = "error.txt"
# As torch, CUDA, the kernel, C++ and the dynamic loader say it.
NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "failed to map segment")


def in_one_line(error: BaseException, config: Config | None) -> str:
    """The reason, and what to do where that is known."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UserError):
        return said
    if isinstance(error, MemoryError) or any(words in said.lower() for words in NO_MEMORY):
        size = config.trainer.batch_size if config else 2
        smaller = max(1, size // 2)
        return f"out of memory with trainer.batch_size={size}; set trainer.batch_size={smaller}, or a smaller model"
    if "DataLoader worker" in said:
        return (
            f"a data worker was killed, most likely for want of memory; fewer than data.workers="
            f"{config.data.workers if config else '?'} need less ({said.split('.')[0]})"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    known = type(error).__name__ in ("NonFiniteLossError", "RankLostError")
    return said if known else f"{type(error).__name__}: {said} (the whole of it is in the run's {TRACEBACK})"


def write_traceback(folder: Path) -> None:
    """The error that is being handled, whole, to error.txt and to the end of train.log."""
    text = traceback.format_exc()
    for name, mode in ((TRACEBACK, "w"), ("train.log", "a")):
        try:
            with (folder / name).open(mode) as file:
                file.write(text)
        except OSError as error:
            log.warning("%s cannot be written (%s)", folder / name, error.strerror)


def survive(what: str, write: Callable[..., Any], *arguments: Any) -> bool:
    """Writes something that the run can do without until its end; False, and a warning, where it cannot be written."""
    try:
        write(*arguments)
    except OSError as error:
        log.warning("%s cannot be written (%s); training goes on", what, error.strerror)
        return False
    return True
