"""The picture of predictions: each image, and bars of its most probable classes next to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s9.data.sources.decode import original, quiet
from s9.inference.classifier import Prediction
from s9.inference.inputs import Given
from s9.system.errors import UserError
from s9.tracking.drawing import DPI, TRAIN, any_letters, fitted, place, printable, save

IMAGE, BARS, GAP, BETWEEN = 1.55, 2.7, 0.14, 0.35  # inches: an image, its bars, what is between them and the next image
TITLE, NAME, ROW = 0.35, 0.24, 0.29  # inches: heights of the title, of a file's name, and of a class with its bar
THICK, SIZE = 0.06, 8.0  # a bar in inches, letters in points
TRACK, GREY = "#e9ecef", "#555555"


def save_bars(
    predictions: Sequence[tuple[Given, Prediction]], path: Path, top: int, *, title: str, bits: int | None
) -> None:
    """Writes the picture of one or more images, each with its `top` classes. bits: as in `decode_pixels`.

    Raises:
        UserError: it cannot be written, or an image has gone in the meantime.
    """
    figure = bars_figure(predictions, top, title=title, bits=bits)
    try:
        save(figure, path)
    except OSError as error:
        raise UserError(f"save={path}: cannot be written ({error.strerror})") from None


@any_letters()
def bars_figure(predictions: Sequence[tuple[Given, Prediction]], top: int, *, title: str, bits: int | None) -> Figure:
    rows_each = min(top, len(predictions[0][1].names))
    columns = 1 + (len(predictions) > 3) + (len(predictions) > 10)
    rows = -(-len(predictions) // columns)
    width = columns * (IMAGE + GAP + BARS + BETWEEN) - BETWEEN
    tall = max(IMAGE, rows_each * ROW) + NAME + BETWEEN / 2
    figure = Figure(figsize=(width + BETWEEN, TITLE + rows * tall + BETWEEN / 2))
    axes = place(figure, BETWEEN / 2, TITLE, (width, rows * tall))
    for number, (image, prediction) in enumerate(predictions):
        row, column = divmod(number, columns)
        with quiet():
            pixels = original(Path(image.path), round(2 * IMAGE * DPI), bits)
        _entry(axes, image.name, pixels, prediction.top(top), at=(column * (IMAGE + GAP + BARS + BETWEEN), row * tall))
    axes.set(xlim=(0, width), ylim=(rows * tall, 0))
    axes.set_axis_off()
    text = fitted(printable(title), width, 10)
    figure.text(BETWEEN / 2 / figure.get_figwidth(), 1 - 0.1 / figure.get_figheight(), text, fontsize=10, va="top")
    return figure


def _entry(
    axes: Axes, name: str, pixels: np.ndarray, answers: Sequence[tuple[str, float]], *, at: tuple[float, float]
) -> None:
    """Draws one image with its bars. at: its upper left corner, in inches from that of the axes."""
    x, y = at
    style: dict[str, Any] = {"fontsize": SIZE, "va": "center", "parse_math": False}
    axes.text(x, y + NAME / 2, fitted(printable(name), IMAGE + GAP + BARS, SIZE), color=GREY, **style)
    y += NAME
    scale = IMAGE / max(pixels.shape[:2])
    high, wide = scale * pixels.shape[0], scale * pixels.shape[1]
    left = x + (IMAGE - wide) / 2
    axes.imshow(pixels, extent=(left, left + wide, y + high, y), aspect="auto")
    x += IMAGE + GAP
    for rank, (label, probability) in enumerate(answers):
        top, bar = y + rank * ROW, y + rank * ROW + 0.15
        percent = f"{100 * probability:.1f} %"
        axes.text(
            x, top + 0.075, fitted(printable(label), BARS - 0.65, SIZE), weight="bold" if not rank else None, **style
        )
        axes.text(x + BARS, top + 0.075, percent, ha="right", **style)
        for length, colour in ((1.0, TRACK), (probability, TRAIN)):
            axes.barh(bar + THICK / 2, length * BARS, height=THICK, left=x, color=colour)
