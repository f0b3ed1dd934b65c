"""Measures a sweep's best cell against its baseline on fresh seeds.   python -m s9.confirm sweep=outputs/sweeps/..."""

from s9.cli.door import open_door
from s9.system.interrupt import Interrupted, Interrupts, leave
from s9.system.output import keep_output_from_failing

USAGE = """python -m s9.confirm sweep=outputs/sweeps/<name> [seeds=8] [baseline='key=value ...'] [best='key=value ...']
                     [sweep.dry_run=true] [sweep.retry=failed] [hydra/launcher=...]

The best mean of a sweep is too high, because it was chosen for being high. This runs the best cell and the baseline
on seeds that the sweep has not used, skips what is done, and says by how much they differ, with a 95 % interval.
baseline: the cell with the configuration's own values, else the sweep's first; where that is the best, the cell with
the next mean. The jobs are in <sweep>-confirm, a sweep like any other: the same command goes on with it, and
python -m s9.report sweep=<sweep> shows the result.
Decide on seeds= before looking: raising it afterwards is said with the result.
Exit code 0; 1: a job is not done; 2: something that was asked for is wrong; 128 + n: ended by signal n."""


def main(arguments: list[str]) -> int:
    from s9.cli.confirm import confirm

    interrupts = Interrupts(end=leave)
    try:
        code = confirm(arguments, interrupts, USAGE)
    except Interrupted as stop:
        leave(128 + stop.number)
    if interrupts.received is not None:
        leave(code)
    return code


if __name__ == "__main__":
    keep_output_from_failing()
    open_door(main, USAGE)
