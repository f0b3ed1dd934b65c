"""CutMix and mixup: each image of a batch mixed with another one, on the device, after either augmentation backend.

Sources: Yun et al., "CutMix", 2019; Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017.
"""

from dataclasses import dataclass

import numpy as np
import torch

from s9.config.schema import MixConfig
from s9.data import keys


@dataclass(frozen=True)
class Mixed:
    """Mixed images (B, 3, H, W): the fraction `share` has the label of `labels` (B,), the rest that of `partners`."""

    images: torch.Tensor
    labels: torch.Tensor
    partners: torch.Tensor
    share: float


def mix(config: MixConfig, images: torch.Tensor, labels: torch.Tensor, key: tuple[int, int, int]) -> Mixed:
    """Mixes a batch with itself in reverse order; a function of key = (seed, epoch, batch) and of the batch.

    Batches are shuffled, so reverse order is as random as any. One share per batch needs no copy to the device.
    """
    if config.p > 0:
        generator = keys.mix_generator(*key)
        if generator.random() < config.p:
            share = float(generator.beta(config.alpha, config.alpha))
            partner = images.flip(0)
            if config.name == "mixup":
                return Mixed(torch.lerp(partner, images, share), labels, labels.flip(0), share)
            height, width = images.shape[2:]
            top, bottom = _side(height, share, generator)
            left, right = _side(width, share, generator)
            images = images.clone()  # clone keeps the memory format
            images[:, :, top:bottom, left:right] = partner[:, :, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (height * width)
            return Mixed(images, labels, labels.flip(0), share)
    return Mixed(images, labels, labels, 1.0)


def _side(size: int, share: float, generator: np.random.Generator) -> tuple[int, int]:
    """First pixel and end of the window, whose centre is uniform and which the image's border cuts off."""
    half = size * (1 - share) ** 0.5 / 2
    centre = generator.integers(0, size)
    return max(0, round(centre - half)), min(size, round(centre + half))
