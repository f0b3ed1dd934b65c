"""The confirmation of a sweep: its best cell and its baseline on seeds that took no part in choosing the best."""

import json
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scipy import stats

from s9.sweeps.analysis import Difference
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.table import SEED, Row
from s9.sweeps.values import have, mean_the_same
from s9.system.errors import UserError
from s9.system.files import write_whole

USUAL = 8  # seeds
ASKED, SUFFIX = "confirm.json", "-confirm"


@dataclass(frozen=True)
class Asked:
    """One confirmation that was asked for.

    counts: numbers of seeds, one after another; more than one was raised. cells: the digests of best and baseline, as
    in the sweep's sweep.json; none where that does not have both.
    """

    best: dict[str, str]
    baseline: dict[str, str]
    seeds: list[int]
    counts: list[int]
    paired: bool = False
    cells: list[str] = field(default_factory=list)

    def compares(self, best: Mapping[str, str], baseline: Mapping[str, str], cells: Sequence[str]) -> bool:
        same = not self.cells or not cells or self.cells == list(cells)
        return same and mean_the_same(self.best, best) and mean_the_same(self.baseline, baseline)


@dataclass(frozen=True)
class Confirmation:
    """What the fresh seeds say. difference: best minus baseline, None below two seeds each and without any spread.

    n: how many are done, of each. former: of a configuration that the sweep no longer has.
    """

    asked: Asked
    n: tuple[int, int]
    difference: Difference | None
    former: bool

    @property
    def whole(self) -> bool:
        return self.n == (len(self.asked.seeds), len(self.asked.seeds))


class ConfirmationFolder:
    """`<sweep>-confirm`, a sweep of its own, with the list of what was asked."""

    def __init__(self, sweep: Path):
        sweep = sweep if sweep.name not in ("", "..") else sweep.resolve()
        self.sweep = SweepFolder(sweep)
        self.folder = SweepFolder(sweep.with_name(f"{sweep.name}{SUFFIX}"))
        self.asked = self.folder.path / ASKED

    def read(self) -> list[Asked]:
        """Oldest first; empty where nothing readable is stored."""
        try:
            return [Asked(**one) for one in json.loads(self.asked.read_bytes())]
        except (OSError, ValueError, TypeError):
            return []

    def asked_for(
        self,
        best: Mapping[str, str],
        baseline: Mapping[str, str],
        count: int,
        *,
        used: Iterable[int],
        paired: bool,
        cells: Sequence[str] = (),
    ) -> Asked:
        """What is asked: the seeds of an earlier confirmation of the same cells, then fresh ones up to `count`.

        used: seeds that took part in choosing the best. cells: as `Asked` has them.
        """
        stored = self.read()
        before = next((one for one in stored if one.compares(best, baseline, cells)), None)
        seeds, counts = (list(before.seeds), list(before.counts)) if before else ([], [])
        first = 1 + max([-1, *used, *(seed for one in stored for seed in one.seeds)])
        seeds += range(first, first + max(0, count - len(seeds)))
        if count > max(counts, default=0):
            counts.append(count)
        return Asked(dict(best), dict(baseline), seeds=seeds, counts=counts, paired=paired, cells=list(cells))

    def note(self, asked: Asked) -> None:
        """Stores what is asked as the newest.

        Raises:
            UserError: the folder cannot be written.
        """
        others = [one for one in self.read() if not one.compares(asked.best, asked.baseline, asked.cells)]
        content = [asdict(one) for one in [*others, asked]]
        try:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.asked, (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            raise UserError(f"{error.filename or self.folder.path}: {error.strerror}") from None

    def confirmations(self) -> list[Confirmation]:
        """What each one that was asked for shows, oldest first."""
        stored, sweep = self.read(), self.sweep.read()
        rows = self.folder.rows()[1] if stored else []
        known = sweep.get("cells", {})
        whole = not sweep.get("jobs", {}).keys() - known.keys()  # older versions did not store cells
        found = []
        for asked in stored:
            best, baseline = (_scores(rows, cell, asked.seeds) for cell in (asked.best, asked.baseline))
            n, difference = (len(best), len(baseline)), _difference(best, baseline, asked)
            found.append(Confirmation(asked, n, difference, former=whole and not {*known.values()} >= {*asked.cells}))
        return found


def confirms(path: Path) -> Path | None:
    """The sweep that the sweep in this folder confirms; None of a sweep of its own."""
    return path.with_name(path.name.removesuffix(SUFFIX)) if (path / ASKED).is_file() else None


def command_of(sweep: Path, asked: Asked | None = None) -> str:
    """Runs or continues a confirmation and prints what it shows."""
    words = [f"sweep={sweep}", f"seeds={len(asked.seeds) if asked else USUAL}"]
    cells = {"best": asked.best, "baseline": asked.baseline} if asked else {}
    words += [f"{what}={' '.join(f'{key}={value}' for key, value in cell.items())}" for what, cell in cells.items()]
    return f"python -m s9.confirm {shlex.join(words)}"


def _scores(rows: Sequence[Row], cell: Mapping[str, str], seeds: Sequence[int]) -> dict[str, float]:
    """Val accuracies by seed."""
    wanted = {str(seed) for seed in seeds}
    own = (row for row in rows if have(row.values, cell))
    return {row.values[SEED]: row.score for row in own if row.score is not None and row.values.get(SEED) in wanted}


def _difference(best: Mapping[str, float], baseline: Mapping[str, float], asked: Asked) -> Difference | None:
    """Best minus baseline by Welch's t test; by the paired t test where pairing was declared."""
    both = sorted(best.keys() & baseline.keys())
    if min(len(best), len(baseline)) < 2 or (asked.paired and len(both) < 2):
        return None
    if asked.paired:
        one, other = [best[seed] for seed in both], [baseline[seed] for seed in both]
        if not _spread([a - b for a, b in zip(one, other, strict=True)]):
            return None
        tested = stats.ttest_rel(one, other)
    else:
        one, other = list(best.values()), list(baseline.values())
        if not _spread(one) and not _spread(other):  # no test
            return None
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # seeds of one cell score the same
            tested = stats.ttest_ind(one, other, equal_var=False)
    low, high = tested.confidence_interval(0.95)
    names = " ".join(asked.best.values()), " ".join(asked.baseline.values())
    mean = sum(one) / len(one) - sum(other) / len(other)
    return Difference(*names, mean=mean, low=float(low), high=float(high), p=float(tested.pvalue))


def _spread(scores: Sequence[float]) -> bool:
    """Whether they differ by more than the rounding of differences."""
    return max(scores) - min(scores) > 1e-9
