"""What SLURM's own commands say of jobs and partitions."""

import subprocess
from collections.abc import Iterable

# States after which SLURM does nothing more with a job. FORGOTTEN is not SLURM's: it no longer lists the job.
ENDED = {
    *("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"),
    *("PREEMPTED", "REVOKED", "FORGOTTEN"),
}
PATIENCE_S = 60.0


def _said(*command: str) -> "subprocess.CompletedProcess[str] | None":
    """None where the command is missing or does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def jobs_of(job_ids: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """State and name of each job that SLURM lists; it forgets ended jobs after some minutes.

    Args:
        job_ids: as 12, or 12_3 in a job array.

    Returns:
        None if SLURM does not answer.
    """
    numbers = ",".join(sorted({job_id.partition("_")[0] for job_id in job_ids}))
    shown = ("--noheader", "--array", "--states=all", "--format=%i|%T|%j")
    said = _said("squeue", *shown, f"--jobs={numbers}")
    if said is None:
        return None
    if said.returncode:
        return {} if "Invalid job id" in said.stderr else None
    rows = [line.split("|", 2) for line in said.stdout.splitlines()]
    return {job_id: (state, name) for job_id, state, name in rows}


def cancel(job_ids: Iterable[str]) -> None:
    """SLURM sends SIGTERM to each job, and SIGKILL to what is left after its KillWait, 30 s by default."""
    _said("scancel", *job_ids)


def longest_minutes(partitions: str | None) -> int | None:
    """The time limit of these partitions, joined by commas, or of the default one; None: no limit, or not known."""
    said = _said("sinfo", "--noheader", "--format=%P|%l")
    found = dict(line.split("|") for line in said.stdout.splitlines()) if said else {}
    wanted = set(partitions.split(",")) if partitions else {name.strip("*") for name in found if name.endswith("*")}
    limits = [_minutes(limit) for name, limit in found.items() if name.strip("*") in wanted]
    return min((limit for limit in limits if limit is not None), default=None)


def _minutes(limit: str) -> int | None:
    """Of `2-00:00:00` or `1:00:00` or `30:00`; None for `infinite`."""
    days, _, clock = limit.rpartition("-")
    if not clock.replace(":", "").isdigit():
        return None
    hours, minutes, _ = ["0", "0", *clock.split(":")][-3:]
    return int(days or 0) * 1440 + int(hours) * 60 + int(minutes)
