"""Searches a space of values for the best val accuracy.   python -m s9.tune study=dropout_lr trials=40"""

from s9.cli.door import open_door
from s9.system.errors import UserError
from s9.system.interrupt import Interrupts, leave
from s9.system.output import keep_output_from_failing

USAGE = """python -m s9.tune study=<name> trials=<n> [jobs=1] [folder=outputs/studies/<name>] [storage=<url>]
                  [study.<key>=...] [key=value ...]

Searches the space of conf/study/<name>.yaml with Optuna; every trial is a run of its own in the study's folder.
trials= is the total of all processes: the same command again, or several at once, go on with the study and share it.
At a rung the worse part of the trials pauses; a trial that is promoted later ends as if it had never paused.
Parameters that come up again get the next seed. A trial that fails is recorded and passed over.
jobs=n trains n trials at the same time. storage= is a database instead of a journal file, such as sqlite:///trials.db.
study.rungs=[] trains every trial to its end; study.keep=0.3 promotes fewer. Other keys are those of s9.train.
--config-dir <folder> also looks for <name>.yaml in <folder>/study.
At the end: the best trials, how well the rungs told the end, and the best as an option of experiment=. test is never
used and never shown.
Exit code 0; 1: no trial has ended well; 2: something that was asked for is wrong; 128 + n: ended by signal n."""


def main(arguments: list[str]) -> int:
    try:
        from s9.cli.tune import tune
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("s9.tune needs Optuna, which is not installed: pip install 's9[tune]'") from None

    interrupts = Interrupts(end=leave)
    code = tune(arguments, interrupts, USAGE)
    if interrupts.received is not None:
        leave(code)
    return code


if __name__ == "__main__":
    keep_output_from_failing()
    open_door(main, USAGE)
