"""A sweep's summary.csv: one line per job, written when the job ends, so that an interrupted sweep keeps its lines.

The summary holds only val scores: a sweep selects runs, and the selection must not use test.
"""

import csv
import io
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from s9.system.files import write_whole

log = logging.getLogger("s9")

SUMMARY = "summary.csv"
COLUMNS = ("job", "status", "val/accuracy", "val/loss", "minutes", "overrides", "folder", "reason")


@dataclass(frozen=True)
class JobLine:
    """One job's line of its sweep's summary.csv; a run outside a sweep writes none."""

    sweep_dir: Path | None
    job: int | str
    overrides: str
    folder: str

    @property
    def group(self) -> str | None:
        """The name of the sweep."""
        return self.sweep_dir.name if self.sweep_dir else None

    def write(self, **outcome: Any) -> None:
        """Writes status and those of val/accuracy, val/loss, minutes and reason that are known."""
        if self.sweep_dir is not None:
            add_row(self.sweep_dir, {"job": self.job, "overrides": self.overrides, "folder": self.folder} | outcome)


def add_row(sweep_dir: Path, row: dict[str, Any]) -> None:
    """Writes one job's line, in place of the job's earlier line; jobs that end at the same time wait for each other."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    with FileLock(sweep_dir / ".summary.lock"):
        others = [other for other in _rows(sweep_dir) if other["job"] != str(row["job"])]
        writer.writerows([*others, row])
        write_whole(sweep_dir / SUMMARY, text.getvalue().encode())


def read_rows(sweep_dir: Path) -> list[dict[str, str]]:
    """The jobs' lines, best val accuracy first."""
    return sorted(_rows(sweep_dir), key=lambda row: -float(row["val/accuracy"] or 0))


def _rows(sweep_dir: Path) -> list[dict[str, str]]:
    path = sweep_dir / SUMMARY
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def show_jobs(sweep_dir: Path) -> int:
    """Prints the jobs of a sweep that has ended, best first; returns 1 where one of them failed, else 0."""
    rows = read_rows(sweep_dir)
    if not rows:
        return 0
    print(f"\n{'job':>4}  {'val':>8}  {'minutes':>7}  overrides")
    for row in rows:
        accuracy = f"{100 * float(row['val/accuracy']):.2f} %" if row["val/accuracy"] else row["status"]
        print(f"{row['job']:>4}  {accuracy:>8}  {row['minutes']:>7}  {row['overrides']}")
    print(f"summary: {sweep_dir / SUMMARY}")
    failed = [row["job"] for row in rows if row["status"] != "done"]
    if failed:
        print(f"error: {len(failed)} of {len(rows)} jobs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
