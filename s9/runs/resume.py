"""Which run is resumed: the one in the named folder, or the newest unfinished run of the same identity."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from s9.config.data import FolderConfig
from s9.config.identity import Identity, differences
from s9.config.schema import Config
from s9.data.image_set import in_short
from s9.data.sources.load import load_images
from s9.runs.prepare import identity_of
from s9.system.errors import UserError
from s9.tracking.folder import UNFINISHED, RunFolder
from s9.tracking.lr_range import is_range_test

OUTPUTS = Path("outputs")


def named(path: Path) -> RunFolder:
    """The run to resume in `path`.

    Raises:
        UserError: the folder holds no run, its run is done, or another process trains that run.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise UserError(
            f"resume={path}: there is no {folder.config.name} in it; give the folder of a run or a sweep, or auto"
        )
    config = folder.read_config()
    if folder.is_done() and is_range_test(config):
        raise UserError(f"resume={path}: this range test is done; start another one")
    if folder.is_done():
        run, start = shlex.quote(f"run={path}"), shlex.quote(f"init_from={path}")
        ways = f"score it again: python -m s9.evaluate {run}; train on from its weights: {start}"
        raise UserError(f"resume={path}: this run is done; {ways}")
    if not folder.is_free(patient=True):
        raise UserError(f"resume={path}: is being trained by another process (pid {folder.read_status().get('pid')})")
    return folder


def newest_unfinished(config: Config, chosen: Path | None) -> tuple[RunFolder | None, list[str]]:
    """The unfinished run of this identity that was started last, or None and lines that say what was found instead.

    Args:
        chosen: a folder that may hold the run, in addition to those below outputs/.

    Raises:
        UserError: this machine does not have a device or donor that the configuration names.
    """
    wanted, said = identity_of(config), []
    nearest: tuple[int, RunFolder, list[str]] | None = None
    for folder in _unfinished(chosen):
        try:
            stored = _identity_in(folder)
            if stored is None:
                continue
            if others := differences(stored, wanted) or _other_images(folder, config):
                nearest = min(nearest or (len(others) + 1, folder, []), (len(others), folder, others), key=_distance)
                continue
            if folder.is_free(patient=True):
                return folder, []
        except UserError:  # a run of another version of s9, or one that we may not write
            continue
        said.append(f"{folder} is being trained (pid {folder.read_status().get('pid')}); a new run begins")
    if nearest and not said:
        _, folder, others = nearest
        said.append(f"resume=auto: a new run begins; the nearest unfinished one, {folder}, differs: {in_short(others)}")
    return None, said


def _other_images(folder: RunFolder, config: Config) -> list[str]:
    """How the images of two runs of one identity differ, by their contents: a folder may have moved."""
    here, there = config.data, folder.read_config().data
    if not isinstance(here, FolderConfig) or not isinstance(there, FolderConfig) or here.root == there.root:
        return []
    known = folder.read_images()
    if known is not None and not known.changes(load_images(here, config.seed).facts):
        return []
    return [f"data.root was {there.root}, is {here.root}"]


def _distance(candidate: tuple[int, RunFolder, list[str]]) -> int:
    return candidate[0]


def _unfinished(chosen: Path | None) -> Iterable[RunFolder]:
    """The unfinished runs below outputs/ and in `chosen`, newest first."""
    name = RunFolder(OUTPUTS).status.name
    # Not **, which does not follow symbolic links: a date's folder may be one.
    depths = [OUTPUTS.glob(f"{'*/' * depth}{name}") for depth in range(1, 5)]
    places = {path.parent for paths in depths for path in paths} | ({chosen} if chosen else set())
    found = []
    for folder in map(RunFolder, places):
        status = folder.read_status()
        if status.get("state") in UNFINISHED and folder.config.exists():
            found.append((status.get("started", ""), str(folder), folder))
    return [folder for *_, folder in sorted(found, key=lambda entry: entry[:2], reverse=True)]


def _identity_in(folder: RunFolder) -> Identity | None:
    """The identity that the run began with; None before December 2026, whose checkpoints this version does not read."""
    stored = folder.read_identity()
    if stored is None and not folder.checkpoints.exists():  # killed before the identity was written
        return identity_of(folder.read_config())
    return stored
