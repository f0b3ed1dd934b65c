"""A sweep's table: on the screen a line for each cell, in summary.csv a line for each job; val scores alone.

A sweep selects runs, and the selection must not use test. A cell is the swept values without the seed.
"""

import csv
import io
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from s9.system.files import write_whole
from s9.system.letters import as_text, one_line

SEED = "seed"
NOT_DONE = ("failed", "cut", "missing", "running", "paused", "without a score")
OUTCOME = ("status", "val/accuracy", "val/loss", "mean", "sd", "n", "minutes")
ORIGIN = ("commit", "versions", "processor", "precision")
PLACE = ("folder", "reason", "traceback")
CELL_WIDTH = 16  # characters: the least into which the values of a cell are folded


@dataclass(frozen=True, kw_only=True)
class Row:
    """One job. accuracy (a fraction) and loss: of val; traceback: the file that holds it."""

    job: str
    values: Mapping[str, str]  # from swept keys to values as written
    state: str  # done, failed, cut, missing, running or paused
    accuracy: float | None = None
    loss: float | None = None
    minutes: float | None = None
    commit: str = ""
    versions: str = ""
    processor: str = ""
    precision: str = ""
    folder: str = ""
    reason: str = ""
    traceback: str = ""

    @property
    def score(self) -> float | None:
        """The accuracy of a run that is done; None also for the accuracy of a paused run, which has epochs to go."""
        return self.accuracy if self.state == "done" else None


@dataclass(frozen=True)
class Cell:
    """The jobs that differ by seed alone; mean and sd (of a sample) are fractions, over the `n` jobs with a score."""

    values: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def scores(self) -> list[float]:
        return [row.score for row in self.rows if row.score is not None]

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def sd(self) -> float | None:
        """None below two scores."""
        return statistics.stdev(self.scores) if self.n > 1 else None

    @property
    def minutes(self) -> float | None:
        """The mean over the jobs whose time is known."""
        known = [row.minutes for row in self.rows if row.minutes is not None]
        return statistics.fmean(known) if known else None

    @property
    def lacks(self) -> str:
        """`1 failed, 2 missing`, or `failed` alone of a single job; "" where every job has a score."""
        states = ["without a score" if row.state == "done" else row.state for row in self.rows if row.score is None]
        ordered = sorted(Counter(states).items(), key=lambda one: NOT_DONE.index(one[0]))
        return "".join(states) if len(self.rows) == 1 else ", ".join(f"{count} {state}" for state, count in ordered)


def cells_of(keys: Sequence[str], rows: Iterable[Row]) -> list[Cell]:
    """Best mean first; cells without a score last, in the order of their first jobs."""
    swept = [key for key in keys if key != SEED]
    groups: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.values.get(key) for key in swept), []).append(row)
    cells = [
        Cell({key: value for key, value in zip(swept, values, strict=True) if value is not None}, tuple(jobs))
        for values, jobs in groups.items()
    ]
    return sorted(cells, key=lambda cell: (cell.mean is None, -(cell.mean or 0)))


def write_summary(path: Path, keys: Sequence[str], rows: Sequence[Row]) -> None:
    """Replaces summary.csv in one step; mean, sd and n are those of the job's cell, numbers are not rounded.

    Two processes that write the same summary need a lock between them.
    """
    cell_of = {id(row): cell for cell in cells_of(keys, rows) for row in cell.rows}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["job", *keys, *OUTCOME, *ORIGIN, *PLACE])
    for row in rows:
        cell = cell_of[id(row)]
        outcome = [row.state, row.accuracy, row.loss, cell.mean, cell.sd, cell.n, row.minutes]
        others = [getattr(row, name) for name in (*ORIGIN, *PLACE)]
        writer.writerow([row.job, *(row.values.get(key, "") for key in keys), *outcome, *others])
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))  # names of files may be no UTF-8


def read_summary(path: Path) -> list[dict[str, str]]:
    """From column to text, for each job; nothing where there is no summary yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def warn_mixed(rows: Sequence[Row]) -> list[str]:
    """A line for each of commit, versions, processor and precision in which the done jobs differ."""
    warnings = []
    for name, plural in zip(ORIGIN, ("commits", "sets of versions", "processors", "precisions"), strict=True):
        counts = Counter(getattr(row, name) or "unknown" for row in rows if row.state == "done")
        if len(counts) > 1:
            (first, jobs), *others = counts.most_common()
            listed = [f"{one_line(first)} ({jobs} job{'s' if jobs > 1 else ''})"]
            listed += [f"{one_line(value)} ({count})" for value, count in others]
            warnings.append(f"{len(counts)} {plural} in one table: {', '.join(listed)}")
    return warnings


def show(keys: Sequence[str], rows: Sequence[Row], console: Console) -> None:
    """Prints the table, and under it a line for each failed or cut job.

    Where the screen is narrow, keys are broken at their dots, then the values of a cell stand below each other. Nothing
    is left out: where even that is too wide, lines are longer than the screen. mean, sd and n need several jobs a cell.
    """
    cells = cells_of(keys, rows)
    if not cells:
        return
    for narrow in (False, True):
        table = _table(cells, keys, narrow, console.encoding)
        if _width(table, console) <= console.width:
            break
    else:
        rest = _width(_stacked(cells, 0, console.encoding), console)
        table = _stacked(cells, max(CELL_WIDTH, console.width - rest), console.encoding)
        table.width = max(console.width, _width(table, console)) if console.width < rest + CELL_WIDTH else None
    console.print(table, crop=False)
    for row in rows:
        if row.state in ("failed", "cut"):
            console.print(as_text(_fate(keys, row), console.encoding), soft_wrap=True)


def _table(cells: Sequence[Cell], keys: Sequence[str], narrow: bool, encoding: str) -> Table:
    """A column for each swept key."""
    swept = [key for key in keys if key != SEED]
    table = _empty()
    for key in swept:
        table.add_column(Text(key.replace(".", ".\n") if narrow else key), no_wrap=True)
    outcomes = _add_outcomes(table, cells, narrow)
    for cell, outcome in zip(cells, outcomes, strict=True):
        values = [one_line(cell.values.get(key, "")) for key in swept]
        table.add_row(*(as_text(part, encoding) for part in [*values, *outcome]))
    return table


def _stacked(cells: Sequence[Cell], width: int, encoding: str) -> Table:
    """One column of this width for all values of a cell."""
    table = _empty(leading=1)
    table.add_column("values", overflow="fold", width=width)
    outcomes = _add_outcomes(table, cells, narrow=True)
    for cell, outcome in zip(cells, outcomes, strict=True):
        values = "\n".join(_folded(key, one_line(value), width) for key, value in cell.values.items())
        table.add_row(*(as_text(part, encoding) for part in [values, *outcome]))
    return table


def _empty(leading: int = 0) -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, leading=leading)


def _add_outcomes(table: Table, cells: Sequence[Cell], narrow: bool) -> list[list[str]]:
    """Adds the columns of what came out, sd and n where a cell has several jobs; returns their texts for each cell."""
    several, lacking = any(len(cell.rows) > 1 for cell in cells), any(cell.lacks for cell in cells)
    for name in ("val mean %", "sd", "n", "min/job") if several else ("val %", "min"):
        table.add_column(
            name.replace(" ", "\n", 1).replace("/", "/\n") if narrow else name, justify="right", no_wrap=True
        )
    if lacking:
        table.add_column("not done", no_wrap=True)
    outcomes = []
    for cell in cells:
        mean, sd, minutes = _number(cell.mean, 100, 2), _number(cell.sd, 100, 2), _number(cell.minutes, 1, 1)
        n = str(cell.n) if cell.n == len(cell.rows) else f"{cell.n}/{len(cell.rows)}"
        lacks = [cell.lacks.replace(", ", ",\n") if narrow else cell.lacks] if lacking else []
        outcomes.append([mean, *([sd, n] if several else []), minutes, *lacks])
    return outcomes


def _width(table: Table, console: Console) -> int:
    """What the table takes where nothing is folded."""
    return Measurement.get(console, console.options.update_width(10_000), table).maximum


def _folded(key: str, value: str, width: int) -> str:
    """`key=value`, broken after dots of the key and after = where it must be."""
    lines = [""]
    for piece in [*re.split(r"(?<=\.)", f"{key}="), value]:
        if lines[-1].strip() and cell_len(lines[-1] + piece) > width:
            lines.append("  ")
        lines[-1] += piece
    return "\n".join(lines)


def _fate(keys: Sequence[str], row: Row) -> str:
    """`failed: model.dropout=0.1 seed=2: loss is nan (traceback: a file)`."""
    values = " ".join(f"{key}={one_line(row.values[key])}" for key in keys if key in row.values) or f"job {row.job}"
    reason = f": {' '.join(one_line(part) for part in row.reason.split())}" if row.reason.strip() else ""
    return f"{row.state}: {values}{reason}" + (f" (traceback: {one_line(row.traceback)})" if row.traceback else "")


def _number(value: float | None, times: float, digits: int) -> str:
    return "" if value is None else f"{times * value:.{digits}f}"
