"""What a person sees while a sweep runs: a line for each job that ends; in a terminal, a bar with what is going on."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from s9.sweeps.drive import Drive, Ended
from s9.sweeps.jobs import Job
from s9.sweeps.table import Row
from s9.system.errors import UserError

REFRESH_S = 1.0  # between looks at the epochs of running jobs


def minutes(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def shown(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def named(job: Job) -> str:
    return shown(job.values) or job.digest


class Screen:
    """Shows a sweep; for a `with` block.

    rows: how all of its jobs stand before. slots: jobs at the same time. estimate: seconds a job, as far as is known.
    """

    def __init__(self, rows: Sequence[Row], slots: int, estimate: float | None):
        self.total, self.slots, self.estimate = len(rows), slots, estimate
        self.done = sum(row.state == "done" for row in rows)
        known = [(row.score, shown(row.values)) for row in rows if row.score is not None]
        self.best: tuple[float, str] | None = max(known, default=None)
        self.began = time.monotonic()
        self.refreshed = 0.0
        self.console = Console(soft_wrap=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
        )
        self.progress = Progress(*columns, console=self.console, transient=True)
        self.task = self.progress.add_task("sweep", total=self.total, completed=self.done, now="")

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.progress.stop()

    def ended(self, drive: Drive, ended: Ended) -> None:
        """One line: which job, how it ended, the best so far, and the time that is left."""
        outcome = ended.outcome
        self.done += outcome.state == "done"
        said = f"{outcome.state}: {outcome.reason}"
        if outcome.state == "done":
            said = f"val {100 * outcome.value:.2f} %" if outcome.value is not None else "done"
            if outcome.value is not None and (self.best is None or outcome.value > self.best[0]):
                self.best = (outcome.value, named(ended.job))
        line = f"[{self.done}/{self.total}] {named(ended.job)}: {said}, {minutes(ended.seconds)}"
        self.console.print(Text(f"{line}{self.told_best()}{self.told_left(drive)}"))
        self.progress.update(self.task, completed=self.done)

    def told_best(self) -> str:
        return "" if self.best is None else f"; best so far {100 * self.best[0]:.2f} % ({self.best[1]})"

    def told_left(self, drive: Drive) -> str:
        left = self.left(drive)
        return "" if left is None else f"; about {minutes(left)} left"

    def left(self, drive: Drive) -> float | None:
        """Seconds until the sweep ends, from the jobs that have ended; None while nothing is known."""
        done = sum(ended.outcome.state == "done" for ended in drive.ended)
        left = len(drive.waiting) + len(drive.elsewhere) + len(drive.running)
        if not left or (not done and self.estimate is None):
            return None
        spent = time.monotonic() - self.began
        if done:  # by the pace so far: where jobs wait in a queue, nobody knows how many run
            return spent * left / done
        assert self.estimate is not None
        return max(0.0, self.estimate * left / max(1, min(self.slots, left)) - spent)

    def show(self, drive: Drive) -> None:
        """Which jobs run, and their epochs."""
        if not self.console.is_terminal or time.monotonic() - self.refreshed < REFRESH_S:
            return
        self.refreshed = time.monotonic()
        now = []
        for digest, (job, _) in drive.running.items():
            try:
                epoch = str(len(drive.folder.run(digest).read_metrics()))
            except (UserError, OSError):  # a full disk has cut a line, say: a bar must not end the sweep
                epoch = "?"
            now.append(f"{named(job)} epoch {epoch}/{job.config.trainer.epochs}")
        if drive.elsewhere:
            now.append(f"{len(drive.elsewhere)} run by other processes")
        self.progress.update(self.task, now=f"{'; '.join(now[:2])}{self.told_left(drive)}")
