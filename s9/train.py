"""The main door: composes a run, or finds the one to go on with, and says how it ended.   python -m s9.train

The run itself is in s9/run.py.
"""

import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s9 import command_line, failure
from s9.config import Config, to_config
from s9.errors import UserError
from s9.interrupt import Interrupted, Interrupts, leave
from s9.run import train

if TYPE_CHECKING:
    from s9.sweeps.summary import JobLine

RANK_0_SAYS_S = 20  # what a process of torchrun's waits before it ends with an error that rank 0 has too

COMMAND = "python -m s9.train"
LEFT_BY_REFUSED = ("train.log", "config.yaml", "images.json", "status.json", ".lock")

HELP = """Trains one network, tests it once, and leaves a folder with everything there is to know about the run.

  python -m s9.train model=dilated aug=full
  python -m s9.train resume=outputs/<date>/<time>-<suffix>     goes on with a run that was cut short
  python -m s9.train model=dilated aug=full resume=auto        the newest unfinished run of this configuration"""


def main(arguments: list[str]) -> None:
    from s9 import resume

    rest = [a for a in arguments if not a.startswith("resume=")]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if "-m" in rest or "--multirun" in rest:
            raise UserError(
                "-m: a sweep does not run under torchrun; start its ranks inside each job: trainer.devices=2"
            )
        if os.environ.get("RANK", "0") != "0":
            follow_rank_0(arguments, rest)
            return
    asks_help = any(a in ("-h", "--help") for a in arguments)
    folder = resume.find(arguments) if len(rest) < len(arguments) and not asks_help else None
    if folder is None:
        command_line.launch(job, rest, HELP)
    else:
        go_on(folder)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        leave(0)  # as in ranks.py: an abort on python's way out would make torchrun end the ranks that still work


def follow_rank_0(arguments: list[str], rest: list[str]) -> None:
    """One of torchrun's other processes: makes no folder, and leaves it to rank 0 to say what is wrong."""
    from s9.run import follow_torchrun
    from s9.tracking.record import read_config

    named = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=") and a != "resume=auto"]
    own = [o for o in rest if not o.startswith("hydra.")]
    try:
        follow_torchrun(read_config(Path(named[0])) if named else command_line.compose_config(own))
    except UserError:
        time.sleep(RANK_0_SAYS_S)  # torchrun ends all of them as soon as one ends
        sys.exit(2)
    leave(0)


def job(composed: Any) -> None:
    """One run, alone or in a sweep. In a sweep a failed job becomes a line of summary.csv and the others go on."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from s9.sweeps.summary import JobLine

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # shorter to read, and to paste into the next command
    sweep_dir = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    command, overrides = command_of(hydra)
    line = JobLine(sweep_dir, hydra.job.get("num", 0), overrides, folder.name)
    outcome = attempt(lambda: to_config(composed), folder, command, line)
    if outcome is None:
        return
    if sweep_dir is None:
        command_line.exit_with_line(*outcome)
    print(f"error: job {line.job} ({overrides}): {outcome[0]}", file=sys.stderr)


def command_of(hydra: Any) -> tuple[str, str]:
    """(the command that trains this job alone, as the shell takes it; its arguments), from Hydra's own record.

    Where its folder lies is left out: repeated, it gets a folder of its own.
    """
    flags = [a for s in hydra.runtime.config_sources if s.provider == "command-line" for a in ("--config-dir", s.path)]
    flags += ["--config-name", hydra.job.config_name] if hydra.job.config_name != "config" else []
    of_sweep = ("hydra.run.", "hydra.sweep", "hydra.mode", "hydra/sweeper", "hydra/launcher", "hydra.launcher")
    kept = [o for o in hydra.overrides.hydra if not o.lstrip("+~").startswith(of_sweep)]
    given = shlex.join([*flags, *kept, *hydra.overrides.task])
    return f"{COMMAND} {given}".strip(), given


def go_on(folder: Path) -> None:
    """Continues the run in `folder`, with its own configuration and in its own log."""
    from s9.sweeps.summary import JobLine
    from s9.tracking import record
    from s9.tracking.status import read_status

    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    try:
        to_file = logging.FileHandler(folder / "train.log")
    except OSError as error:
        raise UserError(f"resume={folder}: {error.filename}: {error.strerror}") from None
    to_file.setFormatter(plain)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.StreamHandler(sys.stdout), to_file])
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    before = read_status(folder)
    command, group = before.get("command", ""), before.get("group")
    of_sweep = folder.parent if group is not None and group == folder.absolute().parent.name else None
    line = JobLine(of_sweep, folder.name, command.removeprefix(COMMAND).strip(), folder.name)
    outcome = attempt(lambda: record.read_config(folder), folder, command, line, group, resumed=True)
    if outcome is not None:
        command_line.exit_with_line(*outcome)


def attempt(
    read: Callable[[], Config],
    folder: Path,
    command: str,
    line: "JobLine",
    group: str | None = None,
    resumed: bool = False,
) -> tuple[str, int] | None:
    """Trains; the reason and the exit code where that fails. A signal ends the process."""
    from s9.tracking.record import CONFIG
    from s9.tracking.status import TakenError, is_done

    if not resumed and (folder / CONFIG).exists():
        done = is_done(folder)
        reason = f"{folder}: holds a run already; {'' if done else f'{resume_hint(folder)}, or '}choose another folder"
        if not done:
            line.write(status="failed", reason=reason)
        return reason, 2
    made = [name for name in LEFT_BY_REFUSED if not (folder / name).exists() or not (folder / name).stat().st_size]
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line of the log
    config: Config | None = None
    with Interrupts() as interrupts:
        try:
            config = read()
            train(config, folder, group or line.group, command, interrupts, resumed)
        except Interrupted as stop:
            if is_done(folder):
                line.write(status="done", **of_val(folder))
                hint = f"the run is done; figures that are missing: python -m s9.report run={folder}"
            else:
                line.write(status="interrupted", reason=str(stop))
                hint = resume_hint(folder)
            print(f"interrupted by {stop}; {hint}", file=sys.stderr)
            leave(128 + stop.number)
        except UserError as error:
            if not resumed and not isinstance(error, TakenError):
                remove_refused(folder, made)  # nothing was trained: nothing to keep
            reason, exit_code = str(error), 2
        except Exception as error:
            reason, exit_code = failure.in_one_line(error, config), 1
        else:
            line.write(status="done", **of_val(folder))
            return None
    line.write(status="failed", reason=reason)
    return reason, exit_code


def of_val(folder: Path) -> dict[str, Any]:
    """What a finished run has in its sweep's summary.csv."""
    from s9.tracking.record import read_summary
    from s9.tracking.status import read_status

    val = read_summary(folder).get("val", {})
    return {"minutes": read_status(folder).get("minutes")} | {
        f"val/{key}": val.get(key) for key in ("accuracy", "loss")
    }


def resume_hint(folder: Path) -> str:
    return f"go on with: python -m s9.train {shlex.quote(f'resume={folder}')}"


def remove_refused(folder: Path, made: list[str]) -> None:
    """Takes away what a run left that was refused before its first step, and the folders that are then empty.

    Nothing else: hydra.run.dir may name a folder that holds files of the user's.
    """
    for name in made:
        (folder / name).unlink(missing_ok=True)
    for parent in (folder, *list(folder.parents)[:2]):  # the run's, outputs/<date> or the sweep's, outputs
        if parent == Path() or any(parent.iterdir()):
            return
        parent.rmdir()


if __name__ == "__main__":
    command_line.open_door(main)
