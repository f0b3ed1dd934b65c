"""What the page of a sweep shows, from the answer and the runs' files: cells, effects, jobs and curves of val alone."""

import csv
import io
import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scipy import stats

from s9.pages.page import PAGE
from s9.sweeps.analysis import Difference, Effect
from s9.sweeps.answer import Answer
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.table import ORIGIN, SEED, Cell, Row
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder

BEST, LIKE_BEST, BELOW, NO_SCORE = "best mean", "cannot be told from the best", "below the best", "no score"
UNTESTED = "cannot be told"  # no cell has several seeds
POINTS = 40  # of a curve, at most
DIGITS = 4  # of a curve's numbers
FIRST = ("val/accuracy", "val/loss", "train/accuracy", "train/loss", "lr")  # in this order, then others


@dataclass(frozen=True)
class CellLine:
    """A cell as the page shows it.

    low, high: the 95 % interval of the mean, from the pooled standard deviation; None where there is none, and where
    differences between seeds were taken out, which are a part of what a mean may be wrong by.
    lead: the best cell minus this one; None for the best and where the two cannot be compared.
    minutes: of all jobs of the cell whose time is known.
    """

    cell: Cell
    verdict: str
    low: float | None
    high: float | None
    lead: Difference | None
    minutes: float | None

    @property
    def n(self) -> str:
        """`3`, or `2/3` where a job has no score."""
        jobs = len(self.cell.rows)
        return str(jobs) if self.cell.n == jobs else f"{self.cell.n}/{jobs}"


def lines_of(answer: Answer) -> list[CellLine]:
    """In the order of the answer's cells: best mean first."""
    analysis, found = answer.analysis, []
    for at, (cell, like, lead) in enumerate(zip(answer.cells, analysis.like_best, analysis.leads, strict=True)):
        known_spread = BEST if at == analysis.best else LIKE_BEST if like else BELOW
        verdict = NO_SCORE if cell.mean is None else UNTESTED if analysis.sd is None else known_spread
        half = None
        if analysis.sd is not None and cell.n and not analysis.paired:
            half = float(stats.t.ppf(0.975, analysis.df)) * analysis.sd / math.sqrt(cell.n)
        low, high = (None, None) if half is None or cell.mean is None else (cell.mean - half, cell.mean + half)
        known = [row.minutes for row in cell.rows if row.minutes is not None]
        minutes = math.fsum(known) if known else None
        found.append(CellLine(cell, verdict, low=low, high=high, lead=lead, minutes=minutes))
    return found


def keys_of(answer: Answer) -> list[str]:
    """All swept keys without the seed; `answer.keys` has those with several values alone."""
    return list(dict.fromkeys(key for cell in answer.cells for key in cell.values))


def levels_of(key: str, cells: Sequence[Cell]) -> list[str]:
    """The values of a key: in the order of numbers where all are numbers, else of letters."""
    values = {cell.values.get(key, "") for cell in cells}
    try:
        return sorted(values, key=float)
    except ValueError:
        return sorted(values)


def page_of(row: Row, folder: SweepFolder) -> str:
    """The address of the run's page as seen from the sweep's, or "" where no page has been written."""
    return _address(Path(row.folder) / PAGE, folder)


def traceback_of(row: Row, folder: SweepFolder) -> str:
    return _address(Path(row.traceback), folder) if row.traceback else ""


def _address(file: Path, folder: SweepFolder) -> str:
    if not file.is_file():
        return ""
    return quote(os.path.relpath(file, folder.path).replace(os.sep, "/"), errors="surrogateescape")


def cells_csv(keys: Sequence[str], lines: Sequence[CellLine]) -> bytes:
    """A line for each cell; fractions, not rounded."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    leads = ["behind_best", "behind_best_low", "behind_best_high"]
    writer.writerow([*keys, "verdict", "mean", "mean_low", "mean_high", "sd", "n", *leads, "minutes", "not_done"])
    for line in lines:
        cell, lead = line.cell, line.lead
        behind = [lead.mean, lead.low, lead.high] if lead else ["", "", ""]
        scores = [line.verdict, cell.mean, line.low, line.high, cell.sd, cell.n]
        writer.writerow([*(cell.values.get(key, "") for key in keys), *scores, *behind, line.minutes, cell.lacks])
    return text.getvalue().encode("utf-8", "surrogateescape")


def data_of(folder: SweepFolder, answer: Answer, lines: Sequence[CellLine]) -> dict[str, Any]:
    """What the page's script reads; values of keys are places in `levels`, so that a name stands there once."""
    levels = {key: levels_of(key, answer.cells) for key in keys_of(answer)}
    place = {id(row): at for at, cell in enumerate(answer.cells) for row in cell.rows}
    return {
        "keys": list(levels),
        "levels": list(levels.values()),
        "charted": [list(levels).index(key) for key in answer.keys],
        "cells": [_cell(line, levels) for line in lines],
        "effects": [_effect(effect, levels[effect.key]) for effect in answer.analysis.effects],
        "jobs": [_job(row, place[id(row)], folder) for row in answer.rows],
        "curves": curves_of(answer.rows),
        "tested": answer.analysis.sd is not None,
    }


def _cell(line: CellLine, levels: Mapping[str, list[str]]) -> dict[str, Any]:
    cell, lead = line.cell, line.lead
    return {
        "values": [known.index(cell.values.get(key, "")) for key, known in levels.items()],
        "verdict": line.verdict,
        "like": line.verdict in (BEST, LIKE_BEST),
        "mean": cell.mean,
        "low": line.low,
        "high": line.high,
        "sd": cell.sd,
        "n": cell.n,
        "shown_n": line.n,
        "lead": [lead.mean, lead.low, lead.high] if lead else None,
        "minutes": line.minutes,
        "lacks": cell.lacks,
    }


def behind(effect: Effect, levels: Sequence[str]) -> list[dict[str, Any]]:
    """For each level in this order: its adjusted mean, n, and [mean, low, high] of level minus the best level.

    The difference is None for the best level, and where it cannot be estimated.
    """
    means = {level.value: level.mean for level in effect.levels}
    best = max((level for level in effect.levels if level.mean is not None), key=_mean, default=None)
    found = []
    for level in sorted(effect.levels, key=lambda one: levels.index(one.value)):
        difference = None
        for pair in effect.differences if best else ():
            if (pair.first, pair.second) == (level.value, best.value if best else ""):
                difference = [pair.mean, pair.low, pair.high]
            elif (pair.second, pair.first) == (level.value, best.value if best else ""):
                difference = [-pair.mean, -pair.high, -pair.low]
        found.append({"value": level.value, "mean": means[level.value], "n": level.n, "behind": difference})
    return found


def _mean(level: Any) -> float:
    return -math.inf if level.mean is None else level.mean


def _effect(effect: Effect, levels: Sequence[str]) -> dict[str, Any]:
    return {"key": effect.key, "differs": effect.differs, "levels": behind(effect, levels)}


def _job(row: Row, cell: int, folder: SweepFolder) -> list[Any]:
    """job, cell, seed, state, accuracy, loss, minutes, page."""
    scores = [row.accuracy, row.loss, row.minutes]
    return [row.job, cell, row.values.get(SEED, ""), row.state, *scores, page_of(row, folder)]


def curves_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The runs' metrics by epoch, without test; at most POINTS of a run, with DIGITS digits.

    `epochs` has each different list of epochs once; `runs` has [place in epochs, a list of values for each metric] for
    each row, or None where the run has no readable epochs.
    """
    epochs: dict[tuple[int, ...], int] = {}
    names, read = dict.fromkeys(FIRST), []
    for row in rows:
        records = thinned(_records(RunFolder(Path(row.folder))))
        names |= dict.fromkeys(name for record in records for name in record if name.startswith(("train/", "val/")))
        read.append(records)
    used = [name for name in names if any(name in record for records in read for record in records)]
    runs = []
    for records in read:
        at = epochs.setdefault(tuple(int(record["epoch"]) for record in records), len(epochs)) if records else None
        values = [[_rounded(record.get(name)) for record in records] for name in used]
        runs.append(None if at is None else [at, values])
    return {"metrics": used, "epochs": list(epochs), "runs": runs}


def _records(folder: RunFolder) -> list[dict[str, float]]:
    try:
        return [record for record in folder.read_metrics() if isinstance(record.get("epoch"), int | float)]
    except (UserError, OSError, AttributeError):  # the job's own line says what is damaged
        return []


def thinned(records: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """At most POINTS of them, evenly, with the first and the last."""
    last = len(records) - 1
    if last < POINTS:
        return list(records)
    return [records[round(at * last / (POINTS - 1))] for at in range(POINTS)]


def _rounded(value: Any) -> float | None:
    number = isinstance(value, int | float) and math.isfinite(value)
    return float(f"{value:.{DIGITS}g}") if number else None


def in_common(folder: SweepFolder, answer: Answer) -> list[tuple[str, list[str]]]:
    """What the sweep was asked for, and each of commit, versions, processor and precision with its count of jobs."""
    arguments = [str(part) for part in folder.read().get("arguments", [])]
    found = [("command", [f"python -m s9.train {shlex.join(arguments)}"])] if arguments else []
    done = [row for row in answer.rows if row.state == "done"]
    for name in ORIGIN:
        counts = Counter(_origin(row, name) for row in done).most_common()
        several = len(counts) > 1
        found.append(
            (name, [f"{value} ({count} of {len(done)} jobs)" if several else value for value, count in counts])
        )
    return found


def _origin(row: Row, name: str) -> str:
    value = str(getattr(row, name) or "unknown")
    return f"{value[:-1]}, with changes" if name == "commit" and value.endswith("+") else value
