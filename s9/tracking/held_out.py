"""Which images a run has as val and test, in words that are equal where the images are."""

from collections.abc import Mapping

from s9.data.split import HALF, MOST_TEST, count_of
from s9.tracking.compared_run import ComparedRun


def val_of(run: ComparedRun) -> str | None:
    """None where the configuration or the size is unknown."""
    given, held = run.facts.contents.get("val") if run.facts else None, _test_size(run) or 0
    if given:
        return f"a folder of {sum(_counts(given)) - held:,} ({_digest(given)})"
    size, seed = run.value("data.val_size"), run.value("data.val_seed")
    if run.facts and run.config:
        train = _counts(run.facts.contents["train"])
        size = count_of(size, sum(train) - held, len(train))
    if size is None:
        return None
    less = f" less {held:,} of test" if held else ""
    return f"{size:,} of train{less}, chosen by seed {run.value('seed') if seed is None else seed}" if size else "none"


def test_of(run: ComparedRun) -> str | None:
    """None where the images have a test, whose digests are compared, or where they or the run are unknown."""
    held = _test_size(run)
    return None if held is None else f"{held:,} of {'val' if run.facts and 'val' in run.facts.contents else 'train'}"


def _test_size(run: ComparedRun) -> int | None:
    """How many images are held out as test, of val where there is one, else of train."""
    contents = run.facts.contents if run.facts else {}
    if not contents or not run.config or "test" in contents:
        return None
    of, size = _counts(contents.get("val", contents["train"])), run.value("data.test_size")
    return count_of(HALF if size is None and "val" in contents else size, sum(of), len(of), MOST_TEST)


def _counts(classes: Mapping[str, tuple[int, str]]) -> list[int]:
    """How many images each class has; a class without any does not count."""
    return [count for count, _ in classes.values() if count]


def _digest(classes: Mapping[str, tuple[int, str]]) -> str:
    return next(iter(sorted(digest for _, digest in classes.values())), "")[:6]
