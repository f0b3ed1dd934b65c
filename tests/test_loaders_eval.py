"""What evaluation and the network get: the whole split in its order, normalised as numpy does it."""

import numpy as np
import pytest
import torch

from s9.data.image_set import Split
from s9.data.loaders import EVAL_BATCH, eval_batches
from s9.data.sources.cifar10 import MEAN, STD
from s9.system.compute import Compute
from tests.test_loaders import CPU, numbered, numbers, pictures

HOST = Compute(CPU, torch.float32)


@pytest.mark.parametrize("count", [0, 1, EVAL_BATCH, 2 * EVAL_BATCH + 100])
def test_eval_batches_cover_the_split_in_its_order(count: int) -> None:
    split = Split(pictures(count)[:, :2, :2], numbered(count).labels)
    made = list(eval_batches(split))
    assert [number for images, _ in made for number in numbers(images)] == list(range(count))
    assert [label for _, labels in made for label in labels.tolist()] == split.labels.tolist()


@pytest.mark.parametrize(("size", "most"), [(8, EVAL_BATCH), (32, EVAL_BATCH), (64, EVAL_BATCH // 4), (1024, 1)])
def test_a_batch_of_larger_images_has_fewer(size: int, most: int) -> None:
    count = min(most + 3, 600)
    split = Split(np.zeros((count, size, size, 3), np.uint8), np.zeros(count, np.int64))
    assert next(len(images) for images, _ in eval_batches(split)) == most


def test_eval_batches_are_the_pixels_as_they_are() -> None:
    split = numbered(20)
    ((images, _),) = eval_batches(split)
    assert images.dtype == torch.uint8 and np.array_equal(images.permute(0, 2, 3, 1).numpy(), split.images)


def normalised(images: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> torch.Tensor:
    return HOST.normalised(torch.from_numpy(images).permute(0, 3, 1, 2), mean, std)


def test_normalisation_is_that_of_numpy_in_double_precision() -> None:
    images = pictures(50)
    expected = ((images / 255 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    assert np.abs(normalised(images).numpy() - expected).max() < 1e-5


def test_an_image_of_the_mean_colour_becomes_nought() -> None:
    grey = np.broadcast_to(np.array([120, 60, 30], np.uint8), (2, 32, 32, 3)).copy()
    assert normalised(grey, mean=(120 / 255, 60 / 255, 30 / 255)).abs().max() < 1e-5


def test_a_data_set_normalised_by_its_own_statistics_has_mean_nought_and_std_one() -> None:
    images = pictures(50)
    exact = images / 255
    found = normalised(images, tuple(exact.mean((0, 1, 2))), tuple(exact.std((0, 1, 2)))).double()
    assert found.mean((0, 2, 3)).abs().max() < 1e-5
    assert (found.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_what_the_network_gets_is_float32_with_channels_last() -> None:
    found = normalised(pictures(8))
    assert (found.dtype, found.shape) == (torch.float32, (8, 3, 32, 32))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_images_with_channels_first_in_memory_come_out_the_same() -> None:
    images = torch.from_numpy(pictures(8)).permute(0, 3, 1, 2)
    first, last = (HOST.normalised(i, MEAN, STD) for i in (images.contiguous(), images))
    assert torch.equal(first, last) and first.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_leaves_the_batch_as_it_was() -> None:
    images = pictures(4)
    before = images.copy()
    normalised(images)
    assert np.array_equal(images, before)


@pytest.mark.gpu
def test_a_gpu_normalises_as_the_cpu_does() -> None:
    images = torch.from_numpy(pictures(50)).permute(0, 3, 1, 2)
    gpu = Compute(torch.device("cuda"), torch.float32)
    there, here = (compute.normalised(images, MEAN, STD) for compute in (gpu, HOST))
    assert there.is_cuda and (there.cpu() - here).abs().max() < 1e-6
