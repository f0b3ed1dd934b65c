"""The log of a run, train.log: what is written there by runs that Hydra does not start, and how."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s9.system.errors import UserError


@contextmanager
def logged_to(path: Path, *others: logging.Handler) -> Iterator[None]:
    """Inside the `with` block, what is logged is appended to the file `path` and goes to the other handlers.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        to_file = logging.FileHandler(path)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root, handlers = logging.getLogger(), (to_file, *others)
    level = root.level
    root.setLevel(logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # hides the message about its font cache
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
        to_file.close()
