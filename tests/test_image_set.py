"""Splits and statistics: stratified by class, fixed by seed, nothing lost, and the same numbers as numpy's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s9.data.image_set import CHUNK, ImageFacts, ImageSet, Split, channel_statistics
from s9.data.sources.arrays import image_set_of
from s9.data.split import hold_out
from s9.system.errors import UserError

UNEVEN = (100, 41, 7, 320, 2)


def numbered(counts: tuple[int, ...]) -> Split:
    """A split with so many images of each class, shuffled; the first pixel of an image holds its number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(len(labels)) % 256, np.arange(len(labels)) // 256
    return Split(images, labels)


def numbers(split: Split) -> list[int]:
    return [int(low) + 256 * int(high) for low, high in np.asarray(split.images)[:, 0, 0, :2]]


def mapped(split: Split, folder: Path) -> Split:
    """The same split with its images on disk."""
    np.save(folder / "images.npy", split.images)
    return Split(np.load(folder / "images.npy", mmap_mode="c"), split.labels)


@pytest.mark.parametrize("val_size", [20, 100, 333])
@pytest.mark.parametrize("counts", [UNEVEN, (90,) * 5], ids=["uneven", "even"])
def test_every_class_is_held_out_within_one_image_of_its_share(counts: tuple[int, ...], val_size: int) -> None:
    _, val = hold_out(numbered(counts), val_size, seed=0)
    held = np.bincount(val.labels, minlength=len(counts))
    share = val_size * np.array(counts) / sum(counts)
    assert np.abs(held - share).max() <= 1, (held, share)


def test_the_smallest_val_of_even_classes_has_one_image_a_class() -> None:
    _, val = hold_out(numbered((30,) * 10), size=10, seed=0)
    assert sorted(val.labels) == list(range(10))


def test_val_has_exactly_the_size_that_was_asked_for() -> None:
    _, val = hold_out(numbered(UNEVEN), size=57, seed=0)
    assert len(val) == 57


def test_train_and_val_share_no_image_and_lose_none() -> None:
    whole = numbered(UNEVEN)
    train, val = hold_out(whole, size=57, seed=0)
    assert sorted(numbers(train) + numbers(val)) == list(range(len(whole)))


def test_labels_stay_with_their_images() -> None:
    whole = numbered(UNEVEN)
    for part in hold_out(whole, size=57, seed=0):
        assert np.array_equal(part.labels, whole.labels[numbers(part)])


def test_train_and_val_keep_the_order_of_the_whole() -> None:
    for part in hold_out(numbered(UNEVEN), size=57, seed=0):
        assert numbers(part) == sorted(numbers(part))


def test_the_same_seed_holds_out_the_same_images() -> None:
    assert numbers(hold_out(numbered(UNEVEN), 57, seed=3)[1]) == numbers(hold_out(numbered(UNEVEN), 57, seed=3)[1])


def test_another_seed_holds_out_other_images() -> None:
    assert numbers(hold_out(numbered(UNEVEN), 57, seed=3)[1]) != numbers(hold_out(numbered(UNEVEN), 57, seed=4)[1])


def test_the_global_random_stream_does_not_move_what_is_held_out() -> None:
    np.random.seed(1)
    first = numbers(hold_out(numbered(UNEVEN), 57, seed=0)[1])
    np.random.seed(2)
    assert numbers(hold_out(numbered(UNEVEN), 57, seed=0)[1]) == first


def test_a_val_size_of_nought_leaves_train_whole() -> None:
    whole = numbered(UNEVEN)
    train, val = hold_out(whole, size=0, seed=0)
    assert (numbers(train), len(val), val.images.shape) == (numbers(whole), 0, (0, 2, 2, 3))


@pytest.mark.parametrize("val_size", [1, 4, 446, 450, 10**9])
def test_a_val_size_that_cannot_be_is_refused_in_one_line(val_size: int) -> None:
    with pytest.raises(UserError) as refused:
        hold_out(numbered((90,) * 5), val_size, seed=0)
    said = str(refused.value)
    assert said.startswith(f"data.val_size={val_size}: ") and "from 5" in said and "to 445" in said
    assert "\n" not in said


@pytest.mark.parametrize("val_size", [5, 445])
def test_the_bounds_that_the_refusal_names_are_allowed(val_size: int) -> None:
    assert len(hold_out(numbered((90,) * 5), val_size, seed=0)[1]) == val_size


def test_a_class_of_one_image_cannot_be_held_out_of() -> None:
    with pytest.raises(UserError, match=r"^data\.val_size=10: [^\n]+$"):
        hold_out(numbered((50, 50, 1)), size=10, seed=0)


@pytest.mark.parametrize("low, high", [(0, 256), (100, 110), (0, 2)], ids=["all levels", "few levels", "dark"])
def test_channel_statistics_are_those_of_numpy(low: int, high: int) -> None:
    images = np.random.default_rng(0).integers(low, high, (50, 9, 7, 3), dtype=np.uint8)
    images[..., 1] //= 2  # the channels differ
    mean, std = channel_statistics(images)
    exact = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(std, exact.std((0, 1, 2)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_channel_statistics_count_every_image_once(count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    images[-1] = 255
    np.testing.assert_allclose(channel_statistics(images)[0], images.mean((0, 1, 2)) / 255, rtol=0, atol=1e-9)


def test_a_channel_without_contrast_can_still_be_divided_by() -> None:
    mean, std = channel_statistics(np.full((4, 8, 8, 3), 51, np.uint8))
    assert mean == pytest.approx((0.2, 0.2, 0.2)) and min(std) > 0


@pytest.mark.parametrize("val_size", [0, 57])
def test_images_on_disk_are_held_out_as_those_in_memory_are(tmp_path: Path, val_size: int) -> None:
    whole = numbered(UNEVEN)
    for a, b in zip(hold_out(whole, val_size, 3), hold_out(mapped(whole, tmp_path), val_size, 3), strict=True):
        assert np.array_equal(np.asarray(a.images), np.asarray(b.images)) and np.array_equal(a.labels, b.labels)


def image_set(train: Split, class_names: tuple[str, ...]) -> ImageSet:
    none = train.take(np.arange(0))
    facts = ImageFacts("made up", class_names, 4, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return ImageSet(facts, train, none, none)


def test_examples_come_from_every_class_of_a_sorted_train_split() -> None:
    labels = np.repeat(np.arange(4), 25).astype(np.int64)
    train = Split(np.zeros((100, 4, 4, 3), np.uint8), labels)
    assert set(image_set(train, ("a", "b", "c", "d")).examples(8).labels) == {0, 1, 2, 3}


@pytest.mark.parametrize("count", [1, 7, 100])
def test_as_many_examples_come_as_were_asked_for(count: int) -> None:
    train = numbered((50, 50))
    assert len(set(numbers(image_set(train, ("a", "b")).examples(count)))) == count


def test_examples_of_images_on_disk_are_in_memory(tmp_path: Path) -> None:
    whole = numbered((50, 50))
    here, there = (image_set(train, ("a", "b")).examples(7) for train in (whole, mapped(whole, tmp_path)))
    assert type(there.images) is np.ndarray and np.array_equal(here.images, there.images)


def test_labels_are_told_by_their_class_names() -> None:
    assert image_set(numbered((2, 2)), ("cat", "dog")).names_of(np.array([1, 0, 1])) == ["dog", "cat", "dog"]


def test_images_as_another_run_knows_them_keep_their_names() -> None:
    data = replace(image_set(numbered((2, 2)), ("cat", "dog")), test_names=("cat/0.png", "dog/0.png"))
    assert data.as_known_to(replace(data.facts, class_names=("dog", "cat"))).test_names == data.test_names


def test_the_image_size_is_that_of_train() -> None:
    train = Split(np.zeros((3, 48, 48, 3), np.uint8), np.zeros(3, np.int64))
    splits = {"train": train, "test": train}
    assert image_set_of("made up", ["a"], splits, val_size=0, seed=0).facts.image_size == 48
