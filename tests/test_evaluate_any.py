"""s9.evaluate on any images: those of the run, the same elsewhere, some of its classes, others; what is saved."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s9 import evaluate
from s9.inference.evaluate import Evaluation, score_again
from s9.runs.run import train
from s9.system.errors import UserError
from s9.tracking import figures
from s9.tracking.folder import RunFolder
from tests.awkward_folder import picture
from tests.conftest import composed
from tests.doors import SMALL

COLOURS = {"dusk": (190, 110, 60), "lake": (50, 90, 180), "meadow": (60, 160, 60)}


def make_images(root: Path, names: tuple[str, ...] = tuple(COLOURS), *, count: int = 12, first: int = 0) -> Path:
    """root/<class>/*.png, without splits."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(first, first + count):
            picture(number, COLOURS.get(name, (9, 9, 9)), (32, 32)).save(root / name / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images`, and a finished run on them, `run`."""
    made = tmp_path_factory.mktemp("any")
    make_images(made / "images" / "train", count=20)
    make_images(made / "images" / "test", count=8, first=500)
    small = [o for o in SMALL if not o.startswith(("data=", "trainer.batch_size="))]
    data = ["data=folder", f"data.root={made / 'images'}", f"data.cache={made / 'cache'}", "data.image_size=32"]
    (made / "run").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda folder: [])
        train(composed(*small, *data, "data.val_size=6", "trainer.epochs=2"), made / "run")
    return made


@pytest.fixture
def same(place: Path) -> Evaluation:
    return score_again(place / "run")


def scored(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the door prints."""
    capsys.readouterr()
    assert evaluate.main([f"run={place / 'run'}", *arguments]) == code
    return capsys.readouterr().out


def test_the_scores_of_the_run_come_again_to_the_last_digit(same: Evaluation, place: Path) -> None:
    stored = RunFolder(place / "run").read_summary()["test"]
    assert {key: same.scores[key] for key in stored} == stored
    assert f"test/accuracy           {stored['accuracy']!r}" in same.lines


def test_the_calibration_error_is_one_of_the_scores(same: Evaluation) -> None:
    assert same.scores["calibration_error"] == same.of_each.calibration.error


def test_top_5_is_a_score_of_more_than_five_classes_alone(same: Evaluation) -> None:
    assert "top5_accuracy" not in same.scores


def test_a_copy_of_the_images_elsewhere_is_compared_with_the_summary(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "images", tmp_path / "moved")
    assert "the same as in summary.json" in scored(place, capsys, f"data.root={tmp_path / 'moved'}")


def test_some_of_the_classes_are_scored_as_what_they_are(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_images(tmp_path / "two", ("lake", "meadow"), first=900)
    said = scored(place, capsys, f"data.root={root}", "split=all", f"save={tmp_path / 'saved'}")
    assert "2 of the network's 3 classes occur; the network may answer any of them" in said
    rows = {row["class"]: row["images"] for row in read(tmp_path / "saved" / "classes.csv")}
    assert rows == {"dusk": "0", "lake": "12", "meadow": "12"}


def test_a_class_that_the_run_does_not_know_is_refused_in_one_line(place: Path, tmp_path: Path) -> None:
    root = make_images(tmp_path / "other", ("lake", "ants"))
    with pytest.raises(UserError, match="classes that the network does not know: ants; it knows dusk, lake, meadow"):
        evaluate.main([f"run={place / 'run'}", f"data.root={root}", "split=all"])


def test_all_are_the_images_of_every_split(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = scored(place, capsys, "split=all")
    assert "all, 84 images" in said
    assert "60 of the images are train images of the run, which it may know by heart" in said


def test_whether_single_images_of_other_folders_were_learned_is_said_to_be_unknown(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_images(tmp_path / "new", first=700)
    said = scored(place, capsys, f"data.root={root}", "split=all")
    assert "warning: whether the network was trained on some of these images cannot be told" in said


def test_images_of_fewer_than_the_runs_val_size_are_scored(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "few" / "train", count=2, first=800)
    make_images(tmp_path / "few" / "test", count=3, first=900)
    said = scored(place, capsys, f"data.root={tmp_path / 'few'}")
    assert "test, 9 images" in said
    assert "val_size" not in said


def test_of_other_images_as_many_become_val_as_fit(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "new" / "train", count=15, first=800)
    make_images(tmp_path / "new" / "test", count=3, first=900)
    said = scored(place, capsys, f"data.root={tmp_path / 'new'}", "split=val")
    assert "val, 9 images" in said
    assert "data.val_size=null: the run's 6 is for its own images, and these are others" in said


def test_a_size_of_val_that_is_given_is_taken_although_it_is_the_runs(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "new" / "train", count=15, first=800)
    make_images(tmp_path / "new" / "test", count=3, first=900)
    said = scored(place, capsys, f"data.root={tmp_path / 'new'}", "split=val", "data.val_size=6")
    assert "val, 6 images" in said


def test_val_of_a_copy_of_the_images_is_compared_with_the_summary(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "images", tmp_path / "moved")
    said = scored(place, capsys, f"data.root={tmp_path / 'moved'}", "split=val")
    assert "the same as in summary.json" in said


@pytest.mark.parametrize("split", ["test", "all"])
def test_a_folder_of_test_alone_is_scored(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    make_images(tmp_path / "new" / "test", ("lake",), count=3, first=900)
    said = scored(place, capsys, f"data.root={tmp_path / 'new'}", f"split={split}")
    assert f"{split}, 3 images" in said
    assert "1 of the network's 3 classes occurs; the network may answer any of them" in said


def test_the_runs_test_without_its_train_is_compared_with_the_summary(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "images" / "test", tmp_path / "part" / "test")
    assert "the same as in summary.json" in scored(place, capsys, f"data.root={tmp_path / 'part'}")


def test_val_of_a_folder_of_test_alone_is_refused(place: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "new" / "test", count=3, first=900)
    with pytest.raises(UserError, match="has test, but no train"):
        evaluate.main([f"run={place / 'run'}", f"data.root={tmp_path / 'new'}", "split=val"])


def test_test_that_is_held_out_of_learned_images_is_called_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = scored(place, capsys, f"data.root={place / 'images' / 'train'}")
    assert "60 of the images are, or test is held out of what are, train images of the run" in said


def test_val_that_is_held_out_otherwise_is_not_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = scored(place, capsys, "split=val", "data.val_seed=7")
    assert "val is held out otherwise than in the run; not compared with its summary" in said
    assert "summary.json" not in said


def test_the_names_of_all_images_are_those_of_their_files(place: Path) -> None:
    found = score_again(place / "run", split="all")
    images = [place / "images" / split / name for name in found.images.names for split in ("train", "test")]
    there = [path for path in images if path.exists()]
    assert len(there) == len(found.images) == 84
    shown = found.images.take(np.array([83, 0, 40])).images
    for image, at in zip(shown, (83, 0, 40), strict=True):
        with Image.open(there[at]) as file:
            assert np.array_equal(image, np.asarray(file))


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("data.rot=photos", "data.rot=photos: there is no such key; did you mean data.root?"),
        ("data.image_size=64", "data.image_size=64: images are brought to what the network takes"),
        ("data.val_size=many", "data.val_size=many: must be"),
        ("data=mnist", "data=mnist: there is no such option"),
        ("data.root=a,b", "data.root=a,b: one value is evaluated at a time"),
        ("images=0", "images=0: must be a number of images, 1 or more"),
        ("robustness=yes", "robustness=yes: must be false or true"),
        ("rot=photos", "rot=photos: there is no such key"),
    ],
)
def test_a_mistake_is_one_line(place: Path, argument: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as error:
        evaluate.main([f"run={place / 'run'}", argument])
    assert "\n" not in str(error.value)


def test_images_of_another_option_are_loaded_by_its_keys(place: Path) -> None:
    with pytest.raises(UserError, match=r"the network does not know: 0, 1, 2, 3, 4, \.\.\.; it knows dusk"):
        evaluate.main([f"run={place / 'run'}", "data=digits"])


def test_a_file_of_weights_alone_is_scored_on_images_that_are_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "models" / "network.safetensors"
    file.parent.mkdir()
    shutil.copy(RunFolder(place / "run").final, file)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").touch()  # of something else
    data = ["data=folder", f"data.root={place / 'images'}", f"data.cache={place / 'cache'}"]
    assert evaluate.main(["run=models/network.safetensors", "precision=float32", "save=scores", *data]) == 0
    assert json.loads((tmp_path / "scores/scores.json").read_text())["weights"] == "network"
    said = capsys.readouterr().out
    assert f"test/accuracy           {RunFolder(place / 'run').read_summary()['test']['accuracy']!r}" in said
    assert "whether it was trained on some of these images is not known" in said


def test_a_choice_of_weights_beside_a_file_of_weights_is_refused(place: Path) -> None:
    with pytest.raises(UserError, match="weights=best: has no effect on a file of weights"):
        evaluate.main([f"run={RunFolder(place / 'run').final}", "weights=best"])


def test_a_file_of_weights_alone_without_images_is_refused(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.safetensors"
    shutil.copy(RunFolder(place / "run").final, file)
    with pytest.raises(UserError, match="a file of weights has no images; add data=folder"):
        evaluate.main([f"run={file}"])


@pytest.fixture(scope="module")
def saved(place: Path) -> Iterator[Path]:
    before = contents(place / "run")
    assert evaluate.main([f"run={place / 'run'}", f"save={place / 'saved'}"]) == 0
    assert contents(place / "run") == before, "the run's own folder was changed"
    yield place / "saved"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_mistake_is_saved_with_its_probabilities(saved: Path, same: Evaluation) -> None:
    rows = read(saved / "mistakes.csv")
    assert len(rows) == same.scores["total"] - same.scores["correct"]
    for row in rows:
        probs = {name: float(row[f"p({name})"]) for name in COLOURS}
        assert row["file"].startswith(f"{row['true']}/") and row["predicted"] != row["true"]
        assert max(probs, key=lambda name: probs[name]) == row["predicted"]
        assert probs[row["predicted"]] == float(row["probability"])


def test_the_scores_are_saved_as_in_a_summary(saved: Path, same: Evaluation) -> None:
    stored = json.loads((saved / "scores.json").read_text())
    assert stored["test"] == same.scores
    assert stored["images"] == same.run.known.fingerprint if same.run.known else False


@pytest.mark.parametrize("name", ["reliability.png", "misclassified.png"])
def test_the_figures_are_saved(saved: Path, name: str) -> None:
    with Image.open(saved / name) as drawn:
        assert min(drawn.size) > 200


def test_nothing_is_saved_into_the_run(place: Path) -> None:
    with pytest.raises(UserError, match="is in the run's own folder, in which nothing is changed"):
        evaluate.main([f"run={place / 'run'}", f"save={place / 'run' / 'scores'}"])


def test_nothing_is_saved_among_the_files_of_an_earlier_evaluation(place: Path, tmp_path: Path) -> None:
    (tmp_path / "robustness.csv").touch()
    with pytest.raises(
        UserError, match=r"holds files of an earlier evaluation \(robustness.csv\); give another folder"
    ):
        evaluate.main([f"run={place / 'run'}", f"save={tmp_path}"])


def test_without_save_the_last_line_says_what_it_would_write(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = scored(place, capsys).splitlines()[-1]
    assert (
        last == "save=<folder> would write scores.json, classes.csv, mistakes.csv, reliability.png, misclassified.png"
    )


def test_other_numbers_on_the_same_machine_end_with_1(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    summary = folder.read_summary()
    summary["test"]["loss"] += 1e-6
    folder.write_summary(summary)
    assert "on the same machine, in the same precision" in scored(tmp_path, capsys, code=1)
    summary["machine"]["processor"] = "another"
    folder.write_summary(summary)
    assert "within rounding" in scored(tmp_path, capsys)
