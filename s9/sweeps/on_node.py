"""What a node runs: a task, then a look at why it was interrupted, since SLURM's signals say little."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s9.sweeps.remote import outcome_of
from s9.sweeps.task import Outcome, Task
from s9.tracking.folder import RunFolder
from s9.tracking.lock import RunLock

WARNING = "USR1"  # SLURM's signal before a time limit: one that a run listens to; submitit's own is USR2
FREE_WITHIN_S = 600.0  # how long a job that was queued again waits for its former node to be silent
LOOK_EVERY_S = 5.0


@dataclass(frozen=True)
class OnNode:
    """Calls `run` in a job of submitit, which pickles this object and its task."""

    run: Callable[[Task], Outcome]

    def __call__(self, task: Task) -> Outcome:
        folder = RunFolder(task.folder)
        if folder.is_done():  # by another process, while the job was queued
            return outcome_of(folder, "")
        queued_again, until = "SLURM_RESTART_COUNT" in os.environ, time.monotonic() + FREE_WITHIN_S
        outcome, lock = self.run(task), RunLock(folder.lock, folder.lease)
        while outcome.state == "taken" and queued_again and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)
            if lock.acquire():  # the same lock each time: it counts how long the former owner has been silent
                lock.release()
                outcome = self.run(task)
        warned = outcome.exit_code == 128 + getattr(signal, f"SIG{WARNING}")
        if outcome.state == "interrupted" and (warned or preempted()):
            signal.raise_signal(getattr(signal, f"SIG{WARNING}"))  # submitit queues the job again and ends the process
        return outcome

    def checkpoint(self, task: Task) -> Any:
        """What submitit writes for the job's next start."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


def preempted() -> bool:
    """Whether SLURM has announced that it takes the node away from this job, which still runs.

    After scancel, and where SLURM itself queues the job again, the job does not count as running.
    """
    command = ["scontrol", "--oneliner", "show", "job", os.environ.get("SLURM_JOB_ID", "none")]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_EVERY_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):  # not on SLURM
        return False
    shown = dict(word.partition("=")[::2] for word in said.split())
    return shown.get("JobState") == "RUNNING" and shown.get("PreemptTime", "None") != "None"
