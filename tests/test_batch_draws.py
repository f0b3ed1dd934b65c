"""What the batch transforms draw: distributed as in albumentations, and each number knows nothing of any other.

20,000 draws of each backend with fixed seeds. Bounds are such that what is right fails one of 10,000 seeds, and with
99 % probability these errors are found: p off by 0.022; a row or column of the 17 x 17 places of a hole off by a
quarter of its probability; a distribution function off by 0.034 somewhere; a correlation of 0.052.
"""

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from scipy import stats  # comes with scikit-learn, without types

from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.augmentation.batch_colour import CoarseDropout, Erasing, RandomBrightnessContrast
from s9.data.augmentation.batch_geometry import Affine, Pad, RandomCrop
from s9.data.augmentation.batch_transform import BatchTransform
from s9.data.batches import KeyedBatches
from s9.data.sources.cifar10 import FACTS
from tests.conftest import composed
from tests.test_batch_transforms import CLASSES, EXAMPLES, draws_for

COUNT = 20_000
RARE = 1e-4  # of p-values: smaller ones are no accident
CORRELATION = 5 / COUNT**0.5  # five standard deviations, since hundreds of pairs are looked at
OPTIONAL = [kind for kind in CLASSES if kind not in (Pad, RandomCrop)]  # those that p may leave out of some images

Values = dict[str, np.ndarray]  # (COUNT,) each
both_backends = pytest.mark.parametrize("backend", ["device", pytest.param("albumentations", marks=pytest.mark.slow)])


def parameters(transform: Any, shape: tuple[int, int, int], keys: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """What COUNT calls of an albumentations transform draw."""
    transform.set_random_seed(0)
    drawn = (transform.get_params_dependent_on_data({"shape": shape}, {}) for _ in range(COUNT))
    return [tuple(one[key] for key in keys) for one in drawn]


def uniform_p(found: np.ndarray) -> float:
    """Chi-square of counts that should all be the same."""
    return float(stats.chisquare(found.ravel()).pvalue)


def same_counts_p(one: np.ndarray, other: np.ndarray) -> float:
    """Chi-square of two samples of whole numbers."""
    first = min(one.min(), other.min())
    counts = np.stack([np.bincount(found - first, minlength=100) for found in (one, other)])
    return float(stats.chi2_contingency(counts[:, counts.sum(0) > 0]).pvalue)


# How often


def share_changed(kind: type[BatchTransform], p: float, backend: str) -> float:
    """Of COUNT small images of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    if backend == "device":
        transform, images = kind(**EXAMPLES[kind], p=p), torch.from_numpy(noise).permute(0, 3, 1, 2).contiguous()
        changed = transform(images.clone(), draws_for(transform, COUNT)) != images
        return float(changed.any(3).any(2).any(1).float().mean())
    theirs = getattr(albumentations, kind.__name__)(**EXAMPLES[kind], p=p)
    theirs.set_random_seed(0)
    return float(np.mean([(theirs(image=image)["image"] != image).any() for image in noise]))


@both_backends
@pytest.mark.parametrize("kind", OPTIONAL, ids=lambda kind: kind.__name__)
def test_a_transform_applies_as_often_as_p_says(kind: type[BatchTransform], backend: str) -> None:
    p = 0.3
    assert abs(share_changed(kind, p, backend) - p) < 4 * (p * (1 - p) / COUNT) ** 0.5


@pytest.mark.parametrize("p", [0.001, 0.05, 0.25, 0.5, 0.75, 0.999])
def test_the_coins_of_a_million_images_fall_as_often_as_p_says(p: float) -> None:
    """Finds an error of 0.0032 at p = 0.5."""
    augment = BatchAugment(composed("data=digits", "aug=full").aug, FACTS, seed=0)
    coins = augment.draw(1, 1_000_000, torch.device("cpu"))[0][:, 0] < p
    assert abs(float(coins.double().mean()) - p) < 4 * (p * (1 - p) / 1e6) ** 0.5


# Holes


def holes(name: str, backend: str, **arguments: Any) -> Values:
    """left, top, height and width of the one hole in each of COUNT white images of 32 x 32."""
    if backend == "albumentations":
        transform = getattr(albumentations, name)(**arguments)
        drawn = parameters(transform, (32, 32, 3), ("holes",))
        left, top, right, bottom = np.array([hole[0] for (hole,) in drawn]).T
        return {"left": left, "top": top, "height": bottom - top, "width": right - left}
    kind = {"CoarseDropout": CoarseDropout, "Erasing": Erasing}[name]
    white = torch.full((COUNT, 3, 32, 32), 255, dtype=torch.uint8)
    black = kind(**arguments, p=1)(white, draws_for(kind(**arguments), COUNT))[:, 0] == 0
    rows, columns = black.any(2).int(), black.any(1).int()
    found = {"left": columns.argmax(1), "top": rows.argmax(1), "height": rows.sum(1), "width": columns.sum(1)}
    return {name: value.numpy() for name, value in found.items()}


def one_hole(height: tuple[float, float], width: tuple[float, float]) -> dict[str, Any]:
    return {"num_holes_range": (1, 1), "hole_height_range": height, "hole_width_range": width}


@both_backends
def test_a_hole_is_as_likely_at_every_place(backend: str) -> None:
    found = holes("CoarseDropout", backend, **one_hole((16, 16), (16, 16)))
    counts = np.histogram2d(found["top"], found["left"], bins=17, range=((0, 17), (0, 17)))[0]
    assert min(uniform_p(counts), uniform_p(counts.sum(0)), uniform_p(counts.sum(1))) > RARE


@both_backends
def test_a_hole_in_pixels_has_every_size_of_its_range_as_often(backend: str) -> None:
    found = holes("CoarseDropout", backend, **one_hole((3, 12), (2, 9)))
    counts = np.histogram2d(found["height"], found["width"], bins=(10, 8), range=((3, 13), (2, 10)))[0]
    assert counts.sum() == COUNT and min(uniform_p(counts), uniform_p(counts.sum(0)), uniform_p(counts.sum(1))) > RARE


def test_a_hole_in_parts_of_the_side_has_the_same_sizes() -> None:
    ours, theirs = (
        holes("CoarseDropout", b, **one_hole((0.1, 0.43), (0.2, 0.9))) for b in ("device", "albumentations")
    )
    assert min(same_counts_p(ours[side], theirs[side]) for side in ("height", "width")) > RARE


def test_the_number_of_holes_is_each_of_its_range_as_often() -> None:
    """Of single pixels, which in 64 x 64 pixels meet in one of 700 images."""
    white = torch.full((4000, 3, 64, 64), 255, dtype=torch.uint8)
    transform = CoarseDropout(num_holes_range=(1, 4), hole_height_range=(1, 1), hole_width_range=(1, 1), p=1)
    counts = (transform(white, draws_for(transform, 4000))[:, 0] == 0).sum((1, 2)).bincount(minlength=5)[1:]
    assert counts.sum() == 4000 and uniform_p(counts.numpy()) > RARE


@pytest.mark.parametrize("scale, ratio", [((0.02, 0.33), (0.3, 3.3)), ((0.02, 0.2), (0.3, 3.3)), ((0.1, 0.9), (1, 4))])
def test_erased_rectangles_have_the_same_sizes(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    ours, theirs = (holes("Erasing", b, scale=scale, ratio=ratio) for b in ("device", "albumentations"))
    for of in (lambda f: f["height"], lambda f: f["width"], lambda f: f["height"] * f["width"]):
        assert stats.ks_2samp(of(ours), of(theirs)).pvalue > RARE


@both_backends
@pytest.mark.parametrize("place, size", [("top", "height"), ("left", "width")])
def test_an_erased_rectangle_is_as_likely_at_every_place_that_its_size_leaves(
    place: str, size: str, backend: str
) -> None:
    """The place as a part of what its size leaves, spread evenly over the pixel."""
    found = holes("Erasing", backend, scale=(0.02, 0.33), ratio=(0.3, 3.3))
    within = np.random.default_rng(1).random(COUNT)
    assert stats.kstest((found[place] + within) / (33 - found[size]), "uniform").pvalue > RARE


# Crops


@both_backends
def test_a_crop_is_as_likely_at_every_place(backend: str) -> None:
    """9 x 9 places, as in basic."""
    if backend == "device":
        rows, columns = torch.meshgrid(torch.arange(12), torch.arange(14), indexing="ij")
        images = torch.stack([rows, columns, rows]).to(torch.uint8).expand(COUNT, 3, 12, 14)
        transform = RandomCrop(height=4, width=6)
        top, left = transform(images, draws_for(transform, COUNT))[:, :2, 0, 0].T.numpy()
    else:
        drawn = parameters(albumentations.RandomCrop(height=4, width=6), (12, 14, 3), ("crop_coords",))
        left, top = np.array([coords[:2] for (coords,) in drawn]).T
    counts = np.histogram2d(top, left, bins=9, range=((0, 9), (0, 9)))[0]
    assert counts.sum() == COUNT and min(uniform_p(counts), uniform_p(counts.sum(0)), uniform_p(counts.sum(1))) > RARE


# Affine


def affine(backend: str, **arguments: Any) -> Values:
    """The four numbers of COUNT matrices and the two of their shifts, about the centre of 32 x 32 pixels."""
    if backend == "device":
        transform = Affine(**arguments)
        matrices, shifts = (part.numpy() for part in transform.matrices(draws_for(transform, COUNT)[:, 1:], 32, 32))
    else:
        whole = np.array([m for (m,) in parameters(albumentations.Affine(**arguments), (32, 32, 3), ("matrix",))])
        matrices, shifts = whole[:, :2, :2], whole[:, :2] @ [15.5, 15.5, 1] - 15.5
    names = ("xx", "xy", "yx", "yy")
    whole_shifts = {axis: shifts[:, i].round().astype(int) for i, axis in enumerate("xy")}
    return {**dict(zip(names, matrices.reshape(COUNT, 4).T, strict=True)), **whole_shifts}


@cache
def affine_of_full(backend: str) -> Values:
    """angle (degrees), scale and shifts of the set `full`."""
    arguments = composed("data=digits", "aug=full").aug.transforms["shift_scale_rotate"]
    found = affine(backend, **{key: value for key, value in arguments.items() if key != "_target_"})
    angle, scale = np.degrees(np.arctan2(found["xy"], found["xx"])), np.hypot(found["xx"], found["xy"])
    return {"angle": angle, "scale": scale, "x": found["x"], "y": found["y"]}


@pytest.mark.parametrize("name, low, high", [("angle", -45, 45), ("scale", 0.9, 1.1)])
def test_angle_and_scale_of_full_are_distributed_alike(name: str, low: float, high: float) -> None:
    ours, theirs = (affine_of_full(backend)[name] for backend in ("device", "albumentations"))
    assert stats.ks_2samp(ours, theirs).pvalue > RARE
    assert stats.kstest((ours - low) / (high - low), "uniform").pvalue > RARE


@both_backends
@pytest.mark.parametrize("axis", ["x", "y"])
def test_full_shifts_by_one_pixel_each_way_a_quarter_of_the_time(axis: str, backend: str) -> None:
    """Up to two pixels, the fraction cut off: nothing for half of them."""
    counts = np.bincount(affine_of_full(backend)[axis] + 1)
    assert stats.chisquare(counts, COUNT * np.array([0.25, 0.5, 0.25])).pvalue > RARE


@pytest.mark.parametrize("one, other", list(itertools.combinations(("angle", "scale", "x", "y"), 2)))
def test_the_parameters_of_full_are_independent(one: str, other: str) -> None:
    found = affine_of_full("device")
    assert abs(stats.spearmanr(found[one], found[other]).statistic) < CORRELATION


def test_an_affine_that_does_everything_is_distributed_alike() -> None:
    arguments: dict[str, Any] = {
        "scale": {"x": (0.7, 1.2), "y": (0.9, 1.5)},
        "rotate": (-20, 35),
        "shear": {"x": (-10, 15), "y": (0, 20)},
        "translate_px": {"x": (-3, 5), "y": (-4, 0)},
    }
    ours, theirs = (affine(backend, **arguments) for backend in ("device", "albumentations"))
    assert min(stats.ks_2samp(ours[name], theirs[name]).pvalue for name in ("xx", "xy", "yx", "yy")) > RARE
    assert min(same_counts_p(ours[axis], theirs[axis]) for axis in ("x", "y")) > RARE


# Brightness and contrast


def test_brightness_and_contrast_are_distributed_alike() -> None:
    """Seen on two grey levels, of which one tells the brightness and the step between them the contrast."""
    levels = np.array([100, 150], np.uint8).reshape(1, 2, 1).repeat(3, 2)
    theirs = albumentations.RandomBrightnessContrast(p=1)
    theirs.set_random_seed(0)
    expected = np.array([theirs(image=levels)["image"][0, :, 0] for _ in range(COUNT)]).astype(int)
    ours = RandomBrightnessContrast(p=1)
    batch = torch.from_numpy(levels).permute(2, 0, 1).expand(COUNT, 3, 1, 2)
    found = ours(batch, draws_for(ours, COUNT))[:, 0, 0].numpy().astype(int)
    seen: list[Callable[[np.ndarray], np.ndarray]] = [lambda f: f[:, 0], lambda f: f[:, 1] - f[:, 0]]
    assert min(stats.ks_2samp(of(found), of(expected)).pvalue for of in seen) > RARE


# Independence of all numbers that are drawn


@cache
def drawn(aug: str, seed: int, epoch: int) -> np.ndarray:
    """(COUNT, K): the coins and parameters of all transforms of a set."""
    augment = BatchAugment(composed("data=digits", f"aug={aug}").aug, FACTS, seed)
    return np.concatenate([table.numpy() for table in augment.draw(epoch, COUNT, torch.device("cpu"))], 1)


every_set = pytest.mark.parametrize("aug", ["basic", "full", "strong"])


def largest_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Between any column of one and any of the other."""
    columns = one.shape[1]
    return float(np.abs(np.corrcoef(one.T, other.T)[:columns, columns:]).max())


@every_set
def test_every_number_is_uniform(aug: str) -> None:
    assert min(stats.kstest(column, "uniform").pvalue for column in drawn(aug, 0, 1).T) > RARE


@every_set
def test_the_numbers_of_an_image_are_independent(aug: str) -> None:
    correlations = np.corrcoef(drawn(aug, 0, 1).T) - np.eye(drawn(aug, 0, 1).shape[1])
    assert np.abs(correlations).max() < CORRELATION


@every_set
def test_neighbouring_images_are_independent(aug: str) -> None:
    assert largest_correlation(drawn(aug, 0, 1)[:-1], drawn(aug, 0, 1)[1:]) < CORRELATION


@every_set
@pytest.mark.parametrize("seed, epoch", [(0, 2), (0, 300), (1, 1), (1, 0), (2, 1)])
def test_epochs_and_seeds_are_independent(aug: str, seed: int, epoch: int) -> None:
    """(1, 2) and (2, 1) too."""
    first = drawn(aug, 1, 2) if (seed, epoch) == (2, 1) else drawn(aug, 0, 1)
    assert largest_correlation(first, drawn(aug, seed, epoch)) < CORRELATION


@every_set
def test_the_data_order_is_independent_of_what_is_drawn(aug: str) -> None:
    place = np.argsort(KeyedBatches(COUNT, 1, seed=0).order().ravel())
    assert largest_correlation(place[:, None], drawn(aug, 0, 1)) < CORRELATION


def test_all_sixteen_outcomes_of_the_coins_of_full_are_as_frequent_as_their_product() -> None:
    transforms = composed("data=digits", "aug=full").aug.transforms
    augment = BatchAugment(composed("data=digits", "aug=full").aug, FACTS, seed=0)
    ps = [transform["p"] for transform in transforms.values()]
    tables = augment.draw(1, COUNT, torch.device("cpu"))
    coins = np.stack([table[:, 0].numpy() < p for table, p in zip(tables, ps, strict=True)])
    found = np.bincount(coins.T @ [8, 4, 2, 1], minlength=16)
    expected = [
        np.prod([p if c else 1 - p for p, c in zip(ps, cs, strict=True)]) for cs in itertools.product((0, 1), repeat=4)
    ]
    assert stats.chisquare(found, COUNT * np.array(expected)).pvalue > RARE
