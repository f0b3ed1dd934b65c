"""What `wandb leet`, W&B's viewer in the terminal, shows: all jobs of a sweep, and which charts come first.

wandb leet 0.31 lists the entries of one folder whose names are those of W&B's own run folders; links count. Its charts
are in the order of their names, and a filter that it keeps in that folder says which of them it shows.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from s9.system.files import write_whole

STATE = ".wandb-leet.json"  # what leet was last told to show of a folder
LOCK = ".wandb-leet.lock"
FIRST = "^(train|val)/(accuracy|loss)$"
WAIT_S = 10.0  # for other jobs that begin at the same time


def show_in_leet(place: Path, folder: Path, of_sweep: bool) -> None:
    """Lets leet show accuracy and loss first, of this run and, for a job of a sweep, of all jobs in the sweep's folder.

    Args:
        place: W&B's folder of the run as it has begun now. folder: the run's.

    Raises:
        OSError: the folders cannot be written.
    """
    if not (own := place.parent / STATE).exists():
        _write(own, {"metrics_filter": {"query": FIRST}})
    inside = Path(folder.name, place.parent.name, place.name)  # of the sweep's folder
    sweep = folder.parent
    if not of_sweep or not (sweep / inside).is_dir():  # W&B takes another folder where it cannot write
        return
    lock = FileLock(sweep / LOCK, timeout=WAIT_S)
    with suppress(NotImplementedError):  # a file system without locks
        lock.acquire()
    try:
        _list(sweep, inside)
    finally:
        lock.release()


def _list(sweep: Path, inside: Path) -> None:
    """Links W&B's folder `inside` of the sweep's in place of that of the job's earlier start, which lacks epochs."""
    before = [
        link for link in sweep.glob("*run-*") if link.is_symlink() and link.readlink().parts[0] == inside.parts[0]
    ]
    for link in before:
        link.unlink()
    (sweep / inside.name).symlink_to(inside, target_is_directory=True)
    state = _read(sweep / STATE) or {"metrics_filter": {"query": FIRST}}  # else the filter is what the user has chosen
    shown = [name for name in state.get("selected_runs") or [] if name not in {link.name for link in before}]
    _write(sweep / STATE, state | {"selected_runs": [*shown, inside.name]})


def _write(path: Path, state: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(state, indent=2) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    """Empty where there is no such file, or none that can be read."""
    try:
        state = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
