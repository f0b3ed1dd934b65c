"""Augmentation of whole batches: a function of (seed, epoch, index), sets refused in a line, images as theirs."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from s9.cli.compose import compose_config
from s9.config.schema import AugConfig
from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.augmentation.image_augment import ImageAugment
from s9.data.sources.cifar10 import FACTS
from s9.system.errors import UserError
from tests.conftest import composed
from tests.test_batch_transforms import pictures, to_batch, to_images

CPU = torch.device("cpu")
SETS = ("none", "basic", "full", "strong")
IMAGES = ("aug.backend=albumentations", "data.loader=workers")
every_set = pytest.mark.parametrize("name", SETS)
real_sets = pytest.mark.parametrize("name", SETS[1:])


@cache
def aug_config(*overrides: str) -> AugConfig:
    return composed("data=digits", *overrides).aug


def augment_of(*overrides: str, seed: int = 0) -> BatchAugment:
    return BatchAugment(aug_config(*overrides), FACTS, seed)


def augmented(
    augment: BatchAugment, images: np.ndarray, epoch: int = 1, index: Sequence[int] | None = None, size: int = 100
) -> np.ndarray:
    """The images of these indices, as one batch of a split of so many images."""
    index = range(len(images)) if index is None else index
    chosen = torch.tensor(list(index), dtype=torch.int64)
    return to_images(augment(to_batch(images[list(index)]), augment.draw(epoch, size, CPU), chosen))


def refused(*overrides: str) -> str:
    """What the user is told: one line."""
    with pytest.raises(UserError) as error:
        BatchAugment(compose_config(["data=digits", *overrides]).aug, FACTS, seed=0)
    assert "\n" not in str(error.value)
    return str(error.value)


def added(target: str, arguments: str = "") -> str:
    return f"+aug.transforms.extra={{_target_: albumentations.{target}{arguments}}}"


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)


# A function of the key


@every_set
@pytest.mark.parametrize(
    "batches",
    [
        [list(range(50)), list(range(50, 100))],
        [list(range(100))[::-1]],
        [list(range(i, 100, 7)) for i in range(7)],
        [[i] for i in range(100)],
        [[3, 3, 3, 99, 3]],
    ],
    ids=["halves", "backwards", "every seventh", "one by one", "an image again"],
)
def test_an_image_is_the_same_in_every_batch(noise: np.ndarray, name: str, batches: list[list[int]]) -> None:
    augment = augment_of(f"aug={name}")
    whole = augmented(augment, noise)
    assert all(np.array_equal(augmented(augment, noise, index=index), whole[index]) for index in batches)


@every_set
@pytest.mark.parametrize("size", [101, 5000])
def test_an_image_is_the_same_in_a_larger_split(noise: np.ndarray, name: str, size: int) -> None:
    augment = augment_of(f"aug={name}")
    assert np.array_equal(augmented(augment, noise, size=size), augmented(augment, noise))


@every_set
def test_epochs_may_come_in_any_order(noise: np.ndarray, name: str) -> None:
    one, other = augment_of(f"aug={name}", seed=5), augment_of(f"aug={name}", seed=5)
    forwards = {epoch: augmented(one, noise, epoch) for epoch in (1, 2, 300)}
    assert all(np.array_equal(augmented(other, noise, epoch), forwards[epoch]) for epoch in (300, 2, 1))


@every_set
@pytest.mark.parametrize("size", [32, 48])
def test_images_keep_their_size_and_the_same_key_gives_the_same_image(name: str, size: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, size, size, 3), dtype=np.uint8)
    aug = composed("data=folder", f"data.image_size={size}", f"aug={name}").aug
    facts = replace(FACTS, image_size=size)
    first, second = (BatchAugment(aug, facts, seed=0).preview(images, 1) for _ in range(2))
    assert first.dtype == np.uint8 and first.shape == images.shape and np.array_equal(first, second)


@real_sets
def test_the_global_random_streams_do_not_move_the_images(noise: np.ndarray, name: str) -> None:
    made = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(seed)
        made.append(augmented(augment_of(f"aug={name}"), noise))
    assert np.array_equal(made[0], made[1])


@real_sets
@pytest.mark.parametrize(
    "one, other",
    [((0, 1), (0, 2)), ((0, 1), (1, 1)), ((1, 2), (2, 1))],
    ids=["epoch", "seed", "seed and epoch swapped"],
)
def test_another_key_gives_other_images(
    noise: np.ndarray, name: str, one: tuple[int, int], other: tuple[int, int]
) -> None:
    first, second = (augmented(augment_of(f"aug={name}", seed=seed), noise, epoch) for seed, epoch in (one, other))
    assert (first != second).any((1, 2, 3)).sum() >= 75  # a lone image may agree by chance


@real_sets
def test_another_index_is_augmented_otherwise(noise: np.ndarray, name: str) -> None:
    found = augmented(augment_of(f"aug={name}"), np.broadcast_to(noise[:1], noise.shape))
    assert len({image.tobytes() for image in found}) >= 50


def test_no_augmentation_gives_the_images_as_they_are(noise: np.ndarray) -> None:
    assert np.array_equal(augmented(augment_of("aug=none"), noise), noise)


@every_set
def test_a_preview_is_what_training_sees_and_leaves_the_images_alone(noise: np.ndarray, name: str) -> None:
    before, augment = noise.copy(), augment_of(f"aug={name}")
    assert np.array_equal(augment.preview(noise, 3), augmented(augment, before, 3))
    assert np.array_equal(noise, before)


# Each transform has draws of its own


def tables(*overrides: str) -> dict[str, torch.Tensor]:
    augment = augment_of(*overrides)
    return dict(zip(augment.transforms, augment.draw(1, 50, CPU), strict=True))


CHANGES = {
    "one removed": ["~aug.transforms.shift_scale_rotate"],
    "one added": [added("Erasing")],
    "another p": ["aug.transforms.flip.p=0.9"],
    "p 0": ["aug.transforms.gray.p=0"],
    "p 1": ["aug.transforms.flip.p=1"],
    "another range": ["aug.transforms.shift_scale_rotate.rotate=[-5,5]"],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_one_transform_leaves_the_draws_of_the_others(change: list[str]) -> None:
    before, after = tables("aug=full"), tables("aug=full", *change)
    assert all(torch.equal(before[name], after[name]) for name in before.keys() & after.keys())


def test_no_two_transforms_have_the_same_coins() -> None:
    coins = [table[:, 0].tolist() for table in tables("aug=full", added("Erasing")).values()]
    assert all(one != other for one, other in itertools.combinations(coins, 2))


def test_p_0_is_never_and_p_1_is_always(noise: np.ndarray) -> None:
    """Flipped, and nothing else."""
    others = [f"aug.transforms.{name}.p=0" for name in ("shift_scale_rotate", "gray", "dropout")]
    assert np.array_equal(
        augmented(augment_of("aug=full", "aug.transforms.flip.p=1", *others), noise), noise[:, :, ::-1]
    )


def test_images_that_are_all_grey_can_still_be_given_holes(noise: np.ndarray) -> None:
    grey, full = "aug.transforms.gray.p=1", augmented(augment_of("aug=full", "aug.transforms.gray.p=1"), noise)
    hole = augmented(augment_of("aug=full", grey, "aug.transforms.dropout.fill=0"), noise) != full
    assert 0.3 < hole.any((1, 2, 3)).mean() < 0.7


# Sets that are refused

EXTRA = "aug.transforms.extra._target_=albumentations."


@pytest.mark.parametrize(
    "override, size",
    [
        (added("RandomCrop", ", height: 24, width: 24, p: 1.0"), "24 x 24"),
        (added("RandomCrop", ", height: 24, width: 24, p: 0"), "24 x 24"),
        (added("Pad", ", padding: [1, 2]"), "36 x 34"),
    ],
)
def test_a_set_that_changes_the_size_is_refused(override: str, size: str) -> None:
    assert refused("aug=none", override) == f"aug=none: makes images of {size} from 32 x 32; they must keep their size"


def test_a_padding_that_is_cropped_again_is_not_refused() -> None:
    assert augment_of("aug=basic")


@pytest.mark.parametrize("target", ["RandomRain", "VerticalFlip", "pytorch.ToTensorV2", "Normalize", "OneOf"])
def test_a_transform_that_only_albumentations_has_is_refused_with_the_way_on(target: str) -> None:
    said = refused("aug=full", added(target))
    assert said.startswith(f"{EXTRA}{target}: aug.backend=device cannot do this")
    assert said.endswith("aug.backend=albumentations with data.loader=workers may")


@pytest.mark.parametrize(
    "override, named",
    [
        ("+aug.transforms.shift_scale_rotate.interpolation=0", "shift_scale_rotate.interpolation=0: Affine"),
        ("+aug.transforms.gray.method=pca", "gray.method=pca: ToGray"),
    ],
)
def test_an_argument_that_only_albumentations_has_is_refused_with_the_way_on(override: str, named: str) -> None:
    said = refused("aug=full", override)
    assert said.startswith(f"aug.transforms.{named} does not take this argument")
    assert "aug.backend=albumentations with data.loader=workers may" in said


@pytest.mark.parametrize("target, meant", [("Blurr", "Blur"), ("HorizontalFlp", "HorizontalFlip")])
def test_a_name_that_nobody_has_is_refused_with_the_nearest_one(target: str, meant: str) -> None:
    said = refused("aug=full", added(target))
    assert said == f"{EXTRA}{target}: albumentations has no {target}; did you mean {meant}?"


@pytest.mark.parametrize(
    "override, named",
    [
        ("aug.transforms.dropout.fill=maen", "fill=maen"),
        ("aug.transforms.shift_scale_rotate.rotate=abc", "rotate=abc"),
        ("aug.transforms.shift_scale_rotate.border_mode=3", "border_mode=3"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(override: str, named: str) -> None:
    assert named in refused("aug=full", override)


@pytest.mark.parametrize(
    "overrides",
    [
        ("aug=none", added("RandomCrop", ", height: 40, width: 40")),
        ("aug=full", "aug.transforms.dropout.hole_height_range=[40,40]"),
    ],
    ids=["a crop larger than the image", "a hole larger than the image"],
)
def test_a_set_that_cannot_be_done_to_the_images_is_refused(overrides: tuple[str, ...]) -> None:
    assert refused(*overrides).startswith("aug.transforms.")


@pytest.mark.parametrize("target", ["need", "BatchTransform", "dataclass", "np", "Interval"])
def test_what_is_no_transform_is_refused(target: str) -> None:
    """Names that the module of the transforms knows beside them."""
    assert refused("aug=none", added(target)).startswith("aug.transforms.extra")


# Beside albumentations


@pytest.mark.slow
@pytest.mark.parametrize("of", [np.mean, np.std], ids=["mean", "std"])
@real_sets
def test_5000_images_have_the_mean_and_spread_that_albumentations_gives_them(name: str, of: np.ufunc) -> None:
    """Within four standard errors: 0.6 grey levels for basic, 1.1 for full, 1.8 for strong; 2 of 10,000 seeds fail."""
    count, originals = 5000, len(pictures())
    images = np.resize(pictures(), (count, 32, 32, 3))
    device, theirs = augment_of(f"aug={name}"), ImageAugment(aug_config(f"aug={name}", *IMAGES), FACTS, seed=0)
    found, expected = (of(augment.preview(images, 1), axis=(1, 2)) for augment in (device, theirs))
    original = np.arange(count) % originals
    spread = [np.mean([v[original == i].var(0) for i in range(originals)], 0) for v in (found, expected)]
    assert (np.abs(found.mean(0) - expected.mean(0)) < 4 * (sum(spread) / count) ** 0.5).all()
