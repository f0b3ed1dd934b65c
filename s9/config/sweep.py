"""The `sweep` node: what belongs to a sweep as a whole. A job's own configuration has these keys at their defaults."""

from dataclasses import dataclass, field
from typing import Any

from s9.system.errors import require


@dataclass
class SweepConfig:
    """Which jobs a sweep has, which of them run, and when the sweep stops."""

    name: str | None = None  # its folder is outputs/sweeps/<name>; null: named by what is swept
    dry_run: bool = False  # only shows the jobs, what is done and how long the rest would take
    retry: str | None = None  # failed: failed jobs run again
    max_failures: int = 3  # so many failures alike before any job is done stop the sweep
    cells: list[Any] = field(default_factory=list)  # mappings from keys to values, beside a grid or instead of it
    exclude: str | None = None  # jobs for which this condition holds do not run
    sample: int | None = None  # so many of the cells, drawn by sample_seed; null: all
    sample_seed: int = 0
    paired: bool = False  # the answer takes the differences between seeds out; counts where the sweep begins with it
    jobs_per_gpu: int | None = None  # at the same time; null: one

    def __post_init__(self) -> None:
        plain = self.name is None or (self.name not in ("", ".", "..") and not set("/\\\0") & set(self.name))
        require("sweep.name", self.name, plain, "the name of a folder, without /")
        require("sweep.retry", self.retry, self.retry in (None, "failed"), "null or failed")
        require("sweep.max_failures", self.max_failures, self.max_failures >= 1, "1 or more")
        for key in ("sample", "jobs_per_gpu"):
            value = getattr(self, key)
            require(f"sweep.{key}", value, value is None or value >= 1, "1 or more, or null")
        require("sweep.sample_seed", self.sample_seed, self.sample_seed >= 0, "0 or more")
        for cell in self.cells:
            require("sweep.cells", cell, isinstance(cell, dict), "a list such as [{}, {optimizer.lr: 0.1}]")
