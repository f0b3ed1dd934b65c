"""A sweep's summary.csv: a line a job, written when the job ends, so that a sweep that is cut short keeps its lines.

It holds val only: a sweep chooses, and what chooses must not have seen test.
"""

import csv
import logging
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

log = logging.getLogger("s9")

COLUMNS = ("job", "status", "val/accuracy", "val/loss", "minutes", "overrides", "folder", "reason")


def add_row(sweep_dir: Path, row: dict[str, Any]) -> None:
    """Appends one job's line; jobs that end at the same time wait for each other."""
    path = sweep_dir / "summary.csv"
    with FileLock(sweep_dir / ".summary.lock"), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def read_rows(sweep_dir: Path) -> list[dict[str, str]]:
    """The jobs' lines, best val accuracy first."""
    path = sweep_dir / "summary.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: -float(row["val/accuracy"] or 0))


class SweepEnd(Callback):
    """At the end of a multirun: shows the jobs, best first, and ends with exit code 1 if one of them failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep_dir = Path(config.hydra.sweep.dir)
        rows = read_rows(sweep_dir)
        if not rows:
            return
        print(f"\n{'job':>4}  {'val':>8}  {'minutes':>7}  overrides")
        for row in rows:
            accuracy = f"{100 * float(row['val/accuracy']):.2f} %" if row["val/accuracy"] else row["status"]
            print(f"{row['job']:>4}  {accuracy:>8}  {row['minutes']:>7}  {row['overrides']}")
        print(f"summary: {sweep_dir / 'summary.csv'}")
        failed = [row["job"] for row in rows if row["status"] != "done"]
        if failed:
            print(f"error: {len(failed)} of {len(rows)} jobs failed: {', '.join(failed)}", file=sys.stderr)
            sys.exit(1)
