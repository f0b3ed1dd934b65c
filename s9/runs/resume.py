"""Which run is resumed: the one in a folder that was named, or the newest unfinished one of the same identity."""

from collections.abc import Iterable
from pathlib import Path

from s9.config.identity import Identity, differences
from s9.config.schema import Config
from s9.data.image_set import in_short
from s9.runs.prepare import identity_of
from s9.system.errors import UserError
from s9.tracking.folder import UNFINISHED, RunFolder

OUTPUTS = Path("outputs")


def named(path: Path) -> RunFolder:
    """The run to resume in `path`.

    Raises:
        UserError: the folder is no run's, its run is done, or another process trains it.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise UserError(f"resume={path}: there is no {folder.config.name} in it; give the folder of a run, or auto")
    folder.read_config()
    if folder.is_done():
        ways = f"score it again: python -m s9.evaluate run={path}; train on from its weights: init_from={path}"
        raise UserError(f"resume={path}: this run is done; {ways}")
    if not folder.is_free():
        raise UserError(f"resume={path}: is being trained by another process (pid {folder.read_status().get('pid')})")
    return folder


def newest_unfinished(config: Config, chosen: Path | None) -> tuple[RunFolder | None, list[str]]:
    """Of the unfinished runs of this identity the one that was started last; and lines that say what was found instead.

    Args:
        chosen: a folder that the run may be in beside those below outputs/.

    Raises:
        UserError: a device or donor that the configuration names is not here.
    """
    wanted, said = identity_of(config), []
    nearest: tuple[int, RunFolder, list[str]] | None = None
    for folder in _unfinished(chosen):
        try:
            stored = _identity_in(folder)
            others = differences(stored, wanted) if stored else None
            if others is None:
                continue
            if others:
                nearest = min(nearest or (len(others) + 1, folder, []), (len(others), folder, others), key=_distance)
                continue
            if folder.is_free():
                return folder, []
        except UserError:  # of another version of s9, or not ours to write
            continue
        said.append(f"{folder} is being trained (pid {folder.read_status().get('pid')}); this is another run")
    if nearest and not said:
        _, folder, others = nearest
        said.append(f"resume=auto: a new run begins; the nearest unfinished one, {folder}, differs: {in_short(others)}")
    return None, said


def _distance(candidate: tuple[int, RunFolder, list[str]]) -> int:
    return candidate[0]


def _unfinished(chosen: Path | None) -> Iterable[RunFolder]:
    """Newest first."""
    name = RunFolder(OUTPUTS).status.name
    # Not **: it does not look behind symbolic links, and a date's folder may be one.
    depths = [OUTPUTS.glob(f"{'*/' * depth}{name}") for depth in range(1, 5)]
    places = {path.parent for paths in depths for path in paths} | ({chosen} if chosen else set())
    found = []
    for folder in map(RunFolder, places):
        status = folder.read_status()
        if status.get("state") in UNFINISHED and folder.config.exists():
            found.append((status.get("started", ""), str(folder), folder))
    return [folder for *_, folder in sorted(found, key=lambda entry: entry[:2], reverse=True)]


def _identity_in(folder: RunFolder) -> Identity | None:
    """As the run began; None for a run of before December 2026, whose checkpoints this version does not read."""
    stored = folder.read_identity()
    if stored is None and not folder.checkpoints.exists():  # killed before it was written
        return identity_of(folder.read_config())
    return stored
