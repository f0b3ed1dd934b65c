"""How many images are held out: a number, a share, or as many as fit any size of data set."""

import numpy as np
import pytest

from s9.config.data import FolderConfig, Size
from s9.data.split import MOST_TEST, MOST_VAL, count_of, held_out
from s9.system.errors import UserError


@pytest.mark.parametrize(
    ("size", "total", "count"),
    [
        (0, 100, 0),
        (7, 100, 7),
        (0.1, 100, 10),
        (0.25, 1000, 250),
        (None, 100, 20),
        (None, 9, 2),
        (None, 10**6, MOST_VAL),
    ],
)
def test_a_size_is_a_number_or_a_share_or_a_fifth_up_to_a_limit(size: Size, total: int, count: int) -> None:
    assert count_of(size, total, classes=2) == count


@pytest.mark.parametrize("size", [None, 0.01])
def test_a_share_holds_out_one_image_of_each_class_at_least(size: Size) -> None:
    assert count_of(size, 45, classes=10) == 10


def test_cifar10_keeps_its_usual_sizes() -> None:
    assert count_of(None, 50_000, 10) == 5_000
    assert count_of(None, 60_000, 10, MOST_TEST) == 10_000


def test_what_is_held_out_is_stratified() -> None:
    labels = np.repeat(np.arange(3), (100, 50, 10))
    kept, held = held_out(labels, 0.2, seed=0)
    assert np.bincount(labels[held]).tolist() == [20, 10, 2]
    assert sorted([*kept, *held]) == list(range(160))


def test_a_set_that_is_too_small_names_the_key() -> None:
    with pytest.raises(UserError, match=r"^data\.test_size=null: 3 images of 2 classes are too few to hold some of"):
        held_out(np.array([0, 0, 1]), None, 0, key="data.test_size")


def test_a_class_of_one_image_is_refused_in_words() -> None:
    with pytest.raises(UserError, match=r"^data\.val_size=null: a class has only 1 image left to hold out of; "):
        held_out(np.array([0] * 20 + [1]), None, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_class_is_in_both_parts(seed: int) -> None:
    labels = np.repeat(np.arange(3), (60, 20, 2))
    kept, held = held_out(labels, 5, seed)
    assert len(held) == 5 and set(labels[held]) == set(labels[kept]) == {0, 1, 2}
    assert sorted([*kept, *held]) == list(range(82))


@pytest.mark.parametrize("size", [-1, 1.5, float("nan"), float("inf"), "abc", True])
@pytest.mark.parametrize("key", ["val_size", "test_size"])
def test_other_sizes_are_refused(key: str, size: object) -> None:
    values = {"val_size": None, "loader": "auto", "workers": 0, "root": "pets", "image_size": None} | {key: size}
    with pytest.raises(UserError, match=rf"^data\.{key}={size}: must be a number of images, a share of them"):
        FolderConfig("folder", **values)  # type: ignore[arg-type]


def test_a_test_size_of_nought_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.test_size=0: must be more than 0"):
        FolderConfig("folder", None, "auto", 0, root="pets", image_size=None, test_size=0)
