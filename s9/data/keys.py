"""All randomness of a run, as functions of (seed, epoch, image) and the like, never of a stream's state.

So workers, resuming, reordering and several ranks change no result. The fourth number of a key, where there is one,
says what the key is used for.
"""

import random
import zlib

import numpy as np
import torch

ORDER, DRAWS, MIX = 1, 2, 3


def seed_everything(seed: int) -> None:
    """Seeds the global streams of python, numpy and torch, which the network's first weights come from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def data_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """int64 (size,): the order of the training images in `epoch`, which counts from 1."""
    return np.random.default_rng([seed, epoch, 0, ORDER]).permutation(size)


def batch_draws(seed: int, epoch: int, transform: str, shape: tuple[int, int]) -> np.ndarray:
    """float32 (images, draws) in [0, 1): the draws of the transform of this name, for every image of an epoch."""
    generator = np.random.default_rng([seed, epoch, 0, DRAWS, zlib.crc32(transform.encode())])
    return generator.random(shape, dtype=np.float32)


def image_generators(seed: int, epoch: int, index: int) -> tuple[np.random.Generator, random.Random]:
    """The generators from which albumentations draws for one image of an epoch."""
    key = np.random.SeedSequence([seed, epoch, index])
    return np.random.default_rng(key), random.Random(int(key.generate_state(1)[0]))


def mix_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator for CutMix and mixup of one batch; batches count from 1."""
    return np.random.default_rng([seed, epoch, batch, MIX])


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed that torch gets before optimizer step `step`, which counts from 0; dropout depends on it."""
    return (seed * 1_000_003 + step) * 4096 + rank
