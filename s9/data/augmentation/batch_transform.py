"""The base of all batch transforms: albumentations' names and meaning on whole batches, with one draw per image.

A transform takes uint8 images (B, 3, H, W) and uniform numbers (B, 1 + draws) in [0, 1): column 0 is the coin that
decides whether the transform applies, the others are its parameters. No transform holds a random state.

An albumentations argument that a class does not take is not supported and raises an error.
tests/test_batch_transforms.py compares every class with its namesake.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch


@dataclass(frozen=True, kw_only=True)
class BatchTransform:
    """One transform. `p`: the probability that it applies to an image."""

    draws: ClassVar[int] = 0  # uniform numbers per image, besides the coin
    p: float = 0.5

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) and its parameters (B, draws) -> uint8 (B, 3, H', W'), applied to every image."""
        raise NotImplementedError

    def __call__(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Transforms each image with a probability of exactly p, decided by its coin. May write into `images`."""
        if self.p <= 0 or self.p >= 1:
            return images if self.p <= 0 else self.apply(images, uniform[:, 1:])
        coin = uniform[:, 0] < self.p
        if images.device.type != "cpu":  # selecting the images would wait for the device
            return torch.where(coin[:, None, None, None], self.apply(images, uniform[:, 1:]), images)
        chosen = coin.nonzero().squeeze(1)
        if not len(chosen):
            return images
        some = self.apply(images.index_select(0, chosen), uniform.index_select(0, chosen)[:, 1:])
        images = images.contiguous()  # a transform may return a view
        in_words(images).index_copy_(0, chosen, in_words(some.contiguous()))
        return images


def in_words(images: torch.Tensor) -> torch.Tensor:
    """A view with one row per image, as int64 if eight bytes fit: index_copy_ takes as long per byte as per int64."""
    rows = images.view(len(images), images.shape[1:].numel())
    return rows.view(torch.int64) if rows.shape[1] % 8 == 0 else rows
