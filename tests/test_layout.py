"""Any sane folder of images is understood without an option: where its classes are, and which folder is val."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s9.config.data import FolderConfig
from s9.data.image_set import ImageSet
from s9.data.sources.load import load_images
from s9.system.errors import UserError
from tests.awkward_folder import picture

RED, GREEN = (180, 60, 60), (60, 180, 60)


def fill(folder: Path, count: int, first: int = 0) -> None:
    """`count` pictures in each of the classes cat and dog below `folder`."""
    for name, colour in (("cat", RED), ("dog", GREEN)):
        (folder / name).mkdir(parents=True)
        for number in range(first, first + count):
            picture(number, colour, (12, 10)).save(folder / name / f"{number}.png")


@pytest.fixture
def load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., ImageSet]:
    caplog.set_level(logging.INFO, "s9")

    def load_folder(root: Path, **changes: Any) -> ImageSet:
        values = {"val_size": None, "loader": "auto", "workers": 0, "image_size": 8, "cache": str(tmp_path / "cache")}
        return load_images(FolderConfig("folder", root=str(root), **(values | changes)), seed=0)

    return load_folder


def sizes(data: ImageSet) -> tuple[int, int, int]:
    return len(data.train), len(data.val), len(data.test)


def refused(load: Callable[..., ImageSet], root: Path) -> str:
    with pytest.raises(UserError) as error:
        load(root)
    assert "\n" not in str(error.value)
    return str(error.value)


# Folders of classes alone


def test_test_and_val_are_a_fifth_each_where_the_root_holds_the_classes(
    load: Callable[..., ImageSet], tmp_path: Path
) -> None:
    fill(tmp_path / "pets", 25)
    assert sizes(load(tmp_path / "pets")) == (32, 8, 10)


def test_test_is_the_same_for_every_val_seed_and_val_is_not(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets", 25)
    one, other = (load(tmp_path / "pets", val_seed=seed) for seed in (0, 1))
    assert one.test_names == other.test_names
    assert (one.val.images[:] != other.val.images[:]).any()


def test_train_val_and_test_share_no_image(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets", 25)
    data = load(tmp_path / "pets")
    images = [image.tobytes() for split in (data.train, data.val, data.test) for image in split.images]
    assert len(set(images)) == len(images) == 50


def test_the_size_of_test_may_be_a_share_or_a_number(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets", 25)
    assert len(load(tmp_path / "pets", test_size=0.1).test) == 5
    assert len(load(tmp_path / "pets", test_size=16).test) == 16


def test_mean_and_std_do_not_depend_on_which_images_are_val(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets", 25)
    one, other = (load(tmp_path / "pets", val_seed=seed).facts for seed in (0, 1))
    assert (one.mean, one.std) == (other.mean, other.std)


def test_the_line_says_that_test_was_held_out(
    load: Callable[..., ImageSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "pets", 25)
    load(tmp_path / "pets")
    assert "test: 10 of 50 images, the same in every run" in caplog.messages


def test_a_class_may_be_called_train(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "vehicles", 10)
    (tmp_path / "vehicles" / "dog").rename(tmp_path / "vehicles" / "train")
    assert load(tmp_path / "vehicles").facts.class_names == ("cat", "train")


def test_folders_of_splits_without_class_folders_are_no_classes(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "flat", 10)
    for name, split in (("cat", "train"), ("dog", "test")):
        (tmp_path / "flat" / name).rename(tmp_path / "flat" / split)
    said = refused(load, tmp_path / "flat")
    assert (
        "flat: there are no class folders in test and train; wanted: <root>/<class>/*, or <root>/train/<class>" in said
    )
    fill(tmp_path / "half" / "test", 5)
    fill(tmp_path / "half" / "other", 5)
    (tmp_path / "half" / "other" / "cat").rename(tmp_path / "half" / "train")
    shutil.rmtree(tmp_path / "half" / "other")
    assert "half: there are no class folders in train; wanted:" in refused(load, tmp_path / "half")


# Folders of splits


@pytest.mark.parametrize("train", ["train", "training", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "testing", "TEST"])
def test_train_and_test_are_found_by_their_usual_names(
    load: Callable[..., ImageSet], tmp_path: Path, train: str, test: str
) -> None:
    fill(tmp_path / "pets" / train, 5)
    fill(tmp_path / "pets" / test, 3, first=5)
    assert sizes(load(tmp_path / "pets")) == (8, 2, 6)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val", "VALID"])
def test_val_is_found_by_its_usual_names(load: Callable[..., ImageSet], tmp_path: Path, val: str) -> None:
    for number, (name, count) in enumerate(((val, 2), ("test", 3), ("train", 4))):
        fill(tmp_path / "pets" / name, count, first=10 * number)
    assert sizes(load(tmp_path / "pets")) == (8, 4, 6)


def test_without_test_half_of_a_given_val_is_test(
    load: Callable[..., ImageSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "pets" / "train", 5)
    fill(tmp_path / "pets" / "val", 6, first=5)
    assert sizes(load(tmp_path / "pets")) == (10, 6, 6)
    assert "test: 6 of 12 images of val, the same in every run" in caplog.messages


def test_train_alone_is_enough(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train", 25)
    assert sizes(load(tmp_path / "pets")) == (32, 8, 10)


def test_a_test_without_classes_is_left_out(
    load: Callable[..., ImageSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "pets" / "train", 25)
    (tmp_path / "pets" / "test").mkdir()
    picture(1, RED).save(tmp_path / "pets" / "test" / "1.jpg")
    assert sizes(load(tmp_path / "pets")) == (32, 8, 10)
    assert "50 images of 2 classes (cat, dog); left out: 1 test with 1 images, but no class folders" in caplog.messages


def test_other_folders_next_to_train_are_counted(
    load: Callable[..., ImageSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "pets" / "train", 25)
    for name in ("annotations", "scripts"):
        (tmp_path / "pets" / name).mkdir()
    load(tmp_path / "pets")
    assert "50 images of 2 classes (cat, dog); left out: 2 folders next to train" in caplog.messages


def test_a_folder_that_holds_only_the_images_folder_is_passed_through(
    load: Callable[..., ImageSet], tmp_path: Path
) -> None:
    fill(tmp_path / "unpacked" / "pets" / "train", 25)
    (tmp_path / "unpacked" / "__MACOSX").mkdir()
    assert sizes(load(tmp_path / "unpacked")) == (32, 8, 10)


# What is refused


def test_images_without_class_folders_say_what_is_wanted(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    picture(1, RED).save(tmp_path / "pets" / "1.jpg")
    said = refused(load, tmp_path / "pets")
    assert said.startswith(
        f"data.root={tmp_path / 'pets'}: its 1 images lie in no class folder; wanted: <root>/<class>"
    )


def test_an_empty_folder_says_what_is_wanted(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    assert "there is no class folder in it; wanted: " in refused(load, tmp_path / "pets")


def test_a_class_folder_alone_is_refused(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets", 3)
    (tmp_path / "pets" / "dog").rename(tmp_path / "dog")
    assert "needs at least two class folders, has 1; wanted: " in refused(load, tmp_path / "pets")


def test_two_folders_of_one_split_are_refused(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    for name in ("train", "Training"):
        fill(tmp_path / "pets" / name, 3)
    assert refused(load, tmp_path / "pets").endswith("has both Training and train; keep one of them as train")


def test_a_test_size_that_leaves_nothing_names_its_key(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets", 1)
    assert refused(load, tmp_path / "pets").startswith("data.test_size=null: ")


# The folder itself


def test_a_folder_that_may_only_be_read_trains(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    fill(tmp_path / "pets", 25)
    folders = [tmp_path / "pets", *(path for path in (tmp_path / "pets").rglob("*") if path.is_dir())]
    before = {path: (path.stat().st_mtime_ns, sorted(path.iterdir())) for path in folders}
    for path in folders:
        path.chmod(0o555)
    load(tmp_path / "pets")
    for path in folders:
        path.chmod(0o755)
    assert {path: (path.stat().st_mtime_ns, sorted(path.iterdir())) for path in folders} == before


def test_a_folder_that_has_moved_is_not_decoded_again(
    load: Callable[..., ImageSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "pets", 25)
    load(tmp_path / "pets")
    (tmp_path / "pets").rename(tmp_path / "elsewhere")
    caplog.clear()
    load(tmp_path / "elsewhere")
    assert not [line for line in caplog.messages if line.startswith("decoded in ")]


def test_decoding_says_how_much_the_cache_holds(
    load: Callable[..., ImageSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "pets", 25)
    load(tmp_path / "pets")
    held = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy"))
    lines = [line for line in caplog.messages if line.startswith("decoded in ")]
    assert lines == [f"decoded in 0 s; the cache in {tmp_path / 'cache'} holds {round(held / 1000)} kB of them"]
