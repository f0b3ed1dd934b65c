"""What a run stores of each test image, and what is read again, whatever its files are called."""

from pathlib import Path

import numpy as np
import pytest

from s9.system.errors import UserError
from s9.tracking.folder import RunFolder

PROBS = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], np.float32)
LABELS = np.array([1, 1, 1])  # the first two are mistakes, the second of which is the surest
IMAGES = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
WITHOUT = ["test image 0", "test image 1", "test image 2"]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def write(folder: RunFolder, *names: str) -> None:
    folder.write_predictions(PROBS, LABELS, IMAGES, ("cat", "dog"), names=names)


@pytest.mark.parametrize(
    "name", ["dog/it's 猫 $x^{$.png", "dog/line\nline.png", "dog/caf\udce9.png", "dog/" + "d/" * 900]
)
def test_a_test_image_may_have_any_name(folder: RunFolder, name: str) -> None:
    write(folder, "dog/0.png", name, "dog/2.png")
    assert folder.read_predictions()["names"].tolist() == ["dog/0.png", name, "dog/2.png"]


def test_images_without_names_have_their_numbers(folder: RunFolder) -> None:
    write(folder)
    assert folder.read_predictions()["names"].tolist() == WITHOUT


def test_images_without_names_are_stored_without(folder: RunFolder) -> None:
    write(folder)
    assert folder.read_arrays(folder.predictions)["names"].shape == (0,)


def test_images_of_a_run_that_stored_no_names_have_their_numbers(folder: RunFolder) -> None:
    np.savez(folder.predictions, probs=PROBS, labels=LABELS)
    assert folder.read_predictions()["names"].tolist() == WITHOUT


def test_the_surest_mistakes_come_first_with_their_images(folder: RunFolder) -> None:
    write(folder, "dog/0.png", "dog/1.png", "dog/2.png")
    stored = folder.read_predictions()
    assert stored["worst"].tolist() == [1, 0] and np.array_equal(stored["worst_images"], IMAGES[[1, 0]])


def test_predictions_that_are_written_again_have_the_same_bytes(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "dog/0.png", "dog/1.png", "dog/2.png")
    first = folder.predictions.read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    write(folder, "dog/0.png", "dog/1.png", "dog/2.png")
    assert folder.predictions.read_bytes() == first


def test_missing_predictions_are_one_line(folder: RunFolder) -> None:
    with pytest.raises(UserError, match=r"predictions.npz: cannot be read \(.*\)$"):
        folder.read_predictions()
