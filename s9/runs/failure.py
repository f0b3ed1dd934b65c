"""What went wrong with a run: one line for the user, the whole traceback for the log."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s9.config.schema import Config
from s9.data.batches import USUAL
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder

log = logging.getLogger("s9")

# The words of torch, CUDA, the kernel, C++ and the dynamic loader.
NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "failed to map segment")

ON_DISK = "data.loader=workers data.workers=2 leaves them on disk; a smaller data.image_size takes less"
# (file, function, what it needs memory for); any other place is training, whose memory grows with the batch.
TAKES_MEMORY = (
    ("tracking/figures.py", "", "while drawing the figures"),
    ("training/evaluation.py", "", "while scoring 500 images at a time; a smaller model or data.image_size takes less"),
    ("data/loaders.py", "ResidentBatches.__init__", f"with all images of train in memory; {ON_DISK}"),
    ("sources/load.py", "load_images", f"while reading the images; {ON_DISK}"),
)


def in_one_line(error: BaseException, config: Config | None) -> str:
    """The reason for the failure, and what to do if that is known."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UserError):
        return said
    if isinstance(error, MemoryError) or any(words in said.lower() for words in NO_MEMORY):
        return f"out of memory {_what_took_it(error, config)}"
    if "DataLoader worker" in said:
        return (
            f"a data worker was killed, most likely because memory ran out; fewer than data.workers="
            f"{config.data.workers if config else '?'} need less ({said.split('.')[0]})"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    known = type(error).__name__ in ("NonFiniteLossError", "RankLostError")
    return (
        said if known else f"{type(error).__name__}: {said} (full traceback in the run's {RunFolder(Path()).traceback})"
    )


def _what_took_it(error: BaseException, config: Config | None) -> str:
    """What was being done when memory ran out, by the innermost known frame, and what needs less memory."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        place = Path(frame.f_code.co_filename)
        for name, function, said in TAKES_MEMORY:
            if (place.parent.name, place.name) == tuple(name.split("/")) and frame.f_code.co_qualname.startswith(
                function
            ):
                return said
    size = config.trainer.batch_size if config else 2
    if size is None:
        return f"with trainer.batch_size=null, which is {USUAL} at most; set a smaller one, or a smaller model"
    smaller = f"set trainer.batch_size={size // 2}, or " if size > 1 else "take "
    return f"with trainer.batch_size={size}; {smaller}a smaller model"


def write_traceback(folder: RunFolder) -> None:
    """Writes the traceback of the error being handled to its own file and to the end of the run's log."""
    text = traceback.format_exc()
    for path, mode in ((folder.traceback, "w"), (folder.log, "a")):
        try:
            with path.open(mode) as file:
                file.write(text)
        except OSError as error:
            log.warning("%s cannot be written (%s)", path, error.strerror)


def survive(what: str, write: Callable[..., Any], *arguments: Any) -> bool:
    """Writes something that the run does not need before its end; if that fails, logs a warning and returns False."""
    try:
        write(*arguments)
    except OSError as error:
        log.warning("%s cannot be written (%s); training continues", what, error.strerror)
        return False
    return True
