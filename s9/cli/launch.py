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
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from s9.cli.compose import Asked, checked, compose, is_missing, missing, prepare_hydra, with_model_of_donor
from s9.cli.door import say_error
from s9.cli.help import CONF
from s9.cli.mistakes import parse
from s9.config.components import allow_words
from s9.config.schema import Config
from s9.system.errors import UserError
from s9.system.interrupt import Interrupts

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
    others = ("hydra_help", "shell_completion", "info", "cfg", "config_path")
    found = [f"--{name.replace('_', '-')}" for name in others if getattr(flags, name)]
    if flags.run and flags.multirun:
        raise UserError("-m and --run: a sweep or one run; leave out one of them")
    if found and flags.multirun:
        raise UserError(f"{found[0]}: is for one configuration; leave out -m and give each key one value")
    if flags.hydra_help:  # which knows no key but Hydra's own
        of_hydra = [o for o in flags.overrides if parse(o).key_or_group.startswith("hydra")]
        sys.argv[1:] = ["--hydra-help", *of_hydra]
    said = [] if flags.multirun else add_model_of_donor(flags)
    asked = asked_of(flags)
    if found:
        return run_hydra(flags, interrupts, said)  # unchecked: trains nothing, or from a configuration that is not ours
    if flags.multirun:
        if auto:
            raise UserError("resume=auto: is for one run; a sweep's command, given again, resumes what was cut")
        from s9.cli.sweep import run_sweep  # here: imports torch

        return run_sweep(asked, arguments, interrupts)
    if of_sweep := [o for o in flags.overrides if parse(o).key_or_group.startswith("sweep.")]:
        raise UserError(f"{of_sweep[0]}: belongs to a sweep; add -m")
    if swept := [o for o in flags.overrides if parse(o).is_sweep_override()]:
        raise UserError(f"{swept[0]}: names several values; add -m to run them all")
    composed, own = compose(asked)
    config = checked(composed)
    from s9.runs import check, resume  # here, as in `hydra_job`: mistakes in keys are reported without importing torch

    check.check_donors(config)
    if auto:
        chosen = Path(own.run.dir) if any(o.startswith("hydra.run.dir=") for o in flags.overrides) else None
        folder, instead = resume.newest_unfinished(config, chosen)
        for text in instead:
            print(text, file=sys.stderr)
        if folder is not None:
            return resume_run(str(folder), interrupts, config)
    return run_hydra(flags, interrupts, said)


def add_model_of_donor(flags: argparse.Namespace) -> list[str]:
    """As `with_model_of_donor`, in the arguments that Hydra reads too; returns the lines for the user."""
    asked, said = with_model_of_donor(asked_of(flags))
    added = asked.overrides[len(flags.overrides) :]
    flags.overrides += added
    sys.argv += added
    return said


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


def run_hydra(flags: argparse.Namespace, interrupts: Interrupts, said: Sequence[str]) -> int:
    """Hydra composes again, makes the run's folder and calls the job, which logs `said`; returns the exit code."""
    began: list[None] = []
    codes: list[int] = []

    def run(composed: DictConfig) -> Any:
        began.append(None)
        for line in said:
            logging.getLogger("s9").info(line)
        outcome = hydra_job(composed, interrupts)
        codes.append(outcome.exit_code)
        return outcome

    if any(o.lower() == "hydra.mode=multirun" for o in flags.overrides):
        raise UserError("hydra.mode=MULTIRUN: -m starts a sweep")
    if flags.experimental_rerun:
        raise UserError("--experimental-rerun: not supported; a run's status.json holds the command that repeats it")
    prepare_hydra()
    words = sys.argv[1:]
    sys.argv[1:] = [*flags.overrides, *words[: len(words) - len(flags.overrides)]]  # --info would take what follows
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing: its errors are one line below
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(run)()
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if began:  # not Hydra's
            raise
        raise UserError(_in_one_line(error, asked_of(flags))) from None
    return max(codes, default=0)


def _in_one_line(error: Exception, asked: Asked) -> str:
    """What Hydra has met before the job, in one line. logging.config wraps the cause in a ValueError."""
    if is_missing(error, asked.config_name):
        return missing(asked)
    cause = error.__cause__ if isinstance(error, ValueError) and error.__cause__ else error
    if isinstance(cause, OSError) and not isinstance(cause, HydraException):
        what = f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror or cause
        return f"{what}; runs are written there, choose with hydra.run.dir="
    said = " ".join(str(error).split())
    return said if cause is error else f"{said} ({cause}); hydra.job_logging says how a run logs"


def hydra_job(composed: DictConfig, interrupts: Interrupts) -> Any:
    """One run, in the folder that Hydra has made."""
    from s9.runs.job import job  # here: imports torch and all packages
    from s9.tracking.folder import RunFolder

    own = HydraConfig.get()
    path = Path(own.runtime.output_dir)
    if path.is_relative_to(Path.cwd()) and not own.job.chdir:
        path = path.relative_to(Path.cwd())  # shorter to read, and to paste into the next command
    outcome = job(lambda: checked(composed), RunFolder(path), command=command_of(own), interrupts=interrupts)
    told(outcome)
    return outcome


def command_of(own: Any) -> str:
    """The command that trains this run, as the shell takes it, from Hydra's own record.

    The command leaves out the run's folder, so that a repeated run gets its own folder.
    """
    flags = [a for s in own.runtime.config_sources if s.provider == "command-line" for a in ("--config-dir", s.path)]
    flags += ["--config-name", own.job.config_name] if own.job.config_name != "config" else []
    kept = [o for o in own.overrides.hydra if not o.lstrip("+~").startswith(OF_SWEEP)]
    given = shlex.join([*flags, *kept, *allow_words().split(), *own.overrides.task])
    return f"{COMMAND} {given}".strip()


def resume_run(given: str, interrupts: Interrupts, config: Config | None = None) -> int:
    """Resumes the run in the folder `given`, in its own log; returns the exit code.

    Args:
        config: of the same identity, with other places and W&B settings, say; None: the run's own.

    Raises:
        UserError: the folder holds no run, its run is done, or another process trains that run.
    """
    from s9.runs import resume  # here: as in `hydra_job`
    from s9.runs.job import job
    from s9.tracking.run_log import logged_to

    folder = resume.named(Path(given))
    before = folder.read_status()
    screen = logging.StreamHandler(sys.stdout)
    screen.setFormatter(logging.Formatter("%(message)s"))
    named = {"command": before.get("command", ""), "group": before.get("group"), "interrupts": interrupts}
    try:
        with logged_to(folder.log, screen):
            outcome = job(lambda: config or folder.read_config(), folder, resumed=True, **named)
    except UserError as error:
        raise UserError(f"resume={given}: {error}") from None
    return told(outcome)


def resume_sweep(given: str, more: Sequence[str], interrupts: Interrupts) -> int:
    """Gives the sweep's command again, with `more` arguments such as sweep.retry=failed; returns the exit code.

    Raises:
        UserError: the folder holds no sweep's command.
    """
    from s9.sweeps.jobs import SweepFolder  # here: as in `hydra_job`

    arguments = SweepFolder(Path(given)).read().get("arguments")
    if not isinstance(arguments, list):
        raise UserError(f"resume={given}: sweep.json in it cannot be read; give the sweep's command again")
    return start([*arguments, f"hydra.sweep.dir={quoted(given)}", *more], interrupts)


def quoted(path: object) -> str:
    """As an argument's value, whatever is in it."""
    text: str = QuotedString(str(path), Quote.single).with_quotes()
    return text


def told(outcome: Any) -> int:
    """Prints why a run is not done, as one line on stderr; returns the exit code."""
    if outcome.state in ("failed", "taken"):
        say_error(outcome.reason)
    elif outcome.reason:
        print(outcome.reason, file=sys.stderr)
    return int(outcome.exit_code)
