"""Which backend augments, what it costs to ask for it, and the grid of samples that a run shows."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from s9.cli.compose import compose_config
from s9.data.augmentation.augment import Augment, build_augment, sample_grid
from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.augmentation.image_augment import ImageAugment
from s9.data.sources.cifar10 import FACTS
from s9.system.errors import UserError
from tests.conftest import ROOT, composed

BACKENDS = {"device": [], "albumentations": ["aug.backend=albumentations", "data.loader=workers"]}
SETS = ("none", "basic", "full", "strong")
both_backends = pytest.mark.parametrize("backend", BACKENDS)
every_set = pytest.mark.parametrize("name", SETS)


def augment_of(backend: str, *overrides: str) -> Augment:
    return build_augment(composed("data=digits", *BACKENDS[backend], *overrides).aug, FACTS, seed=0)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


# Which backend


@every_set
@pytest.mark.parametrize("backend, kind", [("device", BatchAugment), ("albumentations", ImageAugment)])
def test_the_configuration_chooses_the_backend(name: str, backend: str, kind: type) -> None:
    assert type(augment_of(backend, f"aug={name}")) is kind


@pytest.mark.parametrize("name", SETS)
def test_the_device_is_what_every_set_uses_unless_told_otherwise(name: str) -> None:
    assert composed(f"aug={name}").aug.backend == "device"


BUILD = """
import sys
from s9.cli.compose import compose_config
from s9.data.augmentation.augment import build_augment
from s9.data.sources.cifar10 import FACTS
build_augment(compose_config(["data=digits", "aug=full", *sys.argv[1:]]).aug, FACTS, 0)
print(sorted({"albumentations", "cv2"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "backend, imported",
    [("device", []), ("albumentations", ["albumentations", "cv2"])],
    ids=BACKENDS,
)
@pytest.mark.slow
def test_albumentations_is_imported_only_where_it_augments(backend: str, imported: list[str]) -> None:
    """It takes seconds."""
    command = [sys.executable, "-c", BUILD, *BACKENDS[backend]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == str(imported)


@both_backends
@pytest.mark.parametrize("wrong", ["{_target_: albumentations.RandomCrop, height: 24, width: 24}"])
def test_either_backend_refuses_a_set_that_changes_the_size(backend: str, wrong: str) -> None:
    with pytest.raises(UserError, match="aug=basic: makes"):
        augment_of(backend, "aug=basic", f"+aug.transforms.extra={wrong}")


# The grid of samples


@both_backends
@every_set
def test_a_grid_shows_each_image_in_each_epoch(noise: np.ndarray, name: str, backend: str) -> None:
    augment = augment_of(backend, f"aug={name}")
    grid = sample_grid(noise, augment, epochs=3)
    assert grid.dtype == np.uint8 and grid.shape == (6, 3, 32, 32, 3)
    for image, epoch in itertools.product(range(6), (1, 2, 3)):
        assert np.array_equal(grid[image, epoch - 1], augment.preview(noise, epoch)[image])


@both_backends
def test_a_grid_has_five_epochs_unless_told_otherwise(noise: np.ndarray, backend: str) -> None:
    assert sample_grid(noise, augment_of(backend, "aug=none")).shape[1] == 5


@both_backends
def test_a_grid_without_augmentation_shows_the_images_as_they_are(noise: np.ndarray, backend: str) -> None:
    assert (sample_grid(noise, augment_of(backend, "aug=none")) == noise[:, None]).all()


@both_backends
def test_the_epochs_of_a_grid_differ(noise: np.ndarray, backend: str) -> None:
    grid = sample_grid(noise, augment_of(backend, "aug=full"))
    assert all(len({image.tobytes() for image in row}) > 1 for row in grid)


@both_backends
@every_set
def test_a_grid_leaves_the_images_as_they_were(noise: np.ndarray, name: str, backend: str) -> None:
    before = noise.copy()
    sample_grid(noise, augment_of(backend, f"aug={name}"))
    assert np.array_equal(noise, before)


@both_backends
def test_a_grid_of_a_single_image_can_be_made(noise: np.ndarray, backend: str) -> None:
    assert sample_grid(noise[:1], augment_of(backend, "aug=strong")).shape == (1, 5, 32, 32, 3)


def test_both_backends_refuse_to_be_mistaken_for_each_other() -> None:
    """Image by image needs processes, or at least their loader."""
    with pytest.raises(UserError, match=r"^aug\.backend=albumentations: must be device with data\.loader=resident"):
        compose_config(["data=digits", "aug.backend=albumentations"])
