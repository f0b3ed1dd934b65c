"""Which run resume= means: a folder, or with `auto` the newest unfinished run of the same configuration."""

import sys
from pathlib import Path

from s9 import command_line
from s9.errors import UserError

OUTPUTS = Path("outputs")


def find(arguments: list[str]) -> Path | None:
    """The folder to go on in; None where resume=auto finds none, and a new run is to start.

    Raises:
        UserError: the folder is no run's, its run is done, or another process trains it.
    """
    asked = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=")]
    rest = [a for a in arguments if not a.startswith("resume=")]
    if len(asked) > 1:
        raise UserError("resume= is given twice")
    if asked == ["auto"]:
        if "-m" in rest or "--multirun" in rest:
            raise UserError("resume=auto: goes on with one run, not with a sweep; name a job's folder")
        return newest_unfinished(rest)
    if rest:
        raise UserError(f"resume={asked[0]}: a run goes on with its own configuration; leave out {' '.join(rest)}")

    from s9.tracking import record
    from s9.tracking.status import is_done, is_free, read_status

    folder = Path(asked[0])
    if not (folder / record.CONFIG).is_file():
        raise UserError(f"resume={folder}: there is no {record.CONFIG} in it; give the folder of a run, or auto")
    record.read_config(folder)
    if is_done(folder):
        ways = f"score it again: python -m s9.evaluate run={folder}; train on from its weights: init_from={folder}"
        raise UserError(f"resume={folder}: this run is done; {ways}")
    if not is_free(folder):
        raise UserError(f"resume={folder}: is being trained by another process (pid {read_status(folder).get('pid')})")
    return folder


def newest_unfinished(arguments: list[str]) -> Path | None:
    """Of the unfinished runs of this configuration, the one that was started last; it may be in hydra.run.dir too."""
    from s9.tracking import record
    from s9.tracking.status import STATUS, UNFINISHED, is_free, read_status

    hydras_own = [a for a in arguments if a.startswith("hydra.")]
    try:
        wanted = record.as_dict(command_line.compose_config([a for a in arguments if a not in hydras_own]))
    except UserError:  # the same is found when a new run starts, and said better there
        return None
    chosen = [a.partition("=")[2].strip("'\"") for a in hydras_own if a.startswith("hydra.run.dir=")]
    # Not **: it does not look behind symbolic links, and a date's folder may be one.
    depths = [OUTPUTS.glob(f"{'*/' * depth}{STATUS}") for depth in range(1, 5)]
    places = {path.parent for paths in depths for path in paths} | {Path(folder) for folder in chosen}
    candidates = []
    for folder in places:
        status = read_status(folder)
        if status.get("state") in UNFINISHED and (folder / record.CONFIG).exists():
            candidates.append((status.get("started", ""), folder))
    for _, folder in sorted(candidates, reverse=True):
        try:
            if record.as_dict(record.read_config(folder)) != wanted:
                continue
            if is_free(folder):
                return folder
        except UserError:  # of another version of s9, or not ours to write
            continue
        print(f"{folder} is being trained (pid {read_status(folder).get('pid')}); this is another run", file=sys.stderr)
    return None
