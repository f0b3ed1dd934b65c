"""Runs tasks as SLURM jobs, or as processes of this machine, through submitit; needs the extra s9[slurm].

Each task is one SLURM job; tasks that start together are one job array. What may happen to a job, and what follows:

- SLURM preempts it, or its node goes down: SLURM queues it again, and the run resumes.
- Its time limit comes near: SLURM sends SIGUSR1, the run saves, the job queues itself again, and the run resumes.
- Somebody cancels it (scancel): the run saves, and its task is interrupted.

Jobs outlive a sweep that is killed; the next sweep in the same folder waits for them and does not submit them again.
"""

import os
import pickle
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from s9.sweeps.on_node import OnNode
from s9.sweeps.remote import outcome_of
from s9.sweeps.squeue import ENDED, cancel, jobs_of
from s9.sweeps.submission import LONGEST_ARRAY, executor_of, signals_for_jobs
from s9.sweeps.task import Outcome, Task
from s9.system.errors import UserError
from s9.system.files import write_whole
from s9.tracking.folder import RunFolder

LOOK_EVERY_S = 0.5  # for result files
ASK_EVERY_S = 5.0  # SLURM, for all jobs at once
SETTLES_S = 5.0  # a job has ended where SLURM says so for this time: a network disk may show its result late
HOW = {
    "CANCELLED": "was cancelled",
    "OUT_OF_MEMORY": "ran out of memory; ask for more with hydra.launcher.mem_gb=",
    "TIMEOUT": "reached its time limit before it could save; a larger hydra.launcher.signal_delay_s= leaves more time",
}
# What SLURM took away and, by the cluster's rules, did not queue again: such a job is submitted anew.
LOST = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED")


@dataclass
class Entry:
    """A task and submitit's job for it."""

    task: Task
    job: Any
    ended_at: float | None = None  # when SLURM first said that the job has ended; of time.monotonic()


class SlurmPool:
    """A Pool on SLURM, or for a try on this machine.

    Args:
        run: trains a task; a function at the top level of a module, which the node imports.
        folder: the sweep's; submitit's files are below its .submitit/.
        settings: hydra.launcher's keys, as in conf/hydra/launcher/submitit_slurm.yaml.

    Raises:
        UserError: submitit or SLURM is missing here, or a setting is not valid.
    """

    def __init__(
        self,
        run: Callable[[Task], Outcome],
        folder: Path,
        settings: Mapping[str, Any],
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        self.on_node = OnNode(run)
        self.folder, self.name, self.cluster = folder / ".submitit", f"s9-{folder.name}", cluster
        self.at_once = min(int(settings.get("array_parallelism") or LONGEST_ARRAY), LONGEST_ARRAY)
        self.executor = executor_of(settings, self.folder, cluster, self.at_once)
        self.active: list[Entry] = []
        self.states: dict[str, str] | None = {}
        self.asked_at, self.settles_s, self.stopping = float("-inf"), SETTLES_S, False

    def room(self) -> int:
        return max(0, self.at_once - len(self.active))

    def start(self, tasks: Sequence[Task]) -> None:
        """Raises UserError where SLURM refuses the jobs, or does not answer."""
        known = self._submitted_before(tasks)
        new = [task for task in tasks if task.folder not in known]
        self.active += known.values()  # also where SLURM refuses the others
        self.active += map(Entry, new, self._submit(new))

    def _submit(self, tasks: Sequence[Task]) -> list[Any]:
        """One job a task; several are one job array."""
        if not tasks:
            return []
        self.executor.update_parameters(name=self.name if len(tasks) > 1 else f"{self.name}-{tasks[0].folder.name}")
        try:
            with signals_for_jobs(self.cluster):
                jobs: list[Any] = self.executor.map_array(self.on_node, tasks)
        except (OSError, RuntimeError) as error:
            lines = dict.fromkeys(line.strip() for line in str(error).splitlines())  # sbatch's own, often twice
            on = sum(entry.task not in tasks for entry in self.active)
            more = f"; {on} jobs of this sweep go on in SLURM, and {self._go_on()}" if on else ""
            raise UserError(f"SLURM refuses the job: {' '.join(filter(None, lines))}{more}") from None
        for task, job in zip(tasks, jobs, strict=True):
            write_whole(self._note(task), job.job_id.encode())
        return jobs

    def _go_on(self) -> str:
        return f"python -m s9.train {shlex.quote(f'resume={self.folder.parent}')} waits for them and submits the rest"

    def _note(self, task: Task) -> Path:
        """Holds the number of the task's last job, for a sweep that takes over."""
        return self.folder / f"{task.folder.name}.job"

    def _submitted_before(self, tasks: Sequence[Task]) -> dict[Path, Entry]:
        """The tasks whose job a former sweep has submitted and that has not ended, by folder.

        Raises:
            UserError: SLURM does not say which jobs it has: submitted again, they would run twice.
        """
        noted = {}
        for task in tasks if self.cluster == "slurm" else ():
            with suppress(OSError):
                noted[self._note(task).read_text()] = task
        known = jobs_of(noted) if noted else {}
        if known is None:  # a busy SLURM may not answer once
            known = jobs_of(noted)
        if known is None:
            what = f"squeue does not say whether {len(noted)} jobs, submitted before, are still queued"
            raise UserError(f"{what}; once it answers, {self._go_on()}")
        found = {}
        for job_id, (state, name) in known.items():
            if job_id in noted and state not in ENDED and name.startswith(self.name):
                job = self.executor._executor.job_class(self.folder, job_id)
                with suppress(Exception):  # a pickle of another version of s9
                    if job.submission().args[0].until_epoch == noted[job_id].until_epoch:
                        found[noted[job_id].folder] = Entry(noted[job_id], job)
        return found

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        until = time.monotonic() + seconds
        while True:
            self._ask()
            outcomes = [(entry, self._outcome(entry)) for entry in self.active]
            ended = [(entry, outcome) for entry, outcome in outcomes if outcome is not None]
            self.active = [entry for entry, outcome in outcomes if outcome is None]
            left = until - time.monotonic()
            if ended or left <= 0:
                return [(entry.task, outcome) for entry, outcome in ended]
            time.sleep(min(LOOK_EVERY_S, left))

    def _ask(self) -> None:
        """Asks for the jobs' states; None where SLURM does not answer, which ends no job."""
        if self.cluster == "local":
            self.states = {e.job.job_id: "COMPLETED" if e.job.done() else "RUNNING" for e in self.active}
        elif self.active and time.monotonic() - self.asked_at >= min(ASK_EVERY_S, self.settles_s):
            found = jobs_of([entry.job.job_id for entry in self.active])
            self.states = None if found is None else {job_id: state for job_id, (state, _) in found.items()}
            self.asked_at = time.monotonic()

    def _outcome(self, entry: Entry) -> Outcome | None:
        """How the task ended; None while SLURM has the job queued or running."""
        if self.cluster == "local" and not entry.job.done():  # with its result, the process takes a moment to end
            return None
        result = _result(entry.job)
        if isinstance(result, Outcome) and result.state != "interrupted":
            return result
        job_id, folder = entry.job.job_id, RunFolder(entry.task.folder)
        state = "UNKNOWN" if self.states is None else self.states.get(job_id, "FORGOTTEN")
        if state == "PENDING" and folder.is_done():  # by another process
            cancel([job_id])
            return outcome_of(folder, "")
        if state not in ENDED:
            entry.ended_at = None
            return None
        entry.ended_at = entry.ended_at or time.monotonic()
        if time.monotonic() - entry.ended_at < self.settles_s and self.cluster == "slurm":
            return None
        if state in LOST and not self.stopping:
            (entry.job,), entry.ended_at = self._submit([entry.task]), None
            return None
        if isinstance(result, Outcome):
            return result
        how = f"SLURM job {job_id} {HOW.get(state, f'ended as {state}')}; its log is {entry.job.paths.stdout}"
        return outcome_of(folder, result or how, failed=bool(result) or state == "OUT_OF_MEMORY")

    def stop(self, number: int, within_s: float) -> None:
        """As scancel does; SLURM itself ends what does not end in time."""
        self.asked_at, self.settles_s, self.stopping = float("-inf"), 0.0, True
        ids = [entry.job.job_id for entry in self.active]
        if self.cluster == "slurm" and ids:
            cancel(ids)
        for job_id in ids if self.cluster == "local" else ():
            with suppress(ProcessLookupError):
                os.kill(int(job_id), signal.SIGTERM)  # to submitit's controller, which passes it on and waits
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            self._ask()
            if self.states is not None and all(self.states.get(i, "FORGOTTEN") in ENDED for i in ids):
                return
            time.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        """Leaves nothing running: a job's process ends with its task."""


def _result(job: Any) -> Outcome | str | None:
    """What the job's process has said of its end; text: the last line of a traceback."""
    try:
        kind, value = pickle.loads(job.paths.result_pickle.read_bytes())
    except (OSError, EOFError):
        return None
    if kind == "success":
        return value if isinstance(value, Outcome) else None
    return f"{str(value).strip().splitlines()[-1].rstrip('.')}; its log is {job.paths.stdout}"
