"""All randomness of a run, as functions of (seed, epoch, place) and the like, never of a stream's state.

An epoch has as many places as train has images, and place i is that of image i; in a balanced epoch a rare image has
several places, and so several augmentations. Workers, resuming, reordering and several ranks change no result. The
fourth number of a key, where there is one, says what the key is used for.
"""

import random
import zlib

import numpy as np
import torch

ORDER, DRAWS, MIX, BALANCE = 1, 2, 3, 4


def seed_everything(seed: int) -> None:
    """Seeds the global streams of python, numpy and torch, which the network's first weights come from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def data_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """int64 (size,): the order of the places of `epoch`, which counts from 1; place i is image i unless balanced."""
    return np.random.default_rng([seed, epoch, 0, ORDER]).permutation(size)


def balanced_images(seed: int, epoch: int, labels: np.ndarray, size: int) -> np.ndarray:
    """int64 (size,): the image at each place of a balanced epoch, from the int64 `labels` (N,) of all images.

    Each class has equally many places, to within one. An image is repeated only when its whole class has been taken, so
    the images of a class have equally many places too, to within one.
    """
    generator = np.random.default_rng([seed, epoch, 0, BALANCE])
    by_class = np.argsort(labels, kind="stable")
    classes = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
    share, more = divmod(size, len(classes))
    parts = []
    for rank, chosen in enumerate(generator.permutation(len(classes))):  # the first ones get a place more
        own, count = classes[chosen], share + (rank < more)
        cycles = [generator.permutation(own) for _ in range(-(-count // len(own)))]
        parts += [np.concatenate(cycles)[:count]] if cycles else []
    return np.concatenate(parts)


def batch_draws(seed: int, epoch: int, transform: str, shape: tuple[int, int]) -> np.ndarray:
    """float32 (places, draws) in [0, 1): the draws of the transform of this name, for every place of an epoch."""
    generator = np.random.default_rng([seed, epoch, 0, DRAWS, zlib.crc32(transform.encode())])
    return generator.random(shape, dtype=np.float32)


def image_generators(seed: int, epoch: int, place: int) -> tuple[np.random.Generator, random.Random]:
    """The generators from which albumentations draws for the image at one place of an epoch."""
    key = np.random.SeedSequence([seed, epoch, place])
    return np.random.default_rng(key), random.Random(int(key.generate_state(1)[0]))


def mix_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator for CutMix and mixup of one batch; batches count from 1."""
    return np.random.default_rng([seed, epoch, batch, MIX])


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed that torch gets before optimizer step `step`, which counts from 0; dropout depends on it."""
    return (seed * 1_000_003 + step) * 4096 + rank
