"""Draws a run's figures again from its files alone, on any machine.   python -m s9.report run=outputs/..."""

from pathlib import Path

from s9.cli.door import key_values, open_door
from s9.system.errors import UserError

USAGE = """python -m s9.report run=outputs/<date>/<time>-<suffix>

Draws augmentation, curves, misclassified and confusion from the files in the folder; needs no data and no weights."""


def main(arguments: list[str]) -> None:
    path = Path(key_values(arguments, {"run": None}, USAGE)["run"])
    if not path.is_dir():
        raise UserError(f"run={path}: there is no such folder")

    from s9.tracking.figures import draw_all
    from s9.tracking.folder import RunFolder

    folder, failed = RunFolder(path), list[str]()
    drawn = draw_all(folder, failed.append)
    if not drawn and not failed:
        wanted = ", ".join(file.name for file in (folder.metrics, folder.samples, folder.predictions))
        raise UserError(f"run={path}: holds no files of a run; wanted one of {wanted}")
    for picture in drawn:
        print(picture)
    if failed:
        raise UserError("; ".join(line.partition("; later")[0] for line in failed))


if __name__ == "__main__":
    open_door(main, USAGE)
