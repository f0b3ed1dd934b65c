"""The main command: composes a run or finds the one to resume, and ends with its exit code.   python -m s9.train"""

import os
import sys
import time
from pathlib import Path

from s9.cli.door import open_door
from s9.cli.help import help_text
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts, leave
from s9.system.output import keep_output_from_failing

RANK_0_SAYS_S = 20  # how long other torchrun processes wait before they end with an error that rank 0 reports

HELP = """Trains one network, tests it once, and writes everything about the run to one folder.

  python -m s9.train model=dilated aug=full
  python -m s9.train resume=outputs/<date>/<time>-<suffix>     resumes a run that was cut short
  python -m s9.train resume=outputs/sweeps/<name>              goes on with a sweep
  python -m s9.train model=dilated aug=full resume=auto        the newest unfinished run of this configuration"""


def main(arguments: list[str]) -> int:
    from s9.cli import launch

    rest = [a for a in arguments if not a.startswith("resume=")]
    asked = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=")]
    if len(asked) > 1:
        raise UserError("resume= is given twice")
    of_sweep = bool(asked) and (Path(asked[0]) / "sweep.json").is_file()
    if of_sweep and (others := [a for a in rest if a != "-m" and not a.startswith(("sweep.retry=", "sweep.dry_run="))]):
        may = "only sweep.retry=failed and sweep.dry_run=true can be added"
        raise UserError(f"resume={asked[0]}: a sweep goes on with its own command; leave out {' '.join(others)}: {may}")
    if asked and asked != ["auto"] and rest and not of_sweep:
        raise UserError(f"resume={asked[0]}: a run resumes with its own configuration; leave out {' '.join(rest)}")
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if torchrun and {"-m", "--multirun"} & set(rest):
        raise UserError("-m: a sweep does not run under torchrun; start its ranks inside each job: trainer.devices=2")
    if torchrun and os.environ.get("RANK", "0") != "0":
        follow_rank_0(asked, rest)
    interrupts = Interrupts(end=leave)
    try:
        if of_sweep:
            code = launch.resume_sweep(asked[0], [a for a in rest if a != "-m"], interrupts)
        elif asked and asked != ["auto"]:
            code = launch.resume_run(asked[0], interrupts)
        else:
            code = launch.start(rest, interrupts, auto=bool(asked))
    except Interrupted as stop:
        leave(128 + stop.number)
    if torchrun or interrupts.received is not None:
        leave(code)  # as in ranks.py: an abort at python's exit would make torchrun end the ranks that still work
    return code


def follow_rank_0(asked: list[str], rest: list[str]) -> None:
    """Trains in a torchrun process other than rank 0: makes no folder and lets rank 0 report what is wrong."""
    from s9.cli.launch import config_of
    from s9.runs.run import follow_torchrun

    try:
        follow_torchrun(config_of(asked[0] if asked else "auto", rest))
    except UserError:
        time.sleep(RANK_0_SAYS_S)  # torchrun ends all of them as soon as one ends
        sys.exit(2)
    leave(0)


if __name__ == "__main__":
    keep_output_from_failing()
    open_door(main, lambda: help_text(HELP))
