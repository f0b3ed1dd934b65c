"""Which run resume= means: a folder, or with `auto` the newest unfinished run of the same configuration."""

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
    if asked == ["auto"]:
        if "-m" in rest or "--multirun" in rest:
            raise UserError("resume=auto: goes on with one run, not with a sweep; name a job's folder")
        return newest_unfinished(rest)
    if len(asked) > 1 or rest:
        raise UserError(f"resume={asked[0]}: a run goes on with its own configuration; leave out {' '.join(rest)}")

    from s9.tracking import record
    from s9.tracking.status import is_free, read_status

    folder = Path(asked[0])
    record.read_config(folder)  # says what is wrong with the folder
    if read_status(folder).get("state") == "done":
        raise UserError(f"resume={folder}: this run is done; score it again with python -m s9.evaluate run={folder}")
    if not is_free(folder):
        raise UserError(f"resume={folder}: is being trained by another process (pid {read_status(folder).get('pid')})")
    return folder


def newest_unfinished(overrides: list[str]) -> Path | None:
    """Among the runs below outputs/, the one that was started last of those with this configuration not done yet."""
    from s9.tracking import record
    from s9.tracking.status import STATUS, UNFINISHED, is_free, read_status

    hydras_own = [o for o in overrides if o.startswith("hydra.")]
    wanted = record.as_dict(command_line.compose_config([o for o in overrides if o not in hydras_own]))
    candidates = []
    for path in OUTPUTS.rglob(STATUS):
        status = read_status(path.parent)
        if status.get("state") in UNFINISHED and (path.parent / record.CONFIG).exists():
            candidates.append((status.get("started", ""), path.parent))
    for _, folder in sorted(candidates, reverse=True):
        try:
            same = record.as_dict(record.read_config(folder)) == wanted
        except UserError:  # of another version of s9
            continue
        if same and is_free(folder):
            return folder
    return None
