"""The expected calibration error and the bins that it is made from."""

import numpy as np
import pytest

from s9.tracking.calibration import BINS, calibration


def two_classes(sure: list[float]) -> np.ndarray:
    """probs (N, 2) that predict class 0 with these probabilities."""
    first = np.array(sure)
    return np.stack([first, 1 - first], 1)


def test_a_network_that_is_right_as_often_as_it_is_sure_has_no_error() -> None:
    found = calibration(two_classes([0.75] * 4), np.array([0, 0, 0, 1]))
    assert found.error == pytest.approx(0)


def test_a_network_that_is_always_sure_and_right_half_the_time_has_an_error_of_a_half() -> None:
    found = calibration(two_classes([1.0] * 4), np.array([0, 1, 0, 1]))
    assert found.error == pytest.approx(0.5)


def test_bins_count_by_their_images() -> None:
    """Three images are 0.9 sure and right, one is 0.6 sure and wrong: 3/4 of 0.1 and 1/4 of 0.6."""
    found = calibration(two_classes([0.9, 0.9, 0.9, 0.6]), np.array([0, 0, 0, 1]))
    assert found.error == pytest.approx(0.75 * 0.1 + 0.25 * 0.6)


def test_mistakes_in_opposite_directions_cancel_inside_a_bin() -> None:
    """0.70 right and 0.72 wrong are in one bin, (10/15, 11/15]: half are right, 0.71 was said."""
    found = calibration(two_classes([0.70, 0.72]), np.array([0, 1]))
    assert found.error == pytest.approx(0.21)


def test_there_are_fifteen_bins_of_equal_width() -> None:
    found = calibration(two_classes([0.9]), np.array([0]))
    assert BINS == len(found.images) == 15
    assert np.allclose(np.diff(found.edges), 1 / 15)


def test_a_bin_includes_its_upper_edge() -> None:
    found = calibration(two_classes([0.75, 0.76]), np.array([0, 0]), bins=4)
    assert found.images.tolist() == [0, 0, 1, 1]


def test_every_image_is_in_one_bin_even_one_that_rounding_takes_above_1() -> None:
    probs = np.array([[1.0000001, 0.0], [0.5, 0.5]], np.float32)
    assert calibration(probs, np.array([0, 0])).images.sum() == 2


def test_an_empty_bin_is_no_division_by_zero() -> None:
    found = calibration(two_classes([0.9]), np.array([0]))
    assert np.isfinite(found.sure).all() and np.isfinite(found.accuracy).all()


def test_no_images_have_no_error() -> None:
    assert calibration(np.zeros((0, 3)), np.zeros(0, np.int64)).error == 0
