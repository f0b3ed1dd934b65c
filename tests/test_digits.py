"""The embedded digits: all of them, shaped like every other data set, with one test split for all seeds."""

from functools import cache

import numpy as np
import pytest

from s9.cli.compose import compose_config
from s9.config.data import DigitsConfig
from s9.data.image_set import ImageSet, Split
from s9.data.sources.load import load_images
from s9.system.errors import UserError

SPLITS = ("train", "val", "test")


@cache
def digits_of(val_size: int = 150, seed: int = 0) -> ImageSet:
    return load_images(DigitsConfig("digits", val_size, "resident", workers=0), seed)


def split_of(data: ImageSet, name: str) -> Split:
    found: Split = getattr(data, name)
    return found


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in np.asarray(split.images)}


def test_there_are_1797_images_in_all() -> None:
    assert sum(len(split_of(digits_of(), name)) for name in SPLITS) == 1797


@pytest.mark.parametrize("name", SPLITS)
def test_images_are_uint8_rgb_of_32_pixels(name: str) -> None:
    split = split_of(digits_of(), name)
    assert split.images.shape == (len(split), 32, 32, 3) and split.images.dtype == np.uint8


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_has_all_ten_digits(name: str) -> None:
    split = split_of(digits_of(), name)
    assert split.labels.dtype == np.int64 and set(split.labels) == set(range(10))


def test_the_grey_levels_fill_the_range() -> None:
    images = np.asarray(digits_of().train.images)
    assert (images.min(), images.max()) == (0, 255)


def test_a_picture_keeps_its_digit() -> None:
    """Class means of train tell most of test apart, which they could not do with labels out of step."""
    data = digits_of()
    means = np.stack([data.train.images[data.train.labels == d].mean(0) for d in range(10)]).reshape(10, -1)
    test = np.asarray(data.test.images).reshape(len(data.test), -1).astype(np.float64)
    nearest = ((test[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    assert (nearest == data.test.labels).mean() > 0.8


def test_the_test_split_is_the_same_for_all_seeds() -> None:
    assert np.array_equal(digits_of(seed=0).test.images, digits_of(seed=1).test.images)


def test_the_test_split_is_the_same_for_all_val_sizes() -> None:
    assert np.array_equal(digits_of(val_size=150).test.images, digits_of(val_size=0).test.images)


def test_no_test_image_is_trained_on() -> None:
    # Some digits could be twins; scikit-learn's are not.
    assert not rows(digits_of().test) & (rows(digits_of().train) | rows(digits_of().val))


def test_val_is_fixed_by_the_seed() -> None:
    again = load_images(DigitsConfig("digits", 150, "resident", workers=0), 0)
    assert np.array_equal(again.val.images, digits_of(seed=0).val.images)


def test_another_seed_holds_out_other_digits() -> None:
    assert rows(digits_of(seed=0).val) != rows(digits_of(seed=1).val)


def test_val_has_every_digit_within_one_image_of_its_share() -> None:
    data = digits_of()
    rest = np.bincount(data.train.labels) + np.bincount(data.val.labels)
    assert np.abs(np.bincount(data.val.labels) - 150 * rest / rest.sum()).max() <= 1


def test_mean_and_std_are_those_of_the_pixels_outside_test() -> None:
    data = digits_of()
    pixels = np.concatenate([data.train.images, data.val.images]) / 255
    np.testing.assert_allclose(data.facts.mean, pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(data.facts.std, pixels.std((0, 1, 2)), atol=1e-6)


def test_mean_and_std_match_the_train_pixels_of_any_seed_closely() -> None:
    """They are taken before val is held out, so that all seeds normalise alike; a hundredth is the price at most."""
    for seed in (0, 1):
        pixels = np.asarray(digits_of(seed=seed).train.images) / 255
        np.testing.assert_allclose(digits_of(seed=seed).facts.mean, pixels.mean((0, 1, 2)), atol=0.01)
        np.testing.assert_allclose(digits_of(seed=seed).facts.std, pixels.std((0, 1, 2)), atol=0.01)


def test_no_images_need_be_held_out() -> None:
    assert (len(digits_of(val_size=0).train), len(digits_of(val_size=0).val)) == (1437, 0)


@pytest.mark.parametrize("val_size", [9, 1428])
def test_a_val_size_that_cannot_be_names_its_key(val_size: int) -> None:
    with pytest.raises(UserError, match=rf"^data\.val_size={val_size}: [^\n]+$"):
        digits_of(val_size=val_size)


def test_the_data_group_leads_here() -> None:
    data = load_images(compose_config(["data=digits"]).data, 0)
    assert (data.facts.variant, len(data.val)) == ("digits (scikit-learn)", 150)
    assert data.facts.class_names == tuple("0123456789")
