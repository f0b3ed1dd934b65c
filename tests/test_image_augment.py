"""Augmentation image by image: a function of (seed, epoch, index), independent transforms, bad sets in one line."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from s9.cli.compose import compose_config
from s9.config.schema import AugConfig
from s9.data.augmentation.augment import sample_grid
from s9.data.augmentation.image_augment import ImageAugment
from s9.data.sources.cifar10 import FACTS
from s9.system.errors import UserError
from tests.conftest import composed

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf" / "aug"
SETS = ("none", "basic", "full", "strong")
IMAGES = ("data=digits", "aug.backend=albumentations", "data.loader=workers")
FULL = ("flip", "shift_scale_rotate", "gray", "dropout")
# basic's pad and crop are one step in two: a padded image is larger, a crop of an image of its own size does nothing.
STEPS = [(name, kept) for name in ("basic", "strong") for kept in (("flip",), ("pad", "crop"))]
STEPS += [
    *[("strong", (name,)) for name in ("colour", "shift_scale_rotate", "dropout")],
    *[("full", (name,)) for name in FULL],
]


@cache
def aug_config(*overrides: str) -> AugConfig:
    return composed(*IMAGES, *overrides).aug


def only(name: str, kept: Sequence[str]) -> AugConfig:
    """The set `name` without the transforms that are not in `kept`; those that stay always fire."""
    removed = [t for t in aug_config(f"aug={name}").transforms if t not in kept]
    return aug_config(
        f"aug={name}", *[f"~aug.transforms.{t}" for t in removed], *[f"aug.transforms.{t}.p=1" for t in kept]
    )


def refused(*overrides: str) -> str:
    """What the user is told: one line."""
    with pytest.raises(UserError) as error:
        ImageAugment(compose_config([*IMAGES, *overrides]).aug, FACTS, seed=0)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


# A function of the key


@pytest.mark.parametrize("name", SETS)
def test_the_same_key_gives_the_same_image_in_any_order(noise: np.ndarray, name: str) -> None:
    first, second = (ImageAugment(aug_config(f"aug={name}"), FACTS, seed=5) for _ in range(2))
    keys = list(itertools.product((1, 2, 300), range(20)))
    forwards = {key: first(noise[key[1]], *key) for key in keys}
    backwards = {key: second(noise[key[1]], *key) for key in reversed(keys)}
    assert all(np.array_equal(forwards[key], backwards[key]) for key in keys)


@pytest.mark.parametrize("name", SETS[1:])
def test_the_global_random_streams_do_not_move_the_images(noise: np.ndarray, name: str) -> None:
    augment = ImageAugment(aug_config(f"aug={name}"), FACTS, seed=0)
    made = []
    for seed in (1, 2):
        np.random.seed(seed)
        made.append([augment(image, 1, i) for i, image in enumerate(noise)])
    assert np.array_equal(made[0], made[1])


@pytest.mark.parametrize("name", SETS[1:])
@pytest.mark.parametrize(
    "one, other",
    [
        ((0, 1, 3), (0, 2, 3)),
        ((0, 1, 3), (1, 1, 3)),
        ((0, 1, 3), (0, 1, 4)),
        ((0, 1, 2), (0, 2, 1)),
        ((1, 2, 0), (2, 1, 0)),
    ],
    ids=["epoch", "seed", "index", "epoch and index swapped", "seed and epoch swapped"],
)
def test_another_key_gives_another_image(
    noise: np.ndarray, name: str, one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    """Of twenty images under two keys each, most differ; a lone pair may agree by chance."""
    made = []
    for seed, epoch, index in (one, other):
        augment = ImageAugment(aug_config(f"aug={name}"), FACTS, seed)
        made.append([augment(image, epoch + 10 * i, index + 10 * i) for i, image in enumerate(noise)])
    assert sum(not np.array_equal(a, b) for a, b in zip(*made, strict=True)) >= 15


def test_no_augmentation_gives_the_images_as_they_are(noise: np.ndarray) -> None:
    augment = ImageAugment(aug_config("aug=none"), FACTS, seed=0)
    assert all(np.array_equal(augment(image, 1, i), image) for i, image in enumerate(noise))


@pytest.mark.parametrize("name", SETS)
def test_images_keep_their_type_and_shape(noise: np.ndarray, name: str) -> None:
    augment = ImageAugment(aug_config(f"aug={name}"), FACTS, seed=0)
    made = [augment(noise[i % 20], 1, i) for i in range(200)]
    assert {(image.dtype, image.shape) for image in made} == {(np.dtype(np.uint8), (32, 32, 3))}


@pytest.mark.parametrize("name", SETS)
def test_the_data_set_itself_is_never_changed(noise: np.ndarray, name: str) -> None:
    augment, before = ImageAugment(aug_config(f"aug={name}"), FACTS, seed=0), noise.copy()
    for epoch, index in itertools.product(range(10), range(20)):
        augment(noise[index], epoch, index)
    assert np.array_equal(noise, before)


@pytest.mark.parametrize("name", SETS[1:])
def test_images_of_another_size_keep_it(name: str) -> None:
    aug = aug_config("data=folder", "data.image_size=48", f"aug={name}")
    augment = ImageAugment(aug, replace(FACTS, image_size=48), seed=0)
    assert augment(np.zeros((48, 48, 3), np.uint8), 1, 0).shape == (48, 48, 3)


@pytest.mark.parametrize("name", SETS[1:])
def test_the_samples_shown_are_those_that_training_sees(noise: np.ndarray, name: str) -> None:
    augment = ImageAugment(aug_config(f"aug={name}"), FACTS, seed=0)
    grid = sample_grid(noise[:4], augment, epochs=3)
    assert grid.shape == (4, 3, 32, 32, 3)
    for i, epoch in itertools.product(range(4), (1, 2, 3)):
        assert np.array_equal(grid[i, epoch - 1], augment(noise[i], epoch, i))


# What each transform does


@pytest.mark.parametrize("name, kept", STEPS)
def test_every_transform_changes_images(noise: np.ndarray, name: str, kept: tuple[str, ...]) -> None:
    augment = ImageAugment(only(name, kept), FACTS, seed=0)
    changed = sum(not np.array_equal(augment(image, 1, i), image) for i, image in enumerate(noise))
    assert changed >= 15  # a crop may by chance fall where the image was


def test_every_transform_of_the_sets_is_covered_here() -> None:
    listed = {(name, transform) for name in SETS for transform in aug_config(f"aug={name}").transforms}
    assert listed == {(name, transform) for name, kept in STEPS for transform in kept}


def test_a_flip_mirrors_left_and_right(noise: np.ndarray) -> None:
    augment = ImageAugment(only("full", ["flip"]), FACTS, seed=0)
    assert np.array_equal(augment(noise[0], 1, 0), noise[0][:, ::-1])


def test_gray_makes_the_channels_equal(noise: np.ndarray) -> None:
    found = ImageAugment(only("full", ["gray"]), FACTS, seed=0)(noise[0], 1, 0)
    assert (found == found[..., :1]).all()


def test_pad_and_crop_move_the_image_by_up_to_four_pixels_each_way() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[16, 16] = 255
    augment = ImageAugment(only("basic", ["pad", "crop"]), FACTS, seed=0)
    places = {tuple(np.argwhere(augment(image, 1, i)[..., 0])[0] - 16) for i in range(1500)}
    assert places == set(itertools.product(range(-4, 5), repeat=2))


def test_the_affine_transform_never_shows_a_black_border() -> None:
    white = np.full((32, 32, 3), 255, np.uint8)
    augment = ImageAugment(only("full", ["shift_scale_rotate"]), FACTS, seed=0)
    assert min(augment(white, 1, i).min() for i in range(200)) == 255


@pytest.mark.parametrize(
    "mean, grey",
    [(FACTS.mean, (125, 123, 114)), ((0.0, 1.0, 0.5), (0, 255, 128)), ((0.1, 0.2, 0.3), (26, 51, 76))],
)
def test_the_hole_is_one_square_of_16_pixels_in_the_mean_colour(
    mean: tuple[float, float, float], grey: tuple[int, int, int]
) -> None:
    """76 is 0.3 * 255 = 76.5 to the nearest even number."""
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image[(image == grey).any(-1)] = (7, 8, 9)  # no pixel has any of the hole's levels
    augment = ImageAugment(only("full", ["dropout"]), replace(FACTS, mean=mean), seed=0)
    for index in range(200):
        found = augment(image, 1, index)
        hole = (found != image).all(-1)
        rows, columns = (np.flatnonzero(hole.any(axis)) for axis in (1, 0))
        assert (len(rows), len(columns), int(hole.sum())) == (16, 16, 256)
        assert (rows[-1] - rows[0], columns[-1] - columns[0]) == (15, 15)
        assert (found[hole] == grey).all() and np.array_equal(found[~hole], image[~hole])


def test_the_hole_falls_on_all_parts_of_the_image() -> None:
    image = np.full((32, 32, 3), 255, np.uint8)
    augment = ImageAugment(only("full", ["dropout"]), FACTS, seed=0)
    covered = np.mean([(augment(image, 1, i) != image).any(-1) for i in range(2000)], 0)
    assert covered.min() > 0 and covered.max() < 1


# The coins: which transforms of `full` fired, told from the picture alone

HOLE = 7  # a grey level that nothing but the hole has: the picture's own lie between 40 and 204


def picture() -> np.ndarray:
    """Darker on the left, equal rows, nowhere grey: each transform of `full` leaves a trace of its own."""
    ramp = np.broadcast_to(60 + 4 * np.arange(32), (32, 32))
    return np.stack([ramp, ramp - 20, ramp + 20], -1).astype(np.uint8)


def fired(found: np.ndarray) -> tuple[bool, bool, bool, bool]:
    """(flip, shift_scale_rotate, gray, dropout) that made `found` out of `picture()`.

    Dropout leaves the hole's colour. Outside the hole: gray leaves three equal channels; rotated by up to 45 degrees
    either way, the picture is still darker on its left unless it was flipped; and where it was not rotated, scaled or
    moved, each column is a single colour and is the picture's own.
    """
    seen = ~(found == HOLE).all(-1)
    levels = found.astype(float)
    gray = bool((np.ptp(levels[seen], axis=1) == 0).all())
    brightness = levels.mean(-1)
    flip = bool((np.diff(brightness, axis=1) * (seen[:, 1:] & seen[:, :-1])).sum() < 0)
    own = picture()[:, ::-1] if flip else picture()
    # A grey picture's levels follow its colours by a fixed rule: its luma, within a grey level.
    still = own @ [0.299, 0.587, 0.114] if gray else own[..., 0]
    moved = bool(np.abs(levels[..., 0] - still)[seen].max() > 1)
    return flip, moved, gray, not seen.all()


@pytest.mark.parametrize("coins", list(itertools.product((0, 1), repeat=4)), ids=lambda coins: "".join(map(str, coins)))
def test_the_picture_tells_which_transforms_fired(coins: tuple[int, int, int, int]) -> None:
    certain = [f"aug.transforms.{name}.p={p}" for name, p in zip(FULL, coins, strict=True)]
    augment = ImageAugment(aug_config("aug=full", *certain), replace(FACTS, mean=(HOLE / 255,) * 3), seed=1)
    assert {fired(augment(picture(), 1, i)) for i in range(100)} == {tuple(map(bool, coins))}


KEYS = 4000


@pytest.fixture(scope="module")
def coins() -> np.ndarray:
    """(2, KEYS / 2, 4) of 0 and 1: which transforms fired in epochs 1 and 2, for each index."""
    augment = ImageAugment(aug_config("aug=full"), replace(FACTS, mean=(HOLE / 255,) * 3), seed=0)
    return np.array([[fired(augment(picture(), epoch, i)) for i in range(KEYS // 2)] for epoch in (1, 2)]).astype(float)


def phi(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two coins; for independent ones its standard deviation is 1 / sqrt(n)."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("position, name", list(enumerate(FULL)))
def test_each_transform_fires_as_often_as_its_probability_says(coins: np.ndarray, position: int, name: str) -> None:
    p = aug_config("aug=full").transforms[name]["p"]
    assert abs(coins[..., position].mean() - p) < 4 * (p * (1 - p) / KEYS) ** 0.5


@pytest.mark.parametrize("one, other", list(itertools.combinations(range(4), 2)))
def test_transforms_fire_independently_of_each_other(coins: np.ndarray, one: int, other: int) -> None:
    assert abs(phi(coins[..., one], coins[..., other])) < 4 / KEYS**0.5


@pytest.mark.parametrize("position", range(4), ids=FULL)
def test_a_transform_fires_independently_of_the_epoch_before(coins: np.ndarray, position: int) -> None:
    assert abs(phi(coins[0, :, position], coins[1, :, position])) < 4 / (KEYS / 2) ** 0.5


@pytest.mark.parametrize("position", range(4), ids=FULL)
def test_a_transform_fires_independently_of_the_image_before(coins: np.ndarray, position: int) -> None:
    assert abs(phi(coins[:, :-1, position], coins[:, 1:, position])) < 4 / KEYS**0.5


# Sets that are refused, or work as their files say


def written_commands() -> list[str]:
    """The commands in the comments of conf/aug/*.yaml; what stands behind four spaces explains them."""
    lines = [line for file in sorted(CONF.glob("*.yaml")) for line in file.read_text().splitlines()]
    found = [re.match(r"#   python -m s9\.train (.+?)(?:\s{4,}.*)?$", line) for line in lines]
    return [match[1] for match in found if match]


def test_every_set_says_how_it_is_used() -> None:
    assert {name for name in SETS if any(f"aug={name}" in command for command in written_commands())} == set(SETS)


@pytest.mark.parametrize("command", written_commands())
def test_the_commands_written_in_the_files_work(command: str) -> None:
    ImageAugment(aug_config(*shlex.split(command)), FACTS, seed=0)


def added(target: str, arguments: str = "") -> str:
    return f"+aug.transforms.extra={{_target_: albumentations.{target}{arguments}}}"


@pytest.mark.parametrize(
    "transform",
    [
        added("Normalize", ", p: 1.0"),
        added("ToFloat", ", p: 1.0"),
        added("pytorch.ToTensorV2", ", p: 1.0"),
        added("Resize", ", height: 24, width: 24, p: 1.0"),
        added("RandomCrop", ", height: 24, width: 24, p: 1.0"),
    ],
)
def test_a_set_that_changes_type_or_shape_is_refused(transform: str) -> None:
    said = refused("aug=none", transform)
    assert said.startswith("aug=none: makes ") and "uint8 32x32x3" in said


@pytest.mark.parametrize(
    "transform",
    [added("Normalize", ", p: 0.05"), added("RandomCrop", ", height: 24, width: 24, p: 0.05")],
)
def test_a_set_that_changes_type_or_shape_now_and_then_is_refused(transform: str) -> None:
    assert "uint8 32x32x3" in refused("aug=none", transform)


@pytest.mark.parametrize(
    "override, named",
    [
        ("aug.transforms.dropout.num_holes_range=[3,1]", "num_holes_range"),
        ("aug.transforms.dropout.fill=maen", "fill"),
        ("aug.transforms.shift_scale_rotate.rotate=abc", "rotate"),
        ("aug.transforms.shift_scale_rotate.border_mode=99", "border_mode"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(override: str, named: str) -> None:
    assert named in refused("aug=full", override)


@pytest.mark.parametrize(
    "overrides",
    [
        ("aug=none", added("RandomCrop", ", height: 40, width: 40, p: 1.0")),
        ("aug=full", "aug.transforms.dropout.hole_height_range=[40,40]", "aug.transforms.dropout.p=1"),
        ("aug=none", added("Mosaic", ", p: 1.0")),
    ],
    ids=["a crop larger than the image", "a hole larger than the image", "a transform of several images"],
)
def test_a_set_that_cannot_run_on_the_images_is_refused(overrides: tuple[str, ...]) -> None:
    assert refused(*overrides)


@pytest.mark.parametrize(
    "transform",
    [
        added("from_dict", ", transform_dict: {}"),
        "+aug.transforms.extra={_target_: s9.data.image_set.channel_statistics, images: 1}",
    ],
    ids=["a function of albumentations", "a function of ours"],
)
def test_what_is_no_transform_is_refused(transform: str) -> None:
    assert refused("aug=none", transform)


COMPOSE_AND_LISTEN = """
import sys
sys.addaudithook(lambda event, args: event.startswith(("socket.getaddrinfo", "socket.connect")) and print(event, args))
from s9.cli.compose import compose_config
compose_config(["data=digits", "aug=full", "aug.backend=albumentations", "data.loader=workers"])
import s9.data.augmentation.image_augment
"""


@pytest.mark.slow
def test_albumentations_asks_no_index_for_a_newer_version() -> None:
    """Its import does, unless it is told not to before it is imported for the first time."""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    # A proxy where nobody listens: were something asked, it would be refused at once.
    environment |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", COMPOSE_AND_LISTEN]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == ""


ONE_OF = (
    "+aug.transforms.either={_target_: albumentations.OneOf, p: 1.0, transforms: ["
    "{_target_: albumentations.CoarseDropout, p: 1.0, num_holes_range: [1, 1], hole_height_range: [32, 32], "
    "hole_width_range: [32, 32], fill: mean}, {_target_: albumentations.InvertImg, p: 1.0}]}"
)


def test_a_transform_that_holds_others_works() -> None:
    """OneOf: each image is either filled with the mean or inverted, by its key."""
    augment = ImageAugment(compose_config([*IMAGES, "aug=none", ONE_OF]).aug, FACTS, seed=0)
    black = np.zeros((32, 32, 3), np.uint8)
    seen = {tuple(augment(black, 1, index)[0, 0].tolist()) for index in range(20)}
    assert seen == {tuple(round(255 * channel) for channel in FACTS.mean), (255, 255, 255)}
    assert np.array_equal(augment(black, 1, 7), augment(black, 1, 7))


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("[]", "aug.transforms.either.transforms=[]: must be a list of mappings, each with _target_"),
        ("3", "aug.transforms.either.transforms=3: must be a list of mappings, each with _target_"),
        ("[{p: 1.0}]", "aug.transforms.either.transforms.0={'p': 1.0}: must be a mapping with _target_"),
        ("[{_target_: os.system}]", "aug.transforms.either.transforms.0._target_=os.system: must begin with"),
        ("[{_target_: albumentations.Blur, blurr: 3}]", "aug.transforms.either.transforms.0.blurr=3: Blur does not"),
    ],
)
def test_what_a_transform_holds_is_checked_like_any_other(inner: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        compose_config(
            [*IMAGES, "aug=none", f"+aug.transforms.either={{_target_: albumentations.OneOf, transforms: {inner}}}"]
        )


def test_on_the_device_a_transform_that_holds_others_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"aug\.backend=albumentations with data.loader=workers may"):
        compose_config(["data=digits", "aug=none", ONE_OF])
