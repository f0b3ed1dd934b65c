"""The figure of a learning rate range test: the loss over the learning rate, with the suggestion."""

import numpy as np
from matplotlib.figure import Figure

from s9.tracking.drawing import TEST, TRAIN
from s9.tracking.folder import RunFolder
from s9.tracking.lr_range import range_test, rates_at

ABOVE = 0.5  # nats: how far above the first points the axis reaches


def lr_range(folder: RunFolder) -> Figure:
    """Loss of train over optimizer.lr, each point and smoothed; the suggested value is marked."""
    config = folder.read_config()
    found = range_test(config, folder.read_metrics())
    rates = config.optimizer["lr"] * found.factors
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, found.losses, ".", color=TRAIN, alpha=0.4, label="train loss")
    axes.plot(rates, found.smooth, color=TRAIN, label="smoothed")
    title = "no suggestion: the loss did not fall and rise again"
    if found.best is not None:
        suggested = rates_at(config, found.best)
        title = "suggested: " + " ".join(f"{key}={value:g}" for key, value in suggested.items())
        axes.axvline(config.optimizer["lr"] * found.best, color=TEST, linestyle="--", label="suggested")
    shown = found.losses[np.isfinite(found.losses)]
    low, first = shown.min(), found.smooth[0]
    axes.set_ylim(low - 0.1 * (first - low + ABOVE), min(shown.max(), first) + ABOVE)
    axes.set(xscale="log", xlabel="optimizer.lr", ylabel="loss (nats)", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
