"""The page of a sweep: the answer in words, its cells and jobs, charts of them, cost; with PNGs and cells.csv."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from s9.pages.page import PAGE, percent, write_page
from s9.pages.sweep_data import (
    BEST,
    LIKE_BEST,
    CellLine,
    behind,
    cells_csv,
    data_of,
    in_common,
    keys_of,
    levels_of,
    lines_of,
    page_of,
    traceback_of,
)
from s9.pages.sweep_figures import draw_sweep
from s9.sweeps.analysis import Effect, Interaction
from s9.sweeps.answer import Answer, answer_of
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.table import SEED, Row
from s9.system.errors import UserError
from s9.system.files import write_whole

log = logging.getLogger("s9")

NOT_DONE = ("failed", "cut")  # states that have a reason


def write_sweep_page(
    folder: SweepFolder, answer: Answer | None = None, *, failed: Callable[[str], object] = log.warning
) -> list[Path]:
    """Writes report.html, figures/*.png and cells.csv into the sweep's folder; returns their paths, the page first.

    Args:
        answer: of this folder, where it is known already. failed: called with one line for each picture that cannot be
            drawn.

    Raises:
        OSError: the folder cannot be written.
        UserError: the folder is not that of a sweep.
    """
    if not folder.read().get("jobs"):
        raise UserError(f"sweep={folder.path}: there is no readable {folder.asked.name} with jobs in it")
    answer = answer or answer_of(folder)
    lines = lines_of(answer)
    data = data_of(folder, answer, lines)
    page, table = folder.path / PAGE, folder.path / "cells.csv"
    values = values_of(folder, answer, lines)
    write_page(page, "sweep.html", title=f"Sweep {folder.name}", data=data, **values)
    write_whole(table, cells_csv(data["keys"], lines))
    return [page, table, *draw_sweep(data, folder.path / "figures", failed)]


def values_of(folder: SweepFolder, answer: Answer, lines: Sequence[CellLine]) -> dict[str, Any]:
    """What the template reads."""
    keys = keys_of(answer)
    minutes = [row.minutes for row in answer.rows if row.minutes is not None]
    return {
        "sentences": answer.sentences,
        "warnings": answer.warnings,
        "standing": standing_in_words(answer.rows),
        "keys": keys,
        "charted": answer.keys,
        "cell_columns": [*((key, False) for key in keys), *CELL_COLUMNS],
        "cell_rows": [_cell(line, keys) for line in lines],
        "marked": [at for at, line in enumerate(lines) if line.verdict in (BEST, LIKE_BEST)],
        "job_columns": [("job", False), *((key, False) for key in keys), *JOB_COLUMNS],
        "job_rows": [_job(row, keys) for row in answer.rows],
        "links": {row.job: page_of(row, folder) for row in answer.rows},
        "effects": [_effect(effect, answer) for effect in answer.analysis.effects],
        "interactions": [_interaction(one) for one in answer.analysis.interactions],
        "tested": answer.analysis.sd is not None,
        "paired": answer.analysis.paired,
        "failed": [_failed(row, keys, folder) for row in answer.rows if row.state in NOT_DONE],
        "cost_columns": [*((key, False) for key in keys), ("jobs", True), ("minutes a job", True), ("minutes", True)],
        "cost_rows": [[*(line.cell.values.get(key, "") for key in keys), *_cost(line)] for line in lines],
        "minutes": math.fsum(minutes),
        "timed": len(minutes),
        "jobs": len(answer.rows),
        "common": in_common(folder, answer),
    }


CELL_COLUMNS = (
    ("against the best", False),
    ("val mean %", True),
    ("behind the best, points", True),
    ("interval", True),
    ("sd, points", True),
    ("n", True),
    ("minutes", True),
    ("not done", False),
)
JOB_COLUMNS = (("seed", True), ("state", False), ("val %", True), ("val loss", True), ("minutes", True))


def _cell(line: CellLine, keys: Sequence[str]) -> list[str]:
    """One row of the plain table of cells."""
    cell, lead = line.cell, line.lead
    behind_best = [percent(lead.mean), f"{percent(lead.low)} to {percent(lead.high)}"] if lead else ["", ""]
    outcome = [percent(cell.mean), *behind_best, percent(cell.sd), line.n, _minutes(line.minutes), cell.lacks]
    return [*(cell.values.get(key, "") for key in keys), line.verdict, *outcome]


def _job(row: Row, keys: Sequence[str]) -> list[str]:
    loss = "" if row.loss is None else f"{row.loss:.4f}"
    values = [row.values.get(key, "") for key in (*keys, SEED)]
    return [row.job, *values, row.state, percent(row.accuracy), loss, _minutes(row.minutes)]


def _cost(line: CellLine) -> list[str]:
    return [str(len(line.cell.rows)), _minutes(line.cell.minutes), _minutes(line.minutes)]


def _effect(effect: Effect, answer: Answer) -> dict[str, Any]:
    """A key's values with what stands in the table under its chart."""
    rows = []
    for level in behind(effect, levels_of(effect.key, answer.cells)):
        mean, low, high = level["behind"] or (None, None, None)
        interval = "" if low is None else f"{percent(low)} to {percent(high)}"
        rows.append([level["value"], percent(level["mean"]), percent(mean), interval, str(level["n"])])
    p = "" if effect.p is None else f"p = {effect.p:.2g}" if effect.p >= 0.0001 else "p below 0.0001"
    verdict = "cannot be estimated" if effect.p is None else "differs" if effect.differs else "no difference is shown"
    return {
        "key": effect.key,
        "rows": rows,
        "verdict": verdict,
        "p": p,
        "drawn": any(row[2] for row in rows),
        "confidence": f"{100 * effect.confidence:.3g}",
    }


def _interaction(one: Interaction) -> list[str]:
    p = "below 0.0001" if one.p < 0.0001 else f"{one.p:.2g}"
    return [" with ".join(one.keys), p, "act together" if one.differs else "no interaction is shown"]


def _failed(row: Row, keys: Sequence[str], folder: SweepFolder) -> dict[str, str]:
    values = " ".join(f"{key}={row.values[key]}" for key in (*keys, SEED) if key in row.values)
    return {
        "job": row.job,
        "asked": values,
        "state": row.state,
        "reason": row.reason,
        "traceback": traceback_of(row, folder),
    }


def standing_in_words(rows: Sequence[Row]) -> str:
    """`27 jobs: 25 done, 1 failed, 1 missing`."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), key=lambda one: -one[1]))
    return f"{len(rows)} job{'' if len(rows) == 1 else 's'}: {states}"


def _minutes(minutes: float | None) -> str:
    return "" if minutes is None else f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2f}"
