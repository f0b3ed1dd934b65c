"""The figures of a run, drawn from the files in its folder and nothing else, so that any run can be drawn again."""

import logging
import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from s9.tracking import record

log = logging.getLogger("s9")

DPI = 120
# The loss of training has augmented images and, where set, smoothed labels: not the scale of val's.
TRAIN_LABELS = {"loss": "train (as optimised)", "accuracy": "train (augmented)"}
MOST_NAMED = 30  # classes whose names are written beside the confusion matrix
TRAIN, VAL, TEST = "#4c78a8", "#e4572e", "#3a7d44"


def draw_all(folder: Path) -> list[Path]:
    """Draws each figure whose file is there, by itself: one that cannot be drawn costs that one and a warning.

    Returns the paths of the pictures.
    """
    (folder / record.FIGURES).mkdir(exist_ok=True)
    drawn = []
    for draw, source in (
        (augmentation_grid, record.SAMPLES),
        (curves, record.METRICS),
        (misclassified_grid, record.PREDICTIONS),
        (confusion_matrix, record.PREDICTIONS),
    ):
        if (folder / source).exists():
            try:
                drawn.append(draw(folder))
            except Exception as error:  # no run is lost for want of a picture
                reason = " ".join(str(error).split()) or type(error).__name__
                log.warning(
                    "%s cannot be drawn (%s); later: python -m s9.report run=%s",
                    draw.__name__.replace("_", " "),
                    reason,
                    folder,
                )
    return drawn


def _save(figure: Figure, folder: Path, name: str) -> Path:
    path = folder / record.FIGURES / f"{name}.png"
    with warnings.catch_warnings():  # a class name in letters that matplotlib's font lacks is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})  # the same files give the same picture
    return path


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def augmentation_grid(folder: Path) -> Path:
    """A column an image: as it is, then as training sees it in the first epochs."""
    samples = record.read_arrays(folder / record.SAMPLES)
    count, epochs = samples["augmented"].shape[:2]
    figure = Figure(figsize=(1.05 * count + 0.7, 1.05 * (epochs + 1) + 0.5), layout="constrained")
    grid = figure.subplots(epochs + 1, count, squeeze=False)
    for column in range(count):
        _show(grid[0][column], samples["original"][column])
        grid[0][column].set_title(str(samples["names"][column]), fontsize=8, parse_math=False)
        for epoch in range(epochs):
            _show(grid[epoch + 1][column], samples["augmented"][column, epoch])
    for row in range(epochs + 1):
        grid[row][0].set_ylabel("as it is" if row == 0 else f"epoch {row}", fontsize=8)
    return _save(figure, folder, "augmentation")


def curves(folder: Path) -> Path:
    """Loss and accuracy of train and val over the epochs, and the one test of the final weights."""
    metrics = record.read_metrics(folder)
    summary = record.read_summary(folder) if (folder / record.SUMMARY).exists() else {}
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


def misclassified_grid(folder: Path, columns: int = 8) -> Path:
    """The mistakes on test that the network was surest of, with the true and the predicted class."""
    stored = record.read_arrays(folder / record.PREDICTIONS)
    names, worst = stored["class_names"], stored["worst"]
    preds = stored["probs"].argmax(1)
    rows = max(1, -(-len(worst) // columns))
    figure = Figure(figsize=(1.35 * columns, 1.75 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, index, image in zip(grid, worst, stored["worst_images"], strict=False):
        axes.set_axis_on()
        _show(axes, image)
        label, pred = stored["labels"][index], preds[index]
        sure = f"{100 * stored['probs'][index, pred]:.0f} %"
        axes.set_title(f"{names[label]}", fontsize=8, color=TEST, pad=3, parse_math=False)
        axes.set_xlabel(f"{names[pred]}, {sure}", fontsize=8, color=VAL, labelpad=2, parse_math=False)
    wrong = int((preds != stored["labels"]).sum())
    figure.suptitle(
        f"{wrong:,} of {len(preds):,} test images wrong; the surest first (true above, predicted below)", fontsize=10
    )
    return _save(figure, folder, "misclassified")


def confusion_matrix(folder: Path) -> Path:
    """Rows: the true class; columns: the predicted one; counts of test images, shaded by the row's part.

    Of more than MOST_NAMED classes the matrix keeps its size, without names, beside the pairs confused most often.
    """
    from sklearn.metrics import confusion_matrix as count_pairs

    stored = record.read_arrays(folder / record.PREDICTIONS)
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
