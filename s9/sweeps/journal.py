"""Where a study's trials are stored: Optuna's journal, a file that several processes may append to, or a database."""

import os
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from s9.system.errors import UserError

JOURNAL = "journal.log"


class _OfTheStudy:
    """The study's lock is held already. Optuna's own lock outlives a killed process for 30 s."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The journal in the study's folder, or a database.

    Raises:
        UserError: the database cannot be opened.
    """
    if url is None:
        lock: Any = _OfTheStudy()  # the class that Optuna names as its base is not public
        return JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock_obj=lock))
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # of the database's driver, which may be missing, or of Optuna
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"storage={url}: cannot be opened ({said}); allowed: such as sqlite:///trials.db") from None


def mend(folder: Path) -> None:
    """Removes the part of a line that a killed process has left at the journal's end; the study's lock is held."""
    path = folder / JOURNAL
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            whole = path.read_bytes()
            file.truncate(whole.rfind(b"\n") + 1)
