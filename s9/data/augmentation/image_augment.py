"""Augmentation by albumentations, image by image, with randomness keyed by (seed, epoch, index), not from a stream.

albumentations does not seed worker processes, and its own seed gives every transform the same draws. Here each image
gets a fresh generator, so that workers, resuming and reordering change no image.
"""

from typing import Any

import albumentations
import cv2
import numpy as np

from s9.config.components import build_component, check_component
from s9.config.schema import AugConfig
from s9.data import keys
from s9.data.image_set import ImageFacts
from s9.system.errors import UserError

cv2.setNumThreads(0)  # threads for a 32 x 32 image cost more than they give, and fight with torch's


class ImageAugment:
    """Turns a uint8 image (H, W, 3) into an augmented one of the same type and shape.

    The mean colour of `facts`, rounded to whole grey levels, replaces `fill: mean`.

    Raises:
        UserError: a transform refuses its arguments, or the transforms do not return uint8 images of the same shape.
    """

    def __init__(self, config: AugConfig, facts: ImageFacts, seed: int):
        fill = tuple(round(255 * channel) for channel in facts.mean)
        transforms = [build_transform(name, transform, fill) for name, transform in config.transforms.items()]
        self.seed = seed
        self.compose = albumentations.Compose(transforms) if transforms else None
        blank = np.zeros((facts.image_size, facts.image_size, 3), np.uint8)
        always = [build_transform(name, t | {"p": 1.0}, fill) for name, t in config.transforms.items()]
        try:
            out = albumentations.Compose(always)(image=blank)["image"]
        except Exception as error:
            size = "x".join(map(str, blank.shape))
            raise UserError(
                f"aug={config.name}: cannot be applied to {size} images: {' '.join(str(error).split())}"
            ) from None
        if out.shape != blank.shape or out.dtype != np.uint8:
            raise UserError(
                f"aug={config.name}: makes {out.dtype} images of {'x'.join(map(str, out.shape))} from uint8 "
                f"{'x'.join(map(str, blank.shape))}; they must stay as they are (s9 normalises after augmentation)"
            )

    def __call__(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """What image `index` looks like in `epoch`: a function of (seed, epoch, index) alone."""
        if self.compose is None:
            return image
        self.compose.set_random_state(*keys.image_generators(self.seed, epoch, index))
        return self.compose(image=image)["image"]

    def preview(self, images: np.ndarray, epoch: int) -> np.ndarray:
        """uint8 (N, H, W, 3) -> the same: what images 0 to N - 1 look like in `epoch`."""
        return np.stack([self(image, epoch, index) for index, image in enumerate(images)])


def build_transform(name: str, transform: Any, fill: Any) -> Any:
    """One albumentations transform; `fill` replaces `fill: mean`.

    A transform that contains others, as OneOf and Sequential do, lists their mappings under `transforms`.

    Raises:
        UserError: the target is not allowed or is no transform, or albumentations refuses an argument.
    """
    key = f"aug.transforms.{name}"
    check_component(key, transform, "aug")
    replaced = {"fill": fill} if transform.get("fill") == "mean" else {}
    if "transforms" in transform:
        inner = transform["transforms"]
        if not isinstance(inner, list) or not inner:
            raise UserError(f"{key}.transforms={inner}: must be a list of mappings, each with _target_")
        replaced["transforms"] = [build_transform(f"{name}.transforms.{n}", each, fill) for n, each in enumerate(inner)]
    built = build_component(key, transform, "aug", **replaced)
    if not hasattr(built, "set_random_state"):
        raise UserError(f"{key}._target_={transform['_target_']}: is not a transform of albumentations")
    return built
