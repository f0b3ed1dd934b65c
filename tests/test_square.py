"""From a photo to a square: nothing is squashed unless that is asked for, and the original stays as it is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s9.data.sources.decode import decode_image, original
from s9.data.sources.square import squared


def thirds(width: int = 90, height: int = 30) -> Image.Image:
    """Red on the left, white with a black disc in the middle, blue on the right."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[:, : width // 3] = (255, 0, 0)
    pixels[:, -(width // 3) :] = (0, 0, 255)
    y, x = np.mgrid[:height, :width]
    pixels[(y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 4) ** 2] = 0
    return Image.fromarray(pixels)


def disc(image: Image.Image) -> tuple[int, int]:
    """(width, height) of what is black."""
    black = np.asarray(image).max(-1) < 100
    return int(black.any(0).sum()), int(black.any(1).sum())


@pytest.mark.parametrize("shape", [(90, 30), (30, 90), (50, 50), (31, 30)])
@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_every_shape_becomes_a_square(shape: tuple[int, int], resize: str) -> None:
    assert squared(Image.new("RGB", shape), 32, resize).size == (32, 32)


def test_crop_takes_the_middle_as_it_is() -> None:
    found = squared(thirds(), 30, "crop")
    assert np.array_equal(np.asarray(found), np.asarray(thirds())[:, 30:60])


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_what_is_round_stays_round(resize: str) -> None:
    wide, high = disc(squared(thirds(900, 300), 64, resize))
    assert abs(wide - high) <= 1 and wide > 5


def test_stretch_squashes_what_is_not_square() -> None:
    wide, high = disc(squared(thirds(900, 300), 64, "stretch"))
    assert high > 2 * wide


def test_pad_keeps_the_whole_image_on_its_mean_colour() -> None:
    found = np.asarray(squared(Image.new("RGB", (90, 30), (200, 100, 50)), 30, "pad"))
    assert (found == (200, 100, 50)).all()
    padded = np.asarray(squared(thirds(), 90, "pad"))
    assert np.array_equal(padded[30:60], np.asarray(thirds()))
    assert np.abs(padded[:30].astype(int) - np.asarray(thirds()).mean((0, 1))).max() < 3


def test_an_image_of_the_wanted_size_is_not_changed() -> None:
    image = thirds(32, 32)
    assert all(squared(image, 32, resize) is image for resize in ("crop", "pad", "stretch"))


def test_a_photo_is_cropped_after_it_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = thirds().transpose(Image.Transpose.ROTATE_270)  # red on top
    tall.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    found = decode_image(tmp_path / "a.png", 30, resize="crop").pixels
    assert np.array_equal(found, np.asarray(tall)[30:60])


def test_the_original_keeps_its_shape_and_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    thirds(900, 300).save(tmp_path / "a.png", exif=exif)
    found = original(tmp_path / "a.png", 120, None)
    assert found.shape == (120, 40, 3)
    assert found[0, 20].tolist() == [255, 0, 0] and found[-1, 20].tolist() == [0, 0, 255]


def test_a_small_original_is_not_enlarged(tmp_path: Path) -> None:
    thirds().save(tmp_path / "a.png")
    assert original(tmp_path / "a.png", 128, None).shape == (30, 90, 3)
