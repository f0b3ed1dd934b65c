"""A run as a job: whatever happens, the job returns how it ended and never ends its process."""

import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from s9.config.components import allow_words
from s9.config.schema import Config
from s9.runs import failure
from s9.runs.rank_0 import Paused
from s9.runs.run import train
from s9.sweeps.task import Outcome
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts
from s9.tracking.folder import RunFolder, TakenError


def job(
    read: Callable[[], Config],
    folder: RunFolder,
    *,
    command: str,
    group: str | None = None,
    swept: Mapping[str, str] | None = None,
    resumed: bool = False,
    interrupts: Interrupts | None = None,
    until_epoch: int | None = None,
) -> Outcome:
    """Trains the configuration that `read` returns, in `folder`.

    Args:
        command: the one that repeats the run. group: the sweep or study that the run belongs to. swept: the run's
            values there, as written; None: neither.
        interrupts: listens to signals while the job runs. until_epoch: where the run pauses; None: at no epoch.
    """
    if not resumed and folder.config.exists():
        return _occupied(folder)
    made = [path for path in folder.left_by_refused() if not path.exists() or not path.stat().st_size]
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line of the log
    config: Config | None = None
    more: dict[str, Any] = {"command": command, "group": group, "swept": swept, "resumed": resumed}
    with interrupts or Interrupts() as interrupts:
        try:
            config = read()
            train(config, folder.path, interrupts=interrupts, until_epoch=until_epoch, **more)
        except Paused as pause:
            return Outcome("paused", value=pause.value)
        except Interrupted as stop:
            return _interrupted(folder, stop)
        except TakenError as error:
            return Outcome("taken", str(error), exit_code=2)
        except UserError as error:
            if not resumed and group is None:  # a sweep's table shows why a job was refused
                remove_refused(folder.path, made)  # nothing was trained: nothing to keep
            return Outcome("failed", str(error), exit_code=2)
        except Exception as error:
            return Outcome("failed", failure.in_one_line(error, config), exit_code=1)
    return done(folder)


def done(folder: RunFolder) -> Outcome:
    """The outcome of a finished run."""
    return Outcome("done", value=folder.read_summary().get("val", {}).get("accuracy"))


def _occupied(folder: RunFolder) -> Outcome:
    way = "" if folder.is_done() else f"{resume_hint(folder)}, or "
    return Outcome("failed", f"{folder}: already holds a run; {way}choose another folder", exit_code=2)


def _interrupted(folder: RunFolder, stop: Interrupted) -> Outcome:
    if folder.is_done():
        hint = f"the run is done; to draw missing figures: python -m s9.report {shlex.quote(f'run={folder}')}"
    else:
        hint = resume_hint(folder)
    return Outcome("interrupted", f"interrupted by {stop}; {hint}", exit_code=128 + stop.number)


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
