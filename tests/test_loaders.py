"""Batches: the same for every number of workers, each image once an epoch, and normalised as numpy would do it."""

import random
from functools import cache

import numpy as np
import pytest
import torch

from s9.command_line import compose_config
from s9.data.image_augment import ImageAugment
from s9.data.image_set import Split
from s9.data.loaders import EVAL_BATCH, Batch, KeyedBatches, eval_batches, to_device, train_loader

CPU = torch.device("cpu")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def numbered(count: int) -> Split:
    """Noise with the image's number in its first pixel; the label is the number modulo ten."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return Split(images, np.arange(count, dtype=np.int64) % 10)


def numbers(images: torch.Tensor) -> list[int]:
    found: list[int] = (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()
    return found


@cache
def augment_of(name: str, seed: int = 0) -> ImageAugment:
    return ImageAugment(compose_config(["data=digits", f"aug={name}"]).aug, MEAN, seed)


def epochs_of(workers: int, start_method: str | None = None, aug: str = "full", epochs: int = 2) -> list[list[Batch]]:
    """The batches of the first epochs of 100 images in batches of 16."""
    batches = KeyedBatches(100, 16, seed=0)
    loader = train_loader(numbered(100), augment_of(aug), batches, workers, start_method)
    made = []
    for epoch in range(1, epochs + 1):
        batches.epoch = epoch
        made.append(list(loader))
    return made


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


# Order


def order_of(batches: KeyedBatches) -> list[int]:
    return [index for batch in batches for _, index in batch]


def test_each_image_comes_once_an_epoch() -> None:
    assert sorted(order_of(KeyedBatches(100, 10, seed=0))) == list(range(100))


def test_the_order_is_shuffled() -> None:
    assert order_of(KeyedBatches(100, 10, seed=0)) != list(range(100))


def test_the_last_batch_is_left_out_where_it_is_not_whole() -> None:
    made = list(KeyedBatches(109, 10, seed=0))
    assert [len(batch) for batch in made] == [10] * 10
    assert len({index for batch in made for _, index in batch}) == 100


def test_no_image_is_left_out_for_ever() -> None:
    batches, seen = KeyedBatches(19, 10, seed=0), set()
    for batches.epoch in range(1, 30):
        seen |= set(order_of(batches))
    assert seen == set(range(19))


@pytest.mark.parametrize("steps, made", [(None, 10), (3, 3), (10, 10), (999, 10)])
def test_steps_end_an_epoch_early_and_never_late(steps: int | None, made: int) -> None:
    batches = KeyedBatches(105, 10, seed=0, steps=steps)
    assert (len(batches), len(list(batches))) == (made, made)


def test_a_shortened_epoch_is_the_beginning_of_the_whole_one() -> None:
    assert list(KeyedBatches(100, 10, seed=0, steps=3)) == list(KeyedBatches(100, 10, seed=0))[:3]


def test_a_batch_larger_than_the_data_set_is_all_of_it() -> None:
    assert [sorted(index for _, index in batch) for batch in KeyedBatches(7, 128, seed=0)] == [list(range(7))]


def test_every_key_names_its_epoch() -> None:
    batches = KeyedBatches(100, 10, seed=0)
    batches.epoch = 12
    assert {epoch for batch in batches for epoch, _ in batch} == {12}


def test_the_same_epoch_has_the_same_order_again() -> None:
    """Whatever came before: a resumed run goes on with the order that it would have had."""
    first, second = KeyedBatches(100, 10, seed=0), KeyedBatches(100, 10, seed=0)
    list(first)
    first.epoch = second.epoch = 5
    assert list(first) == list(second)


def test_epochs_differ_in_order() -> None:
    first, second = KeyedBatches(100, 10, seed=0), KeyedBatches(100, 10, seed=0)
    second.epoch = 2
    assert order_of(first) != order_of(second)


def test_seeds_differ_in_order() -> None:
    assert order_of(KeyedBatches(100, 10, seed=0)) != order_of(KeyedBatches(100, 10, seed=1))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_order_and_the_augmentation_draw_from_different_streams(index: int) -> None:
    """A flip draws nothing from numpy's generator, so after it the generator is as it was made for the image."""
    flip = compose_config(["data=digits", "aug=basic", "~aug.transforms.pad", "~aug.transforms.crop"]).aug
    augment = ImageAugment(flip, MEAN, seed=0)
    augment(np.zeros((32, 32, 3), np.uint8), epoch=1, index=index)
    assert augment.compose is not None
    assert augment.compose.random_generator.permutation(100).tolist() != order_of(KeyedBatches(100, 10, seed=0))


# Batches


def test_a_batch_is_uint8_images_and_int64_labels() -> None:
    images, labels = epochs_of(workers=0)[0][0]
    assert (images.dtype, images.shape) == (torch.uint8, (16, 3, 32, 32))
    assert (labels.dtype, labels.shape) == (torch.int64, (16,))


def test_the_loader_follows_the_order() -> None:
    batches = KeyedBatches(100, 16, seed=0)
    found = [number for images, _ in epochs_of(workers=0, aug="none")[0] for number in numbers(images)]
    assert found == order_of(batches)


def test_labels_come_with_their_images() -> None:
    for images, labels in epochs_of(workers=0, aug="none")[0]:
        assert labels.tolist() == [number % 10 for number in numbers(images)]


def test_without_augmentation_the_pixels_are_those_of_the_split() -> None:
    whole = numbered(100)
    for images, _ in epochs_of(workers=0, aug="none")[0]:
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), whole.images[numbers(images)])


def test_the_loader_augments_by_epoch_and_index() -> None:
    batches = KeyedBatches(100, 16, seed=0)
    whole, augment = numbered(100), augment_of("full")
    for epoch, made in enumerate(epochs_of(workers=0), start=1):
        batches.epoch = epoch
        for keys, (images, _) in zip(batches, made, strict=True):
            expected = np.stack([augment(whole.images[index], epoch, index) for _, index in keys])
            assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)


def test_the_loader_is_as_long_as_the_epoch() -> None:
    assert len(train_loader(numbered(100), augment_of("none"), KeyedBatches(100, 16, seed=0))) == 6


def test_an_epoch_passed_again_gives_the_same_batches() -> None:
    batches = KeyedBatches(100, 16, seed=0)
    loader = train_loader(numbered(100), augment_of("full"), batches)
    assert all(equal(a, b) for a, b in zip(list(loader), list(loader), strict=True))


# Workers. torch warns of more workers than cores, and python 3.12 of a fork beside threads; both are meant here.
with_workers = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning", "ignore:.*multi-threaded:DeprecationWarning"
)


@pytest.fixture(scope="module")
def without_workers() -> list[list[Batch]]:
    return epochs_of(workers=0)


@with_workers
@pytest.mark.parametrize("workers, start_method", [(1, "fork"), (3, "fork"), (1, "spawn"), (3, "spawn")])
def test_workers_make_the_same_batches_to_the_last_bit(
    without_workers: list[list[Batch]], workers: int, start_method: str
) -> None:
    made = epochs_of(workers, start_method)
    assert [len(epoch) for epoch in made] == [6, 6]
    for epoch, expected in zip(made, without_workers, strict=True):
        assert all(equal(a, b) for a, b in zip(epoch, expected, strict=True))


def test_epochs_differ_in_their_batches(without_workers: list[list[Batch]]) -> None:
    first, second = without_workers
    assert not any(equal(a, b) for a, b in zip(first, second, strict=True))


def random_states() -> list[object]:
    return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]


@with_workers
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_draws_nothing_from_the_global_random_streams(workers: int) -> None:
    augment_of("full")
    before = random_states()
    epochs_of(workers, "fork" if workers else None)
    assert random_states() == before


# Evaluation


@pytest.mark.parametrize("count", [0, 1, EVAL_BATCH, 2 * EVAL_BATCH + 100])
def test_eval_batches_cover_the_split_in_its_order(count: int) -> None:
    split = Split(numbered(count).images[:, :2, :2], numbered(count).labels)
    made = list(eval_batches(split))
    assert [number for images, _ in made for number in numbers(images)] == list(range(count))
    assert [label for _, labels in made for label in labels.tolist()] == split.labels.tolist()


def test_eval_batches_are_the_pixels_as_they_are() -> None:
    split = numbered(20)
    ((images, _),) = eval_batches(split)
    assert images.dtype == torch.uint8 and np.array_equal(images.permute(0, 2, 3, 1).numpy(), split.images)


# Normalisation


def normalised(images: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> torch.Tensor:
    return to_device(torch.from_numpy(images).permute(0, 3, 1, 2), CPU, mean, std)


def test_normalisation_is_that_of_numpy_in_double_precision() -> None:
    images = numbered(50).images
    expected = ((images / 255 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    assert np.abs(normalised(images).numpy() - expected).max() < 1e-5


def test_an_image_of_the_mean_colour_becomes_nought() -> None:
    grey = np.broadcast_to(np.array([120, 60, 30], np.uint8), (2, 32, 32, 3)).copy()
    assert normalised(grey, mean=(120 / 255, 60 / 255, 30 / 255)).abs().max() < 1e-5


def test_a_data_set_normalised_by_its_own_statistics_has_mean_nought_and_std_one() -> None:
    images = numbered(50).images
    exact = images / 255
    found = normalised(images, tuple(exact.mean((0, 1, 2))), tuple(exact.std((0, 1, 2)))).double()
    assert found.mean((0, 2, 3)).abs().max() < 1e-5
    assert (found.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_what_the_network_gets_is_float32_with_channels_last() -> None:
    found = normalised(numbered(8).images)
    assert (found.dtype, found.shape) == (torch.float32, (8, 3, 32, 32))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_images_with_channels_first_in_memory_come_out_the_same() -> None:
    images = torch.from_numpy(numbered(8).images).permute(0, 3, 1, 2)
    first, last = (to_device(i, CPU, MEAN, STD) for i in (images.contiguous(), images))
    assert torch.equal(first, last) and first.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_leaves_the_batch_as_it_was() -> None:
    images = numbered(4).images
    before = images.copy()
    normalised(images)
    assert np.array_equal(images, before)


@pytest.mark.gpu
def test_a_gpu_normalises_as_the_cpu_does() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    images = torch.from_numpy(numbered(50).images).permute(0, 3, 1, 2)
    there, here = to_device(images, torch.device("cuda"), MEAN, STD), to_device(images, CPU, MEAN, STD)
    assert there.is_cuda and (there.cpu() - here).abs().max() < 1e-6
