"""Decoded data sets on disk, so that the second run starts at once: one folder of .npy files per data set and key.

The files are memory-mapped, so a data set larger than memory can be trained on too (data.loader=workers).
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from s9.system.errors import UserError

DEFAULT = "~/.cache/s9"
ANOTHER = "choose another folder with data.cache=<folder>, or with S9_CACHE=<folder> in the environment"


def cache_folder(given: str | None) -> Path:
    """The folder of `data.cache`; if that is null, the folder of S9_CACHE, else ~/.cache/s9.

    Raises:
        UserError: the name begins with ~, and the user has no home folder.
    """
    named = given or os.environ.get("S9_CACHE", "").strip() or DEFAULT
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise UserError(f"data.cache={named}: this user has no home folder; {ANOTHER}") from None


def cached_arrays(folder: Path, key: str, make: Callable[[Path], None]) -> dict[str, np.ndarray]:
    """The arrays stored under `key` in `folder`, memory-mapped; writing to an array changes nothing on disk.

    A complete data set is only read, without a lock, since it may belong to another user.

    Args:
        make: writes <name>.npy files into the folder that it is given. Called once, even if several jobs ask at the
            same time.

    Raises:
        UserError: the folder cannot be made, written or read, or a stored array is damaged.
    """
    whole = folder / key
    if not _exists(whole):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"data.cache={folder}: cannot be made a folder ({error.strerror}); {ANOTHER}") from None
        part = folder / f"{key}.part"  # renamed when complete, so that a killed run leaves no half data set
        try:
            with FileLock(f"{whole}.lock"):
                if not whole.exists():
                    shutil.rmtree(part, ignore_errors=True)
                    try:
                        part.mkdir()
                        make(part)
                        part.rename(whole)
                    finally:
                        shutil.rmtree(part, ignore_errors=True)
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"data.cache={folder}: cannot be written ({reason}); {ANOTHER}") from None
    return Stored(whole)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError as error:
        raise UserError(f"data.cache={path.parent}: cannot be read ({error.strerror}); {ANOTHER}") from None
    except OSError:
        return False
    return True


class Stored(dict[str, np.ndarray]):
    """The arrays of one folder by name.

    Raises:
        UserError: an array is damaged, or the one asked for is missing.
    """

    def __init__(self, folder: Path):
        try:
            paths = sorted(path for path in list(folder.iterdir()) if path.suffix == ".npy")
        except OSError as error:
            raise UserError(f"data.cache={folder.parent}: cannot be read ({error.strerror}); {ANOTHER}") from None
        super().__init__({path.stem: _mapped(path) for path in paths})
        self.folder = folder

    def __missing__(self, name: str) -> np.ndarray:
        raise UserError(f"{self.folder / name}.npy: is missing; remove {self.folder}; the next run makes it again")


def _mapped(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    except PermissionError as error:
        raise UserError(f"data.cache={path.parent.parent}: cannot be read ({error.strerror}); {ANOTHER}") from None
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be read ({reason}); remove {path.parent}; the next run makes it again"
        ) from None
    return array


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays from memory to <name>.npy files, as the `make` of `cached_arrays` must."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
