"""The figures of what a network looks at, drawn from the arrays in `insight`: Grad-CAM, filters, maps, field."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from s9.tracking.drawing import TEST, VAL, any_letters, place, printable, show, wrapped
from s9.tracking.folder import RunFolder

HEAT = colormaps["inferno"]
TITLE = 0.7  # inches: a title and two lines below it
SIZE = 7.5  # points
LINE = 1.3 * SIZE / 72  # inches
TILE, GAP, COLUMNS = 1.15, 0.06, 3  # of Grad-CAM: inches, and mistakes in a row
MAP = 0.8  # inches: one feature map
FILTER, IN_A_ROW = 0.9, 8  # inches, and filters in a row
EFFECT = "#54d1db"
SHARP = 96  # pixels
DEAD = 1e-3  # of the largest weight: of filters with less, weight decay leaves noise, too weak even for batch norm


def _titled(width: float, height: float, title: str, below: str) -> Figure:
    """A figure with room for `height` inches below its title."""
    figure = Figure(figsize=(width, TITLE + height))
    style: dict[str, Any] = {"x": 0.5, "ha": "center", "va": "top", "parse_math": False}
    figure.text(y=1 - 0.1 / (TITLE + height), s=title, fontsize=10, **style)
    figure.text(y=1 - 0.32 / (TITLE + height), s=below, fontsize=8, **style)
    return figure


def _row(figure: Figure, images: np.ndarray, at: tuple[float, float], tile: float) -> None:
    """Images, uint8 (N, H, W, 3), side by side: one picture, since an Axes for each takes seconds.

    Args:
        at: left and top in inches. tile: the width of an image in inches.
    """
    times = -(-SHARP // images.shape[2])  # so that the gap is not rounded much
    large = images.repeat(times, axis=1).repeat(times, axis=2)
    gap = round(GAP / tile * large.shape[2])
    picture = np.concatenate(np.pad(large, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255), axis=1)[:, :-gap]
    scale = tile / large.shape[2]
    show(place(figure, *at, (scale * picture.shape[1], scale * picture.shape[0])), picture)


@any_letters()
def gradcam(folder: RunFolder) -> Figure:
    """Each of the surest mistakes as it is, and with what speaks for the predicted and for the true class."""
    stored = folder.read_arrays(folder.insight)
    images, cams = stored["mistakes"], stored["mistake_cams"]
    if not len(images):
        return _titled(6, 2, "Grad-CAM of mistakes: none, all test images are right", "")
    columns = min(COLUMNS, max(2, len(images)))
    block, deep = 3 * TILE + 4 * GAP + 0.15, TILE * images.shape[1] / images.shape[2]
    height = deep + 3 * LINE + 0.15
    title = "Grad-CAM of the surest mistakes: where the network sees the class that it predicts, and the true class"
    below = "bright: speaks for the class (each picture scaled to its own maximum); dark: does not"
    side, size = int(stored["block_shapes"][-1][1]), int(stored["image_size"])
    below += f"\nthe last map has {side} x {side} positions, spread over the image's {size} x {size} pixels"
    width = columns * block + 0.1
    figure = _titled(width, -(-len(images) // columns) * height, title, below)
    for number, (image, pair) in enumerate(zip(images, cams, strict=True)):
        left, top = 0.1 + number % columns * block, TITLE + number // columns * height
        texts = _captions(stored, number)
        _row(figure, np.stack([image, *(overlaid(image, cam) for cam in pair)]), (left, top), TILE)
        for tile, (text, colour) in enumerate(zip(texts, ("#555555", VAL, TEST), strict=True)):
            middle, below = left + tile * (TILE + GAP) + TILE / 2, top + deep + 0.04
            style: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False, "linespacing": 1.1}
            figure.text(middle / width, 1 - below / figure.get_figheight(), text, fontsize=SIZE, color=colour, **style)
    return figure


def _captions(stored: dict[str, np.ndarray], number: int) -> tuple[str, str, str]:
    """(file name, predicted class, true class) with their probabilities, each as wide as its tile."""
    (predicted, true), probs = stored["mistake_classes"][number], stored["mistake_probs"][number]
    name = printable(str(stored["mistake_names"][number]).removeprefix(f"{true}/"))
    said = (f"predicted {printable(predicted)}", f"is {printable(true)}")
    second, third = (f"{wrapped(text, TILE, SIZE, 2)}\n{_share(of)}" for text, of in zip(said, probs, strict=True))
    return wrapped(name, TILE, SIZE, 3), second, third


def _share(probability: float) -> str:
    return "< 1 %" if probability < 0.005 else f"{100 * probability:.0f} %"


def overlaid(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """A Grad-CAM, uint8 (H, W), over its image, uint8 (H, W, 3), in grey."""
    grey = image.mean(axis=2, keepdims=True)
    return (0.4 * grey + 0.6 * 255 * HEAT(cam)[..., :3]).round().astype(np.uint8)


@any_letters()
def filters(folder: RunFolder) -> Figure:
    """The first layer's filters as small images."""
    stored = folder.read_arrays(folder.insight)
    found, count = stored["filters"].astype(np.float32), int(stored["filter_count"])
    columns = min(IN_A_ROW, len(found))
    height = -(-len(found) // columns) * FILTER
    size = "{} x {}".format(*found.shape[2:])
    which = f"{count} filters" if len(found) == count else f"strongest {len(found)} of {count} filters"
    title = f"The first layer's {which} of {size} pixels, the strongest first"
    grey = "" if found.shape[1] == 3 else " (of one colour channel each)"
    below = f"grey: no weight{grey}; each is scaled to its own largest weight"
    largest = np.abs(found).max(axis=(1, 2, 3), keepdims=True)
    if dead := np.count_nonzero(dies := largest <= DEAD * largest.max()):
        below += f"\nall grey: a dead filter ({dead} here), whose weights are all below 1/{1 / DEAD:.0f} of the largest"
    scaled = np.where(dies, 0, found / np.where(dies, 1, largest))
    width = max(columns * FILTER + 0.2, 5.5)
    figure = _titled(width, height + 0.1, title, below)
    pixels = (127.5 + 127.5 * scaled).round().astype(np.uint8).transpose(0, 2, 3, 1)
    images = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    for row in range(0, len(images), columns):
        at = ((width - columns * FILTER + GAP) / 2, TITLE + row // columns * FILTER)
        _row(figure, images[row : row + columns], at, FILTER - GAP)
    return figure


@any_letters()
def feature_maps(folder: RunFolder) -> Figure:
    """What one image becomes in each block: the channels with the largest mean."""
    stored = folder.read_arrays(folder.insight)
    blocks, shapes = stored["blocks"], stored["block_shapes"]
    maps = [stored[f"maps_{number}"] for number in range(len(blocks))]
    columns, left = max(map(len, maps)), 1.5
    width = max(left + columns * MAP + 0.1, 6.5)
    room = width - 0.4
    title = wrapped(f"Feature maps of {printable(stored['image_name'])}", room, 10, 1)
    figure = _titled(
        width,
        len(blocks) * MAP + MAP + 0.2,
        title,
        "each block's strongest channels, the strongest first; each from its smallest value (dark) to its largest",
    )
    _row(figure, stored["image"][None], (left, TITLE), MAP - GAP)
    name = wrapped(printable(stored["image_class"]), left - 0.2, SIZE, 2)
    _beside(figure, f"the image\n{name}", TITLE)
    for number, (block, (channels, pixels), of_block) in enumerate(zip(blocks, shapes, maps, strict=True)):
        top = TITLE + MAP + 0.1 + number * MAP
        said = f"{len(of_block)} of {channels} channels\n{pixels} x {pixels} pixels"
        _beside(figure, f"{wrapped(printable(block), left - 0.2, SIZE, 1)}\n{said}", top)
        _row(figure, (255 * HEAT(of_block)[..., :3]).round().astype(np.uint8), (left, top), MAP - GAP)
    return figure


def _beside(figure: Figure, text: str, top: float) -> None:
    """Text left of a row of maps."""
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {"fontsize": SIZE, "va": "center", "parse_math": False, "linespacing": 1.3}
    figure.text(0.1 / width, 1 - (top + (MAP - GAP) / 2) / height, text, **style)


@any_letters()
def receptive_field(folder: RunFolder) -> Figure:
    """What the middle position of the last map can see in an image, and what moves it in fact."""
    stored = folder.read_arrays(folder.insight)
    first, end = map(int, stored["field"])
    size, side = int(stored["image_size"]), int(stored["effective_side"])
    title = f"Receptive field: one position of the last map can see {end - first} x {end - first} pixels"
    below = (
        f"{'larger than the image of ' if end - first > size else 'the image has '}{size} x {size}; "
        f"in effect, 90 % of what moves that position lies within {side} x {side}"
    )
    figure = _titled(7.6, 3.7, title, below)
    theory, effect = (place(figure, at, TITLE + 0.25, (3.2, 3.2)) for at in (0.4, 4.0))
    whole, enlarged = ("\nthe small picture is the image", "\nthe image, enlarged") if end - first > size else ("", "")
    theory.set_title(f"in theory: the frame{whole}", fontsize=9)
    effect.set_title(f"in effect: the brighter, the more; frame: 90 %{enlarged}", fontsize=9)
    _image(theory, stored["image"], size)
    _frame(theory, (first + end) / 2, end - first, VAL)
    theory.set(xlim=(min(0, first) - 1, max(size, end) + 1), ylim=(max(size, end) + 1, min(0, first) - 1))
    # The square root, since most of the gradient is near the middle and the rest would be black.
    heat = np.round(255 * np.sqrt(stored["effective"].astype(np.float32))).astype(np.uint8)
    _image(effect, overlaid(stored["image"], heat), size)
    _frame(effect, (first + end) / 2, side, EFFECT)
    return figure


def _frame(axes: Axes, middle: float, side: int, colour: str) -> None:
    """A square around `middle`, in x and y."""
    corner = (middle - side / 2, middle - side / 2)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=1.6))


def _image(axes: Axes, image: np.ndarray, size: int) -> None:
    """The image in its own pixels: from 0 to `size`."""
    show(axes, image)
    axes.images[0].set_extent((0, size, size, 0))


# By the names of their pictures.
LOOKS = {"gradcam": gradcam, "filters": filters, "feature_maps": feature_maps, "receptive_field": receptive_field}
