"""How far a network's probabilities can be believed: of the images it is 90 % sure of, are 90 % right?

As in Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017.
"""

from dataclasses import dataclass

import numpy as np

BINS = 15  # as in the paper, so that errors can be compared


@dataclass(frozen=True)
class Calibration:
    """edges: (bins + 1,) from 0 to 1. images, right: (bins,) counts. sure: (bins,) mean probability, 0 without images.

    error: the expected calibration error, a fraction: the mean over images of how far the accuracy of an image's bin
    is from the mean probability in that bin. 0 without images.
    """

    edges: np.ndarray
    images: np.ndarray
    right: np.ndarray
    sure: np.ndarray
    error: float

    @property
    def accuracy(self) -> np.ndarray:
        """(bins,) fraction of images that are right, 0 without images."""
        fraction: np.ndarray = self.right / np.maximum(self.images, 1)
        return fraction


def calibration(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Bins of equal width by the probability of the predicted class; each includes its upper edge.

    Args:
        probs: (N, num_classes). labels: (N,).
    """
    preds = probs.argmax(1)
    highest = probs[np.arange(len(probs)), preds].astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    places = np.digitize(highest, edges[1:-1], right=True)  # rounding may take a probability above 1
    images = np.bincount(places, minlength=bins)
    right = np.bincount(places, preds == labels, bins).astype(np.int64)
    total = np.bincount(places, highest, bins)
    error = float(np.abs(right - total).sum() / max(len(probs), 1))
    return Calibration(edges, images, right, sure=total / np.maximum(images, 1), error=error)
