"""The figures of a run, drawn from the files in its folder and nothing else, so that any run can be drawn again."""

import logging
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from s9.data.classes import tells_more
from s9.tracking.confusion import confusion_matrix
from s9.tracking.drawing import TEST, TRAIN, VAL, any_letters, place, printable, save, show, wrapped
from s9.tracking.folder import RunFolder
from s9.tracking.insight import LOOKS
from s9.tracking.lr_range import FIGURE, has_range_test
from s9.tracking.lr_range_figure import lr_range
from s9.tracking.mistakes import misclassified_grid

log = logging.getLogger("s9")

# The training loss is on augmented images and possibly smoothed labels, so its scale is not that of val's loss.
TRAIN_LABELS = {"loss": "train (as optimised)", "accuracy": "train (augmented)"}
CELL = 1.05  # inches: an image of the augmentation grid, with its gap


def draw_all(folder: RunFolder, failed: Callable[[str], object] = log.warning) -> list[Path]:
    """Draws each figure whose source file exists, independently of the others; returns the pictures' paths.

    Args:
        failed: called with one line for each figure that cannot be drawn.
    """
    folder.figures.mkdir(exist_ok=True)
    drawn = []
    for draw, source, name in (
        (augmentation_grid, folder.samples, "augmentation"),
        (curves, folder.metrics, "curves"),
        (misclassified_grid, folder.predictions, "misclassified"),
        (confusion_matrix, folder.predictions, "confusion"),
        *((draw, folder.insight, name) for name, draw in LOOKS.items()),
        *([(lr_range, folder.metrics, FIGURE)] if has_range_test(folder) else []),
    ):
        if source.exists():
            try:
                drawn.append(save(draw(folder), folder.figures / f"{name}.png"))
            except Exception as error:  # a figure that fails must not fail the run
                reason = " ".join(str(error).split()) or type(error).__name__
                what = draw.__name__.replace("_", " ")
                failed(f"{what} cannot be drawn ({reason}); later: python -m s9.report {shlex.quote(f'run={folder}')}")
    return drawn


def _mosaic(images: np.ndarray, gap: int) -> np.ndarray:
    """uint8 (rows, columns, H, W, 3) as one picture with gaps; an Axes for each image takes seconds to lay out."""
    rows, columns, height, width, _ = images.shape
    picture = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        y, x = row * (height + gap), column * (width + gap)
        picture[y : y + height, x : x + width] = images[row, column]
    return picture


SPACE = 0.07  # inches between the originals and what training sees


@any_letters()
def augmentation_grid(folder: RunFolder) -> Figure:
    """One column per image: the whole image as it is, then as training sees it in the first epochs."""
    samples = folder.read_arrays(folder.samples)
    original, augmented = samples["original"], samples["augmented"]
    count, epochs = augmented.shape[:2]
    names = [wrapped(printable(name), 0.93 * CELL, 8, 3) for name in samples["names"]]
    head = 0.2 + 0.14 * max(name.count("\n") + 1 for name in names)
    width = CELL * count
    rows = ((original[None], ["as it is"]), (augmented.swapaxes(0, 1), [f"epoch {n + 1}" for n in range(epochs)]))
    heights = [CELL * len(said) * images.shape[2] / images.shape[3] for images, said in rows]
    figure = Figure(figsize=(width + 0.8, sum(heights) + head + SPACE + 0.1))
    tops = (head, head + heights[0] + SPACE)
    for (images, said), top, height in zip(rows, tops, heights, strict=True):  # originals have more pixels
        axes = place(figure, 0.7, top, (width, height))
        high, wide = images.shape[2:4]
        gap = max(1, wide // 16)
        show(axes, _mosaic(images, gap))
        shown = names if top == head else [""] * count
        axes.set_xticks(_middles(count, wide, gap), shown, fontsize=8, parse_math=False)
        axes.set_yticks(_middles(len(said), high, gap), said, fontsize=8)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    return figure


def _middles(count: int, size: int, gap: int) -> np.ndarray:
    """The centres of a mosaic's images along one side, in pixels of the mosaic."""
    return np.arange(count) * (size + gap) + (size - 1) / 2


def _balanced(metrics: list[dict[str, float]]) -> list[tuple[float, float]]:
    """(epoch, balanced accuracy on val) of the epochs that have one; empty where it is as good as the accuracy."""
    known = [m for m in metrics if "val/balanced_accuracy" in m]  # runs from before December 2026 have none
    if not any(tells_more(m["val/accuracy"], m["val/balanced_accuracy"]) for m in known):
        return []
    return [(m["epoch"], m["val/balanced_accuracy"]) for m in known]


def curves(folder: RunFolder) -> Figure:
    """Loss and accuracy of train and val over the epochs, and of the final weights on test."""
    metrics = folder.read_metrics()
    summary = folder.read_summary() if folder.summary.exists() else {}
    epochs = [m["epoch"] for m in metrics]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("loss (nats)", "accuracy"), strict=True):
        axes.plot(epochs, [m[f"train/{key}"] for m in metrics], color=TRAIN, marker=".", label=TRAIN_LABELS[key])
        if metrics and f"val/{key}" in metrics[0]:
            axes.plot(epochs, [m[f"val/{key}"] for m in metrics], color=VAL, marker=".", label="val")
        if key == "accuracy" and (balanced := _balanced(metrics)):
            axes.plot(*zip(*balanced, strict=True), color=VAL, linestyle="--", marker="x", label="val, balanced")
        if "test" in summary:
            value = summary["test"][key]
            text = f"test {100 * value:.2f} %" if key == "accuracy" else f"test {value:.3f}"
            axes.plot(epochs[-1:], [value], color=TEST, marker="*", markersize=11, linestyle="none", label=text)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # of one epoch too
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        if key == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure
