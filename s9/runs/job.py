"""A run as a job: whatever happens, the job returns how it ended and never ends its process."""

import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s9.config.components import allow_words
from s9.config.schema import Config
from s9.runs import failure
from s9.runs.run import train
from s9.sweeps.summary import JobLine
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts
from s9.tracking.folder import RunFolder, TakenError


@dataclass(frozen=True)
class Outcome:
    """How a job ended: done, failed or interrupted; why; and the exit code for a command.

    value: val accuracy of the final weights, a fraction; None if they were not scored.
    """

    state: str
    reason: str = ""
    exit_code: int = 0
    value: float | None = None


def job(
    read: Callable[[], Config],
    folder: RunFolder,
    *,
    command: str,
    line: JobLine,
    group: str | None = None,
    resumed: bool = False,
    interrupts: Interrupts | None = None,
) -> Outcome:
    """Trains the configuration that `read` returns, in `folder`, and writes the job's line of its sweep's summary.csv.

    Args:
        command: the one that repeats the run. group: the sweep in which the run began.
        interrupts: listens to signals while the job runs.
    """
    if not resumed and folder.config.exists():
        return _occupied(folder, line)
    made = [path for path in folder.left_by_refused() if not path.exists() or not path.stat().st_size]
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line of the log
    config: Config | None = None
    with interrupts or Interrupts() as interrupts:
        try:
            config = read()
            group = group or line.group
            train(config, folder.path, group=group, command=command, interrupts=interrupts, resumed=resumed)
        except Interrupted as stop:
            return _interrupted(folder, line, stop)
        except UserError as error:
            if not resumed and not isinstance(error, TakenError):
                remove_refused(folder.path, made)  # nothing was trained: nothing to keep
            outcome = Outcome("failed", str(error), exit_code=2)
        except Exception as error:
            outcome = Outcome("failed", failure.in_one_line(error, config), exit_code=1)
        else:
            line.write(status="done", **of_val(folder))
            return Outcome("done", value=of_val(folder)["val/accuracy"])
    line.write(status="failed", reason=outcome.reason)
    return outcome


def _occupied(folder: RunFolder, line: JobLine) -> Outcome:
    done = folder.is_done()
    reason = f"{folder}: already holds a run; {'' if done else f'{resume_hint(folder)}, or '}choose another folder"
    if not done:
        line.write(status="failed", reason=reason)
    return Outcome("failed", reason, exit_code=2)


def _interrupted(folder: RunFolder, line: JobLine, stop: Interrupted) -> Outcome:
    if folder.is_done():
        line.write(status="done", **of_val(folder))
        hint = f"the run is done; to draw missing figures: python -m s9.report run={folder}"
    else:
        line.write(status="interrupted", reason=str(stop))
        hint = resume_hint(folder)
    return Outcome("interrupted", f"interrupted by {stop}; {hint}", exit_code=128 + stop.number)


def of_val(folder: RunFolder) -> dict[str, Any]:
    """The columns of a finished run in its sweep's summary.csv."""
    val = folder.read_summary().get("val", {})
    numbers = {f"val/{key}": val.get(key) for key in ("accuracy", "loss")}
    return {"minutes": folder.read_status().get("minutes")} | numbers


def resume_hint(folder: RunFolder) -> str:
    return f"resume with: python -m s9.train {shlex.quote(f'resume={folder}')}{allow_words()}"


def remove_refused(folder: Path, made: list[Path]) -> None:
    """Removes what is left of a run that was refused before its first step, and the folders that are then empty.

    Nothing else is removed: hydra.run.dir may name a folder that holds the user's files.
    """
    for path in made:
        path.unlink(missing_ok=True)
    for parent in (folder, *list(folder.parents)[:2]):  # the run's, outputs/<date> or the sweep's, outputs
        if parent == Path() or any(parent.iterdir()):
            return
        parent.rmdir()
