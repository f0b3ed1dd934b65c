"""How a task ended whose process could not say so itself: read from its run's folder."""

from s9.sweeps.task import Outcome
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder

INTERRUPTED = 143  # the exit code of a process that SIGTERM ends


def outcome_of(folder: RunFolder, how: str, *, failed: bool = False) -> Outcome:
    """Done, failed or interrupted where status.json says so; else interrupted, or failed if `failed`.

    Args:
        how: how the process ended, a part of the reason.
        failed: whether the same would happen again, as where memory ran out.
    """
    status = folder.read_status()
    if folder.is_done():
        return Outcome("done", value=val_accuracy(folder))
    if status.get("state") == "failed":
        return Outcome("failed", str(status.get("reason", how)), exit_code=1)
    if failed and status.get("state") != "interrupted":
        return Outcome("failed", how, exit_code=1)
    return Outcome("interrupted", how, exit_code=INTERRUPTED)


def val_accuracy(folder: RunFolder) -> float | None:
    """Of the final weights, a fraction; None if they were not scored or the summary cannot be read."""
    try:
        value = folder.read_summary().get("val", {}).get("accuracy")
    except UserError:
        return None
    return None if value is None else float(value)
