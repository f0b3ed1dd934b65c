"""Decoded data sets on disk, so that the second run starts at once: one .npz a data set, named by its key."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from s9.errors import UserError


def cached_arrays(folder: Path, key: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays stored under `key` in `folder`; made once by `make`, also when several jobs ask at the same time."""
    path = folder / f"{key}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.cache={folder}: cannot be made a folder ({error.strerror})") from None
    with FileLock(f"{path}.lock"):
        if not path.exists():
            part = path.with_suffix(".part.npz")  # renamed when whole, so that a killed run leaves no half file
            np.savez(part, **make())  # type: ignore[arg-type]  # takes the arrays for allow_pickle
            part.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
