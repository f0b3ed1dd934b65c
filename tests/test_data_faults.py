"""Damaged archives, caches and folders of images: each is one plain line, through the command line too, or works."""

import gc
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s9.config.data import Cifar10Config, FolderConfig
from s9.data.image_set import ImageSet
from s9.data.sources import cifar10
from s9.data.sources.load import load_images
from s9.system.errors import UserError
from tests.doors import HERE, SHORT, error_line, run
from tests.test_cifar10 import TRAIN_FILES, Host, archive_of, batch_file, labels_of, pixels_of

FILES = {name: batch_file(name, pixels_of(name), labels_of(name)) for name in (*TRAIN_FILES, "test_batch")}
WHOLE = archive_of(FILES)


def one_line(load: Callable[[], object]) -> str:
    """What a person is told, as a door prints it."""
    with pytest.raises(UserError) as error:
        load()
    assert "Traceback" not in str(error.value)
    return " ".join(str(error.value).split())


# The archive of CIFAR-10. Its md5 is that of WHOLE wherever it is not checked through the command line.


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def swapped(_: bytes) -> bytes:
    return archive_of({**FILES, "test_batch": FILES["data_batch_1"], "data_batch_1": FILES["test_batch"]})


def renamed(_: bytes) -> bytes:
    return archive_of({name.replace("data_batch_1", "batch_one"): content for name, content in FILES.items()})


def no_archive(_: bytes) -> bytes:
    return b"<html>the file has moved</html>"


def climbing(_: bytes) -> bytes:
    return archive_of({**FILES, "../../outside": b"written outside"})


DAMAGES = [truncated, flipped, swapped, renamed, no_archive, climbing]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ImageSet]:
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(WHOLE).hexdigest())
    monkeypatch.setattr(cifar10, "SIZE", len(WHOLE))
    monkeypatch.setenv("no_proxy", "*")

    def load(*urls: str, archive: Path | None = None) -> ImageSet:
        given = str(archive) if archive else None
        config = Cifar10Config("cifar10", 0, "resident", 0, given, list(urls), str(tmp_path / "cache"))
        return load_images(config, seed=0)

    return load


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_archive_is_one_line_that_names_it(
    cifar: Callable[..., ImageSet], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    archive = tmp_path / "cifar.tar.gz"
    archive.write_bytes(damage(WHOLE))
    assert one_line(lambda: cifar(archive=archive)).startswith(f"data.archive={archive}: md5 is ")


def test_a_damaged_archive_through_the_command_line_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(truncated(WHOLE))
    done = run(tmp_path, "train", *SHORT, HERE, "data=cifar10", "data.archive=cifar.tar.gz")
    assert "data.archive=cifar.tar.gz: md5 is " in error_line(done, 2)
    assert not (tmp_path / "run").exists()


def test_names_that_climb_out_of_an_archive_write_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "deep" / "down" / "cifar.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(climbing(WHOLE))
    with tarfile.open(archive) as tar:
        assert any(".." in name for name in tar.getnames())
    assert cifar10.read_archive(archive)["train_images"].shape == (100, 32, 32, 3)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_a_host_that_gives_another_file_is_named_and_its_file_not_kept(
    cifar: Callable[..., ImageSet], tmp_path: Path
) -> None:
    host = Host(no_archive(WHOLE))
    try:
        said = one_line(lambda: cifar(host.url))
    finally:
        host.close()
    assert host.url in said and "gives another file, of 31 bytes" in said and "data.archive=" in said
    assert [path.name for path in (tmp_path / "cache").glob("cifar-10*") if path.suffix != ".lock"] == []


def test_a_half_finished_download_goes_on(cifar: Callable[..., ImageSet], tmp_path: Path) -> None:
    half = truncated(WHOLE)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{cifar10.ARCHIVE}.part").write_bytes(half)
    host = Host(WHOLE)
    try:
        assert len(cifar(host.url).train) == 100
    finally:
        host.close()
    assert (host.asked, host.sent) == ([f"bytes={len(half)}-"], [len(WHOLE) - len(half)])


# Folders of images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name, colour in (("cat", "red"), ("dog", "green")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), colour).save(tmp_path / "pets" / split / name / f"{number}.png")
    return tmp_path / "pets"


def load_folder(root: Path) -> ImageSet:
    config = FolderConfig("folder", 0, "resident", 0, str(root), 8, str(root.parent / "cache"))
    return load_images(config, seed=0)


def zero_bytes(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("not an image")


def loop(file: Path) -> None:
    file.symlink_to(file.name)


def far_too_large(file: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(file, "PNG")


def unreadable(file: Path) -> None:
    """Its reading fails for root too: the memory of this process at address 0."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs /proc")
    file.symlink_to("/proc/self/mem")


FAULTS = [zero_bytes, text, loop, far_too_large, unreadable]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PIL leaves what it cannot read open
@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__)
def test_a_file_that_is_no_image_is_one_line_that_names_it(root: Path, make: Callable[[Path], None]) -> None:
    file = root / "train" / "dog" / "bad one.jpg"
    make(file)
    said = one_line(lambda: load_folder(root))
    gc.collect()
    assert said.startswith(f"{file}: cannot be read") and said.endswith("; mend or remove it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_one_may_not_read_is_one_line_that_names_it(root: Path) -> None:
    file = root / "train" / "dog" / "0.png"
    file.chmod(0)
    assert one_line(lambda: load_folder(root)).startswith(f"{file}: cannot be read")


def test_a_folder_that_holds_itself_is_left_alone(root: Path) -> None:
    (root / "train" / "cat" / "again").symlink_to(root / "train")
    (root / "train" / "round").symlink_to("round")
    assert len(load_folder(root).train) == 8


@pytest.mark.parametrize("name", ["a b", 'it\'s "one"', "two\nlines", "кошка-猫-é", "-m", "a=b,c", "$x^{$", "<b>&"])
def test_files_and_classes_may_have_any_name(root: Path, name: str) -> None:
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / name)
    Image.new("RGB", (8, 8), "blue").save(root / "train" / name / f"{name}.png")
    data = load_folder(root)
    assert (len(data.train), len(data.facts.class_names)) == (9, 2) and name in data.facts.class_names


def test_a_bad_file_whose_name_has_two_lines_is_one_line_through_the_command_line(root: Path) -> None:
    text(root / "train" / "dog" / "two\nlines.jpg")
    own = ["data=folder", "data.root=pets", "data.val_size=0", "data.broken=refuse"]
    done = run(root.parent, "train", *SHORT, HERE, *own)
    assert "two lines.jpg: cannot be read as an image" in error_line(done, 2)
    assert not (root.parent / "run").exists()


def test_a_cmyk_jpeg_trains(root: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 100, 50)).convert("CMYK").save(buffer, "JPEG", quality=95)
    (root / "train" / "cat" / "print.jpg").write_bytes(buffer.getvalue())
    found = np.asarray(load_folder(root).train.images)[4, 4, 4].astype(int)
    assert np.abs(found - (200, 100, 50)).max() <= 8


# The cache


def stored(root: Path) -> Path:
    """The cache's folder of this data set."""
    return next(path for path in (root.parent / "cache").iterdir() if path.is_dir())


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def removed(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("name", ["train_images", "train_sums"])
@pytest.mark.parametrize("damage", [cut, emptied, removed], ids=lambda damage: damage.__name__)
def test_a_damaged_cache_is_one_line_that_names_the_file_and_what_to_do(
    root: Path, damage: Callable[[Path], None], name: str
) -> None:
    load_folder(root)
    file = stored(root) / f"{name}.npy"
    damage(file)
    said = one_line(lambda: load_folder(root))
    assert str(file) in said and f"remove {stored(root)}" in said


@pytest.mark.slow
def test_a_damaged_cache_through_the_command_line_is_one_line(root: Path) -> None:
    own = ["data=folder", "data.root=pets", "data.duplicates=keep", "data.val_size=0"]  # the images are equal
    arguments = [*SHORT, *own, "trainer.batch_size=2"]
    assert run(root.parent, "train", *arguments, "hydra.run.dir=first").returncode == 0
    cut(stored(root) / "train_images.npy")
    assert str(stored(root)) in error_line(run(root.parent, "train", *arguments, HERE), 2)


def test_a_cache_that_was_removed_is_made_again(root: Path) -> None:
    load_folder(root)
    for file in stored(root).iterdir():
        file.unlink()
    stored(root).rmdir()
    assert len(load_folder(root).train) == 8
