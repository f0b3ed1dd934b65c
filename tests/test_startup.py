"""What a run imports and when: --help nothing heavy, a run only what it uses, and what can wait beside the training."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

RUN = """
import json, sys
from pathlib import Path
from s9.cli.compose import compose_config
from s9.runs import prepare
from s9.runs.run import train

load, seen = prepare.load_images, {}

def note_load(*arguments):
    data = load(*arguments)
    seen["when the data is loaded"] = sorted(sys.modules)
    return data

prepare.load_images = note_load
train(compose_config(sys.argv[2:]), Path(sys.argv[1]))
seen["at the end"] = sorted(sys.modules)
print(json.dumps(seen))
"""
HEAVY = ("torch", "hydra", "wandb", "matplotlib", "albumentations", "captum", "cv2", "sklearn")


def imported(folder: Path, *overrides: str) -> dict[str, list[str]]:
    """The modules that a short run on a user's images has imported by two moments."""
    noise = np.random.default_rng(0)  # no image is a near copy of another
    for split in ("train", "test"):
        for label in range(2):
            (folder / "images" / split / str(label)).mkdir(parents=True)
            for number in range(8):
                pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / str(label) / f"{number}.png")
    data = ("data=folder", f"data.root={folder / 'images'}", "data.val_size=2")
    quick = ("model=strided", "aug=full", "trainer.epochs=1", "trainer.batch_size=4")
    (folder / "run").mkdir()
    command = [sys.executable, "-c", RUN, str(folder / "run"), *data, *quick, *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return imported(tmp_path_factory.mktemp("offline"), "aug.backend=device", "wandb=offline")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    others = ("aug.backend=albumentations", "data.loader=workers", "wandb=disabled")
    return imported(tmp_path_factory.mktemp("without"), *others)


@pytest.mark.parametrize(
    "door", ["train", "tune", "bench", "check", "compare", "confirm", "dashboard", "evaluate", "report"]
)
def test_help_imports_nothing_heavy(door: str) -> None:
    """Of the real command, by what python says of its imports."""
    command = [sys.executable, "-X", "importtime", "-m", f"s9.{door}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "s9" in found and found & set(HEAVY) == set()


@pytest.mark.slow
def test_a_run_that_augments_on_the_device_never_imports_albumentations(offline: dict[str, list[str]]) -> None:
    assert {"albumentations", "cv2"} & set(offline["at the end"]) == set()


@pytest.mark.slow
def test_a_run_that_augments_image_by_image_imports_albumentations(without: dict[str, list[str]]) -> None:
    """That the test above would see it."""
    assert {"albumentations", "cv2"} <= set(without["at the end"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["captum", "matplotlib", "wandb"])
def test_what_is_not_needed_for_the_first_step_is_imported_after_the_data(
    offline: dict[str, list[str]], name: str
) -> None:
    assert name not in offline["when the data is loaded"] and name in offline["at the end"]


@pytest.mark.slow
def test_a_run_without_wandb_never_imports_it(without: dict[str, list[str]]) -> None:
    assert "wandb" not in without["at the end"]
