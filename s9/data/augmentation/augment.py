"""The augmentation of a run: one description in conf/aug, executed by one of two backends."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from s9.config.schema import AugConfig
from s9.data.augmentation.batch_augment import BatchAugment, build_batch_transform
from s9.data.image_set import ImageFacts

if TYPE_CHECKING:
    from s9.data.augmentation.image_augment import ImageAugment

Augment = Union[BatchAugment, "ImageAugment"]

ANY_SIZE = 32  # pixels: stands for images that are not known yet


def build_augment(config: AugConfig, facts: ImageFacts, seed: int) -> Augment:
    """The augmentation that `config` describes, built for its backend.

    Raises:
        UserError: a transform refuses its arguments, or changes the size of the images.
    """
    config = at_size(config, facts.image_size)
    if config.backend == "device":
        return BatchAugment(config, facts, seed)
    from s9.data.augmentation.image_augment import ImageAugment  # here: albumentations takes two seconds to import

    return ImageAugment(config, facts, seed)


def built_transforms(config: AugConfig, fill: Any) -> dict[str, Any]:
    """The backend's transform objects by name, built to check them before a run; `fill` replaces `fill: mean`.

    Raises:
        UserError: a transform does not exist for the backend, or refuses its arguments.
    """
    config = at_size(config, ANY_SIZE)
    build: Any = build_batch_transform
    if config.backend != "device":
        from s9.data.augmentation.image_augment import build_transform as build  # here: as above
    return {name: build(name, transform, fill) for name, transform in config.transforms.items()}


def at_size(config: AugConfig, image_size: int) -> AugConfig:
    """The same augmentation for images of `image_size` pixels, which replaces a `height` or `width` of null."""
    return replace(config, transforms={name: _at_size(of, image_size) for name, of in config.transforms.items()})


def _at_size(transform: dict[str, Any], image_size: int) -> dict[str, Any]:
    sized: dict[str, Any] = {key: image_size for key in ("height", "width") if transform.get(key, 0) is None}
    if isinstance(inner := transform.get("transforms"), list):
        sized |= {"transforms": [_at_size(of, image_size) if isinstance(of, dict) else of for of in inner]}
    return {**transform, **sized}


def sample_grid(images: np.ndarray, augment: Augment, epochs: int = 5) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (N, epochs, H, W, 3): the first epochs of N images, as if train began with them."""
    return np.stack([augment.preview(images, epoch) for epoch in range(1, epochs + 1)], axis=1)
