"""Every batch transform against its albumentations namesake: arguments, pixels, refusals, and both ways to apply it."""

import inspect
from functools import cache
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from albumentations.augmentations.dropout.functional import cutout
from PIL import Image
from sklearn.datasets import load_sample_images

from s9.data.augmentation.batch_arguments import integer
from s9.data.augmentation.batch_colour import CoarseDropout, Erasing, RandomBrightnessContrast, ToGray
from s9.data.augmentation.batch_geometry import Affine, HorizontalFlip, Pad, RandomCrop
from s9.data.augmentation.batch_transform import BatchTransform

CLASSES: list[type[BatchTransform]] = BatchTransform.__subclasses__()  # a new one is tested by being there
every_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)

# With these each class surely changes an image of noise, and keeps its size where it can be left out of a batch.
EXAMPLES: dict[type[BatchTransform], dict[str, Any]] = {
    HorizontalFlip: {},
    Pad: {"padding": 3, "border_mode": 1},
    RandomCrop: {"height": 20, "width": 24},
    Affine: {"rotate": (20, 40), "scale": (0.8, 1.2), "translate_percent": 0.1, "shear": (-5, 5), "border_mode": 4},
    ToGray: {},
    RandomBrightnessContrast: {"brightness_limit": (0.1, 0.2)},
    CoarseDropout: {"num_holes_range": (1, 3), "hole_height_range": (2, 9), "hole_width_range": (2, 9), "fill": 77},
    Erasing: {"fill": (10, 20, 30)},
}
BORDERS = {"constant": 0, "replicate": 1, "reflect": 2, "wrap": 3, "reflect_101": 4}


@cache
def pictures() -> np.ndarray:
    """uint8 (32, 32, 32, 3): 24 parts of two photographs, made small, and 8 images of noise, the hardest there are."""
    parts = []
    for photograph in load_sample_images().images:
        for top, left in [(y, x) for y in (0, 140, 280) for x in (0, 160, 320, 480)]:
            part = Image.fromarray(photograph[top : top + 140, left : left + 140])
            parts.append(np.asarray(part.resize((32, 32), Image.Resampling.BILINEAR)))
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    return np.concatenate([np.stack(parts), noise])


def to_batch(images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) -> a new (N, 3, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().clone()


def to_images(batch: torch.Tensor) -> np.ndarray:
    return batch.permute(0, 2, 3, 1).numpy()


def draws_for(transform: BatchTransform, count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((count, 1 + transform.draws), dtype=np.float32))


def ours(transform: BatchTransform, images: np.ndarray | None = None) -> np.ndarray:
    images = pictures() if images is None else images
    return to_images(transform(to_batch(images), draws_for(transform, len(images))))


def theirs(transform: Any, images: np.ndarray | None = None) -> np.ndarray:
    return np.stack([transform(image=image)["image"] for image in (pictures() if images is None else images)])


def example(kind: type[BatchTransform], **changes: Any) -> BatchTransform:
    return kind(**(EXAMPLES[kind] | changes))


def placed(*places: tuple[int, int]) -> list[float]:
    """The uniform numbers that choose each (place, of so many)."""
    return [(place + 0.5) / count for place, count in places]


# Arguments


def test_every_class_has_an_example_here() -> None:
    assert set(CLASSES) == set(EXAMPLES)


@every_class
def test_every_argument_is_one_of_the_namesakes_with_the_same_default(kind: type[BatchTransform]) -> None:
    own = inspect.signature(kind).parameters
    known = inspect.signature(getattr(albumentations, kind.__name__)).parameters
    assert {name: own[name].default for name in own} == {name: known[name].default for name in own if name in known}


# Pixels: with nothing left to chance both give the same image


def test_a_flip_is_the_same() -> None:
    assert np.array_equal(ours(HorizontalFlip(p=1)), theirs(albumentations.HorizontalFlip(p=1)))


@pytest.mark.parametrize("padding", [0, 4, (3, 5), (1, 2, 3, 4), (40, 0)], ids=str)
@pytest.mark.parametrize("border_mode", BORDERS.values(), ids=BORDERS)
def test_a_border_is_the_same(padding: Any, border_mode: int) -> None:
    arguments = {"padding": padding, "border_mode": border_mode, "fill": (125, 0, 255)}
    assert np.array_equal(ours(Pad(**arguments)), theirs(albumentations.Pad(**arguments)))


def test_grey_is_the_same_for_every_third_level_of_each_colour() -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, 86, 86 * 86, 3)
    assert np.array_equal(ours(ToGray(p=1), colours), theirs(albumentations.ToGray(p=1), colours))


@pytest.mark.parametrize("brightness", [-1.0, -0.2, -0.05, 0.0, 0.125, 0.2, 0.35, 1.0])
@pytest.mark.parametrize("contrast", [-1.0, -0.2, -0.15, 0.0, 0.125, 0.2, 0.3, 1.0])
def test_brightness_and_contrast_are_the_same_for_every_level(brightness: float, contrast: float) -> None:
    limits: dict[str, Any] = {"brightness_limit": (brightness,) * 2, "contrast_limit": (contrast,) * 2, "p": 1}
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1).repeat(3, 3)
    expected = theirs(albumentations.RandomBrightnessContrast(**limits), levels)
    assert np.array_equal(ours(RandomBrightnessContrast(**limits), levels), expected)


@pytest.mark.parametrize("top, left", [(0, 0), (0, 8), (12, 0), (12, 8), (5, 7)])
def test_a_crop_at_a_place_is_the_same(top: int, left: int) -> None:
    draws = torch.tensor([[0, *placed((top, 13), (left, 9))]]).expand(32, 3)
    found = to_images(RandomCrop(height=20, width=24)(to_batch(pictures()), draws))
    assert np.array_equal(found, theirs(albumentations.Crop(left, top, left + 24, top + 20, p=1)))


@pytest.mark.parametrize("fill", [0, 255, 7.6, (125, 123, 114), (0.5, 99.5, 254.9)], ids=str)
@pytest.mark.parametrize("top, left", [(0, 0), (27, 25), (3, 20)])
def test_a_hole_at_a_place_is_the_same(top: int, left: int, fill: Any) -> None:
    draws = torch.tensor([[0, 0.5, 0.5, 0.5, *placed((top, 28), (left, 26))]]).expand(32, 6)
    transform = CoarseDropout(num_holes_range=(1, 1), hole_height_range=(5, 5), hole_width_range=(7, 7), fill=fill, p=1)
    found = to_images(transform(to_batch(pictures()), draws))
    hole, rng = np.array([[left, top, left + 7, top + 5]]), np.random.default_rng(0)
    assert np.array_equal(found, np.stack([cutout(image, hole, fill, rng) for image in pictures()]))


@pytest.mark.parametrize("scale, ratio", [(0.1, 2.0), (0.02, 0.3), (0.33, 3.0), (0.5, 1.0)])
def test_an_erased_rectangle_is_as_large(scale: float, ratio: float) -> None:
    arguments: dict[str, Any] = {"scale": (scale, scale), "ratio": (ratio, ratio), "p": 1}
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    made = ours(Erasing(**arguments), white), theirs(albumentations.Erasing(**arguments), white)
    one, other = ([(erased == 0).any((0, axis, 3)).sum() for axis in (1, 2)] for erased in made)
    assert one == other


FIXED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "turned by 30 degrees": {"rotate": 30},
    "turned by -45 degrees": {"rotate": (-45, -45)},
    "turned by a right angle": {"rotate": 90},
    "smaller": {"scale": 0.9},
    "half as large": {"scale": (0.5, 0.5)},
    "twice as large": {"scale": 2.0},
    "wider": {"scale": {"x": 1.3, "y": (0.8, 0.8)}},
    "wider, the height as it was": {"scale": {"x": 1.3}},
    "sheared": {"shear": {"x": (12, 12), "y": (-7, -7)}},
    "sheared by one number": {"shear": 10},
    "moved by pixels": {"translate_px": {"x": 3, "y": -5}},
    "moved by a part": {"translate_percent": {"x": 0.1, "y": -0.0625}},
    "moved sideways": {"translate_percent": {"x": 0.1}},
    "all of it": {"rotate": -20, "scale": 1.1, "shear": {"x": 5, "y": -3}, "translate_px": {"x": -2, "y": 1}},
}
each_affine = pytest.mark.parametrize("arguments", FIXED.values(), ids=FIXED)


@each_affine
def test_an_affine_matrix_is_the_same(arguments: dict[str, Any]) -> None:
    """About the centre: theirs is undone from the corner."""
    size = {"shape": (24, 32, 3)}
    whole = albumentations.Affine(**arguments).get_params_dependent_on_data(size, {})["matrix"]
    centre = np.array([15.5, 11.5])
    transform = Affine(**arguments)
    matrices, shifts = transform.matrices(draws_for(transform, 1)[:, 1:], 24, 32)
    np.testing.assert_allclose(matrices[0], whole[:2, :2], atol=1e-6)
    np.testing.assert_allclose(shifts[0], whole[:2] @ [*centre, 1] - centre, atol=1e-5)


@each_affine
@pytest.mark.parametrize("border_mode", [0, 1, 2, 4])
def test_a_moved_image_is_within_one_grey_level_everywhere(arguments: dict[str, Any], border_mode: int) -> None:
    """Of noise too. OpenCV 5 rounds .5 to the even level, s9 upwards; OpenCV 4 interpolated in 32nds of a pixel."""
    given = {**arguments, "border_mode": border_mode, "fill": (125, 123, 114), "p": 1}
    assert np.abs(ours(Affine(**given)).astype(int) - theirs(albumentations.Affine(**given))).max() <= 1


# Which images it applies to


@every_class
@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_images_are_changed_where_the_coin_says_so_on_every_device(kind: type[BatchTransform], p: float) -> None:
    """By index on a CPU, elsewhere by where: the same images. Sizes are a batch's, so p=0.5 is not for all classes."""
    if p == 0.5 and kind in (Pad, RandomCrop):
        pytest.skip("p is 0 or 1")
    transform = example(kind, p=p)
    draws, images = draws_for(transform, 32), to_batch(pictures())
    applied, coin = transform.apply(images, draws[:, 1:]), (draws[:, 0] < p)[:, None, None, None]
    expected = torch.where(coin, applied, images) if p == 0.5 else applied if p else images
    assert torch.equal(transform(to_batch(pictures()), draws), expected)


@every_class
def test_every_image_is_changed_with_p_1_and_none_with_p_0(kind: type[BatchTransform]) -> None:
    noise = pictures()[-8:]
    never, always = (ours(example(kind, p=p), noise) for p in (0, 1))
    assert np.array_equal(never, noise)
    assert always.shape != noise.shape or (always != noise).any((1, 2, 3)).all()


@every_class
def test_a_batch_in_which_no_coin_falls_stays_as_it_is(kind: type[BatchTransform]) -> None:
    transform = example(kind, p=0) if kind in (Pad, RandomCrop) else example(kind, p=0.5)
    draws = torch.full((32, 1 + transform.draws), 0.75)
    assert torch.equal(transform(to_batch(pictures()), draws), to_batch(pictures()))


@every_class
@pytest.mark.parametrize("first", CLASSES, ids=lambda first: f"after {first.__name__}")
def test_every_transform_takes_what_any_other_gives(kind: type[BatchTransform], first: type[BatchTransform]) -> None:
    """However it lies in memory."""
    given = example(first, p=1)(to_batch(pictures()), draws_for(example(first), 32))
    transform = example(kind) if kind in (Pad, RandomCrop) else example(kind, p=0.5)
    draws = draws_for(transform, 32)
    expected = transform(given.contiguous().clone(), draws)
    assert torch.equal(transform(given, draws), expected)


@every_class
@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_first_and_last_uniform_number_are_within_the_ranges(kind: type[BatchTransform], number: float) -> None:
    """float32 has none between the last and 1: a place beyond the border would be an error, or a hole cut off."""
    transform = example(kind, p=1)
    found = transform(to_batch(pictures()), torch.full((32, 1 + transform.draws), number))
    assert found.dtype == torch.uint8 and len(found) == 32


def test_whole_numbers_include_both_ends_and_nothing_beyond() -> None:
    last = torch.tensor([0.0, 1 - 2**-24])
    assert all(integer(last, 3, 3 + top).tolist() == [3, 3 + top] for top in range(5000))


@pytest.mark.gpu
@every_class
def test_a_gpu_gives_the_same_images(kind: type[BatchTransform]) -> None:
    """Affine within a grey level, since the rounding of a GPU's sums is its own."""
    transform = example(kind) if kind in (Pad, RandomCrop) else example(kind, p=0.5)
    draws = draws_for(transform, 32)
    there = transform(to_batch(pictures()).cuda(), draws.cuda()).cpu()
    apart = (there.int() - transform(to_batch(pictures()), draws).int()).abs().max()
    assert apart <= (1 if kind is Affine else 0)


# Refusals

WRONG: list[tuple[type[BatchTransform], dict[str, Any], str]] = [
    (Pad, {"padding": -1}, "padding"),
    (Pad, {"padding": (1, 2, 3)}, "padding"),
    (Pad, {"padding": 1.5}, "padding"),
    (Pad, {"border_mode": 5}, "border_mode"),
    (Pad, {"p": 0.5}, "p"),
    (Pad, {"fill": "maen"}, "fill"),
    (RandomCrop, {"p": 0.5}, "p"),
    (RandomCrop, {"height": 0}, "height"),
    (RandomCrop, {"width": 8.5}, "width"),
    (Affine, {"border_mode": 3}, "border_mode"),
    (Affine, {"scale": 0}, "scale"),
    (Affine, {"scale": {"x": 1, "z": 1}}, "scale"),
    (Affine, {"scale": {"x": (1, 1.2), "y": (1, 1.3)}, "keep_ratio": True}, "keep_ratio"),
    (Affine, {"rotate": "abc"}, "rotate"),
    (Affine, {"rotate": float("inf")}, "rotate"),
    (Affine, {"shear": {}}, "shear"),
    (Affine, {"translate_px": 1, "translate_percent": 0.1}, "translate_px"),
    (Affine, {"fill": 256}, "fill"),
    (RandomBrightnessContrast, {"brightness_limit": "much"}, "brightness_limit"),
    (RandomBrightnessContrast, {"contrast_limit": (0, 1, 2)}, "contrast_limit"),
    (CoarseDropout, {"num_holes_range": (0, 1)}, "num_holes_range"),
    (CoarseDropout, {"num_holes_range": (3, 1)}, "num_holes_range"),
    (CoarseDropout, {"num_holes_range": (1.5, 2)}, "num_holes_range"),
    (CoarseDropout, {"num_holes_range": 1}, "num_holes_range"),
    (CoarseDropout, {"hole_height_range": (0, 4)}, "hole_height_range"),
    (CoarseDropout, {"hole_width_range": (9, 3)}, "hole_width_range"),
    (CoarseDropout, {"hole_width_range": 4}, "hole_width_range"),
    (CoarseDropout, {"fill": "maen"}, "fill"),
    (CoarseDropout, {"fill_mask": 0}, "fill_mask"),
    (Erasing, {"scale": (0, 0.2)}, "scale"),
    (Erasing, {"scale": (0.3, 0.2)}, "scale"),
    (Erasing, {"ratio": 1.0}, "ratio"),
    (Erasing, {"fill": float("nan")}, "fill"),
    (Erasing, {"fill_mask": 0}, "fill_mask"),
]


@pytest.mark.parametrize("kind, arguments, name", WRONG, ids=lambda value: str(getattr(value, "__name__", value)))
def test_a_wrong_argument_is_named(kind: type[BatchTransform], arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.* must be "):
        example(kind, **arguments)


@pytest.mark.parametrize("name", ["hole_height_range", "hole_width_range"])
def test_a_hole_larger_than_the_image_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=.* must be "):
        ours(example(CoarseDropout, **{name: (33, 40)}, p=1))


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="33 x 32 is larger"):
        ours(RandomCrop(height=33, width=32))
