"""Which folders init_from= and teacher= name: those of runs, or of the weights that come with s9, by their name."""

import os
from pathlib import Path

from s9.models.shipped import SHIPPED, shipped
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder

WEIGHTS = ".safetensors"  # the ending of a file of weights


def runs_of(given: str) -> list[str]:
    """Splits runs that are joined as in PATH; an existing path that itself contains the separator stays whole."""
    parts, runs = given.split(os.pathsep), []
    while parts:
        joined = [os.pathsep.join(parts[:count]) for count in range(len(parts), 0, -1)]
        runs.append(next((path for path in joined if Path(path).expanduser().exists()), parts[0]))
        parts = parts[runs[-1].count(os.pathsep) + 1 :]
    return runs


def folder_of(run: str, weights: str = "final") -> tuple[RunFolder, Path]:
    """(the folder of the run, the file of its weights). A run's folder wins over the name of shipped weights.

    A file that lies in no run's folder of weights stands for its run's folder too, in which nothing is found.

    Args:
        weights: final or best, of a folder.

    Raises:
        UserError: weights=best beside a file.
    """
    path = Path(run).expanduser()
    if run in shipped() and not RunFolder(path).config.exists():
        path = SHIPPED / run
    if path.suffix != WEIGHTS:
        return RunFolder(path), RunFolder(path).best if weights == "best" else RunFolder(path).final
    if weights == "best":
        raise UserError(f"weights=best: has no effect on a file of weights ({run}); leave it out")
    whole = RunFolder(path.parent.parent)
    return whole if path.parent.name == whole.final.parent.name else RunFolder(path), path
