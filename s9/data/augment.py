"""The augmentation of a run: one description in conf/aug, done by one of two backends."""

from typing import TYPE_CHECKING, Union

import numpy as np

from s9.config import AugConfig
from s9.data.batch_augment import BatchAugment

if TYPE_CHECKING:
    from s9.data.image_augment import ImageAugment

Augment = Union[BatchAugment, "ImageAugment"]


def build_augment(config: AugConfig, mean: tuple[float, float, float], seed: int, image_size: int = 32) -> Augment:
    """The augmentation by its backend; mean: of the data set, RGB in [0, 1].

    Raises:
        UserError: a transform refuses its arguments, or changes the size of the images.
    """
    if config.backend == "device":
        return BatchAugment(config, mean, seed, image_size)
    from s9.data.image_augment import ImageAugment  # here, since albumentations takes two seconds to import

    return ImageAugment(config, mean, seed, image_size)


def sample_grid(images: np.ndarray, augment: Augment, epochs: int = 5) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (N, epochs, H, W, 3): what training will see of the first N images in the first epochs."""
    return np.stack([augment.preview(images, epoch) for epoch in range(1, epochs + 1)], axis=1)
