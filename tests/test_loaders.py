"""Batches: the same from every loader and number of workers, each image at most once an epoch."""

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from s9.cli.compose import compose_config
from s9.config.schema import Config
from s9.data.augmentation.augment import Augment, build_augment
from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.augmentation.image_augment import ImageAugment
from s9.data.batches import KeyedBatches
from s9.data.image_set import Split
from s9.data.loaders import Batch, TrainLoader, WorkerBatches
from s9.data.loaders import train_loader as loader_of
from s9.data.sources.cifar10 import FACTS
from s9.system.compute import Compute

CPU = torch.device("cpu")


def pictures(count: int) -> np.ndarray:
    """Noise with the image's number in its first pixel."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return images


def numbered(count: int) -> Split:
    """The label is the image's number modulo ten."""
    return Split(pictures(count), np.arange(count, dtype=np.int64) % 10)


def numbers(images: torch.Tensor) -> list[int]:
    found: list[int] = (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()
    return found


@cache
def config_of(*overrides: str) -> Config:
    """Batches of 16; overrides come last and win."""
    return compose_config(["data=digits", "trainer.batch_size=16", *overrides])


IMAGES = ("aug.backend=albumentations", "data.loader=workers")  # image by image
LOADERS = {"resident": (), "workers": ("data.loader=workers",), "albumentations": IMAGES}
every_loader = pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)


@cache
def augment_of(*overrides: str, seed: int = 0) -> Augment:
    return build_augment(config_of(*overrides).aug, FACTS, seed)


def train_loader(*overrides: str, split: Split | None = None) -> TrainLoader:
    """Of 100 images, unless a split is given."""
    return loader_of(config_of(*overrides), split or numbered(100), augment_of(*overrides), CPU)


def passed(loader: TrainLoader, epochs: int = 2) -> list[list[Batch]]:
    """The batches of the first epochs."""
    made = []
    for epoch in range(1, epochs + 1):
        loader.start_epoch(epoch)
        made.append(list(loader))
    return made


def first_epoch(*overrides: str) -> list[Batch]:
    return passed(train_loader(*overrides), epochs=1)[0]


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def all_equal(made: list[list[Batch]], expected: list[list[Batch]]) -> bool:
    return all(equal(a, b) for x, y in zip(made, expected, strict=True) for a, b in zip(x, y, strict=True))


# Order


def order_of(batches: KeyedBatches) -> list[int]:
    return [index for batch in batches for _, _, index in batch]


def test_each_image_comes_once_an_epoch() -> None:
    assert sorted(order_of(KeyedBatches(100, 10, seed=0))) == list(range(100))


def test_the_order_is_shuffled() -> None:
    assert order_of(KeyedBatches(100, 10, seed=0)) != list(range(100))


def test_the_last_batch_is_left_out_where_it_is_not_whole() -> None:
    made = list(KeyedBatches(109, 10, seed=0))
    assert [len(batch) for batch in made] == [10] * 10
    assert len({index for batch in made for _, _, index in batch}) == 100


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
    assert [sorted(index for _, _, index in batch) for batch in KeyedBatches(7, 128, seed=0)] == [list(range(7))]


def test_every_key_names_its_epoch() -> None:
    batches = KeyedBatches(100, 10, seed=0)
    batches.epoch = 12
    assert {epoch for batch in batches for epoch, _, _ in batch} == {12}


def test_the_same_epoch_has_the_same_order_again() -> None:
    """Whatever came before: a resumed run has the order that it would have had."""
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
    augment = augment_of(*IMAGES, "aug=basic", "~aug.transforms.pad", "~aug.transforms.crop")
    assert isinstance(augment, ImageAugment)
    augment(np.zeros((32, 32, 3), np.uint8), epoch=1, index=index)
    assert augment.compose is not None
    assert augment.compose.random_generator.permutation(100).tolist() != order_of(KeyedBatches(100, 10, seed=0))


# Batches


@every_loader
def test_a_batch_is_uint8_images_and_int64_labels(loader: tuple[str, ...]) -> None:
    images, labels = first_epoch(*loader, "aug=full")[0]
    assert (images.dtype, images.shape) == (torch.uint8, (16, 3, 32, 32))
    assert (labels.dtype, labels.shape) == (torch.int64, (16,))


@every_loader
def test_the_loader_follows_the_order(loader: tuple[str, ...]) -> None:
    found = [number for images, _ in first_epoch(*loader, "aug=none") for number in numbers(images)]
    assert found == order_of(KeyedBatches(100, 16, seed=0))


@every_loader
def test_labels_come_with_their_images(loader: tuple[str, ...]) -> None:
    for images, labels in first_epoch(*loader, "aug=none"):
        assert labels.tolist() == [number % 10 for number in numbers(images)]


@every_loader
def test_without_augmentation_the_pixels_are_those_of_the_split(loader: tuple[str, ...]) -> None:
    whole = pictures(100)
    for images, _ in first_epoch(*loader, "aug=none"):
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), whole[numbers(images)])


@every_loader
def test_an_epoch_has_each_image_at_most_once(loader: tuple[str, ...]) -> None:
    """Whatever was done to the images: here each label is an image's own."""
    split = Split(pictures(100), np.arange(100))
    for epoch in passed(train_loader(*loader, "aug=full", split=split)):
        labels = torch.cat([labels for _, labels in epoch]).tolist()
        assert len(labels) == len(set(labels)) == 96


@every_loader
def test_the_loader_augments_by_epoch_and_index(loader: tuple[str, ...]) -> None:
    whole, made = pictures(100), passed(train_loader(*loader, "aug=full"))
    for epoch, batches in enumerate(made, start=1):
        order = KeyedBatches(100, 16, seed=0)
        order.epoch = epoch
        expected = augment_of(*loader, "aug=full").preview(whole, epoch)
        for index, (images, _) in zip(order.order(), batches, strict=True):
            assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected[index])


@every_loader
def test_epochs_differ_in_their_batches(loader: tuple[str, ...]) -> None:
    first, second = passed(train_loader(*loader, "aug=full"))
    assert not any(equal(a, b) for a, b in zip(first, second, strict=True))


@every_loader
@pytest.mark.parametrize("aug", ["none", "basic", "full", "strong"])
def test_the_split_itself_is_never_changed(loader: tuple[str, ...], aug: str) -> None:
    split = numbered(100)
    passed(train_loader(*loader, f"aug={aug}", split=split))
    assert np.array_equal(split.images, pictures(100))


def test_the_loader_is_as_long_as_the_epoch() -> None:
    assert len(train_loader("aug=none")) == 6


@every_loader
def test_an_epoch_passed_again_gives_the_same_batches(loader: tuple[str, ...]) -> None:
    """Nothing that augmentation writes is left for the next pass."""
    made = train_loader(*loader, "aug=full")
    assert all(equal(a, b) for a, b in zip(list(made), list(made), strict=True))


# Workers. torch warns of more workers than cores, and python 3.12 of a fork beside threads; both are meant here.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning", "ignore:.*multi-threaded:DeprecationWarning"
)
WORKERS = [(0, None), (1, "fork"), (3, "fork"), (1, "spawn"), pytest.param((3, "spawn"), marks=pytest.mark.slow)]
AUGMENT = [(1, "fork"), (3, "fork"), *(pytest.param(n, "spawn", marks=pytest.mark.slow) for n in (1, 3))]


def from_workers(augment: ImageAugment | None, workers: int, start_method: str | None) -> WorkerBatches:
    batches = KeyedBatches(100, 16, seed=0)
    return WorkerBatches(numbered(100), batches, augment, CPU, workers=workers, start_method=start_method)


@pytest.fixture(scope="module", params=WORKERS, ids=str)
def source(request: pytest.FixtureRequest) -> Iterator[WorkerBatches]:
    """Started once, since a new process takes seconds to import torch; with aug.backend=device it only reads."""
    yield from_workers(None, *request.param)


@pytest.mark.parametrize("aug", ["none", "full"])
def test_workers_and_resident_images_give_the_same_batches_to_the_last_bit(source: WorkerBatches, aug: str) -> None:
    augment, batches = augment_of(f"aug={aug}"), source.loader.sampler
    assert isinstance(augment, BatchAugment) and isinstance(batches, KeyedBatches)
    assert all_equal(passed(TrainLoader(source, batches, augment, CPU)), passed(train_loader(f"aug={aug}")))


@pytest.mark.parametrize("workers, start_method", AUGMENT)
def test_workers_that_augment_make_the_same_batches_to_the_last_bit(workers: int, start_method: str) -> None:
    augment = augment_of(*IMAGES, "aug=full")
    assert isinstance(augment, ImageAugment)
    source = from_workers(augment, workers, start_method)
    batches = source.loader.sampler
    assert isinstance(batches, KeyedBatches)
    assert all_equal(passed(TrainLoader(source, batches, None, CPU)), passed(train_loader(*IMAGES, "aug=full")))


@pytest.mark.parametrize("workers", [0, 3])
def test_the_configuration_chooses_the_number_of_processes(workers: int) -> None:
    source = train_loader("data.loader=workers", f"data.workers={workers}").source
    assert isinstance(source, WorkerBatches) and source.loader.num_workers == workers


def random_states() -> list[object]:
    return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]


@pytest.mark.parametrize("loader", [*LOADERS.values(), (*IMAGES, "data.workers=2")], ids=[*LOADERS, "2 workers"])
def test_an_epoch_draws_nothing_from_the_global_random_streams(loader: tuple[str, ...]) -> None:
    made = train_loader(*loader, "aug=full")
    before = random_states()
    passed(made)
    assert random_states() == before


class Copies(TorchDispatchMode):
    """Notes of each copy to another device whether the host does not wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and "device" in (kwargs or {}):
            self.seen.append(bool(kwargs.get("non_blocking")))
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_every_copy_that_is_not_to_cuda() -> None:
    """The device `meta` stands for mps, where a copy that is not waited for may be of other numbers."""
    device, split = torch.device("meta"), Split(np.zeros((8, 32, 32, 3), np.uint8), np.zeros(8, np.int64))
    with Copies() as copies:
        batch = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        Compute(device, torch.float32).normalised(batch, FACTS.mean, FACTS.std)
        augment = augment_of("aug=full")
        assert isinstance(augment, BatchAugment) and augment.draw(1, 8, device)
        assert len(next(iter(WorkerBatches(split, KeyedBatches(8, 4, 0), None, device)))) == 3
    assert len(copies.seen) >= 5 and not any(copies.seen)
