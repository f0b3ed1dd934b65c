"""A folder with every awkward kind of file in it trains without an option but its root, and says what was done."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.awkward_folder import COUNTS, make_awkward_folder
from tests.doors import run

QUICK = ["wandb=disabled", "trainer.precision=float32", "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the run of one epoch was started; its screen is in `screen`."""
    here = tmp_path_factory.mktemp("awkward")
    make_awkward_folder(here / "photos")
    done = run(here, "train", "data=folder", "data.root=photos", "trainer.epochs=1", *QUICK)
    assert done.returncode == 0, done.stderr
    (here / "screen").write_text(done.stdout + done.stderr)
    return here


def lines(trained: Path) -> list[str]:
    return (trained / "screen").read_text().splitlines()


def summary(trained: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((trained / "run" / "summary.json").read_text())
    return found


@pytest.mark.slow
def test_one_line_says_what_was_taken_and_what_was_left_out_and_why(trained: Path) -> None:
    [line] = [line for line in lines(trained) if "left out: " in line]
    start, _, rest = line.partition("; left out: ")
    assert start.endswith("179 images of 3 classes (Dusk, lake, meadow)")
    assert sorted(rest.partition(" (meadow")[0].split(", ")) == [
        "1 .heic (cannot be read here)",
        "1 .txt (not an image)",
        "1 broken",
        "1 hidden folder",
        "2 hidden files",
    ]
    assert "meadow/half.jpg: image file is truncated" in rest


@pytest.mark.slow
def test_the_image_size_is_chosen_and_said(trained: Path) -> None:
    assert any("images become 64 x 64 pixels (data.resize=crop)" in line for line in lines(trained))
    assert json.loads((trained / "run" / "images.json").read_text())["image_size"] == 64


@pytest.mark.slow
def test_copies_and_the_broken_file_are_named_in_a_file(trained: Path) -> None:
    with (trained / "run" / "image_problems.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows if not row["other"]] == ["meadow/half.jpg"]
    copies = [row for row in rows if row["other"]]
    assert {row["problem"] for row in copies} == {"same pixels as", "near copy of"}
    assert all("copy of" in row["file"] + row["other"] or "small" in row["file"] + row["other"] for row in copies)
    assert any(line.endswith("named in run/image_problems.csv") for line in lines(trained))
    assert any(f"{len(copies)} images are in two of train, val and test" in line for line in lines(trained))


@pytest.mark.slow
def test_uneven_classes_are_said_and_counted(trained: Path) -> None:
    assert any("classes are uneven: from " in line and "(lake)" in line for line in lines(trained))
    classes = summary(trained)["classes"]
    assert set(classes) == set(COUNTS) and "balanced_accuracy" in summary(trained)["val"]


@pytest.mark.slow
def test_an_epoch_has_many_steps_or_a_line_says_what_to_set(trained: Path) -> None:
    assert any("batches of 8: " in line for line in lines(trained))
    assert any("trainer.epochs=" in line and " gives 500" in line for line in lines(trained))


@pytest.mark.slow
def test_the_figure_shows_photos_as_they_are(trained: Path) -> None:
    with np.load(trained / "run" / "samples.npz") as samples:
        original, augmented = samples["original"], samples["augmented"]
    assert original.shape == (10, 128, 128, 3) and augmented.shape[2:] == (64, 64, 3)
    white = (original == 255).all(-1)
    shapes = {(128 - int(rows.all(1).sum()), 128 - int(rows.all(0).sum())) for rows in white}
    assert len({round(height / width, 1) for height, width in shapes}) > 1  # landscape, portrait and square


@pytest.mark.slow
def test_nothing_is_written_into_the_folder(trained: Path) -> None:
    assert not [path for path in (trained / "photos").rglob("*") if path.suffix in (".npy", ".csv", ".lock")]


@pytest.mark.slow
def test_the_scores_are_found_again(trained: Path) -> None:
    done = run(trained, "evaluate", "run=run")
    assert done.returncode == 0 and "val" not in done.stderr
