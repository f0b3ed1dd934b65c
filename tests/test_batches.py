"""How large a batch is, and what a balanced epoch shows: each class equally often, each repeat with its own pixels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from s9.data.batches import KeyedBatches, usual_batch_size
from s9.data.image_set import Split
from s9.data.keys import balanced_images
from s9.data.loaders import ResidentBatches, WorkerBatches, chosen_loader
from s9.data.loaders import train_loader as loader_of
from s9.system.memory import free_memory
from tests.test_loaders import CPU, LOADERS, all_equal, augment_of, config_of, every_loader, numbers, passed, pictures

# The size of a batch


@pytest.mark.parametrize(
    ("images", "size"),
    [(50_000, 128), (2560, 128), (2559, 64), (1287, 64), (245, 8), (320, 16), (100, 8), (8, 8), (7, 7), (1, 1)],
)
def test_a_batch_is_halved_from_128_to_8_until_an_epoch_has_20_steps(images: int, size: int) -> None:
    assert usual_batch_size(images) == size


@pytest.mark.parametrize(("world", "size"), [(1, 8), (2, 8), (3, 6), (4, 8), (8, 16)])
def test_several_devices_can_share_the_batch(world: int, size: int) -> None:
    assert usual_batch_size(200, world) == size


def test_a_batch_size_that_is_given_is_taken() -> None:
    config = config_of("trainer.batch_size=50")
    loader = loader_of(config, Split(pictures(100), np.zeros(100, np.int64)), augment_of(), CPU)
    assert (loader.batches.batch_size, len(loader)) == (50, 2)


def test_without_a_batch_size_the_images_choose_it() -> None:
    config = config_of("trainer.batch_size=null")
    loader = loader_of(config, Split(pictures(200), np.zeros(200, np.int64)), augment_of(), CPU)
    assert (loader.batches.batch_size, len(loader)) == (8, 25)


# Balanced classes

UNEVEN = np.repeat(np.arange(3), (70, 25, 5)).astype(np.int64)  # labels, whose sum is 100
BALANCED = "data.balance=true"


def uneven() -> Split:
    return Split(pictures(100), UNEVEN)


def shown(*overrides: str, seed: int = 0, epochs: int = 2) -> list[np.ndarray]:
    """The images of each epoch of batches of 16, in their order."""
    config = config_of(BALANCED, "aug=none", f"seed={seed}", *overrides)
    made = passed(loader_of(config, uneven(), augment_of("aug=none"), CPU), epochs)
    return [np.array([number for images, _ in epoch for number in numbers(images)]) for epoch in made]


@every_loader
def test_each_class_is_shown_equally_often(loader: tuple[str, ...]) -> None:
    for epoch in shown(*loader):
        assert len(epoch) == 96
        assert np.bincount(UNEVEN[epoch]).tolist() == [32, 32, 32]


def test_what_is_left_over_goes_to_one_class_or_another() -> None:
    """7 steps of 14 are 98 places for three classes."""
    counts = [np.bincount(UNEVEN[epoch]).tolist() for epoch in shown("trainer.batch_size=14", epochs=8)]
    assert all(sorted(of) == [32, 33, 33] for of in counts)
    assert len(set(map(tuple, counts))) > 1


def test_a_shortened_epoch_is_balanced_too() -> None:
    assert sorted(np.bincount(UNEVEN[shown("trainer.steps_per_epoch=2")[0]]).tolist()) == [10, 11, 11]


def test_the_images_of_a_class_are_repeated_equally_often() -> None:
    for epoch in shown():
        for label in range(3):
            own = np.bincount(epoch, minlength=100)[label == UNEVEN]
            assert own.max() - own.min() <= 1


def test_each_image_of_a_common_class_has_its_turn_in_some_epoch() -> None:
    assert set(np.concatenate(shown(epochs=12)).tolist()) == set(range(100))


def test_the_choice_differs_between_epochs_and_between_seeds() -> None:
    first, second = (set(epoch.tolist()) for epoch in shown())
    assert first != second and first != set(shown(seed=1)[0].tolist())


def test_classes_without_images_take_no_part() -> None:
    assert np.bincount(np.array([5, 5, 9])[balanced_images(0, 1, np.array([5, 5, 9]), 6)]).nonzero()[0].tolist() == [
        5,
        9,
    ]


def test_more_classes_than_places_show_a_class_at_most_once() -> None:
    labels = np.arange(10)
    chosen = balanced_images(0, 1, labels, 4)
    assert len(chosen) == len(set(chosen.tolist())) == 4


@every_loader
def test_an_image_that_is_repeated_is_augmented_anew_each_time(loader: tuple[str, ...]) -> None:
    """Each of the five rare images has 6 or 7 places; two of them may look alike by chance."""
    config = config_of(BALANCED, "aug=full", *loader)
    split = Split(pictures(100), np.arange(100))  # the label is the image's number
    batches = loader_of(config, split, augment_of("aug=full", *loader), CPU)
    batches.batches.balanced = UNEVEN
    (epoch,) = passed(batches, epochs=1)
    seen: dict[int, set[bytes]] = {}
    for images, labels in epoch:
        for image, label in zip(images, labels.tolist(), strict=True):
            seen.setdefault(label, set()).add(image.numpy().tobytes())
    assert all(len(seen[number]) >= 5 for number in range(95, 100))


@pytest.mark.parametrize("aug", ["none", "full"])
def test_both_loaders_give_the_same_balanced_batches(aug: str) -> None:
    made = [
        passed(loader_of(config_of(BALANCED, f"aug={aug}", *loader), uneven(), augment_of(f"aug={aug}"), CPU))
        for loader in (LOADERS["resident"], LOADERS["workers"])
    ]
    assert all_equal(*made)


@every_loader
def test_an_epoch_that_is_resumed_in_its_middle_has_the_same_batches(loader: tuple[str, ...]) -> None:
    batches = loader_of(config_of(BALANCED, "aug=full", *loader), uneven(), augment_of("aug=full", *loader), CPU)
    whole = passed(batches)[1]
    batches.start_epoch(2, first_batch=4)
    assert all_equal([list(batches)], [whole[4:]])


def test_the_ranks_share_out_a_balanced_batch() -> None:
    def images(rank: int, world: int) -> np.ndarray:
        made = KeyedBatches(100, 16, 0, rank=rank, world=world, balanced=UNEVEN)
        return made.images_at(made.order())

    parts = np.concatenate([images(0, 2), images(1, 2)], 1)
    assert np.array_equal(np.sort(parts), np.sort(images(0, 1)))


def test_without_balance_a_place_is_its_image() -> None:
    made = KeyedBatches(100, 16, 0)
    assert all(place == image for batch in made for _, place, image in batch)


# The loader that fits


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Sets the free bytes of the device."""
    return lambda free: monkeypatch.setattr("s9.data.loaders.free_memory", lambda device: free)


TAKEN = 100 * 32 * 32 * 3  # bytes of `uneven`


@pytest.mark.parametrize(("free", "loader"), [(3 * TAKEN + 9, "resident"), (3 * TAKEN, "workers"), (None, "resident")])
def test_images_that_take_a_third_of_the_free_memory_stay_in_the_cache(
    memory: Callable[[int | None], None], free: int | None, loader: str
) -> None:
    memory(free)
    assert chosen_loader(config_of("data.loader=auto"), uneven(), CPU)[0] == loader


def test_a_line_says_why_the_images_stay_in_the_cache(memory: Callable[[int | None], None]) -> None:
    memory(8 * 10**9)
    split = Split(np.broadcast_to(np.uint8(0), (2_000_000, 32, 32, 3)), np.zeros(2_000_000, np.int64))
    said = "train takes 6.1 GB of 8.0 GB free: batches are read from the cache (data.loader=workers)"
    assert chosen_loader(config_of("data.loader=auto"), split, CPU)[1] == said


def test_on_a_cpu_each_rank_has_its_own_copy_of_the_images(memory: Callable[[int | None], None]) -> None:
    memory(4 * TAKEN)
    assert [chosen_loader(config_of("data.loader=auto"), uneven(), CPU, world=n)[0] for n in (1, 2)] == [
        "resident",
        "workers",
    ]


@pytest.mark.parametrize("asked", ["aug.backend=albumentations", "data.workers=2"])
def test_what_only_workers_do_chooses_them_without_a_line(memory: Callable[[int | None], None], asked: str) -> None:
    memory(10**12)
    assert chosen_loader(config_of("data.loader=auto", asked), uneven(), CPU) == ("workers", None)


@pytest.mark.parametrize("loader", ["resident", "workers"])
def test_a_loader_that_is_named_is_taken(memory: Callable[[int | None], None], loader: str) -> None:
    memory(0)
    assert chosen_loader(config_of(f"data.loader={loader}"), uneven(), CPU) == (loader, None)


def test_the_loader_is_made_as_it_was_chosen(memory: Callable[[int | None], None]) -> None:
    kinds = []
    for free in (10**12, 0):
        memory(free)
        kinds.append(type(loader_of(config_of("data.loader=auto"), uneven(), augment_of(), CPU).source))
    assert kinds == [ResidentBatches, WorkerBatches]


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_gpus_memory_that_counts() -> None:
    device = torch.device("cuda")
    free = free_memory(device)
    assert free is not None
    count = free // (32 * 32 * 3)
    split = Split(np.broadcast_to(np.uint8(0), (count, 32, 32, 3)), np.zeros(count, np.int64))
    assert chosen_loader(config_of("data.loader=auto"), split, device)[0] == "workers"
