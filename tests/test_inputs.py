"""Which images a command is given: files, folders, patterns and standard input; and their pixels."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from s9.data.sources.decode import BrokenImageError, decode_image, quiet
from s9.inference.inputs import Given, Images, find_images, pixels_of
from s9.system.errors import UserError
from tests.awkward_folder import LEFT_OUT, make_awkward_folder, picture

COLOUR = (120, 90, 60)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "cat.jpg"
    path.parent.mkdir()
    picture(1, COLOUR).save(path)
    return path


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Lets standard input have this content."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("awkward")
    make_awkward_folder(root)
    return root


def meant(room: Path, *given: object) -> list[str]:
    """The paths of the images that are meant."""
    return [image.path for image in find_images([str(text) for text in given], room).found]


# Folders


def test_a_folder_gives_all_readable_images_below(awkward: Path, tmp_path: Path) -> None:
    found = [Path(path) for path in meant(tmp_path, awkward)]
    below = {path for path in awkward.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert set(found) == {path for path in below if path.suffix not in (".HEIC", ".txt")}
    assert len(found) == 180


def test_the_images_of_a_folder_are_in_the_order_of_their_names(awkward: Path, tmp_path: Path) -> None:
    found = meant(tmp_path, awkward)
    assert found == sorted(found)


def test_the_other_files_of_a_folder_are_counted(awkward: Path, tmp_path: Path) -> None:
    assert LEFT_OUT.startswith("2 hidden files") and LEFT_OUT.endswith("1 hidden folder")  # so three
    said = find_images([str(awkward)], tmp_path).said()
    assert said == "left out: 3 hidden, 1 .txt, 1 .heic (cannot be read here)"


def test_many_kinds_of_other_files_are_summed_up() -> None:
    images = Images()
    for number in range(10):
        images.left_out[f".{number}"] = 100 - number
    assert images.said().endswith("93 .7, 183 others")


def test_a_link_back_up_is_not_followed_for_ever(photo: Path, tmp_path: Path) -> None:
    (photo.parent / "again").symlink_to(tmp_path)
    found = find_images([str(photo.parent)], tmp_path)
    assert [image.path for image in found.found] == [str(photo)]
    assert found.said() == "left out: 1 link to a folder that holds it"


def test_a_link_to_an_image_that_is_gone_is_named_when_it_is_read(photo: Path, tmp_path: Path) -> None:
    (photo.parent / "gone.jpg").symlink_to(tmp_path / "nowhere")
    gone = find_images([str(photo.parent)], tmp_path).found[1]
    assert pixels_of(gone, 8, "crop", None) == "there is no such file"


@pytest.mark.timeout(30)
def test_a_named_pipe_in_a_folder_is_not_waited_for(photo: Path, tmp_path: Path) -> None:
    os.mkfifo(photo.parent / "pipe.jpg")
    assert meant(tmp_path, photo.parent) == [str(photo)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_does_not_hide_the_others(photo: Path, tmp_path: Path) -> None:
    (photo.parent / "closed").mkdir(mode=0)
    found = find_images([str(photo.parent)], tmp_path).found
    assert [image.problem for image in found] == ["", "cannot be read (Permission denied)"]


# Files and patterns


def test_a_file_that_is_named_is_meant_whatever_its_ending(photo: Path, tmp_path: Path) -> None:
    other = photo.rename(photo.with_suffix(".download"))
    assert meant(tmp_path, other) == [str(other)]


def test_images_stay_in_the_order_in_which_they_are_given(photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "a.jpg"
    picture(2, COLOUR).save(other)
    assert meant(tmp_path, photo.parent, other, photo) == [str(photo), str(other), str(photo)]


def test_a_pattern_gives_the_images_that_it_matches(photo: Path, tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "a.txt"):
        (photo.parent / name).write_bytes(photo.read_bytes())
    found = find_images([f"{photo.parent}/[ab]*"], tmp_path)
    assert [Path(image.path).name for image in found.found] == ["a.jpg", "b.jpg"]
    assert found.said() == "left out: 1 .txt"


def test_a_pattern_with_two_stars_gives_each_image_once(photo: Path, tmp_path: Path) -> None:
    assert meant(tmp_path, f"{tmp_path}/**") == [str(photo)]


def test_a_folder_that_a_pattern_matches_is_looked_through(photo: Path, tmp_path: Path) -> None:
    assert meant(tmp_path, f"{tmp_path}/phot*") == [str(photo)]


def test_a_name_that_exists_is_no_pattern(photo: Path, tmp_path: Path) -> None:
    odd = photo.rename(photo.with_name("cat[1].jpg"))
    assert meant(tmp_path, odd) == [str(odd)]


def test_a_tilde_is_the_home(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photo.parent))
    assert meant(tmp_path, "~/cat.jpg") == [str(photo)]


@pytest.mark.parametrize(
    ("name", "problem"), [("dog.jpg", "there is no such file"), ("dog*", "no file has such a name")]
)
def test_one_name_without_an_image_does_not_hide_the_others(
    photo: Path, tmp_path: Path, name: str, problem: str
) -> None:
    found = find_images([f"{photo.parent}/{name}", str(photo)], tmp_path).found
    assert [image.problem for image in found] == [problem, ""]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["dog.jpg"], "image=dog.jpg: there is no such file"),
        (["dog.jpg", "x*"], "image=dog.jpg: there is no such file; and 1 more"),
        (["."], "image=.: no image there; left out: 1 .txt"),
    ],
)
def test_no_image_at_all_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError) as raised:
        find_images(given, tmp_path)
    assert str(raised.value) == error


# Standard input


def test_standard_input_may_be_an_image(photo: Path, tmp_path: Path, pipe: Callable[[bytes], None]) -> None:
    pipe(photo.read_bytes())
    (image,) = find_images(["-"], tmp_path).found
    assert (image.name, Path(image.path).read_bytes()) == ("-", photo.read_bytes())


def test_standard_input_may_be_half_an_image(photo: Path, tmp_path: Path, pipe: Callable[[bytes], None]) -> None:
    pipe(b"\x89PNG\r\n\x1a\n\0\0")
    (image,) = find_images(["-"], tmp_path).found
    assert str(pixels_of(image, 8, "crop", None)).startswith("cannot be read as an image (")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_standard_input_may_be_paths(photo: Path, tmp_path: Path, pipe: Callable[[bytes], None], end: str) -> None:
    pipe(f"{photo}{end}{photo.parent}{end}".encode())
    assert meant(tmp_path, "-") == [str(photo)] * 2


def test_the_first_path_on_standard_input_may_be_wrong(
    photo: Path, tmp_path: Path, pipe: Callable[[bytes], None]
) -> None:
    pipe(f"nowhere.jpg\n{photo}\n".encode())
    assert [image.problem for image in find_images(["-"], tmp_path).found] == ["there is no such file", ""]


def test_a_path_on_standard_input_need_not_be_utf_8(photo: Path, tmp_path: Path, pipe: Callable[[bytes], None]) -> None:
    odd = os.fsencode(photo.parent) + b"/caf\xe9.jpg"
    photo.rename(os.fsdecode(odd))
    pipe(odd + b"\n")
    assert meant(tmp_path, "-") == [os.fsdecode(odd)]


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_nothing_on_standard_input_is_no_image(tmp_path: Path, pipe: Callable[[bytes], None], content: bytes) -> None:
    pipe(content)
    with pytest.raises(UserError, match="image=-: no image there"):
        find_images(["-"], tmp_path)


def test_a_terminal_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person, terminal = os.openpty()
    with os.fdopen(terminal) as stdin, os.fdopen(person, "wb"):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UserError, match="image=-: nothing is piped in"):
            find_images(["-"], tmp_path)


# Pixels


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_pixels_are_those_of_training(awkward: Path, tmp_path: Path, resize: str) -> None:
    with quiet():
        for image in find_images([str(awkward)], tmp_path).found[::9]:
            wanted = decode_image(Path(image.path), 24, resize=resize).pixels
            assert np.array_equal(pixels_of(image, 24, resize, None), wanted), image.path


def test_why_a_file_is_broken_is_said_as_in_training(awkward: Path) -> None:
    half = awkward / "meadow" / "half.jpg"
    with pytest.raises(BrokenImageError) as raised:
        decode_image(half, 24)
    said = pixels_of(Given("half", str(half)), 24, "crop", None)
    assert said == f"cannot be read as an image ({raised.value.reason})"
