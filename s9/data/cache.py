"""Decoded data sets on disk, so that the second run starts at once: one folder of .npy files a data set, by its key.

They are mapped, not read: what is larger than memory can be trained on too (data.loader=workers).
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from s9.errors import UserError


def cached_arrays(folder: Path, key: str, make: Callable[[Path], None]) -> dict[str, np.ndarray]:
    """The arrays stored under `key` in `folder`, mapped into memory; writing to one changes nothing on disk.

    Args:
        make: writes <name>.npy files into the folder that it is given. Called once, also when several jobs ask at the
            same time.
    """
    whole = folder / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.cache={folder}: cannot be made a folder ({error.strerror})") from None
    with FileLock(f"{whole}.lock"):
        if not whole.exists():
            part = folder / f"{key}.part"  # renamed when whole, so that a killed run leaves no half data set
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir()
                make(part)
                part.rename(whole)
            except OSError as error:
                raise UserError(f"data.cache={folder}: cannot be written ({error.strerror or error})") from None
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return Stored(whole)


class Stored(dict[str, np.ndarray]):
    """The arrays of one folder by name.

    Raises:
        UserError: one is damaged, or the one asked for is missing.
    """

    def __init__(self, folder: Path):
        super().__init__({path.stem: _mapped(path) for path in sorted(folder.glob("*.npy"))})
        self.folder = folder

    def __missing__(self, name: str) -> np.ndarray:
        raise UserError(f"{self.folder / name}.npy: is missing; remove {self.folder}, it is made again")


def _mapped(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}); remove {path.parent}, it is made again") from None
    return array


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """What a `make` does with arrays that are in memory anyway."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
