"""How many images each class has, whether that is uneven, and whether it tells in the scores."""

import numpy as np

UNEVEN = 1.5  # times the smallest class that the largest class of train then has at least
TELLING = 0.005  # between accuracy and balanced accuracy, where both are shown


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (num_classes,): the images of each class, from int64 labels (N,)."""
    return np.bincount(labels, minlength=num_classes)


def are_uneven(counts: np.ndarray) -> bool:
    """Whether accuracy says little of the smaller classes, from the train images of each class."""
    return bool(counts.max() >= UNEVEN * counts.min())


def tells_more(accuracy: float, balanced: float) -> bool:
    """Whether a balanced accuracy is far enough from the accuracy to be shown with it."""
    return abs(balanced - accuracy) > TELLING
