"""A comparison in sentences: whether the difference is more than chance, and what that covers."""

from collections import Counter
from collections.abc import Sequence

from s9.tracking.compared_run import ComparedRun
from s9.tracking.differences import KeyDifference
from s9.tracking.paired import LEVEL, Pair
from s9.tracking.same_images import SameImages

METHOD = "McNemar's exact test"
INTERVAL = "95 % interval (Newcombe 1998, method 10)"
LISTED = 10  # pairs in a sentence
SEEDS = (
    "It does not cover another seed, which gives other networks: to compare settings, train each with several seeds as "
    "a sweep (python -m s9.train -m ... seed=0,1,2), and let python -m s9.report judge the sweep."
)


def answer(
    same: SameImages, pairs: Sequence[Pair], keys: Sequence[KeyDifference], runs: Sequence[ComparedRun]
) -> list[str]:
    """The sentences, the verdict first."""
    if not pairs:
        known = sum(run.predictions is not None for run in runs)
        why = "no two runs were tested on the same images" if known > 1 else "fewer than two runs have test predictions"
        return [f"Whether the difference is more than chance cannot be told: {why}.", *_left_out(same)]
    said = of_two(pairs[0]) if len(pairs) == 1 else _of_many(pairs, same)
    said.append(f"The test covers these trained networks, on images like these {len(same.names):,}. {SEEDS}")
    if {one.key for one in keys if not one.free} == {"seed"}:
        said.append("The runs differ by seed alone: this difference is what a seed is worth, not what a setting is.")
    return said + _left_out(same)


def _left_out(same: SameImages) -> list[str]:
    return [f"Not tested: {reason}." for reason in same.left_out]


def of_two(pair: Pair) -> list[str]:
    """The verdict of two runs, the test, and the interval of the better one's lead."""
    if not pair.only_first + pair.only_second:
        return [f"{pair.first} and {pair.second} are right on the same {pair.both:,} of {pair.images:,} test images."]
    lead = pair.only_first - pair.only_second
    better, worse = (pair.first, pair.second) if lead >= 0 else (pair.second, pair.first)
    low, high = (pair.low, pair.high) if lead >= 0 else (-pair.high, -pair.low)
    more = f"{abs(lead):,} more of {pair.images:,} test images"
    verdict = "this is more than chance" if pair.differs else "this cannot be told from chance"
    said = [
        f"{better} is right on {more} than {worse}: {verdict}."
        if lead
        else f"{better} and {worse} are right on equally many of {pair.images:,} test images.",
        f"Only {pair.first} is right on {pair.only_first:,} images, only {pair.second} on {pair.only_second:,}: "
        f"{METHOD}, p {p_of(pair.p)}.",
        f"Accuracy of {better} minus that of {worse}: {points_of(pair.difference if lead >= 0 else -pair.difference)} "
        f"points, {INTERVAL}: {points_of(low)} to {points_of(high)}.",
    ]
    if (low > 0) != pair.differs:
        said.append("The interval and the test disagree, as two methods may at the border: the test decides.")
    return said


def _of_many(pairs: Sequence[Pair], same: SameImages) -> list[str]:
    differing = sorted((pair for pair in pairs if pair.differs), key=lambda pair: pair.adjusted)
    over = [f"{_over(pair)} (p {p_of(pair.adjusted)})" for pair in differing[:LISTED]]
    more = f" and {len(differing) - LISTED:,} more" if len(differing) > LISTED else ""
    lead = f"None of {len(pairs):,} pairs of runs differs by more than chance."
    if differing:
        lead = (
            f"{len(differing):,} of {len(pairs):,} pairs of runs differ by more than chance: {', '.join(over)}{more}."
        )
    return [
        lead,
        f"{METHOD} of each pair, with p adjusted by Holm over {len(pairs):,} pairs; level {LEVEL}.",
        f"All of these runs get {len(same.wrong_by_all()):,} of {len(same.names):,} test images wrong.",
    ]


def _over(pair: Pair) -> str:
    return f"{pair.first} over {pair.second}" if pair.difference > 0 else f"{pair.second} over {pair.first}"


def choosing(runs: Sequence[ComparedRun]) -> list[str]:
    """A warning for jobs of one sweep."""
    groups = Counter(str(run.status["group"]) for run in runs if run.status.get("group"))
    why = "choose among them by val, never by test; p does not allow for picking some out of many jobs"
    return [f"{count} of these runs are jobs of the sweep {name}: {why}" for name, count in groups.items() if count > 1]


def p_of(p: float) -> str:
    """As `= 0.012`, or `below 0.0001`."""
    return "below 0.0001" if p < 1e-4 else f"= {p:.2g}"


def points_of(fraction: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * fraction:.2f}"
