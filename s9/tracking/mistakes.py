"""The figure of a run's surest mistakes on test."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from s9.tracking.drawing import TEST, VAL, any_letters, place, printable, wrapped
from s9.tracking.folder import RunFolder

COLUMNS = 8
CELL, IMAGE, GAP = 1.6, 1.2, 0.12  # inches
SIZE = 7.5  # points
LINE = 1.3 * SIZE / 72  # inches
TITLE = 0.6  # inches


@any_letters()
def misclassified_grid(folder: RunFolder) -> Figure:
    """The mistakes on test that the network was surest of, each with its classes and file name."""
    stored = folder.read_predictions()
    labels, preds, images = stored["labels"], stored["probs"].argmax(1), stored["worst_images"]
    texts = [_captions(stored, int(index), int(preds[index])) for index in stored["worst"]]
    above, below = (max((text[i].count("\n") + 1 for text in texts), default=1) for i in (0, 1))
    scale = IMAGE / max(images.shape[1:3])
    half, deep = scale * images.shape[2] / 2, scale * images.shape[1]
    height = deep + (above + below + 1) * LINE + GAP
    columns = min(COLUMNS, max(4, len(texts)))
    width, rows = columns * CELL, max(1, -(-len(texts) // columns))
    figure = Figure(figsize=(width, TITLE + rows * height))
    axes = place(figure, 0, TITLE, (width, rows * height))
    style: dict[str, Any] = {"ha": "center", "fontsize": SIZE, "parse_math": False, "linespacing": 1.1}
    for number, (image, (true, predicted, file)) in enumerate(zip(images, texts, strict=True)):
        x, y = (number % columns + 0.5) * CELL, number // columns * height + above * LINE
        axes.imshow(image, extent=(x - half, x + half, y + deep, y), aspect="auto")
        axes.text(x, y - 0.03, true, va="bottom", color=TEST, **style)
        axes.text(x, y + deep + 0.03, predicted, va="top", color=VAL, **style)
        axes.text(x, y + deep + 0.03 + (predicted.count("\n") + 1) * LINE, file, va="top", color="#555555", **style)
    axes.set(xlim=(0, width), ylim=(rows * height, 0))
    axes.set_axis_off()
    wrong = int((preds != labels).sum())
    middle: dict[str, Any] = {"x": 0.5, "ha": "center", "va": "top"}
    title = f"{wrong:,} of {len(preds):,} test images wrong{'; the surest first' if wrong else ''}"
    figure.text(y=1 - 0.1 / figure.get_figheight(), s=title, fontsize=10, **middle)
    said = "above: true class; below: predicted class with its probability, file name" if wrong else ""
    figure.text(y=1 - 0.3 / figure.get_figheight(), s=said, fontsize=8, **middle)
    return figure


def _captions(stored: dict[str, np.ndarray], index: int, pred: int) -> tuple[str, str, str]:
    """(true class, predicted class with its probability, file name) of a test image, each as wide as its place."""
    classes, name = stored["class_names"], str(stored["names"][index])
    true = str(classes[stored["labels"][index]])
    sure = f"{printable(classes[pred])}, {100 * stored['probs'][index, pred]:.0f} %"
    file = printable(name.removeprefix(f"{true}/"))  # the class is said above the image
    room = CELL - GAP
    return wrapped(printable(true), room, SIZE, 2), wrapped(sure, room, SIZE, 2), wrapped(file, room, SIZE, 1)
