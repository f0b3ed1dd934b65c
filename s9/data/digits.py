"""scikit-learn's 1,797 handwritten digits, brought to 3 x 32 x 32: a data set that needs no download."""

import numpy as np

from s9.config import DigitsConfig
from s9.data.image_set import ImageSet, Split, channel_statistics, contents_of, hold_out

TEST_SIZE = 360  # a fifth, fixed once for all so that seeds share one test split


def load_digits(config: DigitsConfig, seed: int) -> ImageSet:
    """The digits (grey levels 0 to 16, 8 x 8) as uint8 RGB of 32 x 32."""
    import cv2
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    grey = np.stack(
        [cv2.resize(image * (255 / 16), (32, 32), interpolation=cv2.INTER_LINEAR) for image in digits.images]
    )
    images = np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=-1)
    labels = digits.target.astype(np.int64)
    rest, held = train_test_split(np.arange(len(labels)), test_size=TEST_SIZE, stratify=labels, random_state=0)
    whole = Split(images, labels)
    mean, std = channel_statistics(images[rest])
    train, val = hold_out(whole.take(rest), config.val_size, seed)
    names = tuple("0123456789")
    contents = contents_of(train=(images[rest], labels[rest], names), test=(images[held], labels[held], names))
    return ImageSet("digits (scikit-learn)", names, mean, std, train, val, whole.take(held), contents)
