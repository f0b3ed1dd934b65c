"""A run knows its images: it does not go on with others, and its weights say which ones they are of."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s9 import evaluate
from s9.cli.compose import compose_config
from s9.data.image_set import ImageFacts, ImageSet, Split, in_short
from s9.data.sources.load import load_images
from s9.runs.donor_folders import runs_of
from s9.runs.run import train
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted
from s9.tracking import figures
from s9.tracking.folder import RunFolder
from tests.doors import SMALL

pytestmark = pytest.mark.usefixtures("no_figures")

CLASSES = ("ants", "bees", "wasps")


def make_images(root: Path, train: int = 8, test: int = 3) -> None:
    """Small pictures of one colour a class, each a little different."""
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                colour = (80 * label, 5 * number, 120)
                Image.new("RGB", (32, 32), colour).save(root / split / name / f"{number}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and a finished run on them, `run`."""
    place = tmp_path_factory.mktemp("known")
    make_images(place / "images")
    config = ["data=folder", f"data.root={place / 'images'}", f"data.cache={place / 'cache'}", "data.val_size=6"]
    config += ["data.image_size=32", "data.duplicates=keep"]  # pictures of one colour look like copies
    small = ["trainer.epochs=1", "trainer.batch_size=6"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda folder: [])
        train(compose_config([*SMALL[1:], *config, *small]), place / "run")
    return place


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same, to change; the run's configuration names the copied images."""
    shutil.copytree(made, tmp_path / "copy")
    config = tmp_path / "copy" / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(made), str(tmp_path / "copy")))
    return tmp_path / "copy"


def resume(place: Path) -> None:
    train(RunFolder(place / "run").read_config(), place / "run", resumed=True)


def add_one(images: Path) -> str:
    Image.new("RGB", (32, 32), "red").save(images / "train" / "ants" / "new.png")
    return "train/ants has 9 images, had 8"


def remove_one(images: Path) -> str:
    (images / "train" / "bees" / "0.png").unlink()
    return "train/bees has 7 images, had 8"


def change_one(images: Path) -> str:
    Image.new("RGB", (40, 40), "blue").save(images / "train" / "wasps" / "3.png")
    return "train/wasps has other images, or other names of them"


def change_test(images: Path) -> str:
    (images / "test" / "wasps" / "0.png").unlink()
    return "test/wasps has 2 images, had 3"


def rename_one(images: Path) -> str:
    (images / "train" / "ants" / "0.png").rename(images / "train" / "ants" / "zero.png")
    return "train/ants has other images, or other names of them"


def rename_class(images: Path) -> str:
    for split in ("train", "test"):
        (images / split / "bees").rename(images / split / "flies")
    return "train/bees is gone; train/flies is new; test/bees is gone; and 1 more"


CHANGES = [add_one, remove_one, change_one, change_test, rename_one, rename_class]


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_does_not_go_on_with_other_images(copy: Path, change: Callable[[Path], str]) -> None:
    said = change(copy / "images")
    with pytest.raises(UserError, match=re.escape(f"the images have changed since the run began: {said}; bring them")):
        resume(copy)


def test_a_run_goes_on_where_its_images_are_a_copy_of_what_they_were(copy: Path) -> None:
    before = RunFolder(copy / "run").summary.read_bytes()
    resume(copy)
    assert RunFolder(copy / "run").summary.read_bytes() == before


def test_a_run_goes_on_after_its_images_have_moved(copy: Path) -> None:
    (copy / "images").rename(copy / "photos")
    config = copy / "run" / "config.yaml"
    config.write_text(config.read_text().replace("/images", "/photos"))
    resume(copy)


def scored(place: Path, *arguments: str) -> None:
    evaluate.main([f"run={place / 'run'}", *arguments])


@pytest.mark.parametrize("weights", ["final", "best"])
def test_scores_of_a_renamed_class_are_refused_for_any_weights(copy: Path, weights: str) -> None:
    rename_class(copy / "images")
    with pytest.raises(UserError, match="the network does not know: flies; it knows ants, bees, wasps"):
        scored(copy, f"weights={weights}")


@pytest.mark.parametrize("weights", ["final", "best"])
def test_scores_of_other_images_are_called_so(copy: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = change_test(copy / "images")
    scored(copy, f"weights={weights}")
    assert f"these are not the images of the run: {said}" in capsys.readouterr().out


def test_scores_of_the_same_images_are_the_same_from_anywhere(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scored(made)
    assert "the same as in summary.json" in capsys.readouterr().out.splitlines()


def test_mean_std_and_the_order_of_classes_are_the_runs(made: Path, tmp_path: Path) -> None:
    """So that its weights mean the same where train has changed since."""
    known = RunFolder(made / "run").read_images()
    assert known is not None
    other = replace(known, class_names=("wasps", "ants", "bees"), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    data = load_images(RunFolder(made / "run").read_config().data, 0)
    seen = data.as_known_to(other)
    assert (seen.facts.class_names, seen.facts.mean, seen.facts.std) == (other.class_names, other.mean, other.std)
    assert data.names_of(data.test.labels) == seen.names_of(seen.test.labels)
    assert data.names_of(data.train.labels) == seen.names_of(seen.train.labels)


def test_what_a_run_knows_of_its_images_is_read_as_it_was_written(made: Path) -> None:
    known = RunFolder(made / "run").read_images()
    assert known == load_images(RunFolder(made / "run").read_config().data, 0).facts
    assert known.class_names == CLASSES and known.contents["train"]["ants"][0] == 8


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"variant": 1}', '{"contents": {"train": 3}}'])
def test_a_damaged_file_of_them_is_one_line(tmp_path: Path, content: str) -> None:
    RunFolder(tmp_path).images.write_text(content)
    with pytest.raises(UserError, match=r"images.json: is damaged"):
        RunFolder(tmp_path).read_images()


def test_of_an_older_run_it_is_said_that_they_are_not_known(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(copy / "run").images.unlink()
    scored(copy)
    assert "which images this run was trained on is not recorded" in capsys.readouterr().out


def test_a_checkpoint_of_other_images_is_refused_by_itself(copy: Path) -> None:
    """Where images.json was lost, or replaced by that of another run."""
    add_one(copy / "images")
    RunFolder(copy / "run").images.unlink()
    with pytest.raises(UserError, match="of another run; images was "):
        resume(copy)


def test_a_teacher_of_other_images_is_named_with_what_differs(copy: Path) -> None:
    said = add_one(copy / "images")
    config = replace(RunFolder(copy / "run").read_config(), teacher=str(copy / "run"))
    with pytest.raises(UserError, match=re.escape(f"run: was trained on other images than this run's: {said}")):
        train(config, copy / "student")


def test_other_test_images_do_not_make_a_teacher_another_one(copy: Path) -> None:
    change_test(copy / "images")
    train(replace(RunFolder(copy / "run").read_config(), teacher=str(copy / "run")), copy / "student")


def test_the_digits_and_their_order_are_known_too() -> None:
    data = load_images(compose_config(["data=digits"]).data, 0)
    assert {split: sum(count for count, _ in classes.values()) for split, classes in data.facts.contents.items()} == {
        "train": len(data.train) + len(data.val),
        "test": len(data.test),
    }


def facts(**contents: dict[str, tuple[int, str]]) -> ImageFacts:
    return ImageFacts("folder x", ("a", "b"), 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), contents)


def test_nothing_is_said_of_the_same_images() -> None:
    one = facts(train={"a": (1, "x"), "b": (2, "y")})
    assert one.changes(one) == [] and one.fingerprint == facts(train={"b": (2, "y"), "a": (1, "x")}).fingerprint


def test_another_size_of_images_is_said() -> None:
    one = facts(train={"a": (1, "x")})
    assert one.changes(replace(one, image_size=64)) == ["images are of 64 pixels, were of 32"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_fingerprint_is_of_every_split(split: str) -> None:
    assert facts(**{split: {"a": (1, "x")}}).fingerprint != facts(**{split: {"a": (1, "z")}}).fingerprint


def test_of_many_changes_the_first_few_are_told_and_the_rest_counted() -> None:
    assert in_short([str(n) for n in range(7)]) == "0; 1; 2; and 4 more"


def test_an_empty_split_keeps_its_form_under_another_class_order() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    one = Split(images, np.array([0, 1]))
    data = ImageSet(facts(), one, one.take(slice(0)), one)
    seen = data.as_known_to(replace(data.facts, class_names=("b", "a")))
    assert seen.test.labels.tolist() == [1, 0] and len(seen.val) == 0


@pytest.mark.parametrize(
    ("given", "there", "wanted"),
    [
        ("a", [], ["a"]),
        ("a:b", ["a", "b"], ["a", "b"]),
        ("a:b", ["a:b"], ["a:b"]),
        ("a:b:c", ["a:b", "c"], ["a:b", "c"]),
        ("c:a:b", ["a:b", "c"], ["c", "a:b"]),
        ("a:nothing", ["a"], ["a", "nothing"]),
    ],
)
def test_a_run_whose_folder_has_a_colon_in_its_name_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, there: list[str], wanted: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).mkdir()
    assert runs_of(given) == wanted


def test_the_file_is_plain_json(made: Path) -> None:
    stored = json.loads(RunFolder(made / "run").images.read_text())
    assert stored["class_names"] == list(CLASSES) and stored["image_size"] == 32


def killed_while_drawing(folder: RunFolder) -> list[Path]:
    """Stands for the figures: what is on disk by then."""
    assert folder.read_status()["state"] in ("running", "done")
    if folder.summary.exists():
        assert folder.is_done()
        raise Interrupted(signal.SIGTERM)
    return []


def test_a_run_that_is_ended_while_it_draws_is_done(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "draw_all", killed_while_drawing)
    with pytest.raises(Interrupted):
        train(RunFolder(made / "run").read_config(), tmp_path)
    assert RunFolder(tmp_path).is_done() and RunFolder(tmp_path).final.exists()
