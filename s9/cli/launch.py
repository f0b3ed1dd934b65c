"""How `python -m s9.train` starts or resumes runs: everything is checked first, then Hydra calls the job."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from s9.cli.compose import Asked, checked, compose, prepare_hydra
from s9.cli.door import say_error
from s9.cli.help import CONF
from s9.cli.mistakes import parse
from s9.config.components import allow_words
from s9.config.schema import Config
from s9.sweeps.summary import JobLine, show_jobs
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts

COMMAND = "python -m s9.train"
OF_SWEEP = ("hydra.run.", "hydra.sweep", "hydra.mode", "hydra/sweeper", "hydra/launcher", "hydra.launcher")


def start(arguments: Sequence[str], interrupts: Interrupts, *, auto: bool = False) -> int:
    """Checks everything that the arguments ask for, then hands over to Hydra; returns the exit code.

    Args:
        auto: whether resume=auto was given: an unfinished run of the same identity is then resumed instead.

    Raises:
        UserError: in one line, what is wrong.
        Interrupted: a signal came; what had begun is saved.
    """
    flags = read_flags(arguments)
    asked = asked_of(flags)
    if flags.hydra_help or flags.shell_completion or flags.info or flags.cfg or flags.config_path:
        return run_hydra(flags, interrupts)  # unchecked: trains nothing, or from a configuration that is not ours
    if flags.multirun:
        if auto:
            raise UserError("resume=auto: resumes one run, not a sweep; name a job's folder")
        sweep_dir = Path(check_sweep(asked).sweep.dir)  # as a fixed name: Hydra resolves ${now:} anew at each look
        sys.argv.append("hydra.sweep.dir='{}'".format(str(sweep_dir).replace("'", "\\'")))
        run_hydra(flags, interrupts)
        return show_jobs(sweep_dir)
    if swept := [o for o in flags.overrides if parse(o).is_sweep_override()]:
        raise UserError(f"{swept[0]}: names several values; add -m to run them all")
    composed, own = compose(asked)
    config = checked(composed)
    from s9.runs import check, resume  # here, as in `hydra_job`: mistakes in keys are reported without importing torch

    check.check_donors(config)
    if auto:
        chosen = Path(own.run.dir) if any(o.startswith("hydra.run.dir=") for o in flags.overrides) else None
        folder, said = resume.newest_unfinished(config, chosen)
        for text in said:
            print(text, file=sys.stderr)
        if folder is not None:
            return resume_run(str(folder), interrupts, config)
    return run_hydra(flags, interrupts)


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags and the arguments, which may stand in any order; sys.argv gets them in the order Hydra wants."""
    parser = get_args_parser()
    parser.error = _refuse_flag
    parsed: argparse.Namespace = parser.parse_intermixed_args(list(arguments))
    flags = list(arguments)
    for override in parsed.overrides:
        flags.remove(override)
    sys.argv[1:] = [*flags, *parsed.overrides]
    return parsed


def asked_of(flags: argparse.Namespace) -> Asked:
    return Asked(flags.overrides, flags.config_dir, flags.config_name or "config")


def config_of(resume: str, arguments: Sequence[str]) -> Config:
    """The configuration that rank 0 trains: read from the folder to resume, or composed for a new run or for auto.

    Raises:
        UserError: in one line, what is wrong.
    """
    if resume == "auto":
        return checked(compose(asked_of(read_flags(arguments)))[0])
    from s9.tracking.folder import RunFolder  # here: as in `hydra_job`

    return RunFolder(Path(resume)).read_config()


def _refuse_flag(message: str) -> NoReturn:
    raise UserError(f"{message}; {COMMAND} --help")


def check_sweep(asked: Asked) -> DictConfig:
    """Checks each value of each swept key, with the first values of the other keys, before any job starts.

    Returns:
        Hydra's own part of the first configuration.

    Raises:
        UserError: what is wrong with a value.
    """
    from s9.runs.check import check_donors  # here: as in `hydra_job`

    choices = []
    for override in asked.overrides:
        parsed = parse(override)
        swept = parsed.is_sweep_override()
        values = [f"{parsed.get_key_element()}={v}" for v in parsed.sweep_string_iterator()] if swept else [override]
        choices.append(values)
    first = [c[0] for c in choices]
    others = [[*first[:at], v, *first[at + 1 :]] for at, values in enumerate(choices) for v in values[1:]]
    own: DictConfig | None = None
    for overrides in (first, *others):
        composed, of_hydra = compose(Asked(overrides, asked.config_dir, asked.config_name))
        check_donors(checked(composed))
        own = of_hydra if own is None else own
    return own


def run_hydra(flags: argparse.Namespace, interrupts: Interrupts) -> int:
    """Hydra composes again, makes the folders and calls the job, once or per job of a sweep; returns the exit code."""
    codes: list[int] = []

    def run(composed: DictConfig) -> Any:
        outcome = hydra_job(composed, interrupts)
        codes.append(outcome.exit_code)
        if outcome.state == "interrupted" and interrupts.received is not None and interrupts.of_a_door:
            raise Interrupted(interrupts.received)  # no other job of the sweep begins
        return outcome

    prepare_hydra()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing: its errors are one line below
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(run)()
    except (OSError, ValueError) as found:  # logging.config wraps an OSError in a ValueError
        error = found if isinstance(found, OSError) else found.__cause__
        if not isinstance(error, OSError):
            raise
        place = "hydra.sweep.dir" if flags.multirun else "hydra.run.dir"
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise UserError(f"{what}; runs are written there, choose with {place}=") from None
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from None
    return max(codes, default=0)


def hydra_job(composed: DictConfig, interrupts: Interrupts) -> Any:
    """One run, alone or in a sweep. In a sweep a failed job becomes a line of summary.csv and the others run."""
    from s9.runs.job import job  # here: imports torch and all packages

    own = HydraConfig.get()
    path = Path(own.runtime.output_dir)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())  # shorter to read, and to paste into the next command
    sweep_dir = Path(own.sweep.dir) if own.mode == RunMode.MULTIRUN else None
    command, overrides = command_of(own)
    line = JobLine(sweep_dir, own.job.get("num", 0), overrides, path.name)
    from s9.tracking.folder import RunFolder

    outcome = job(lambda: checked(composed), RunFolder(path), command=command, line=line, interrupts=interrupts)
    if outcome.state == "failed":
        say_error(outcome.reason if sweep_dir is None else f"job {line.job} ({overrides}): {outcome.reason}")
    elif outcome.reason:
        print(outcome.reason, file=sys.stderr)
    return outcome


def command_of(own: Any) -> tuple[str, str]:
    """(the command that trains this job alone, as the shell takes it; its arguments), from Hydra's own record.

    The command leaves out the job's folder, so that a repeated job gets its own folder.
    """
    flags = [a for s in own.runtime.config_sources if s.provider == "command-line" for a in ("--config-dir", s.path)]
    flags += ["--config-name", own.job.config_name] if own.job.config_name != "config" else []
    kept = [o for o in own.overrides.hydra if not o.lstrip("+~").startswith(OF_SWEEP)]
    given = shlex.join([*flags, *kept, *allow_words().split(), *own.overrides.task])
    return f"{COMMAND} {given}".strip(), given


def resume_run(given: str, interrupts: Interrupts, config: Config | None = None) -> int:
    """Resumes the run in the folder `given`, in its own log; returns the exit code.

    Args:
        config: of the same identity, with other places and W&B settings, say; None: the run's own.

    Raises:
        UserError: the folder holds no run, its run is done, or another process trains that run.
    """
    from s9.runs import resume  # here: as in `hydra_job`
    from s9.runs.job import job

    path = Path(given)
    folder = resume.named(path)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    try:
        to_file = logging.FileHandler(folder.log)
    except OSError as error:
        raise UserError(f"resume={path}: {error.filename}: {error.strerror}") from None
    to_file.setFormatter(plain)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.StreamHandler(sys.stdout), to_file])
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    before = folder.read_status()
    command, group = before.get("command", ""), before.get("group")
    of_sweep = path.parent if group is not None and group == path.absolute().parent.name else None
    line = JobLine(of_sweep, path.name, command.removeprefix(COMMAND).strip(), path.name)
    named = {"command": command, "line": line, "group": group, "interrupts": interrupts}
    outcome = job(lambda: config or folder.read_config(), folder, resumed=True, **named)
    if outcome.state == "failed":
        say_error(outcome.reason)
    elif outcome.reason:
        print(outcome.reason, file=sys.stderr)
    return outcome.exit_code
