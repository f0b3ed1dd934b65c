"""Which images are in which batch of an epoch, and how large a batch is."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from s9.data import keys

USUAL, SMALLEST = 128, 8  # images in a batch, with trainer.batch_size=null
WANTED_STEPS = 20  # an epoch, for which a batch is made smaller than USUAL

Key = tuple[int, int, int]  # (epoch, place, index): the image, and by epoch and place its augmentation


def usual_batch_size(images: int, world: int = 1) -> int:
    """The batch size of trainer.batch_size=null: USUAL, or less where an epoch would have fewer than WANTED_STEPS.

    A power of two from SMALLEST on, at most `images`; made a multiple of what `world` devices can share.
    """
    size = USUAL
    while size > SMALLEST and images // size < WANTED_STEPS:
        size //= 2
    size = min(size, images)
    return size if world == 1 else max(size - size % (2 * world), 2 * world)


class KeyedBatches(Sampler[list[Key]]):
    """Lists of keys, shuffled by (seed, epoch). `epoch` counts from 1 and is set before each pass.

    `first` is the first batch of the pass, above 0 when an epoch is resumed. Each of `world` ranks gets its part of
    every batch; images i and B - 1 - i stay on one rank, since mixing pairs them.

    The last batch of an epoch is dropped if it is not full, since batch norm on a few images is noise.

    Args:
        size: images of train. steps: of an epoch; None: one pass over train.
        balanced: int64 labels (size,) of train; an epoch then shows each class equally often. None: each image once.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        steps: int | None = None,
        rank: int = 0,
        world: int = 1,
        balanced: np.ndarray | None = None,
    ):
        self.size, self.seed, self.rank, self.world, self.balanced = size, seed, rank, world, balanced
        self.batch_size = min(batch_size, size)
        self.whole = size // self.batch_size  # steps of one pass
        self.steps = self.whole if steps is None else min(steps, self.whole)
        self.epoch, self.first = 1, 0

    def __len__(self) -> int:
        return self.steps

    @property
    def places(self) -> int:
        """Of an epoch. In a balanced one all are trained on, so that the classes are exactly equal."""
        return self.size if self.balanced is None else self.steps * self.batch_size

    def order(self) -> np.ndarray:
        """int64 (steps - first, batch_size / world): the places of each batch of this pass."""
        order = keys.data_order(self.seed, self.epoch, self.places)
        batches = order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)[self.first :]
        if self.world == 1:
            return batches
        ahead = np.arange(self.rank, self.batch_size // 2, self.world)
        return batches[:, np.concatenate([ahead, self.batch_size - 1 - ahead[::-1]])]

    def images_at(self, places: np.ndarray) -> np.ndarray:
        """The indices in train of the images at these places of the epoch, in the same shape."""
        if self.balanced is None:
            return places
        return keys.balanced_images(self.seed, self.epoch, self.balanced, self.places)[places]

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order()
        for places, images in zip(order, self.images_at(order), strict=True):
            yield [(self.epoch, place, image) for place, image in zip(places.tolist(), images.tolist(), strict=True)]
