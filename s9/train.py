"""The main door: composes a run, or finds the one to go on with, and says how it ended.   python -m s9.train

The run itself is in s9/run.py.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s9 import command_line, failure
from s9.config import Config, to_config
from s9.errors import UserError
from s9.interrupt import SIGNALS, Interrupted, Interrupts, leave
from s9.run import train

HELP = """Trains one network, tests it once, and leaves a folder with everything there is to know about the run.

  python -m s9.train model=dilated aug=full
  python -m s9.train resume=outputs/<date>/<time>-<suffix>     goes on with a run that was cut short
  python -m s9.train model=dilated aug=full resume=auto        the newest unfinished run of this configuration"""


def main(arguments: list[str]) -> None:
    from s9 import resume

    rest = [a for a in arguments if not a.startswith("resume=")]
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0":
        follow_rank_0(arguments, rest)
        return
    asks_help = any(a in ("-h", "--help") for a in arguments)
    folder = resume.find(arguments) if len(rest) < len(arguments) and not asks_help else None
    if folder is None:
        command_line.launch(job, rest, HELP)
    else:
        go_on(folder)


def follow_rank_0(arguments: list[str], rest: list[str]) -> None:
    """One of torchrun's other processes: makes no folder and answers no signal, both of which are rank 0's affair."""
    from s9.run import follow_torchrun
    from s9.tracking.record import read_config

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    named = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=") and a != "resume=auto"]
    own = [o for o in rest if not o.startswith("hydra.")]
    follow_torchrun(read_config(Path(named[0])) if named else command_line.compose_config(own))


def job(composed: Any) -> None:
    """One run, alone or in a sweep. In a sweep a failed job becomes a line of summary.csv and the others go on."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from s9.sweeps.summary import add_row

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # shorter to read, and to paste into the next command
    sweep_dir = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    overrides = " ".join(hydra.overrides.task)
    command = f"python -m s9.train {overrides}".strip()
    outcome = attempt(lambda: to_config(composed), folder, command, sweep_dir.name if sweep_dir else None)
    exit_code = outcome.pop("exit_code", 0)
    if sweep_dir is not None:
        job_facts = {"job": hydra.job.get("num", 0), "overrides": overrides, "folder": folder.name}
        add_row(sweep_dir, job_facts | outcome)
        if outcome["status"] == "failed":
            print(f"error: job {job_facts['job']} ({overrides}): {outcome['reason']}", file=sys.stderr)
    elif outcome["status"] == "failed":
        command_line.exit_with_line(outcome["reason"], exit_code)


def go_on(folder: Path) -> None:
    """Continues the run in `folder`, with its own configuration and in its own log."""
    from s9.tracking import record
    from s9.tracking.status import read_status

    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    to_file = logging.FileHandler(folder / "train.log")
    to_file.setFormatter(plain)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.StreamHandler(sys.stdout), to_file])
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    before = read_status(folder)
    outcome = attempt(
        lambda: record.read_config(folder), folder, before.get("command", ""), before.get("group"), resumed=True
    )
    if outcome["status"] == "failed":
        command_line.exit_with_line(outcome["reason"], outcome["exit_code"])


def attempt(
    read: Callable[[], Config], folder: Path, command: str, group: str | None, resumed: bool = False
) -> dict[str, Any]:
    """Trains and says how it went: status done or failed, and what summary.csv holds. A signal ends the process."""
    from s9.tracking.status import TakenError, read_status

    if not resumed and (read_status(folder) or (folder / "config.yaml").exists()):
        reason = f"{folder}: holds a run already; go on with it by resume={folder}, or choose another folder"
        return {"status": "failed", "reason": reason, "exit_code": 2}
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line of the log
    config: Config | None = None
    with Interrupts() as interrupts:
        try:
            config = read()
            summary = train(config, folder, group, command, interrupts, resumed)
        except Interrupted as stop:
            print(f"interrupted by {stop}; go on with: python -m s9.train resume={folder}", file=sys.stderr)
            leave(128 + stop.number)
        except UserError as error:
            if not resumed and not isinstance(error, TakenError):
                remove_refused(folder)  # nothing was trained: nothing to keep
            return {"status": "failed", "reason": str(error), "exit_code": 2}
        except Exception as error:
            return {"status": "failed", "reason": failure.in_one_line(error, config), "exit_code": 1}
    val = summary.get("val", {})
    minutes = read_status(folder).get("minutes")
    return {"status": "done", "val/accuracy": val.get("accuracy"), "val/loss": val.get("loss"), "minutes": minutes}


def remove_refused(folder: Path) -> None:
    """Takes away what a run left that was refused before its first step: its log, and the folders that are then empty.

    Nothing else: hydra.run.dir may name a folder that holds files of the user's.
    """
    for name in ("train.log", "config.yaml", "status.json", ".lock"):
        (folder / name).unlink(missing_ok=True)
    for made in (folder, *list(folder.parents)[:2]):  # the run's, outputs/<date> or the sweep's, outputs
        if made == Path() or any(made.iterdir()):
            return
        made.rmdir()


if __name__ == "__main__":
    command_line.open_door(main)
