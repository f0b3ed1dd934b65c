"""The figure of which classes a run confuses on test: readable for two classes and for thousands."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from s9.data.classes import tells_more
from s9.tracking.drawing import VAL, any_letters, fitted, place, printable, width_of
from s9.tracking.folder import RunFolder

MOST_NAMED = 30  # classes whose names and counts are written at the matrix
MOST_SQUARES = 250  # on a side of the matrix
MOST_PAIRS = 25  # confused pairs that are listed for more classes
CELL, SMALLEST, LARGEST = 0.46, 2.8, 8.6  # inches: a class's side, and the sides of a matrix
PAIRS_WIDTH = 4.6  # inches
SIZE = 8  # points
TURNED, LONGEST = 1.1, 3.4  # inches: longer names have numbers below the matrix; still longer ones are shortened


@any_letters()
def confusion_matrix(folder: RunFolder) -> Figure:
    """Counts of test images by true class (rows) and predicted class (columns), shaded by the fraction of the row.

    For more than MOST_NAMED classes the axes have the numbers of the classes, and the most confused pairs are listed.
    """
    stored = folder.read_predictions()
    names = [printable(name) for name in stored["class_names"]]
    count = len(names)
    pairs = stored["labels"] * count + stored["probs"].argmax(1)
    counts = np.bincount(pairs, minlength=count**2).reshape(count, count)
    many = count > MOST_NAMED
    side = LARGEST if many else max(SMALLEST, CELL * count)
    rows, columns = ([], []) if many else _tick_labels(names, counts.sum(1))
    left = 0.5 + max((width_of(row, SIZE) for row in rows), default=0.4)
    foot = max(width_of(column, SIZE) for column in columns) if columns == names else 0.0
    width = left + side + 1.1 + (PAIRS_WIDTH if many else 0)
    figure = Figure(figsize=(width, side + foot + 0.9))
    axes = place(figure, left, 0.4, (side, side))
    part = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    said = _scores(counts)
    pooled = -(-count // MOST_SQUARES)  # a single pair of a thousand classes would be too small to be seen
    if pooled > 1:
        said += f"; each square is the greatest of {pooled} x {pooled} pairs"
    end = pooled * -(-count // pooled) - 0.5
    shown = axes.imshow(
        _greatest(part, pooled), "Blues", norm=PowerNorm(0.5 if many else 1, 0, 1), extent=(-0.5, end, end, -0.5)
    )
    numbers = " (number of the class)" if many else ""
    axes.set(xlabel=f"predicted{numbers}", ylabel=f"true{numbers or ' (test images)'}")
    axes.set_title(said, fontsize=10)
    bar = place(figure, left + side + 0.15, 0.4, (0.15, side))
    figure.colorbar(shown, cax=bar, label="part of the true class", format=PercentFormatter(1.0))
    if many:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        _list_pairs(place(figure, left + side + 1.2, 0.4, (PAIRS_WIDTH - 0.2, side)), counts, names)
    else:
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if foot else {}
        axes.set_xticks(range(count), columns, fontsize=SIZE, parse_math=False, **turned)
        axes.set_yticks(range(count), rows, fontsize=SIZE, parse_math=False)
        _write_counts(axes, counts, part)
    return figure


def _scores(counts: np.ndarray) -> str:
    """The accuracy on test, and the balanced accuracy where it tells more."""
    images = counts.sum(1)
    accuracy = np.trace(counts) / counts.sum()
    balanced = np.mean(np.diag(counts)[images > 0] / images[images > 0])
    more = f", balanced {100 * balanced:.2f} %" if tells_more(accuracy, balanced) else ""
    return f"test accuracy {100 * accuracy:.2f} %{more}"


def _tick_labels(names: list[str], images: np.ndarray) -> tuple[list[str], list[str]]:
    """(of the rows, of the columns): names, at the rows with the test images; columns of long names have numbers."""
    if max(width_of(name, SIZE) for name in names) <= TURNED:
        return [f"{name} ({count:,})" for name, count in zip(names, images, strict=True)], names
    numbers = [str(n) for n in range(len(names))]
    short = (fitted(name, LONGEST, SIZE) for name in names)
    return [f"{name} ({count:,})  {n}" for name, count, n in zip(short, images, numbers, strict=True)], numbers


def _greatest(part: np.ndarray, pooled: int) -> np.ndarray:
    """The greatest value of each square of pooled x pooled values."""
    starts = range(0, len(part), pooled)
    greatest: np.ndarray = np.maximum.reduceat(np.maximum.reduceat(part, starts, axis=0), starts, axis=1)
    return greatest


def _write_counts(axes: Axes, counts: np.ndarray, part: np.ndarray) -> None:
    size = min(SIZE, 32 / len(f"{counts.max()}"))
    for row, column in np.ndindex(counts.shape):
        color = "white" if part[row, column] > 0.5 else "black" if counts[row, column] else "#bbbbbb"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=color)


def _list_pairs(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    """Bars of the pairs (true, predicted) with the most mistakes, each below its classes' numbers and names."""
    pairs = most_confused(counts, MOST_PAIRS)
    axes.barh(np.arange(len(pairs)) + 0.25, [count for *_, count in pairs], height=0.3, color=VAL)
    room = (PAIRS_WIDTH - 0.3 - width_of("  as  ", SIZE)) / 2
    for number, (row, column, _) in enumerate(pairs):
        true, predicted = (fitted(f"{of} {names[of]}", room, SIZE) for of in (row, column))
        axes.text(
            0.01,
            number - 0.02,
            f"{true}  as  {predicted}",
            transform=axes.get_yaxis_transform(),
            va="bottom",
            fontsize=SIZE,
            parse_math=False,
        )
    axes.set(ylim=(MOST_PAIRS - 0.5, -0.5), yticks=[])
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title("most confused (test images)", fontsize=10)


def most_confused(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(true, predicted, images) of the commonest mistakes in a confusion matrix (num_classes, num_classes)."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(place // len(wrong)), int(place % len(wrong))) for place in largest]
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]
