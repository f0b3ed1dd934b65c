"""The page of a comparison: the same facts as on the screen, all curves, and every image on which the runs disagree."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from s9.pages.compare_facts import Comparison
from s9.pages.compare_words import INTERVAL, METHOD, p_of, points_of
from s9.pages.page import PAGE, picture, write_page
from s9.system.errors import is_number
from s9.tracking.compared_run import ComparedRun
from s9.tracking.paired import Pair

CURVES = ("val/accuracy", "val/loss", "train/accuracy", "train/loss", "lr")
PLAIN = 200  # images in the table that can be read without JavaScript
THUMBNAIL = 64  # pixels on a side, at most
DIGITS = 5  # of a curve's numbers
PAIR_COLUMNS = ("first", "second", "only first right", "only second right", "lead of first, points")


def write_comparison(found: Comparison, path: Path) -> None:
    """Raises OSError where the page cannot be written."""
    same = found.same
    right = _who_is_right(found)
    disputed = sorted(right, key=lambda index: -_surest_mistake(found, index))
    labels = [run.label for run in found.runs]
    write_page(
        path,
        "compare.html",
        title=" and ".join(run.name for run in found.runs) if len(labels) == 2 else f"{len(labels)} runs compared",
        data={
            "runs": [{"label": run.label, "name": f"{run.label}: {run.name}"} for run in found.runs],
            "curves": {key: [_curve(run, key) for run in found.runs] for key in _recorded(found.runs)},
            "tested": list(same.labels),
            "images": [_image_row(found, index, right[index]) for index in disputed],
            "pictures": {str(index): _thumbnail(same.pictures[index]) for index in disputed if index in same.pictures},
            "pairs": [_pair_row(pair) for pair in found.pairs],
        },
        found=found,
        labels=labels,
        curves=_recorded(found.runs),
        run_rows=[_run_row(run, path) for run in found.runs],
        kinds=_kinds(found),
        key_columns=[("key", False), *((label, False) for label in labels)],
        result_columns=[("", False), *((label, True) for label in labels)],
        key_rows=[(one.key, *one.values) for one in found.keys if not one.free],
        free_rows=[(one.key, *one.values) for one in found.keys if one.free],
        result_rows=[(name, *row) for name, row in found.results.items()],
        pair_columns=[(name, True) for name in (*PAIR_COLUMNS, "95 % interval", "p", "p by Holm")],
        pair_rows=[_pair_texts(pair) for pair in found.pairs],
        image_columns=[(name, False) for name in ("image", "true class", "right", *same.labels)],
        image_rows=[_image_texts(found, index, right[index]) for index in disputed[:PLAIN]],
        disputed=len(disputed),
        left=max(0, len(disputed) - PLAIN),
        method=METHOD,
        interval=INTERVAL,
    )


def _run_row(run: ComparedRun, page: Path) -> dict[str, Any]:
    """link: to the run's own page, from where this page lies; None where there is none."""
    own = run.folder.path / PAGE
    link = None
    if own.is_file():
        relative = os.path.relpath(own.resolve(), page.absolute().parent.resolve())
        link = quote(os.fsencode(relative))
        link = link if link.startswith(".") else f"./{link}"
    command = run.status.get("command") or run.summary.get("command") or ""
    return {
        "label": run.label,
        "folder": str(run.folder),
        "name": run.name,
        "state": run.state,
        "link": link,
        "command": str(command),
    }


def _recorded(runs: Sequence[ComparedRun]) -> list[str]:
    return [key for key in CURVES if any(is_number(line.get(key)) for run in runs for line in run.metrics)]


def _curve(run: ComparedRun, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of each epoch that has both."""
    return [
        (line["epoch"], float(f"{line[key]:.{DIGITS}g}"))
        for line in run.metrics
        if is_number(line.get("epoch")) and is_number(line.get(key))
    ]


def _who_is_right(found: Comparison) -> Mapping[int, str]:
    """For each image on which not all are right: the labels of those that are, as `A C`, or none."""
    same = found.same
    marked = {}
    for index in (*same.disputed(), *same.wrong_by_all()):
        labels = [label for label, is_right in zip(same.labels, same.right[:, index], strict=True) if is_right]
        marked[int(index)] = " ".join(labels) or "none"
    return marked


def _surest_mistake(found: Comparison, index: int) -> float:
    """The highest probability that a run gives to a wrong class."""
    same = found.same
    return float(np.nan_to_num(same.probs[:, index])[~same.right[:, index]].max())


def _kinds(found: Comparison) -> list[tuple[str, str]]:
    """What the list of images can be cut down to: (who is right, the words with the count)."""
    same = found.same
    only = [(label, f"only {label} is right ({len(same.only(label)):,})") for label in same.labels]
    return [*only, ("none", f"all are wrong ({len(same.wrong_by_all()):,})")]


def _image_row(found: Comparison, index: int, right: str) -> list[Any]:
    """[index, name, true class, who is right, [class, probability in percent] of each run]"""
    same = found.same
    said = [
        [str(predicted), round(100 * float(prob)) if np.isfinite(prob) else None]
        for predicted, prob in zip(same.predicted[:, index], same.probs[:, index], strict=True)
    ]
    return [index, str(same.names[index]), str(same.true[index]), right, said]


def _image_texts(found: Comparison, index: int, right: str) -> list[str]:
    _, name, true, _, said = _image_row(found, index, right)
    return [name, true, right, *(f"{predicted} ({prob} %)" for predicted, prob in said)]


def _thumbnail(image: np.ndarray) -> str:
    """Every so many pixels of a larger image."""
    step = -(-max(image.shape[:2]) // THUMBNAIL)
    return picture(np.ascontiguousarray(image[::step, ::step]))


def _pair_row(pair: Pair) -> list[Any]:
    counts = [pair.first, pair.second, pair.only_first, pair.only_second]
    return [*counts, pair.difference, pair.low, pair.high, pair.p, pair.adjusted, pair.differs]


def _pair_texts(pair: Pair) -> list[str]:
    interval = f"{points_of(pair.low)} to {points_of(pair.high)}"
    ps = [p_of(p).removeprefix("= ") for p in (pair.p, pair.adjusted)]
    return [
        pair.first,
        pair.second,
        f"{pair.only_first:,}",
        f"{pair.only_second:,}",
        points_of(pair.difference),
        interval,
        *ps,
    ]
