"""All that the screen and the page of s9.compare show, from the runs' folders."""

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s9.pages import compare_words
from s9.sweeps.jobs import SweepFolder
from s9.system.errors import UserError
from s9.tracking.compared_run import ComparedRun, read_runs, shown_result
from s9.tracking.differences import KeyDifference, differing_keys, unfair
from s9.tracking.paired import Pair, pairs_of
from s9.tracking.same_images import SameImages, same_images

NAME = 60  # characters of a run's name in the page's name


@dataclass(frozen=True)
class Comparison:
    """results: from what it is to a text for each run. answer, warnings: sentences. pairs: of the runs in `same`."""

    runs: list[ComparedRun]
    keys: list[KeyDifference]
    results: dict[str, list[str]]
    same: SameImages
    pairs: list[Pair]
    answer: list[str]
    warnings: list[str]


def compare(paths: Sequence[Path]) -> Comparison:
    """Reads and compares the runs, in the order given.

    Raises:
        UserError: fewer than two folders, or a folder that is not a run's, or a sweep's folder.
    """
    for path in paths:
        if SweepFolder(path).asked.is_file():
            way = f"python -m s9.report {shlex.quote(f'sweep={path}')} compares its jobs, on val"
            raise UserError(f"{path}: is a sweep; {way}; here give single runs")
    runs = read_runs(paths)
    if len(runs) < 2:
        raise UserError(f"{paths[0] if paths else 'no folder'}: give two runs or more, as outputs/<a> outputs/<b>")
    same, keys = same_images(runs), differing_keys(runs)
    pairs = pairs_of(same)
    notes = [f"{run.label}: {note}" for run in runs for note in run.notes]
    return Comparison(
        runs,
        keys,
        _results(runs),
        same,
        pairs=pairs,
        answer=compare_words.answer(same, pairs, keys, runs),
        warnings=[*compare_words.choosing(runs), *unfair(runs), *notes],
    )


def _results(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """What at least one run has."""
    held = [run.results() for run in runs]
    texts = {name: [shown_result(*one[name]) for one in held] for name in held[0]}
    return {name: row for name, row in texts.items() if set(row) != {"-"}}


def default_page(paths: Sequence[Path]) -> Path:
    """outputs/compare/<a>-<b>.html: the last parts of the folders that tell them apart; long names are cut."""
    parts = [path.absolute().parts[1:] for path in paths]
    depths = range(1, max(map(len, parts)) + 1)
    depth = next((n for n in depths if len({part[-n:] for part in parts}) == len(parts)), 1)
    names = ["-".join(part[-depth:])[-NAME:].strip(" .-") or "run" for part in parts]
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).hexdigest()[:6]
    more = f"-and-{len(names) - 2}-more-{digest}" if len(names) > 2 else ""
    return Path("outputs/compare") / f"{names[0]}-{names[1]}{more}.html"
