"""Robustness: what each corruption does to an image, that its numbers come again, and what is shown and saved."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from s9.data.image_set import ImageFacts, Split
from s9.inference import robustness as room
from s9.inference.evaluate import Evaluation, score_again
from s9.inference.evaluate_files import write_evaluation
from s9.inference.robustness import CORRUPTIONS, Corruption, Robustness, changed, robustness
from s9.inference.scores import show_robustness
from s9.runs.run import train
from s9.tracking import figures
from tests.awkward_folder import picture
from tests.conftest import composed
from tests.doors import SHORT

FACTS = ImageFacts("made up", ("a", "b"), 32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
IMAGES = np.stack([np.asarray(picture(number, (120, 130, 110), (32, 32))) for number in range(24)])
PLAIN = Split(IMAGES, np.zeros(24, np.int64))
BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}

every_one = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)


def made(corruption: Corruption, strength: float, places: np.ndarray | None = None) -> np.ndarray:
    places = np.arange(24) if places is None else places
    return changed(corruption, strength, PLAIN.take(places), facts=FACTS, places=places).astype(np.float64)


@every_one
def test_more_strength_changes_an_image_more(corruption: Corruption) -> None:
    gaps = [np.abs(made(corruption, strength) - IMAGES).mean() for strength in corruption.strengths]
    assert 0 < gaps[0] < gaps[-1]


@every_one
def test_an_image_is_changed_alike_with_and_without_the_others(corruption: Corruption) -> None:
    few = np.array([3, 17])
    assert np.array_equal(
        made(corruption, corruption.strengths[2], few), made(corruption, corruption.strengths[2])[few]
    )


def test_the_noise_has_its_standard_deviation() -> None:
    grey = Split(np.full((24, 32, 32, 3), 128, np.uint8), np.zeros(24, np.int64))
    noisy = changed(BY_NAME["gaussian noise"], 0.08, grey, facts=FACTS, places=np.arange(24))
    assert noisy.std() / 255 == pytest.approx(0.08, rel=0.02)


def test_a_shift_moves_by_its_part_of_the_side_in_all_four_directions() -> None:
    dot = np.zeros((24, 32, 32, 3), np.uint8)
    dot[:, 16, 16] = 255
    dark = ImageFacts("dark", ("a", "b"), 32, mean=(0, 0, 0), std=(1, 1, 1))
    moved = changed(BY_NAME["shift"], 0.25, Split(dot, np.zeros(24, np.int64)), facts=dark, places=np.arange(24))
    found = {(int(y) - 16, int(x) - 16) for _, y, x in np.argwhere(moved[..., 0] == 255)}
    assert found == {(0, 8), (8, 0), (0, -8), (-8, 0)}


def test_a_blur_is_as_strong_for_the_size_of_an_image() -> None:
    small, large = (np.zeros((1, side, side, 3), np.uint8) for side in (32, 128))
    small[:, :, 16:], large[:, :, 64:] = 255, 255
    one = np.zeros(1, np.int64)
    blurred = [changed(BY_NAME["gaussian blur"], 1.0, Split(i, one), facts=FACTS, places=one) for i in (small, large)]
    widths = [((of[0, 0, :, 0] > 25) & (of[0, 0, :, 0] < 230)).mean() for of in blurred]
    assert widths[0] == pytest.approx(widths[1], abs=0.04)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("digits") / "run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda folder: [])
        train(composed(*SHORT, "trainer.steps_per_epoch=40"), folder)
    return score_again(folder)


@pytest.fixture(scope="module")
def found(evaluation: Evaluation) -> Robustness:
    return robustness(evaluation, 60)


def test_the_numbers_come_again(evaluation: Evaluation, found: Robustness) -> None:
    assert np.array_equal(robustness(evaluation, 60).accuracy, found.accuracy)


def test_the_images_are_evenly_spaced_and_so_are_their_clean_accuracies(
    evaluation: Evaluation, found: Robustness
) -> None:
    places = np.linspace(0, len(evaluation.images) - 1, 60).round().astype(int)
    right = evaluation.probs[places].argmax(1) == evaluation.images.labels[places]
    assert (found.images, found.clean) == (60, right.mean())


def test_more_images_than_there_are_is_all_of_them(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CORRUPTIONS", CORRUPTIONS[2:3])
    every = robustness(evaluation, 10**6)
    assert (every.images, every.clean) == (len(evaluation.images), evaluation.scores["accuracy"])


def test_the_screen_has_each_corruption_and_the_images_it_is_of(
    evaluation: Evaluation, found: Robustness, capsys: pytest.CaptureFixture[str]
) -> None:
    show_robustness(found, len(evaluation.images), Console(width=200))
    said = capsys.readouterr().out
    assert f"60 evenly spaced of {len(evaluation.images)} images" in said
    assert all(name in said for name in BY_NAME)


def test_in_80_columns_each_corruption_is_a_line_of_accuracies_and_one_of_strengths(
    evaluation: Evaluation, found: Robustness, capsys: pytest.CaptureFixture[str]
) -> None:
    show_robustness(found, len(evaluation.images), Console(width=80))
    lines = capsys.readouterr().out.splitlines()
    tables = 2 * 3 + 2 + 2 * len(CORRUPTIONS)  # title, heads, rule; unchanged and mean
    assert len([line for line in lines if line.strip()]) == tables + 1  # the line on JPEGs
    assert sum(line.startswith("gaussian noise") for line in lines) == 2


def test_the_table_and_the_figure_are_saved(evaluation: Evaluation, found: Robustness, tmp_path: Path) -> None:
    write_evaluation(evaluation, found, tmp_path)
    lines = (tmp_path / "robustness.csv").read_text().splitlines()
    assert len(lines) == 2 + 6 * 5
    assert lines[2] == f"gaussian noise,1,0.04,standard deviation,{found.accuracy[0, 0]}"
    with Image.open(tmp_path / "robustness.png") as drawn:
        assert min(drawn.size) > 400
