"""The figures of a run, drawn from the files in its folder and nothing else, so that any run can be drawn again."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from s9.tracking.folder import RunFolder

log = logging.getLogger("s9")

DPI = 120
# The training loss is on augmented images and possibly smoothed labels, so its scale is not that of val's loss.
TRAIN_LABELS = {"loss": "train (as optimised)", "accuracy": "train (augmented)"}
MOST_NAMED = 30  # classes whose names are written beside the confusion matrix
TRAIN, VAL, TEST = "#4c78a8", "#e4572e", "#3a7d44"


def draw_all(folder: RunFolder, failed: Callable[[str], object] = log.warning) -> list[Path]:
    """Draws each figure whose source file exists, independently of the others; returns the pictures' paths.

    Args:
        failed: called with one line for each figure that cannot be drawn.
    """
    folder.figures.mkdir(exist_ok=True)
    drawn = []
    for draw, source in (
        (augmentation_grid, folder.samples),
        (curves, folder.metrics),
        (misclassified_grid, folder.predictions),
        (confusion_matrix, folder.predictions),
    ):
        if source.exists():
            try:
                drawn.append(draw(folder))
            except Exception as error:  # a figure that fails must not fail the run
                reason = " ".join(str(error).split()) or type(error).__name__
                name = draw.__name__.replace("_", " ")
                failed(f"{name} cannot be drawn ({reason}); later: python -m s9.report run={folder}")
    return drawn


def _save(figure: Figure, folder: RunFolder, name: str) -> Path:
    path = folder.figures / f"{name}.png"
    with warnings.catch_warnings():  # a class name in letters that matplotlib's font lacks is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})  # the same files give the same picture
    return path


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _mosaic(images: np.ndarray, gap_y: int, gap_x: int) -> np.ndarray:
    """uint8 (rows, columns, H, W, 3) as one picture with gaps; an Axes for each image takes seconds to lay out."""
    rows, columns, height, width, _ = images.shape
    picture = np.full((rows * (height + gap_y) - gap_y, columns * (width + gap_x) - gap_x, 3), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        y, x = row * (height + gap_y), column * (width + gap_x)
        picture[y : y + height, x : x + width] = images[row, column]
    return picture


def augmentation_grid(folder: RunFolder) -> Path:
    """One column per image: the original, then the image as training sees it in the first epochs."""
    samples = folder.read_arrays(folder.samples)
    count, epochs = samples["augmented"].shape[:2]
    images = np.concatenate([samples["original"][None], samples["augmented"].swapaxes(0, 1)])
    size = images.shape[2]
    gap = max(1, size // 16)
    figure = Figure(figsize=(1.05 * count + 0.7, 1.05 * (epochs + 1) + 0.5), layout="constrained")
    axes = figure.subplots()
    _show(axes, _mosaic(images, gap, gap))
    names = [_short(str(name), 14) for name in samples["names"]]
    axes.set_xticks(_middles(count, size, gap), names, fontsize=8, parse_math=False)
    axes.set_yticks(
        _middles(epochs + 1, size, gap), ["as it is", *(f"epoch {n + 1}" for n in range(epochs))], fontsize=8
    )
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    return _save(figure, folder, "augmentation")


def _middles(count: int, size: int, gap: int) -> np.ndarray:
    """The centres of a mosaic's images along one side, in pixels of the mosaic."""
    return np.arange(count) * (size + gap) + (size - 1) / 2


def curves(folder: RunFolder) -> Path:
    """Loss and accuracy of train and val over the epochs, and of the final weights on test."""
    metrics = folder.read_metrics()
    summary = folder.read_summary() if folder.summary.exists() else {}
    epochs = [m["epoch"] for m in metrics]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("loss (nats)", "accuracy"), strict=True):
        axes.plot(epochs, [m[f"train/{key}"] for m in metrics], color=TRAIN, marker=".", label=TRAIN_LABELS[key])
        if metrics and f"val/{key}" in metrics[0]:
            axes.plot(epochs, [m[f"val/{key}"] for m in metrics], color=VAL, marker=".", label="val")
        if "test" in summary:
            value = summary["test"][key]
            text = f"test {100 * value:.2f} %" if key == "accuracy" else f"test {value:.3f}"
            axes.plot(epochs[-1:], [value], color=TEST, marker="*", markersize=11, linestyle="none", label=text)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        if key == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return _save(figure, folder, "curves")


def misclassified_grid(folder: RunFolder, columns: int = 8) -> Path:
    """The mistakes on test that the network was surest of, with the true and the predicted class."""
    stored = folder.read_arrays(folder.predictions)
    names, worst = stored["class_names"], stored["worst"]
    preds = stored["probs"].argmax(1)
    rows = max(1, -(-len(worst) // columns))
    height, width = stored["worst_images"].shape[1:3]
    gap_y, gap_x = round(0.55 * height), max(1, width // 6)  # a line of text is above and below each image
    images = np.full((rows * columns, height, width, 3), 255, np.uint8)
    images[: len(worst)] = stored["worst_images"]
    figure = Figure(figsize=(1.35 * columns, 1.75 * rows + 0.5), layout="constrained")
    axes = figure.subplots()
    _show(axes, _mosaic(images.reshape(rows, columns, height, width, 3), gap_y, gap_x))
    for place, index in enumerate(worst):
        x = _middles(columns, width, gap_x)[place % columns]
        y = place // columns * (height + gap_y)
        label, pred = stored["labels"][index], preds[index]
        sure = f"{100 * stored['probs'][index, pred]:.0f} %"
        style: dict[str, Any] = {"ha": "center", "fontsize": 8, "parse_math": False}
        axes.text(x, y - 0.06 * height, _short(str(names[label]), 16), va="bottom", color=TEST, **style)
        axes.text(x, y + 1.03 * height, f"{_short(str(names[pred]), 12)}, {sure}", va="top", color=VAL, **style)
    wrong = int((preds != stored["labels"]).sum())
    figure.suptitle(
        f"{wrong:,} of {len(preds):,} test images wrong; the surest first (true above, predicted below)", fontsize=10
    )
    return _save(figure, folder, "misclassified")


def confusion_matrix(folder: RunFolder) -> Path:
    """Counts of test images by true class (rows) and predicted class (columns), shaded by the fraction of the row.

    For more than MOST_NAMED classes the matrix keeps its size without names, and the most confused pairs are listed.
    """
    from sklearn.metrics import confusion_matrix as count_pairs

    stored = folder.read_arrays(folder.predictions)
    names = [str(name) for name in stored["class_names"]]
    counts = count_pairs(stored["labels"], stored["probs"].argmax(1), labels=range(len(names)))
    part = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    many = len(names) > MOST_NAMED
    side = 2.2 + 0.48 * min(len(names), 18 if many else MOST_NAMED)
    figure = Figure(figsize=(side + (5 if many else 0.6), side), layout="constrained")
    axes, *beside = figure.subplots(1, 2, width_ratios=(2, 1)) if many else [figure.subplots()]
    shown = axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 20:
        for row, column in np.ndindex(counts.shape):
            color = "white" if part[row, column] > 0.5 else "black" if counts[row, column] else "#bbbbbb"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=color)
    if not many:
        ticks = range(len(names))
        axes.set_xticks(ticks, names, rotation=45, ha="right", fontsize=8, parse_math=False)
        axes.set_yticks(ticks, names, fontsize=8, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"test accuracy {100 * np.trace(counts) / counts.sum():.2f} %", fontsize=10)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="part of the true class", format=PercentFormatter(1.0))
    if beside:
        _confused_pairs(beside[0], counts, names)
    return _save(figure, folder, "confusion")


def _confused_pairs(axes: Axes, counts: np.ndarray, names: list[str], most: int = 25) -> None:
    """Bars of the pairs (true, predicted) with the most mistakes."""
    pairs = most_confused(counts, most)
    labels = [f"{_short(names[row])} as {_short(names[column])}" for row, column, _ in pairs]
    axes.barh(range(len(pairs)), [count for _, _, count in pairs], color=VAL)
    axes.set_yticks(range(len(pairs)), labels, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("most confused (test images)", fontsize=10)


def most_confused(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(true, predicted, images) of the commonest mistakes in a confusion matrix (num_classes, num_classes)."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(place // len(wrong)), int(place % len(wrong))) for place in largest]
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
