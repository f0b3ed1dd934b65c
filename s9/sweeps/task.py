"""What a sweep or a search hands out, what comes back, and what every place that trains has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from s9.config.schema import Config


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run to train, or to resume, in `folder`.

    command: trains the same run alone. group: the sweep or study. swept: the values that are the run's own there, as
    written. until_epoch: where the run pauses; None: at no epoch.
    """

    folder: Path
    config: Config
    command: str
    group: str | None = None
    swept: Mapping[str, str] | None = None
    until_epoch: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a task ended: done, paused, failed, interrupted, or taken, where another process trains the run.

    reason: why the run is not done. exit_code: for a command that trains this run alone.
    value: val accuracy, a fraction: of the final weights, or of the epoch where the run paused; None if not scored.
    """

    state: str
    reason: str = ""
    exit_code: int = 0
    value: float | None = None


class Pool(Protocol):
    """Where tasks run: processes of this machine, SLURM, or ray."""

    def room(self) -> int:
        """How many tasks may be started now."""

    def start(self, tasks: Sequence[Task]) -> None:
        """Starts at most `room()` tasks; returns at once."""

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """The tasks that have ended since the last call; returns at the first such task, or after `seconds`."""

    def stop(self, number: int, within_s: float) -> None:
        """Passes the signal `number` on to every task, so that its run saves; ends what is left after `within_s`."""

    def close(self) -> None:
        """Ends processes that have nothing to do."""
