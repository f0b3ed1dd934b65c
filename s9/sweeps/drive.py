"""Runs the jobs of a sweep in a pool until none is left that this process may run, whatever happens to single jobs."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from s9.sweeps.jobs import Job, SweepFolder, record
from s9.sweeps.task import Outcome, Pool, Task
from s9.tracking.folder import RunFolder
from s9.tracking.lock import RunLock
from s9.tracking.status import standing

LOOK_S = 0.3  # between looks at signals and at running jobs
ELSEWHERE_S = 2.0  # between looks at jobs that other processes run


@dataclass(frozen=True)
class Ended:
    """A job that has ended in this sweep, and the seconds that it took."""

    job: Job
    outcome: Outcome
    seconds: float


@dataclass(kw_only=True)
class Drive:
    """A sweep under way.

    begun: whether jobs were done before, so that failures alike are not the fault of all jobs.
    heard: raises if a signal has come. told: gets each job that has ended. shown: called a few times a second.
    """

    pool: Pool
    folder: SweepFolder
    max_failures: int
    begun: bool
    heard: Callable[[], None]
    told: Callable[["Drive", Ended], None]
    shown: Callable[["Drive"], None]
    waiting: list[Job] = field(default_factory=list)
    running: dict[str, tuple[Job, float]] = field(default_factory=dict)  # by digest, with the time of the start
    elsewhere: dict[str, tuple[Job, RunLock]] = field(default_factory=dict)  # by digest: other processes run these
    ended: list[Ended] = field(default_factory=list)
    stopped: str = ""  # why the sweep has stopped early
    looked: float = 0.0

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs these jobs, in this order; one that another process runs, only if that process leaves the job undone.

        Raises:
            BaseException: what `heard` raises; the jobs are then still running.
        """
        self.waiting = list(jobs)
        failed = {job.digest: self.starts(job) for job in jobs if standing(self.folder.run(job.digest)) == "failed"}
        while self.waiting or self.running or self.elsewhere:
            self.heard()
            self.start(failed)
            for task, outcome in self.pool.wait(LOOK_S):
                self.end(*self.running.pop(task.folder.name), outcome)
            self.look_elsewhere()
            self.shown(self)
            if self.stopped and not self.running:
                return

    def starts(self, job: Job) -> int:
        return int(self.folder.run(job.digest).read_status().get("starts", 0))

    def start(self, failed: dict[str, int]) -> None:
        """Starts as many jobs as the pool has room for. failed: how often each job that is run again was started."""
        chosen: list[Job] = []
        while self.waiting and len(chosen) < self.pool.room() and not self.stopped:
            job = self.waiting.pop(0)
            state = standing(self.folder.run(job.digest))
            if state == "running":
                self.leave_to_others(job)
            elif state == "failed" and failed.get(job.digest) != self.starts(job):
                continue  # another process has run it meanwhile
            elif state != "done":
                chosen.append(job)
        tasks = []
        for job in chosen:
            try:
                tasks.append(self.task_of(job))
                self.running[job.digest] = (job, time.monotonic())
            except OSError as error:  # the disk is full, say
                refused = Outcome("failed", f"{error.filename}: {error.strerror}", exit_code=1)
                self.end(job, time.monotonic(), refused)
        if tasks:
            self.pool.start(tasks)

    def task_of(self, job: Job) -> Task:
        path = self.folder.path / job.digest
        path.mkdir(parents=True, exist_ok=True)
        (path / "job.txt").write_text("".join(f"{key}={value}\n" for key, value in job.values.items()))
        return Task(folder=path, config=job.config, command=job.command, group=self.folder.name, swept=job.values)

    def end(self, job: Job, began: float, outcome: Outcome) -> None:
        if outcome.state == "taken":
            self.leave_to_others(job)
            return
        record(RunFolder(self.folder.path / job.digest), outcome)
        self.ended.append(Ended(job, outcome, time.monotonic() - began))
        self.told(self, self.ended[-1])
        first = [ended.outcome for ended in self.ended]
        alike = len({_kind(outcome) for outcome in first}) == 1
        failed = alike and first[0].state != "done" and not self.begun
        if len(first) == self.max_failures and failed and not self.stopped:
            self.stopped = (
                f"the first {len(first)} jobs all ended alike ({first[0].reason}); sweep.max_failures= sets it"
            )

    def leave_to_others(self, job: Job) -> None:
        folder = RunFolder(self.folder.path / job.digest)
        self.elsewhere[job.digest] = (job, RunLock(folder.lock, folder.lease))

    def look_elsewhere(self) -> None:
        """Jobs that other processes have done leave the list; those whose process has died are run here."""
        if time.monotonic() - self.looked < ELSEWHERE_S:
            return
        self.looked = time.monotonic()
        for digest, (job, lock) in list(self.elsewhere.items()):
            if not lock.acquire():
                continue
            lock.release()
            del self.elsewhere[digest]
            if standing(self.folder.run(digest)) in ("cut", "missing"):
                self.waiting.append(job)


def _kind(outcome: Outcome) -> str:
    """The same for outcomes that are alike: numbers and paths in the reasons may differ."""
    return re.sub(r"\S*/\S*|[\d.]+", "", f"{outcome.state} {outcome.reason}")
