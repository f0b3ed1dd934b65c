"""An augmentation for whole batches, where the images live."""

from dataclasses import dataclass

import torch

from s9.data.augmentation.batch_transform import BatchTransform


@dataclass(frozen=True, kw_only=True)
class Darker(BatchTransform):
    """Every pixel times `share`; of half of the images (p=0.5) unless conf/aug says otherwise."""

    share: float = 0.8

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        return (images.float() * self.share).to(torch.uint8)
