"""Which files of a folder become images of which class and split: nothing is left out without a line that says so."""

import logging
import os
import shutil
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s9.config.data import FolderConfig
from s9.data.image_set import ImageSet
from s9.data.sources.load import load_images
from s9.system.errors import UserError
from tests.test_decode import tiff_with

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)


def paint(file: Path, rgb: tuple[int, int, int] = BLUE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), rgb).save(file)
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three red cats and three green dogs in train and in test."""
    for split in ("train", "test"):
        for number in range(3):
            paint(tmp_path / "pets" / split / "cat" / f"{number}.png", RED)
            paint(tmp_path / "pets" / split / "dog" / f"{number}.png", GREEN)
    return tmp_path / "pets"


@pytest.fixture
def load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., ImageSet]:
    caplog.set_level(logging.INFO, "s9")

    def load_folder(root: Path | str, **changes: Any) -> ImageSet:
        caplog.clear()
        values: dict[str, Any] = {"val_size": 0, "loader": "resident", "workers": 0, "image_size": 8}
        values |= {"cache": str(tmp_path / "cache"), "root": str(root)}
        return load_images(FolderConfig("folder", **(values | changes)), seed=0)

    return load_folder


def refused(load: Callable[..., ImageSet], root: Path, **changes: Any) -> str:
    """What the user is told: one line."""
    with pytest.raises(UserError) as error:
        load(root, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the log, without how long decoding took and that the images here are equal."""
    equal = ("data.duplicates", "in two classes")
    lines = [line for line in caplog.messages if not line.startswith("decoded in ")]
    return [line for line in lines if not any(words in line for words in equal)]


def stored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())


# What is read


@pytest.mark.parametrize("name", ["a.webp", "a.bmp", "a.tif", "a.gif", "a.jfif", "a.jpe", "a.JPG", "a.TIFF"])
def test_an_image_of_any_kind_is_one_of_its_class(
    load: Callable[..., ImageSet], root: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind = {".jfif": "JPEG", ".jpe": "JPEG"}.get(Path(name).suffix)
    Image.new("RGB", (8, 8), BLUE).save(root / "train" / "cat" / name, kind)
    train = load(root).train
    assert train.labels.tolist() == [0] * 4 + [1] * 3
    assert np.abs(np.asarray(train.images[3]).astype(int) - BLUE).max() < 30
    assert told(caplog) == ["13 images of 2 classes (cat, dog)"]


def test_images_in_folders_inside_a_class_are_of_that_class(load: Callable[..., ImageSet], root: Path) -> None:
    paint(root / "train" / "cat" / "monday" / "4.png")
    paint(root / "train" / "cat" / "tuesday" / "late" / "4.png")
    data = load(root)
    assert (data.facts.class_names, data.train.labels.tolist()) == (("cat", "dog"), [0] * 5 + [1] * 3)


def test_a_folder_that_is_named_like_an_image_is_a_folder(load: Callable[..., ImageSet], root: Path) -> None:
    paint(root / "train" / "cat" / "photos.jpg" / "4.png")
    assert len(load(root).train) == 7


def test_a_linked_folder_inside_a_class_is_read(load: Callable[..., ImageSet], root: Path, tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "4.png")
    (root / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    assert len(load(root).train) == 7


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../.."])
def test_a_link_to_a_folder_that_holds_it_is_not_followed(
    load: Callable[..., ImageSet], root: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "train" / "cat" / "again").symlink_to(target)
    assert len(load(root).train) == 6
    assert told(caplog) == ["12 images of 2 classes (cat, dog); left out: 1 link to a folder that holds it"]


def test_two_linked_folders_that_hold_each_other_end(
    load: Callable[..., ImageSet], root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path / "elsewhere" / "4.png")
    (root / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "train" / "cat")
    assert len(load(root).train) == 7
    assert told(caplog) == ["13 images of 2 classes (cat, dog); left out: 1 link to a folder that holds it"]


# What is left out


def test_where_nothing_is_left_out_the_images_are_counted(
    load: Callable[..., ImageSet], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(root)
    assert told(caplog) == ["12 images of 2 classes (cat, dog)"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train/cat/a.heic"], "1 .heic (cannot be read here)"),
        (["train/cat/a.HEIC", "test/dog/b.heic"], "2 .heic (cannot be read here)"),
        (["train/cat/notes.txt"], "1 .txt (not an image)"),
        (["train/cat/a.csv", "train/dog/b.csv"], "2 .csv (not images)"),
        (["train/cat/README"], "1 file without an ending (not an image)"),
        (["train/cat/._0.png", "train/cat/.DS_Store"], "2 hidden files"),
        (["train/cat/.thumbnails/0.png", "train/cat/.thumbnails/1.png"], "1 hidden folder"),
        (["train/.ipynb_checkpoints/0.png"], "1 hidden folder"),
        (["train/.DS_Store"], "1 hidden file"),
        (["train/loose.png", "test/labels.csv"], "2 files outside a class folder"),
        (["train/cat/a/b.txt", "train/cat/c/._d.png", "test/cat/e.txt"], "2 .txt (not images), 1 hidden file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_left_out_is_counted_by_kind_in_one_line(
    load: Callable[..., ImageSet], root: Path, names: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not looked into")
    for _ in range(2):  # decoded, and from the cache
        data = load(root)
        assert (len(data.train), len(data.test), data.facts.class_names) == (6, 6, ("cat", "dog"))
        assert told(caplog) == [f"12 images of 2 classes (cat, dog); left out: {said}"]


def test_many_kinds_of_files_are_one_line_that_ends(
    load: Callable[..., ImageSet], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        (root / "train" / "cat" / f"scan.{number:03}").write_bytes(b"")
    load(root)
    assert len(told(caplog)) == 1
    assert told(caplog)[0].endswith(", 992 others") and len(told(caplog)[0]) < 300


def test_a_class_of_files_that_cannot_be_read_says_which(load: Callable[..., ImageSet], root: Path) -> None:
    for number in range(3):
        (root / "train" / "dog" / f"{number}.png").rename(root / "train" / "dog" / f"{number}.heic")
    said = refused(load, root)
    assert said.startswith(f"{root / 'train' / 'dog'}: the class is empty; left out: 3 .heic (cannot be read here); ")


# A folder of val


@pytest.fixture
def val(root: Path) -> Path:
    """Two blue cats and one blue dog."""
    for name in ("cat/0.png", "cat/1.png", "dog/0.png"):
        paint(root / "val" / name)
    return root / "val"


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_given_val_folder_is_val(load: Callable[..., ImageSet], root: Path, val: Path, name: str) -> None:
    if name != "val":
        val.rename(root / name)
    for _ in range(2):
        data = load(root)
        assert (data.val.labels.tolist(), len(data.train), len(data.test)) == ([0, 0, 1], 6, 6)
        assert (np.asarray(data.val.images) == BLUE).all()


@pytest.mark.parametrize(
    ("val_size", "unused"),
    [(0, ""), (None, ""), (2, "; data.val_size=2 is not used"), (5000, "; data.val_size=5000 is not used")],
)
def test_a_given_val_folder_says_that_val_size_is_not_used(
    load: Callable[..., ImageSet],
    root: Path,
    val: Path,
    val_size: int | None,
    unused: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert len(load(root, val_size=val_size).train) == 6
    assert told(caplog)[1:] == [f"val: 3 images of {val}{unused}"]


def test_a_given_val_folder_does_not_change_mean_and_std(load: Callable[..., ImageSet], root: Path, val: Path) -> None:
    with_val = load(root).facts
    shutil.rmtree(val)
    without = load(root).facts
    assert (without.mean, without.std) == (with_val.mean, with_val.std)


def test_two_val_folders_are_refused(load: Callable[..., ImageSet], root: Path, val: Path) -> None:
    shutil.copytree(val, root / "valid")
    assert refused(load, root) == f"data.root={root}: has both val and valid; keep one of them as val"


@pytest.mark.parametrize("lacking", ["train", "val"])
def test_a_class_that_val_or_train_lacks_is_named(
    load: Callable[..., ImageSet], root: Path, val: Path, lacking: str
) -> None:
    for split in {"train", "val", "test"} - {lacking}:
        paint(root / split / "bird" / "0.png")
    assert str(root / lacking / "bird") in refused(load, root)


# One folder by several names


@pytest.fixture
def other_name(request: pytest.FixtureRequest, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "home").symlink_to(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"link": "link", "relative": "pets", "..": "pets/train/..", "linked above": "home/pets", "tilde": "~/pets"}
    return names[request.param]


@pytest.mark.parametrize("other_name", ["link", "relative", "..", "linked above", "tilde"], indirect=True)
def test_the_same_folder_by_another_name_is_the_same_images(
    load: Callable[..., ImageSet], root: Path, tmp_path: Path, other_name: str
) -> None:
    first, second = load(root).facts, load(other_name).facts
    assert (second.variant, second.contents) == ("folder pets", first.contents)
    assert len(stored(tmp_path)) == 1


def test_a_data_root_means_the_same_folder_from_anywhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = FolderConfig("folder", 0, "resident", 0, "pets", 8, "cache")
    monkeypatch.chdir("/")
    assert config.root == str(root.resolve())


@pytest.mark.parametrize("name", ["~nobody-of-this-name/pets"])
def test_a_root_that_cannot_be_found_out_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.root={name}: cannot be found \([^\n]*give the whole path$"):
        FolderConfig("folder", 0, "resident", 0, name, 8, "cache")


# Forms of Unicode

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def rename_class(root: Path, split: str, name: str) -> None:
    (root / split / "cat").rename(root / split / name)


@pytest.mark.parametrize("train", [COMPOSED, DECOMPOSED], ids=["NFC", "NFD"])
@pytest.mark.parametrize("test", [COMPOSED, DECOMPOSED], ids=["NFC", "NFD"])
def test_two_forms_of_a_name_are_one_class(load: Callable[..., ImageSet], root: Path, train: str, test: str) -> None:
    rename_class(root, "train", train)
    rename_class(root, "test", test)
    data = load(root)
    assert data.facts.class_names == (COMPOSED, "dog")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 0, 1, 1, 1],) * 2


def test_two_folders_whose_names_are_one_are_one_class(load: Callable[..., ImageSet], root: Path) -> None:
    for split in ("train", "test"):
        rename_class(root, split, COMPOSED)
    paint(root / "train" / DECOMPOSED / "9.png")
    if len(list((root / "train").iterdir())) == 2:
        pytest.skip("this file system knows one form only")
    assert load(root).train.labels.tolist() == [0] * 4 + [1] * 3


def test_the_form_of_names_is_no_part_of_the_contents(load: Callable[..., ImageSet], root: Path) -> None:
    found = []
    for name in (COMPOSED, DECOMPOSED):
        for split in ("train", "test"):
            (root / split / "cat").rename(root / split / name)
            (root / split / name / "0.png").rename(root / split / name / f"{name}.png")
        found.append(load(root).facts)
        for split in ("train", "test"):
            (root / split / name / f"{name}.png").rename(root / split / name / "0.png")
            (root / split / name).rename(root / split / "cat")
    assert found[0].contents == found[1].contents and found[0].fingerprint == found[1].fingerprint


# Contents


def test_contents_count_the_images_of_each_class_and_split(
    load: Callable[..., ImageSet], root: Path, val: Path
) -> None:
    paint(root / "train" / "cat" / "more" / "4.png")
    counts = {
        split: {name: count for name, (count, _) in of.items()} for split, of in load(root).facts.contents.items()
    }
    assert counts == {"train": {"cat": 4, "dog": 3}, "val": {"cat": 2, "dog": 1}, "test": {"cat": 3, "dog": 3}}


def test_a_copied_folder_has_the_same_contents(load: Callable[..., ImageSet], root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "moved" / "animals", copy_function=shutil.copyfile)  # with other times
    assert load(root).facts.contents == load(tmp_path / "moved" / "animals").facts.contents


def test_contents_are_the_same_from_the_cache(load: Callable[..., ImageSet], root: Path) -> None:
    assert load(root).facts.contents == load(root).facts.contents


def test_contents_do_not_depend_on_the_image_size(load: Callable[..., ImageSet], root: Path) -> None:
    assert load(root).facts.contents == load(root, image_size=16).facts.contents


def repainted(cats: Path) -> None:
    """Other pixels in a file of the same length."""
    content = bytearray((cats / "0.bmp").read_bytes())
    content[-1] ^= 1
    (cats / "0.bmp").write_bytes(content)
    os.utime(cats / "0.bmp", ns=(1, 1))


def added(cats: Path) -> None:
    paint(cats / "9.png")


def removed(cats: Path) -> None:
    (cats / "0.png").unlink()


def renamed(cats: Path) -> None:
    (cats / "0.png").rename(cats / "9.png")


def moved_into_a_folder(cats: Path) -> None:
    (cats / "more").mkdir()
    (cats / "0.png").rename(cats / "more" / "0.png")


@pytest.mark.parametrize(
    "change", [repainted, added, removed, renamed, moved_into_a_folder], ids=lambda change: change.__name__
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_changed_file_changes_the_contents_of_its_class_alone(
    load: Callable[..., ImageSet], root: Path, change: Callable[[Path], None], split: str
) -> None:
    paint(root / split / "cat" / "0.bmp", RED)
    before = load(root).facts
    change(root / split / "cat")
    after = load(root).facts
    differing = [
        (s, n) for s, of in before.contents.items() for n, entry in of.items() if after.contents[s][n] != entry
    ]
    assert differing == [(split, "cat")] and after.fingerprint != before.fingerprint


def test_a_renamed_class_changes_the_fingerprint(load: Callable[..., ImageSet], root: Path) -> None:
    before = load(root)
    for split in ("train", "test"):
        rename_class(root, split, "lion")
    assert load(root).facts.fingerprint != before.facts.fingerprint


# More than 8 bits per channel


def paint_deep(file: Path, level: int) -> None:
    Image.fromarray(np.full((8, 8), level, np.uint16)).save(file)


@pytest.mark.parametrize(
    ("levels", "bits", "shown"),
    [
        ([4000, 2000, 1000], 12, [249, 125, 62]),
        ([65535, 256, 0], 16, [255, 1, 0]),
        ([1023, 512, 0], 10, [255, 128, 0]),
        ([100, 50, 0], 8, [100, 50, 0]),
    ],
)
def test_deep_images_are_scaled_by_the_bits_that_are_in_use_in_all_of_them(
    load: Callable[..., ImageSet], root: Path, levels: list[int], bits: int, shown: list[int], caplog: Any
) -> None:
    for number, level in enumerate(levels):
        paint_deep(root / "train" / "dog" / f"{number}.png", level)
    said = f"3 images have more than 8 bits per channel; {bits} are in use and become 8 (data.high_depth=refuse "
    for _ in range(2):  # decoded, and from the cache
        train = load(root).train
        assert [int(image[0, 0, 0]) for image in train.images] == [200] * 3 + shown
        assert told(caplog)[1:] == [f"{said}refuses them)"]


def test_the_mean_is_of_the_scaled_images(load: Callable[..., ImageSet], root: Path) -> None:
    for number in range(3):
        paint_deep(root / "train" / "dog" / f"{number}.png", 1023)
    assert load(root).facts.mean == pytest.approx(((200 + 255) / 510, (10 + 255) / 510, (10 + 255) / 510))


def test_train_says_which_bits_are_in_use(load: Callable[..., ImageSet], root: Path) -> None:
    paint_deep(root / "train" / "dog" / "0.png", 4000)
    paint_deep(root / "test" / "dog" / "0.png", 60000)
    paint_deep(root / "test" / "dog" / "1.png", 2000)
    assert load(root).test.images[3:5, 0, 0, 0].tolist() == [255, 125]


def test_where_train_has_no_deep_image_the_others_say_it(load: Callable[..., ImageSet], root: Path) -> None:
    paint_deep(root / "test" / "dog" / "0.png", 2000)
    assert int(load(root).test.images[3, 0, 0, 0]) == round(2000 / 2047 * 255)


def test_deep_images_are_compared_in_the_depth_that_they_get(load: Callable[..., ImageSet], root: Path) -> None:
    """In 16 bits all of these would be black, and so copies of each other."""
    random = np.random.default_rng(0)
    for file in sorted(root.rglob("*.png")):
        Image.fromarray(random.integers(0, 120, (32, 32), np.uint16)).save(file)
    data = load(root, duplicates="drop", image_size=32)
    assert (len(data.train), data.problems) == (6, ())
    shutil.copy(root / "test" / "cat" / "0.png", root / "train" / "cat" / "0.png")
    assert [problem[:3] for problem in load(root, duplicates="drop", image_size=32).problems] == [
        ("train/cat/0.png", "same pixels as", "test/cat/0.png")
    ]


@pytest.mark.parametrize("cached", [False, True])
def test_deep_images_are_refused_where_that_was_asked_for(
    load: Callable[..., ImageSet], root: Path, tmp_path: Path, cached: bool
) -> None:
    paint_deep(root / "test" / "dog" / "1.png", 4000)
    if cached:
        load(root)
    said = refused(load, root, high_depth="refuse")
    assert said.startswith(
        f"{root / 'test' / 'dog' / '1.png'}: has more than 8 bits per channel; data.high_depth=scale"
    )
    assert len(stored(tmp_path)) == cached


def test_high_depth_has_two_values() -> None:
    with pytest.raises(UserError, match=r"^data\.high_depth=clip: must be scale or refuse$"):
        FolderConfig("folder", 0, "resident", 0, "pets", 8, "cache", high_depth="clip")


# What Pillow warns of


def test_warnings_of_metadata_do_not_reach_the_screen(
    load: Callable[..., ImageSet], root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / "train" / "cat" / "a.tif").write_bytes(tiff_with(305, 2, 5000, 8))
    with pytest.warns(UserWarning):  # where nobody keeps it away
        Image.open(root / "train" / "cat" / "a.tif").close()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(load(root).train) == 7
    assert ([str(warning.message) for warning in told], capfd.readouterr()) == ([], ("", ""))
