"""The keys of a run's randomness: seeds that repeat the global streams, of which none is drawn from while training."""

import random

import numpy as np
import pytest
import torch

from s9.data.keys import seed_everything


def draws() -> tuple[float, list[float], list[float]]:
    return random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()


def test_the_same_seed_repeats_the_draws_of_python_numpy_and_torch() -> None:
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first


def test_another_seed_draws_otherwise_from_each_of_them() -> None:
    seed_everything(3)
    first = draws()
    seed_everything(4)
    assert all(one != other for one, other in zip(draws(), first, strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_smallest_and_the_largest_seed_are_accepted_by_all(seed: int) -> None:
    seed_everything(seed)
    assert torch.initial_seed() == seed
