"""Images from a function: bright and dark squares with noise."""

import numpy as np

Splits = dict[str, tuple[np.ndarray, np.ndarray]]


def load_images(size: int, count: int = 120) -> tuple[tuple[str, ...], Splits]:
    """(class names, {split: (uint8 images (N, size, size, 3), labels (N,))})."""
    random = np.random.default_rng(0)
    splits = {}
    for split in ("train", "test"):
        labels = np.arange(count) % 2
        noise = random.integers(0, 60, (count, size, size, 3))
        splits[split] = ((noise + 120 * labels[:, None, None, None]).astype(np.uint8), labels)
    return ("dark", "bright"), splits
