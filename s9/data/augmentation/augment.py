"""The augmentation of a run: one description in conf/aug, executed by one of two backends."""

from typing import TYPE_CHECKING, Any, Union

import numpy as np

from s9.config.schema import AugConfig
from s9.data.augmentation.batch_augment import BatchAugment, build_batch_transform
from s9.data.image_set import ImageFacts

if TYPE_CHECKING:
    from s9.data.augmentation.image_augment import ImageAugment

Augment = Union[BatchAugment, "ImageAugment"]


def build_augment(config: AugConfig, facts: ImageFacts, seed: int) -> Augment:
    """The augmentation that `config` describes, built for its backend.

    Raises:
        UserError: a transform refuses its arguments, or changes the size of the images.
    """
    if config.backend == "device":
        return BatchAugment(config, facts, seed)
    from s9.data.augmentation.image_augment import ImageAugment  # here: albumentations takes two seconds to import

    return ImageAugment(config, facts, seed)


def built_transforms(config: AugConfig, fill: Any) -> dict[str, Any]:
    """The backend's transform objects by name, built to check them before a run; `fill` replaces `fill: mean`.

    Raises:
        UserError: a transform does not exist for the backend, or refuses its arguments.
    """
    build: Any = build_batch_transform
    if config.backend != "device":
        from s9.data.augmentation.image_augment import build_transform as build  # here: as above
    return {name: build(name, transform, fill) for name, transform in config.transforms.items()}


def sample_grid(images: np.ndarray, augment: Augment, epochs: int = 5) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (N, epochs, H, W, 3): what training will see of the first N images in the first epochs."""
    return np.stack([augment.preview(images, epoch) for epoch in range(1, epochs + 1)], axis=1)
