"""Batches for training and evaluation: which images, in which order, as which tensors."""

import multiprocessing
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from s9.data.augment import Augment
from s9.data.image_set import Split

Key = tuple[int, int]  # (epoch, index): what an image looks like is a function of its key
Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 images (B, 3, H, W), int64 labels (B,)

ORDER = 1  # keeps the keys of the data order apart from those of the augmentation
EVAL_BATCH = 500  # images; fixed, so that a run scored again gives the same number to the last digit


class KeyedBatches(Sampler[list[Key]]):
    """Lists of (epoch, index), shuffled by (seed, epoch). `epoch` counts from 1 and is set before each pass.

    The last batch of an epoch is left out where it is not whole, since batch norm on a few images is noise.
    """

    def __init__(self, size: int, batch_size: int, seed: int, steps: int | None = None):
        self.size, self.seed = size, seed
        self.batch_size = min(batch_size, size)
        whole = size // self.batch_size
        self.steps = whole if steps is None else min(steps, whole)
        self.epoch = 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng([self.seed, self.epoch, 0, ORDER]).permutation(self.size)
        for step in range(self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch]


class AugmentedImages(Dataset[Batch]):
    """A split whose items are whole batches, so that a worker sends one tensor instead of many."""

    def __init__(self, split: Split, augment: Augment):
        self.split, self.augment = split, augment

    def __getitem__(self, keys: list[Key]) -> Batch:
        images = np.stack([self.augment(self.split.images[index], epoch, index) for epoch, index in keys])
        labels = self.split.labels[[index for _, index in keys]]
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def train_loader(
    split: Split,
    augment: Augment,
    batches: KeyedBatches,
    workers: int = 0,
    start_method: str | None = None,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Batches of augmented images; the same ones for every number of workers and every start method."""
    context = multiprocessing.get_context(start_method) if workers else None
    return DataLoader(
        AugmentedImages(split, augment),
        batch_size=None,  # the sampler already names whole batches
        sampler=batches,
        num_workers=workers,
        multiprocessing_context=context,
        worker_init_fn=_quiet_worker,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        # Nothing here draws from it; without one the loader would take a seed from torch's global stream each epoch.
        generator=torch.Generator().manual_seed(0),
    )


def eval_batches(split: Split) -> Iterator[Batch]:
    """The whole split in its order, as it is."""
    for start in range(0, len(split), EVAL_BATCH):
        images = torch.from_numpy(split.images[start : start + EVAL_BATCH]).permute(0, 3, 1, 2)
        yield images, torch.from_numpy(split.labels[start : start + EVAL_BATCH])


def to_device(
    images: torch.Tensor, device: torch.device, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """uint8 (B, 3, H, W) to normalised float32 on the device, channels last. mean, std: RGB in [0, 1]."""
    images = images.to(device, non_blocking=True).float()
    shape = (1, 3, 1, 1)
    scale = torch.tensor(std, device=device).view(shape).mul_(255).reciprocal_()
    shift = torch.tensor(mean, device=device).view(shape).mul_(255)
    return images.sub_(shift).mul_(scale).contiguous(memory_format=torch.channels_last)
