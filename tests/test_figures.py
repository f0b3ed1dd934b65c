"""The figures of a run whatever its number of classes, and what one that cannot be drawn costs."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s9.tracking import figures
from s9.tracking.figures import MOST_NAMED, confusion_matrix, draw_all, most_confused
from s9.tracking.folder import RunFolder

LARGEST = 2500  # pixels on a side of any picture


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def write_predictions(folder: RunFolder, classes: int, images: int = 3000, wrong: int = 100) -> None:
    """Of a network that calls `wrong` images of class 0 class 1, and all others what they are."""
    labels = np.arange(images) % classes
    labels[:wrong] = 0
    preds = labels.copy()
    preds[:wrong] = 1
    probs = np.zeros((images, classes), np.float32)
    probs[np.arange(images), preds] = 1
    shown = np.zeros((images, 8, 8, 3), np.uint8)
    folder.write_predictions(probs, labels, shown, tuple(f"class {n}" for n in range(classes)))


@pytest.mark.parametrize("classes", [2, 10, MOST_NAMED, MOST_NAMED + 1, 1000])
def test_the_confusion_matrix_is_a_picture_of_bounded_size(folder: RunFolder, classes: int) -> None:
    folder.figures.mkdir()
    write_predictions(folder, classes)
    with Image.open(confusion_matrix(folder)) as picture:
        assert min(picture.size) > 300 and max(picture.size) <= LARGEST


def test_what_is_confused_most_comes_first() -> None:
    counts = np.array([[5, 1, 0], [0, 9, 4], [2, 0, 7]])
    assert most_confused(counts, 2) == [(1, 2, 4), (2, 0, 2)]


def test_what_is_right_is_no_confusion() -> None:
    assert most_confused(np.diag([3, 4]), 5) == []


def test_a_figure_that_cannot_be_drawn_costs_that_figure_alone(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of metrics.jsonl is damaged; the figures of other files are drawn."""
    write_predictions(folder, 3)
    folder.metrics.write_text("no json\n")
    with caplog.at_level(logging.WARNING):
        drawn = draw_all(folder)
    assert [path.stem for path in drawn] == ["misclassified", "confusion"]
    (line,) = caplog.messages
    assert line.startswith("curves cannot be drawn (") and "python -m s9.report run=" in line


def test_a_long_class_name_is_cut_in_the_list_of_confused_pairs() -> None:
    assert figures._short("a" * 40) == "a" * 23 + "…" and figures._short("cat") == "cat"
