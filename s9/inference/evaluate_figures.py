"""The figures of an evaluation: reliability diagram, surest mistakes, and accuracy over the strength of corruptions."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from s9.inference.evaluate import Evaluation
from s9.inference.robustness import CORRUPTIONS, Robustness
from s9.tracking.calibration import Calibration
from s9.tracking.drawing import TRAIN, VAL, place, show
from s9.tracking.folder import SHOWN_MISTAKES, RunFolder
from s9.tracking.mistakes import misclassified_grid

CELL = 0.92  # inches: one corrupted image with its strength
STEPS = np.arange(1, 6)
LINES = ("o", "s", "^", "D", "v", "P")  # marks, so that the lines are told apart without colours
COLOURS = ("#4c78a8", "#e4572e", "#3a7d44", "#b279a2", "#9c755f", "#222222")


def reliability(of: Calibration) -> Figure:
    """Accuracy and mean probability of the predicted class, by bin, above the images of each bin."""
    figure = Figure(figsize=(4.8, 5.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    there, total = of.images > 0, max(int(of.images.sum()), 1)
    left, right = of.edges[:-1][there], of.edges[1:][there]
    style: dict[str, Any] = {"width": right - left, "align": "edge", "edgecolor": "white"}
    upper.bar(left, of.accuracy[there], color=TRAIN, label="accuracy", **style)
    upper.hlines(of.sure[there], left, right, color=VAL, linewidth=2.5, label="mean probability")
    upper.plot([0, 1], [0, 1], color="#555555", linestyle=":", label="as sure as right")
    upper.set(xlim=(0, 1), ylim=(0, 1.01), ylabel="accuracy")
    upper.legend(fontsize=8, loc="upper left")
    sure, accuracy = float((of.sure * of.images).sum()) / total, int(of.right.sum()) / total
    lean = "underconfident" if sure < accuracy else "overconfident"
    said = f"mean probability {100 * sure:.1f} %, accuracy {100 * accuracy:.1f} %: {lean}"
    upper.set_title(f"expected calibration error {100 * of.error:.2f} % ({len(of.images)} bins)\n{said}", fontsize=10)
    lower.bar(left, of.images[there], color="#888888", **style)
    lower.set(xlabel="probability of the predicted class", ylabel="images", yscale="log")
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    return figure


class _AsRun(RunFolder):
    """The predictions of an evaluation where the figures of a run look for its own; there is no folder."""

    def __init__(self, of: Evaluation):
        super().__init__(Path())
        self.of = of

    def read_predictions(self) -> dict[str, np.ndarray]:
        each = self.of.of_each
        worst = each.mistakes[:SHOWN_MISTAKES]
        return each.stored | {"worst": worst, "worst_images": np.asarray(self.of.images.take(worst).images)}


def misclassified(of: Evaluation) -> Figure:
    """The mistakes that the network was surest of, each with its classes and file name."""
    figure = misclassified_grid(_AsRun(of))
    if of.split != "test":
        figure.texts[0].set_text(figure.texts[0].get_text().replace("test images", f"images ({of.split})"))
    return figure


def robustness_figure(of: Robustness) -> Figure:
    """Left: accuracy over strength, a line a corruption. Right: one image as each corruption and strength makes it."""
    columns, rows = of.example.shape[1] + 1, len(CORRUPTIONS)
    wide, deep = 5.6, rows * CELL + 0.75
    figure = Figure(figsize=(wide + columns * CELL + 1.5, deep))
    axes = place(figure, 0.75, 0.4, (wide - 1.0, deep - 1.0))
    for corruption, accuracies, mark, colour in zip(CORRUPTIONS, of.accuracy, LINES, COLOURS, strict=True):
        axes.plot(
            STEPS, accuracies, marker=mark, color=colour, label=f"{corruption.name}, {100 * accuracies.mean():.1f} %"
        )
    axes.axhline(of.clean, color="#555555", linestyle=":", label=f"unchanged, {100 * of.clean:.1f} %")
    axes.set(xlabel="strength", ylim=(0, 1), xticks=STEPS)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    axes.set_title(f"accuracy of {of.images:,} images; mean of all {100 * of.mean:.1f} %", fontsize=10)
    _examples(figure, of, wide + 1.3)
    return figure


def _examples(figure: Figure, of: Robustness, left: float) -> None:
    """A row for each corruption: the image itself, then at each strength, with the strength below."""
    for row, (corruption, images) in enumerate(zip(CORRUPTIONS, of.example, strict=True)):
        top = 0.4 + row * CELL
        middle = 1 - (top + 0.37) / figure.get_figheight()
        texts: dict[str, Any] = {"x": (left - 0.1) / figure.get_figwidth(), "ha": "right", "va": "center"}
        figure.text(y=middle, s=f"{corruption.name}\n({corruption.unit})", fontsize=7.5, **texts)
        for column, image in enumerate([of.original, *images]):
            axes = place(figure, left + column * CELL, top, (0.74, 0.74))
            show(axes, image)
            said = f"{corruption.strengths[column - 1]:g}" if column else ""
            axes.set_xlabel(said, fontsize=7, labelpad=1.5)
            if row == 0:
                axes.set_title(f"strength {column}" if column else "unchanged", fontsize=7.5)
