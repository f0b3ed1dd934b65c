"""What the figures share: places in inches, names that fit their places, and how a picture is saved."""

import warnings
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

DPI = 120
TRAIN, VAL, TEST = "#4c78a8", "#e4572e", "#3a7d44"
MARGIN = 1.03  # letters are drawn on whole pixels, and so can be wider than they are
BREAKS = " _-/,"  # a name is continued on the next line after one of these, if it has one


@contextmanager
def any_letters() -> Iterator[None]:
    """Draws letters that matplotlib's font lacks as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield


def save(figure: Figure, path: Path) -> Path:
    """Writes the picture; the same figure gives the same bytes."""
    with any_letters():
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def place(figure: Figure, left: float, top: float, size: tuple[float, float]) -> Axes:
    """New axes at a place of the figure. left, top, size (width, height): inches, from the upper left corner."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, 1 - (top + size[1]) / height, size[0] / width, size[1] / height))


def show(axes: Axes, image: np.ndarray) -> None:
    """The image alone, without axes."""
    axes.imshow(image, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def printable(name: object) -> str:
    """A name as one line that can be drawn: line ends, control characters and bytes that are not UTF-8 are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(name))


def width_of(text: str, size: float) -> float:
    """The width of one line in inches, for letters of `size` points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72 * MARGIN


def fitted(text: str, width: float, size: float) -> str:
    """The text, shortened in its middle if it is wider than `width` inches: names differ at their ends."""
    if width_of(text, size) <= width:
        return text
    kept = bisect_right(range(len(text)), width, key=lambda kept: width_of(_cut(text, kept), size)) - 1
    return _cut(text, max(kept, 0))


def _cut(text: str, kept: int) -> str:
    last = kept - kept // 2
    return f"{text[: kept // 2]}…{text[len(text) - last :]}"


def wrapped(text: str, width: float, size: float, lines: int) -> str:
    """The text on at most `lines` lines of `width` inches, the last of which is shortened if it must be."""
    made: list[str] = []
    while len(made) < lines - 1 and width_of(text, size) > width:
        most = bisect_right(range(len(text)), width, key=lambda count: width_of(text[:count], size)) - 1
        after = max(text.rfind(mark, 0, most) for mark in BREAKS) + 1
        end = after if after > most // 3 else max(most, 1)
        made.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return "\n".join([*made, fitted(text, width, size)])
