"""scikit-learn's 1,797 handwritten digits, enlarged to 3 x 32 x 32: a data set that needs no download."""

import numpy as np

from s9.config.data import DigitsConfig
from s9.data.image_set import ImageSet, Split
from s9.data.sources.arrays import image_set_of

TEST_SIZE = 360  # a fifth, fixed once for all so that seeds share one test split


def load_digits(config: DigitsConfig, seed: int) -> ImageSet:
    """The digits (grey levels 0 to 16, 8 x 8) as uint8 RGB of 32 x 32."""
    import cv2  # imported here: together they take a second, and only this data set needs them
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    grey = np.stack(
        [cv2.resize(image * (255 / 16), (32, 32), interpolation=cv2.INTER_LINEAR) for image in digits.images]
    )
    images = np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=-1)
    labels = digits.target.astype(np.int64)
    rest, held = train_test_split(np.arange(len(labels)), test_size=TEST_SIZE, stratify=labels, random_state=0)
    splits = {split: Split(images[index], labels[index]) for split, index in (("train", rest), ("test", held))}
    return image_set_of("digits (scikit-learn)", "0123456789", splits, val_size=config.val_size, seed=seed)
