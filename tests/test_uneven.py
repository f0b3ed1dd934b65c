"""A run on uneven classes, from a folder of images: what its files and its lines say of each class."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s9.inference.evaluate import score_again
from s9.runs.rank_0 import Paused
from s9.runs.run import train
from s9.tracking import figures
from s9.tracking.folder import RunFolder
from tests.conftest import composed
from tests.doors import SMALL

COUNTS = {"train": (80, 16), "val": (12, 4), "test": (10, 5)}  # of ants and bees
NAMES = ("ants", "bees")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, a little lighter for bees."""
    root, rng = tmp_path_factory.mktemp("insects"), np.random.default_rng(0)
    for split, counts in COUNTS.items():
        for label, (name, count) in enumerate(zip(NAMES, counts, strict=True)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(0, 200, (32, 32, 3), dtype=np.uint8) + 40 * label
                Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    return root


def run(images: Path, folder: Path, *overrides: str, **more: Any) -> dict[str, Any]:
    small = [o for o in SMALL if not o.startswith(("data=", "trainer.batch_size="))]
    data = ["data=folder", f"data.root={images}", f"data.cache={images / 'cache'}", "data.image_size=32"]
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda folder: [])
        return train(composed(*small, *data, "trainer.epochs=2", *overrides), folder, **more)


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    run(images, folder.path)
    return folder


def lines(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(caplog.messages)


def test_the_summary_has_the_images_and_the_accuracies_of_each_class(finished: RunFolder) -> None:
    summary = finished.read_summary()
    counts = {name: tuple(of[split] for split in COUNTS) for name, of in summary["classes"].items()}
    assert counts == {name: tuple(of[n] for of in COUNTS.values()) for n, name in enumerate(NAMES)}
    for split in ("val", "test"):
        accuracies = [of[f"{split}_accuracy"] for of in summary["classes"].values()]
        assert np.mean(accuracies) == pytest.approx(summary[split]["balanced_accuracy"])


def test_the_summary_has_the_batch_size_that_was_chosen(finished: RunFolder) -> None:
    assert finished.read_summary()["batch_size"] == 8


def test_each_epoch_has_its_balanced_accuracy(finished: RunFolder) -> None:
    assert all(0 <= record["val/balanced_accuracy"] <= 1 for record in finished.read_metrics())


def test_the_run_scored_again_gives_the_same_balanced_accuracy(finished: RunFolder) -> None:
    found = score_again(finished.path)
    stored = finished.read_summary()["test"]["balanced_accuracy"]
    assert f"test/balanced_accuracy  {stored!r}" in found.lines
    assert "the same as in summary.json" in found.lines and not found.unexplained


def test_the_lines_of_a_run_tell_of_the_classes_and_the_batches(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(images, tmp_path / "run")
    told = lines(caplog)
    assert "classes are uneven: from 16 (bees) to 80 (ants) train images" in told
    assert "batches of 8: 12 steps an epoch (trainer.batch_size=null)" in told
    assert "only 24 steps in all" in told
    (end,) = (line for line in caplog.messages if line.startswith("test: "))
    assert ", balanced " in end


def test_the_lines_of_the_epochs_have_the_balanced_accuracy(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(images, tmp_path / "run")
    epochs = [line for line in caplog.messages if line.startswith("epoch ")]
    assert len(epochs) == 2 and all(", balanced " in line for line in epochs)


def test_a_job_of_a_sweep_shows_nothing_of_test(images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(images, tmp_path / "run", group="a sweep")
    assert [line.partition(":")[0] for line in caplog.messages if ": average loss" in line] == ["val"]


def test_a_balanced_run_that_is_cut_and_resumed_has_the_weights_of_one_that_was_not(
    images: Path, tmp_path: Path
) -> None:
    overrides = ("data.balance=true", "aug=full")
    run(images, tmp_path / "whole", *overrides)
    with pytest.raises(Paused):
        run(images, tmp_path / "cut", *overrides, until_epoch=1)
    run(images, tmp_path / "cut", *overrides, resumed=True)
    whole, cut = (RunFolder(tmp_path / name).final.read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_balance_changes_what_is_learned(images: Path, tmp_path: Path, finished: RunFolder) -> None:
    run(images, tmp_path / "balanced", "data.balance=true")
    assert RunFolder(tmp_path / "balanced").final.read_bytes() != finished.final.read_bytes()
