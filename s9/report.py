"""Writes the page of a run or of a sweep, from its files alone.   python -m s9.report sweep=outputs/sweeps/..."""

from pathlib import Path

from s9.cli.door import key_values, open_door, refuse_unknown
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts, leave

USAGE = """python -m s9.report run=outputs/<date>/<time>-<suffix>
python -m s9.report sweep=outputs/sweeps/<name> [runs=false|true] [watch=false|true]

Writes report.html into the folder: one file that works without a network; needs no images and no weights.
run: also draws figures/ again. sweep: what makes a difference and what cannot be told, with figures and cells.csv.
runs=true: also the page of every run of the sweep, about 2 MB each. watch=true: a view in the terminal while jobs run.
Exit code 0; 2: something cannot be read, drawn or written, after the rest is; 128 + n: ended by signal n."""

OWN = {"run": "", "sweep": "", "runs": "false", "watch": "false"}


def main(arguments: list[str]) -> None:
    given = key_values(arguments, OWN, USAGE)
    refuse_unknown(given, dict.fromkeys(("runs", "watch"), ("false", "true")))
    if bool(given["run"]) == bool(given["sweep"]):
        raise UserError("give run=<folder> or sweep=<folder>")
    if given["run"] and (alone := [key for key in ("runs", "watch") if given[key] == "true"]):
        raise UserError(f"{alone[0]}=true: belongs to sweep=")
    if given["runs"] == given["watch"] == "true":
        raise UserError("runs=true and watch=true: give one of them")
    path = Path(given["run"] or given["sweep"])
    if not path.is_dir():
        raise UserError(f"{'run' if given['run'] else 'sweep'}={path}: there is no such folder")

    from s9.cli.report import report_run, report_sweep, watch_sweep

    if given["run"]:
        report_run(path)
    elif given["watch"] == "true":
        try:
            with Interrupts(end=leave) as interrupts:
                watch_sweep(path, interrupts)
        except Interrupted as stop:
            leave(128 + stop.number)
    else:
        report_sweep(path, runs=given["runs"] == "true")


if __name__ == "__main__":
    open_door(main, USAGE)
