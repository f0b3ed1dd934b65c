"""The figures of a sweep as PNGs, drawn from what its page shows: cells, main effects and the curves of all runs."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

DPI = 120
MOST_CELLS = 40  # of a figure that names each one
MOST_NUMBERS = 150  # cells of a heat map with numbers in them
POINT, FAINT = "#1f5fbf", "#8a919e"
POINTS: dict[str, Any] = {"fmt": "o", "capsize": 3, "markersize": 5}
FRAME, RAMP = "#d1261e", "viridis"


def draw_sweep(data: Mapping[str, Any], place: Path, failed: Callable[[str], object]) -> list[Path]:
    """Draws cells.png, effects.png and curves.png, each where there is something to draw; returns the pictures' paths.

    Args:
        data: of `sweep_data.data_of`. failed: called with one line for each figure that cannot be drawn.
    """
    place.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in (("cells", _cells), ("effects", _effects), ("curves", _curves)):
        path = place / f"{name}.png"
        try:
            figure = draw(data)
            if figure is not None:
                _save(figure, path)
                drawn.append(path)
        except Exception as error:  # a figure that fails must not cost the page
            reason = " ".join(str(error).split()) or type(error).__name__
            failed(f"{path} cannot be drawn ({reason})")
    return drawn


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():  # a value in letters that matplotlib's font lacks is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})  # the same files give the same picture


def _cells(data: Mapping[str, Any]) -> Figure | None:
    scored = [cell for cell in data["cells"] if cell["mean"] is not None]
    if not scored or not data["charted"]:
        return None
    if len(data["charted"]) == 2:
        return _heat_map(data, scored)
    return _lines(data, scored) if len(data["charted"]) == 1 else _best_cells(data, scored)


def _lines(data: Mapping[str, Any], scored: list[dict[str, Any]]) -> Figure:
    """One key: the mean of each value, with its interval."""
    (key,) = data["charted"]
    cells = sorted(scored, key=lambda cell: cell["values"][key])
    names = [_short(data["levels"][key][cell["values"][key]]) for cell in cells]
    figure = Figure(figsize=(max(6.0, min(12.0, 1 + 0.7 * len(cells))), 3.6), layout="constrained")
    axes = figure.subplots()
    _points(axes, range(len(cells)), cells)
    axes.plot(range(len(cells)), [cell["mean"] for cell in cells], color=FAINT, linewidth=1, zorder=1)
    long = sum(map(len, names)) > 60
    axes.set_xticks(range(len(cells)), names, rotation=30 if long else 0, ha="right" if long else "center")
    _plain(axes.get_xticklabels())
    axes.set_xlabel(data["keys"][key], parse_math=False)
    _as_percent(axes.yaxis, "val accuracy, mean of seeds")
    axes.set_title(_bars(data, cells), fontsize=9)
    return figure


def _heat_map(data: Mapping[str, Any], scored: list[dict[str, Any]]) -> Figure:
    """Two keys: each cell's mean in its colour; cells that cannot be told from the best have a frame."""
    across, down = sorted(data["charted"], key=lambda key: -len(data["levels"][key]))
    wide, high = (len(data["levels"][key]) for key in (across, down))
    means = np.full((high, wide), np.nan)
    for cell in scored:
        means[cell["values"][down], cell["values"][across]] = cell["mean"]
    figure = Figure(figsize=(min(14, 2.6 + 0.85 * wide), min(10, 1.6 + 0.55 * high)), layout="constrained")
    axes = figure.subplots()
    norm = Normalize(np.nanmin(means), np.nanmax(means))
    image = axes.imshow(means, cmap=RAMP, norm=norm, aspect="auto")
    for cell in scored:
        x, y, dark = cell["values"][across], cell["values"][down], norm(cell["mean"]) < 0.6
        if wide * high <= MOST_NUMBERS:
            text = f"{100 * cell['mean']:.2f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        if cell["like"]:
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=FRAME, linewidth=1.5))
    axes.set_xticks(range(wide), [_short(value) for value in data["levels"][across]])
    axes.set_yticks(range(high), [_short(value) for value in data["levels"][down]])
    _plain([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set_xlabel(data["keys"][across], parse_math=False)
    axes.set_ylabel(data["keys"][down], parse_math=False)
    figure.colorbar(image, ax=axes, format=_percent)
    axes.set_title(f"val accuracy %, mean of seeds\n{_marked(data, 'framed')}", fontsize=9)
    return figure


def _best_cells(data: Mapping[str, Any], scored: list[dict[str, Any]]) -> Figure:
    """Three keys and more: the best cells, a line each."""
    cells = scored[:MOST_CELLS]
    names = [", ".join(_short(data["levels"][k][cell["values"][k]]) for k in data["charted"]) for cell in cells]
    figure = Figure(figsize=(8, 1.2 + 0.24 * len(cells)), layout="constrained")
    axes = figure.subplots()
    _points(axes, range(len(cells)), cells, across=True)
    axes.set_yticks(range(len(cells)), names, fontsize=8)
    _plain(axes.get_yticklabels())
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.grid(axis="y", linewidth=0.3)
    _as_percent(axes.xaxis, "val accuracy, mean of seeds")
    axes.set_ylabel(", ".join(data["keys"][k] for k in data["charted"]), parse_math=False, fontsize=8)
    which = "" if len(cells) == len(scored) else f"the best {len(cells)} of {len(scored)} cells\n"
    axes.set_title(which + _bars(data, cells), fontsize=9)
    return figure


def _points(axes: Axes, at: Sequence[int], cells: list[dict[str, Any]], *, across: bool = False) -> None:
    """Filled where a cell cannot be told from the best. One call a style: a call a point takes seconds to lay out."""
    filled: dict[str, Any] = {"color": POINT}
    hollow: dict[str, Any] = {"color": FAINT, "mfc": "white"}
    for like, style in ((True, filled), (False, hollow)):
        shown = [(place, cell) for place, cell in zip(at, cells, strict=True) if cell["like"] == like]
        if shown:
            places, means = [place for place, _ in shown], [cell["mean"] for _, cell in shown]
            halves = [np.nan if cell["low"] is None else cell["mean"] - cell["low"] for _, cell in shown]
            bars: dict[str, Any] = {"xerr" if across else "yerr": halves}
            x, y = (means, places) if across else (places, means)
            axes.errorbar(x, y, **bars, **POINTS, **style)


def _bars(data: Mapping[str, Any], cells: list[dict[str, Any]]) -> str:
    bars = (
        "bars: 95 % interval of a mean, from the pooled sd; " if any(cell["low"] is not None for cell in cells) else ""
    )
    return bars + _marked(data, "filled")


def _marked(data: Mapping[str, Any], how: str) -> str:
    return f"{how}: cannot be told from the best" if data["tested"] else "differences cannot be tested: too few seeds"


def _effects(data: Mapping[str, Any]) -> Figure | None:
    """A panel a key: each value minus the best value, adjusted for the other keys."""
    effects = [effect for effect in data["effects"] if any(level["behind"] for level in effect["levels"])]
    if not effects:
        return None
    heights = [max(2, len(effect["levels"])) + 1.5 for effect in effects]
    figure = Figure(figsize=(8, min(30, 0.5 + 0.28 * sum(heights))), layout="constrained")
    panels = figure.subplots(len(effects), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, effect in zip(panels[:, 0], effects, strict=True):
        known = [
            (y, level["behind"] or (0, 0, 0)) for y, level in enumerate(effect["levels"]) if level["mean"] is not None
        ]
        places, (means, lows, highs) = [y for y, _ in known], np.array([behind for _, behind in known]).T
        axes.errorbar(means, places, xerr=[means - lows, highs - means], color=POINT, **POINTS)
        names = [
            _short(level["value"]) + ("" if level["mean"] is None else f"  ({100 * level['mean']:.2f} %)")
            for level in effect["levels"]
        ]
        axes.set_yticks(range(len(names)), names, fontsize=8)
        _plain(axes.get_yticklabels())
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.set_title(f"{effect['key']}: {'differs' if effect['differs'] else 'no difference is shown'}", fontsize=9)
        axes.title.set_parse_math(False)
        axes.xaxis.set_major_formatter(_percent)
    panels[-1, 0].set_xlabel(
        "minus the best value, points of val accuracy; bars: interval of this difference", fontsize=9
    )
    return figure


def _curves(data: Mapping[str, Any]) -> Figure | None:
    """val accuracy of all runs, in the colour of the cell's mean."""
    curves, name = data["curves"], "val/accuracy"
    if name not in curves["metrics"]:
        return None
    at, lines, colours = curves["metrics"].index(name), [], []
    means = [cell["mean"] for cell in data["cells"] if cell["mean"] is not None] or [0.0]
    for run, job in zip(curves["runs"], data["jobs"], strict=True):
        if run is not None:
            epochs, mean = curves["epochs"][run[0]], data["cells"][job[1]]["mean"]
            lines.append([(x, y) for x, y in zip(epochs, run[1][at], strict=True) if y is not None])
            colours.append(np.nan if mean is None else mean)
    shown = LineCollection(lines, cmap=colormaps[RAMP].with_extremes(bad=FAINT), norm=Normalize(min(means), max(means)))
    shown.set_array(np.ma.masked_invalid(colours))
    shown.set(linewidth=1.0, alpha=max(0.25, min(0.9, 30 / max(1, len(lines)))))
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.add_collection(shown)
    axes.autoscale_view()
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _as_percent(axes.yaxis, "val accuracy")
    figure.colorbar(ScalarMappable(shown.norm, shown.cmap), ax=axes, label="mean of the run's cell, %", format=_percent)
    axes.set_title(f"all {len(lines)} runs", fontsize=9)
    return figure


def _as_percent(axis: Any, label: str) -> None:
    axis.set_major_formatter(_percent)
    axis.set_label_text(f"{label}, %")


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.6g}"


def _plain(labels: list[Any]) -> None:
    for label in labels:
        label.set_parse_math(False)


def _short(text: str, most: int = 24) -> str:
    """Cut in the middle: names of files and classes differ at their ends."""
    line, kept = "".join(letter if letter.isprintable() else " " for letter in text), (most - 1) // 2
    return line if len(line) <= most else f"{line[:kept]}…{line[-kept:]}"
