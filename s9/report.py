"""Draws a run's figures again from its files alone, on any machine.   python -m s9.report run=outputs/..."""

from pathlib import Path

from s9 import command_line
from s9.errors import UserError

USAGE = """python -m s9.report run=outputs/<date>/<time>-<suffix>

Draws augmentation, curves, misclassified and confusion from the files in the folder; needs no data and no weights."""


def main(arguments: list[str]) -> None:
    folder = Path(command_line.key_values(arguments, {"run": None}, USAGE)["run"])
    if not folder.is_dir():
        raise UserError(f"run={folder}: there is no such folder")

    from s9.tracking import figures

    failed: list[str] = []
    drawn = figures.draw_all(folder, failed.append)
    if not drawn and not failed:
        raise UserError(f"run={folder}: holds no files of a run; wanted metrics.jsonl, samples.npz or predictions.npz")
    for path in drawn:
        print(path)
    if failed:
        raise UserError("; ".join(line.partition("; later")[0] for line in failed))


if __name__ == "__main__":
    command_line.open_door(main)
