"""Augmentation of whole batches of tensors, where the images live: the same conf/aug/*.yaml without albumentations.

What image i gets in epoch e is a function of (seed, e, i) and of the transform's name alone: the uniform numbers of an
epoch are one table a transform, made on the host once an epoch and the same for every device and batch size.
"""

import zlib
from dataclasses import replace

import numpy as np
import torch

from s9.components import build_batch_transform
from s9.config import AugConfig
from s9.data.batch_transforms import BatchTransform
from s9.errors import UserError

DRAWS = 2  # keeps the keys of these numbers apart from those of the data order

Draws = list[torch.Tensor]  # float32 (N, 1 + draws) a transform, in [0, 1)


class BatchAugment:
    """Turns uint8 images (B, 3, H, W) into augmented ones of the same type and shape, on any device.

    Args:
        mean: of the data set, RGB in [0, 1]; stands in for `fill: mean`, rounded to whole grey levels.

    Raises:
        UserError: a transform is not among those of s9/data/batch_transforms.py, refuses its arguments, or changes the
            size of the images.
    """

    def __init__(self, config: AugConfig, mean: tuple[float, float, float], seed: int, image_size: int = 32):
        fill = tuple(round(255 * channel) for channel in mean)
        self.seed = seed
        self.transforms: dict[str, BatchTransform] = {
            name: build_batch_transform(name, transform, fill) for name, transform in config.transforms.items()
        }
        blank = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
        out = blank
        for name, transform in self.transforms.items():
            try:
                out = replace(transform, p=1.0)(out, torch.zeros(2, 1 + transform.draws))
            except Exception as error:
                raise UserError(f"aug.transforms.{name}: {' '.join(str(error).split())}") from None
        if out.shape != blank.shape:
            sizes = " x ".join(map(str, out.shape[2:])), " x ".join(map(str, blank.shape[2:]))
            raise UserError(f"aug={config.name}: makes images of {sizes[0]} from {sizes[1]}; they must keep their size")

    def draw(self, epoch: int, size: int, device: torch.device) -> Draws:
        """The uniform numbers of images 0 to size - 1 in `epoch`, on the device."""
        return [
            torch.from_numpy(self._table(name, transform, epoch, size)).to(device, non_blocking=True)
            for name, transform in self.transforms.items()
        ]

    def _table(self, name: str, transform: BatchTransform, epoch: int, size: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, epoch, 0, DRAWS, zlib.crc32(name.encode())])
        return generator.random((size, 1 + transform.draws), dtype=np.float32)

    def __call__(self, images: torch.Tensor, draws: Draws, index: torch.Tensor) -> torch.Tensor:
        """Augments images (B, 3, H, W), which are numbers `index` (B,) of the split. May write into `images`."""
        for transform, table in zip(self.transforms.values(), draws, strict=True):
            images = transform(images, table.index_select(0, index))
        return images

    def preview(self, images: np.ndarray, epoch: int) -> np.ndarray:
        """uint8 (N, H, W, 3) -> the same: what images 0 to N - 1 look like in `epoch`."""
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().clone()
        every = torch.arange(len(batch))
        out = self(batch, self.draw(epoch, len(batch), batch.device), every)
        return out.permute(0, 2, 3, 1).contiguous().numpy()
