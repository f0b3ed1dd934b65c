"""Images in two splits are found: the same pixels and near copies, no pictures that only look alike; then dropped."""

import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s9.config.data import FolderConfig
from s9.data.image_set import ImageSet
from s9.data.sources.copies import Copy, Images, copies
from s9.data.sources.load import load_images
from s9.data.sources.square import perceptual_hash, thumbnail
from s9.system.errors import UserError
from tests.awkward_folder import picture

BLUE = (60, 90, 180)


def images_of(pictures: list[Image.Image]) -> Images:
    """As the folder's decoder makes them, with the pixels themselves as their digest."""
    whole = np.stack([np.frombuffer(np.uint64(hash(p.tobytes()) % 2**64).tobytes(), np.uint8) for p in pictures])
    near = np.array([perceptual_hash(p) for p in pictures], np.uint64)
    return Images(whole, near, np.stack([thumbnail(p) for p in pictures]))


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def brighter(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(int) + 15).clip(0, 255).astype(np.uint8))


MANY = [picture(number, BLUE, (160, 120)) for number in range(60)]


def test_the_same_pixels_are_found() -> None:
    assert copies(images_of(MANY[5:8]), images_of(MANY[:7])) == [Copy(0, 5, True), Copy(1, 6, True)]


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: saved_again(image, 40),
        smaller,
        brighter,
        lambda image: saved_again(smaller(image), 70),
        lambda image: image.resize((90, 90)),
        lambda image: image.convert("L").convert("RGB"),
    ],
    ids=["saved again", "smaller", "brighter", "smaller and saved again", "stretched", "grey"],
)
def test_a_near_copy_is_found(changed: Callable[[Image.Image], Image.Image]) -> None:
    found = copies(images_of([changed(image) for image in MANY]), images_of(MANY))
    assert found == [Copy(number, number, False) for number in range(len(MANY))]


def test_other_pictures_are_no_copies() -> None:
    assert copies(images_of(MANY[:30]), images_of(MANY[30:])) == []


def test_plain_pictures_of_equal_hash_are_held_against_each_other_by_their_pixels() -> None:
    def digit(left: int) -> Image.Image:
        drawn = np.full((64, 64, 3), 255, np.uint8)
        drawn[8:56, left : left + 20] = 0
        return Image.fromarray(drawn)

    one, other = images_of([digit(10)]), images_of([digit(34)])
    alike = Images(other.whole, one.near, other.small)  # as if the hashes were equal
    assert copies(one, alike) == []


def test_each_image_is_named_once_and_the_same_pixels_win() -> None:
    theirs = images_of([saved_again(MANY[0], 90), MANY[0], MANY[0]])
    assert copies(images_of(MANY[:1]), theirs) == [Copy(0, 1, True)]


def test_hashes_that_differ_in_four_bits_are_found_wherever_the_bits_are() -> None:
    rng = np.random.default_rng(0)
    near = rng.integers(0, 2**63, 200, dtype=np.uint64)
    flipped = near.copy()
    for number in range(200):
        for bit in rng.choice(64, 4, replace=False):
            flipped[number] ^= np.uint64(1) << np.uint64(bit)
    pixels = np.zeros((200, 4, 4), np.uint8)
    digests = np.arange(400, dtype=np.uint64).view(np.uint8).reshape(400, 8)
    found = copies(Images(digests[:200], near, pixels), Images(digests[200:], flipped, pixels))
    assert [(copy.number, copy.of) for copy in found] == [(number, number) for number in range(200)]


# In a folder


@pytest.fixture
def load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., ImageSet]:
    """One of the ten train images of each class is in test too, another, smaller, in val; one of val in test."""
    caplog.set_level(logging.INFO, "s9")
    for name, colour in (("cat", (180, 60, 60)), ("dog", (60, 180, 60))):
        for split, first, count in (("train", 0, 10), ("val", 10, 4), ("test", 14, 4)):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(first, first + count):
                picture(number, colour).save(tmp_path / "pets" / split / name / f"{number}.png")
        picture(3, colour).save(tmp_path / "pets" / "test" / name / "again.bmp")
        smaller(picture(4, colour)).save(tmp_path / "pets" / "val" / name / "small.png")
        picture(14, colour).save(tmp_path / "pets" / "val" / name / "of test.png")

    def load_folder(duplicates: str, **changes: Any) -> ImageSet:
        values = {"val_size": None, "loader": "auto", "workers": 0, "image_size": 32, "cache": str(tmp_path / "cache")}
        own = {"root": str(tmp_path / "pets"), "duplicates": duplicates, "resize": "crop"}
        return load_images(FolderConfig("folder", **(values | own | changes)), seed=0)

    return load_folder


def test_copies_are_dropped_from_train_and_then_from_val(load: Callable[..., ImageSet]) -> None:
    data = load("drop")
    assert (len(data.train), len(data.val), len(data.test)) == (16, 10, 10)


def test_copies_are_kept_where_that_is_asked_for(load: Callable[..., ImageSet]) -> None:
    data = load("keep")
    assert (len(data.train), len(data.val), len(data.test)) == (20, 12, 10)


@pytest.mark.parametrize(("duplicates", "done"), [("drop", "one of each pair is dropped"), ("keep", "all are kept")])
def test_copies_are_counted_in_one_line(
    load: Callable[..., ImageSet], duplicates: str, done: str, caplog: pytest.LogCaptureFixture
) -> None:
    load(duplicates)
    assert [line for line in caplog.messages if "two of" in line] == [
        "6 images are in two of train, val and test (4 with the same pixels, 2 near copies); "
        f"{done} (data.duplicates={duplicates})"
    ]


def test_each_copy_is_named_with_what_it_is_a_copy_of(load: Callable[..., ImageSet]) -> None:
    assert sorted(problem for problem in load("drop").problems if "cat" in problem.file) == [
        ("train/cat/3.png", "same pixels as", "test/cat/again.bmp", "dropped"),
        ("train/cat/4.png", "near copy of", "val/cat/small.png", "dropped"),
        ("val/cat/of test.png", "same pixels as", "test/cat/14.png", "dropped"),
    ]


def test_copies_are_refused_where_that_is_asked_for(load: Callable[..., ImageSet]) -> None:
    with pytest.raises(UserError) as error:
        load("refuse")
    assert str(error.value) == (
        "data.duplicates=refuse: 6 images are in two of train, val and test (4 with the same pixels, 2 near copies), "
        "such as val/cat/of test.png (same pixels as test/cat/14.png); remove them, or say data.duplicates=drop, which "
        "leaves out one of each pair"
    )


def test_a_class_of_copies_alone_is_refused(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    for file in (tmp_path / "pets" / "train" / "dog").iterdir():
        file.rename(tmp_path / "pets" / "test" / "dog" / f"moved {file.name}")
    picture(0, (60, 180, 60)).save(tmp_path / "pets" / "train" / "dog" / "0.png")
    with pytest.raises(UserError, match=r"^data\.duplicates=drop: all images of dog in train are in val or test too; "):
        load("drop")


def test_a_val_of_copies_alone_is_refused(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "pets" / "val")
    shutil.copytree(tmp_path / "pets" / "test", tmp_path / "pets" / "val")
    with pytest.raises(UserError, match=r"^data\.duplicates=drop: all images of val are in test too; remove "):
        load("drop")
    assert len(load("keep").val) == 10


def test_an_image_in_two_classes_is_named_and_stays(
    load: Callable[..., ImageSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(7, (180, 60, 60)).save(tmp_path / "pets" / "train" / "dog" / "wrong.bmp")
    data = load("drop")
    assert len(data.train) == 17
    assert ("train/dog/wrong.bmp", "same pixels in another class", "train/cat/7.png", "named") in data.problems
    assert (
        "1 image is in two classes, such as train/dog/wrong.bmp and train/cat/7.png: one may be wrong"
        in caplog.messages
    )


def test_a_dropped_copy_of_another_class_is_named_so_too(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    picture(8, (180, 60, 60)).save(tmp_path / "pets" / "test" / "dog" / "wrong.bmp")
    assert [(problem.problem, problem.done) for problem in load("drop").problems if "cat/8.png" in problem.file] == [
        ("same pixels as", "dropped")
    ]
    assert ("test/dog/wrong.bmp", "same pixels in another class", "train/cat/8.png", "named") in load("drop").problems


@pytest.mark.real
@pytest.mark.slow
def test_few_images_of_cifar10_are_called_copies(cifar10_images: Path, tmp_path: Path) -> None:
    """Its test has near copies of train images: Barz and Denzler 2020, arXiv:1902.00423."""
    values: dict[str, Any] = {
        "val_size": 5000,
        "loader": "auto",
        "workers": 0,
        "image_size": 32,
        "cache": str(tmp_path / "cache"),
    }
    data = load_images(FolderConfig("folder", root=str(cifar10_images), duplicates="keep", **values), seed=0)
    assert len(data.problems) < 60
