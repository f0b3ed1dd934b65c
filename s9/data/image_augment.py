"""Augmentation by albumentations, image by image, with randomness keyed by (seed, epoch, index) instead of streamed.

albumentations does not seed worker processes, and its own seed gives every transform the same draws. Here each image
gets a fresh generator, so that workers, resuming and reordering change nothing.
"""

import random

import albumentations
import cv2
import numpy as np

from s9.components import build_transform
from s9.config import AugConfig
from s9.errors import UserError

cv2.setNumThreads(0)  # threads for a 32 x 32 image cost more than they give, and fight with torch's


class ImageAugment:
    """Turns a uint8 image (H, W, 3) into an augmented one of the same type and shape.

    Args:
        mean: of the data set, RGB in [0, 1]; stands in for `fill: mean`, rounded to whole grey levels.

    Raises:
        UserError: a transform refuses its arguments, or the set does not give uint8 images of the same shape.
    """

    def __init__(self, config: AugConfig, mean: tuple[float, float, float], seed: int, image_size: int = 32):
        fill = tuple(round(255 * channel) for channel in mean)
        transforms = [build_transform(name, transform, fill) for name, transform in config.transforms.items()]
        self.seed = seed
        self.compose = albumentations.Compose(transforms) if transforms else None
        blank = np.zeros((image_size, image_size, 3), np.uint8)
        always = [build_transform(name, t | {"p": 1.0}, fill) for name, t in config.transforms.items()]
        try:
            out = albumentations.Compose(always)(image=blank)["image"]
        except Exception as error:
            size = "x".join(map(str, blank.shape))
            raise UserError(
                f"aug={config.name}: cannot be done to {size} images: {' '.join(str(error).split())}"
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
        key = np.random.SeedSequence([self.seed, epoch, index])
        self.compose.set_random_state(np.random.default_rng(key), random.Random(int(key.generate_state(1)[0])))
        return self.compose(image=image)["image"]

    def preview(self, images: np.ndarray, epoch: int) -> np.ndarray:
        """uint8 (N, H, W, 3) -> the same: what images 0 to N - 1 look like in `epoch`."""
        return np.stack([self(image, epoch, index) for index, image in enumerate(images)])
