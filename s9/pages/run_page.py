"""A run's page: report.html in the run's folder, made from the folder's files alone."""

import os
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from s9.data.classes import tells_more
from s9.pages import run_config, run_history, run_look, run_scores
from s9.pages.page import PAGE, percent, write_page
from s9.pages.run_files import RunFiles
from s9.pages.run_scores import OnTest
from s9.tracking.folder import RunFolder

VAL_CHOOSES = (
    "This run is one of several that are compared, by val alone. What this page says of test describes this run; "
    "do not choose between runs by it."
)


def write_run_page(folder: RunFolder) -> Path:
    """Writes the page of a run, finished or not, and returns its path.

    Raises:
        UserError: the folder holds no files of a run.
        OSError: the folder cannot be written.
    """
    run = RunFiles(folder)
    facts, resumes = run_config.layers(run), run_history.resumes(run)
    on_test = OnTest(run.predictions, run.summary) if run.predictions else None
    looks = run_look.looks(run)
    path = folder.path / PAGE
    write_page(
        path,
        "run.html",
        title=f"{run.name}, {run.place.name}",
        data={"curves": run_history.curves(run, resumes), "onTest": on_test.data() if on_test else None},
        run=run,
        sweep=to_sweep(run) if run.sweep else None,
        sentences=sentences(run),
        links=links(run),
        donors=run_config.donors(run),
        config=run_config.config_lines(run.config_text, run.command),
        layers=run_config.layer_rows(facts) if facts else [],
        layer_columns=run_config.COLUMNS,
        totals=facts,
        environment=run_config.environment(run),
        resumed=any(one.step for one in resumes),
        starts=run_history.starts_in_words(run, resumes),
        warnings=run_history.warnings(run),
        epochs=run_history.epoch_rows(run),
        epoch_columns=run_history.COLUMNS,
        test=on_test,
        most=run_scores,
        looks=looks,
        without_looks=run_look.without(run, looks),
    )
    return path


def sentences(run: RunFiles) -> list[str]:
    """How the run stands, first; then what is special about it and what the page lacks."""
    said = [_state(run)]
    best = run.summary.get("best", {})
    if "val/accuracy" in best:
        said.append(f"The best epoch on val was {best['epoch']}, with {percent(best['val/accuracy'])} %.")
    if run.is_compared:
        said.append(VAL_CHOOSES)
    return said + run.lacks


def _state(run: RunFiles) -> str:
    trained = f"{len(run.records)} of {_count(run.epochs, 'epoch') if run.epochs else 'an unknown number of epochs'}"
    reason = f": {run.status['reason']}" if run.status.get("reason") else ""
    resume = f"resume with: python -m s9.train {shlex.quote(f'resume={run.folder}')}"
    if run.state == "done":
        return _scores(run)
    if run.state == "failed":
        return f"The run failed after {trained}{reason}."
    if run.state == "running":
        return f"The run is being trained: {trained}. Later files need a new page."
    if run.state == "paused":
        return f"The run is paused after {trained}."
    if run.state == "unknown":
        return f"No file tells how the run stands; it has a record of {trained}."
    cut = "was interrupted" if run.status.get("state") == "interrupted" else "was cut"
    return f"The run {cut} after {trained}{reason}; {resume}."


def _scores(run: RunFiles) -> str:
    """The accuracy on val, and on test unless the run is compared with others."""
    parts = []
    for split in ("val",) if run.is_compared else ("val", "test"):
        if split in run.summary:
            of = run.summary[split]
            count = f" ({of['correct']:,} of {of['total']:,} images)" if "correct" in of else ""
            parts.append(f"{split} accuracy {percent(of['accuracy'])} %{count}{_balanced(of)}")
    trained = [_count(run.epochs, "epoch")] if run.epochs else []
    trained += [_count(run.status["minutes"], "minute")] if "minutes" in run.status else []
    after = f" after {' and '.join(trained)}" if trained else ""
    text = f"{', '.join(parts) or 'done'}{after}."
    return text[0].upper() + text[1:]


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def _balanced(of: dict[str, float]) -> str:
    """The balanced accuracy, where it tells more; runs from before December 2026 have none."""
    balanced = of.get("balanced_accuracy", of["accuracy"])
    return f", balanced {percent(balanced)} %" if tells_more(of["accuracy"], balanced) else ""


def links(run: RunFiles) -> list[tuple[str, str]]:
    """(address from the page's folder, name) of the run's files that a person may open."""
    folder, here = run.folder, run.folder.path
    wanted = [*sorted(folder.figures.glob("*.png")), folder.log, folder.traceback, folder.config, folder.summary]
    files = [path.relative_to(here) for path in wanted if path.is_file()]
    return [(quote(os.fsencode(path)), path.as_posix()) for path in files]


def to_sweep(run: RunFiles) -> dict[str, Any]:
    """The page of the sweep that the run belongs to, and the command that writes that page."""
    assert run.sweep is not None
    command = f"python -m s9.report {shlex.quote(f'sweep={run.folder.path.parent}')}"
    return {"name": run.sweep.name, "there": (run.sweep.path / PAGE).is_file(), "command": command}
