"""A user's own images, as real files of every colour mode: decoded once, named when broken, never written beside."""

import os
import re
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s9.config.data import FolderConfig
from s9.data.image_set import ImageSet, Rows, Split, channel_statistics
from s9.data.sources.decode import decode_image
from s9.data.sources.load import load_images
from s9.system.errors import UserError
from tests.conftest import ROOT

WHITE = [255, 255, 255]
RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)


def colour(rgb: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, rgb)


def fill_class(folder: Path, rgb: tuple[int, int, int], count: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        colour(rgb).save(folder / f"{number}.png")


def pixels(file: Path, image_size: int) -> np.ndarray:
    return decode_image(file, image_size).pixels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three red cats and three green dogs in train, darker ones in test."""
    for split, share in (("train", 1), ("test", 2)):
        fill_class(tmp_path / "pets" / split / "cat", (200 // share, 10, 10))
        fill_class(tmp_path / "pets" / split / "dog", (10, 200 // share, 10))
    return tmp_path / "pets"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ImageSet]:
    def load_folder(root: Path, seed: int = 0, **changes: Any) -> ImageSet:
        loading: dict[str, Any] = {"val_size": 0, "loader": "resident", "workers": 0}
        values: dict[str, Any] = {**loading, "image_size": 8, "cache": str(tmp_path / "cache")}
        return load_images(FolderConfig("folder", **(values | {"root": str(root)} | changes)), seed)

    return load_folder


def splits(data: ImageSet) -> tuple[Split, Split, Split]:
    return data.train, data.val, data.test


def refused(load: Callable[..., ImageSet], root: Path, **changes: Any) -> str:
    """What the user is told: one line."""
    with pytest.raises(UserError) as error:
        load(root, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


# Classes, splits, statistics


def test_classes_are_the_folders_in_alphabetical_order(load: Callable[..., ImageSet], root: Path) -> None:
    assert load(root).facts.class_names == ("cat", "dog")


def test_labels_are_those_of_the_folders(load: Callable[..., ImageSet], root: Path) -> None:
    train = load(root).train
    assert [tuple(image[0, 0]) for image in train.images] == [(200, 10, 10)] * 3 + [(10, 200, 10)] * 3
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and train.labels.dtype == np.int64


def test_the_folder_name_is_the_name_of_the_accuracies(load: Callable[..., ImageSet], root: Path) -> None:
    assert load(root).facts.variant == "folder pets"


def test_the_folder_that_one_stands_in_is_named_too(
    load: Callable[..., ImageSet], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert load(Path()).facts.variant == "folder pets"


def test_mean_and_std_come_from_train_only(load: Callable[..., ImageSet], root: Path) -> None:
    data = load(root)
    assert data.facts.mean == pytest.approx((105 / 255, 105 / 255, 10 / 255))
    assert data.facts.std[:2] == pytest.approx((95 / 255, 95 / 255))


def test_val_is_held_out_of_train_by_class(load: Callable[..., ImageSet], root: Path) -> None:
    data = load(root, val_size=2)
    assert (sorted(data.val.labels), len(data.train), len(data.test)) == ([0, 1], 4, 6)


def test_a_val_size_that_cannot_be_names_its_key(load: Callable[..., ImageSet], root: Path) -> None:
    assert refused(load, root, val_size=5).startswith("data.val_size=5: ")


def test_other_files_and_hidden_folders_are_left_alone(load: Callable[..., ImageSet], root: Path) -> None:
    (root / "train" / "cat" / "notes.txt").write_text("three cats")
    (root / "train" / ".thumbnails").mkdir()
    (root / "train" / "readme.md").write_text("pets")
    data = load(root)
    assert (data.facts.class_names, len(data.train)) == (("cat", "dog"), 6)


@pytest.mark.parametrize(
    "name", ["a b.png", 'it\'s "one".png', "кошка-猫-é.png", "UPPER.PNG", "two.dots.png", "%s{0}.png"]
)
def test_an_image_may_have_any_name(load: Callable[..., ImageSet], root: Path, name: str) -> None:
    colour(BLUE).save(root / "train" / "cat" / name)
    assert (load(root).train.images[:4, 0, 0] == BLUE).all(-1).sum() == 1


def test_a_file_name_that_is_not_utf8_is_read(load: Callable[..., ImageSet], root: Path) -> None:
    name = root / "train" / "cat" / os.fsdecode(b"caf\xe9.png")
    try:
        name.write_bytes((root / "train" / "cat" / "0.png").read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system allows UTF-8 names only")
    assert len(load(root).train) == 7


@pytest.mark.parametrize("name", ["a b", 'it\'s "one"', "кошка-猫-é", "{cat}"])
def test_a_class_may_have_any_name(load: Callable[..., ImageSet], root: Path, name: str) -> None:
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / name)
    assert set(load(root).facts.class_names) == {name, "dog"}


def test_test_images_are_named_by_class_and_file(load: Callable[..., ImageSet], root: Path) -> None:
    (root / "test" / "dog" / "big").mkdir()
    (root / "test" / "dog" / "2.png").rename(root / "test" / "dog" / "big" / "it's 猫.png")
    assert load(root).test_names == (
        *(f"cat/{n}.png" for n in range(3)),
        "dog/0.png",
        "dog/1.png",
        "dog/big/it's 猫.png",
    )


def test_names_stay_with_their_test_images(load: Callable[..., ImageSet], root: Path) -> None:
    colour(BLUE).save(root / "test" / "dog" / "00.png")
    data = load(root)
    assert tuple(data.test.images[data.test_names.index("dog/00.png")][0, 0]) == BLUE


def test_a_name_of_a_test_image_that_is_not_utf8_is_its_bytes(load: Callable[..., ImageSet], root: Path) -> None:
    try:
        (root / "test" / "cat" / "0.png").rename(root / "test" / "cat" / os.fsdecode(b"caf\xe9.png"))
    except (OSError, UnicodeError):
        pytest.skip("this file system allows UTF-8 names only")
    assert os.fsencode(load(root).test_names[2]) == b"cat/caf\xe9.png"


def test_the_home_folder_may_be_written_as_a_tilde(load: Callable[..., ImageSet], root: Path) -> None:
    root.rename(Path.home() / "pets")
    assert len(load(Path("~/pets")).train) == 6


# Colour modes and sizes


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (300, 20), (7, 64)])
def test_every_size_is_brought_to_the_image_size(
    load: Callable[..., ImageSet], root: Path, size: tuple[int, int]
) -> None:
    colour(BLUE, size).save(root / "train" / "cat" / "blue.png")
    images = load(root, image_size=16).train.images
    assert images.shape == (7, 16, 16, 3) and images.dtype == np.uint8
    assert (images[3] == BLUE).all()


def test_an_image_of_the_wanted_size_is_not_resampled(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert np.array_equal(pixels(tmp_path / "noise.png", 16), noise)


def test_a_jpeg_is_read_closely(tmp_path: Path) -> None:
    colour(RED).save(tmp_path / "red.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "red.jpg", 8).astype(int) - RED).max() <= 4


def test_a_cmyk_jpeg_is_read_closely(tmp_path: Path) -> None:
    colour((200, 100, 50)).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "print.jpg", 8).astype(int) - (200, 100, 50)).max() <= 6


def test_a_grey_image_has_three_equal_channels(tmp_path: Path) -> None:
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    assert np.array_equal(pixels(tmp_path / "grey.png", 8), np.stack([ramp] * 3, -1))


def test_a_1_bit_image_is_black_and_white(tmp_path: Path) -> None:
    image = Image.new("1", (8, 8), 0)
    image.paste(1, (0, 0, 4, 8))
    image.save(tmp_path / "bits.png")
    assert pixels(tmp_path / "bits.png", 8)[0, :, 0].tolist() == [255] * 4 + [0] * 4


@pytest.mark.parametrize("level", [0, 200, 32768, 65535])
def test_16_bit_grey_keeps_its_brightness(tmp_path: Path, level: int) -> None:
    Image.fromarray(np.full((8, 8), level, np.uint16)).save(tmp_path / "deep.png")
    assert np.abs(pixels(tmp_path / "deep.png", 8).astype(float) - level / 257).max() <= 1


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*RED, *GREEN])
    image.save(tmp_path / "palette.png")
    assert (pixels(tmp_path / "palette.png", 8) == GREEN).all()


def half_clear(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """An image whose left half is red (or grey 90) and whose right half is transparent, in each way that PNG has."""
    if mode in ("RGBA", "LA"):
        seen, clear = ((*RED, 255), (*BLUE, 0)) if mode == "RGBA" else ((90, 255), (30, 0))
        image = Image.new(mode, (8, 8), clear)
        image.paste(seen, (0, 0, 4, 8))
        return image, {}
    if mode == "P":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([*RED, *BLUE])
        image.paste(0, (0, 0, 4, 8))
        return image, {"transparency": 1}
    if mode == "P, alpha of each colour":
        return half_clear("P")[0], {"transparency": bytes([255, 0])}
    if mode == "RGB":
        image = colour(BLUE)
        image.paste(RED, (0, 0, 4, 8))
        return image, {"transparency": BLUE}
    image = Image.new("L", (8, 8), 30)
    image.paste(90, (0, 0, 4, 8))
    return image, {"transparency": 30}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P, alpha of each colour", "RGB", "L"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    image, options = half_clear(mode)
    image.save(tmp_path / "half.png", **options)
    found = pixels(tmp_path / "half.png", 8)
    assert (found[:, 4:] == 255).all()
    assert (found[:, :4] == ((90, 90, 90) if mode in ("LA", "L") else RED)).all()


def test_what_is_half_transparent_is_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (*RED, 128)).save(tmp_path / "veil.png")
    expected = np.array(RED) * (128 / 255) + 255 * (127 / 255)
    assert np.abs(pixels(tmp_path / "veil.png", 8) - expected).max() <= 1


# Where the first column of the file stands when the picture is shown, by the EXIF standard.
SHOWN = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}


@pytest.mark.parametrize("orientation", list(SHOWN))
def test_a_photo_is_turned_as_its_camera_was(tmp_path: Path, orientation: int) -> None:
    image = colour(BLUE, (32, 32))
    image.paste(RED, (0, 0, 16, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    found = pixels(tmp_path / "photo.jpg", 32).astype(int)
    edges = {"left": found[:, 0], "right": found[:, -1], "top": found[0], "bottom": found[-1]}
    red = [edge for edge, pixels in edges.items() if (pixels[:, 0] > 150).all()]
    assert red == [SHOWN[orientation]]


# The cache


def stored(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def test_the_second_time_nothing_is_decoded(load: Callable[..., ImageSet], root: Path) -> None:
    first = load(root).train.images
    file = root / "train" / "cat" / "0.png"
    state = file.stat()
    file.write_bytes(b"x" * state.st_size)  # could not be decoded, yet looks unchanged
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert np.array_equal(load(root).train.images, first)


def repaint(root: Path) -> None:
    file = root / "train" / "cat" / "0.png"
    state = file.stat()
    colour(BLUE).save(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def add(root: Path) -> None:
    colour(BLUE).save(root / "train" / "cat" / "00.png")


def swap(root: Path) -> None:
    (root / "train" / "cat" / "0.png").unlink()
    (root / "train" / "dog" / "0.png").rename(root / "train" / "cat" / "0.png")


@pytest.mark.parametrize(
    "change, colours",
    [
        (repaint, [BLUE, RED, RED, GREEN, GREEN, GREEN]),
        (add, [RED, BLUE, RED, RED, GREEN, GREEN, GREEN]),
        (swap, [GREEN, RED, RED, GREEN, GREEN]),
    ],
)
def test_a_changed_folder_is_decoded_anew(
    load: Callable[..., ImageSet], root: Path, change: Callable[[Path], None], colours: list[tuple[int, int, int]]
) -> None:
    load(root)
    change(root)
    assert [tuple(image[0, 0]) for image in load(root).train.images] == colours


def test_another_image_size_is_decoded_anew(load: Callable[..., ImageSet], root: Path) -> None:
    assert [load(root, image_size=size).facts.image_size for size in (8, 16, 8)] == [8, 16, 8]


def test_an_unchanged_folder_is_stored_once(load: Callable[..., ImageSet], root: Path, tmp_path: Path) -> None:
    load(root)
    load(root, seed=1, val_size=2)
    assert len(stored(tmp_path)) == 1


def test_the_images_are_mapped_from_the_cache(load: Callable[..., ImageSet], root: Path, tmp_path: Path) -> None:
    data = load(root, val_size=2)
    (folder,) = stored(tmp_path)
    mapped = [split.images.array if isinstance(split.images, Rows) else split.images for split in splits(data)]
    names = [Path(str(images.filename)) for images in mapped if isinstance(images, np.memmap)]
    assert names == [folder / "train_images.npy"] * 2 + [folder / "test_images.npy"]


def test_more_images_than_are_decoded_at_a_time_keep_their_order(load: Callable[..., ImageSet], root: Path) -> None:
    fill_class(root / "train" / "bird", BLUE, count=0)
    fill_class(root / "test" / "bird", BLUE)
    for level in range(256):
        colour((level, 0, 0)).save(root / "train" / "bird" / f"0{level:03}.png")
        for times in range(1, 5):
            (root / "train" / "bird" / f"{times}{level:03}.png").hardlink_to(
                root / "train" / "bird" / f"0{level:03}.png"
            )
    data = load(root)
    assert data.train.images[: 5 * 256, 0, 0, 0].tolist() == [*range(256)] * 5
    assert data.facts.mean == pytest.approx(channel_statistics(np.asarray(data.train.images))[0], abs=1e-12)


@pytest.mark.parametrize("val_size", [0, 2])
def test_what_is_read_again_is_what_was_decoded(load: Callable[..., ImageSet], root: Path, val_size: int) -> None:
    made, found = load(root, val_size=val_size), load(root, val_size=val_size)
    assert (made.facts.mean, made.facts.std) == (found.facts.mean, found.facts.std)
    for a, b in zip(splits(made), splits(found), strict=True):
        assert np.array_equal(np.asarray(a.images), np.asarray(b.images)) and np.array_equal(a.labels, b.labels)


def test_nothing_is_written_into_the_users_folder(load: Callable[..., ImageSet], root: Path) -> None:
    def everything() -> list[tuple[Path, int, int]]:
        return [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted([root, *root.rglob("*")])]

    before = everything()
    load(root)
    load(root)
    assert everything() == before


@pytest.mark.parametrize("cache", ["a file", "a file/below"])
def test_a_cache_that_cannot_be_a_folder_is_refused(
    load: Callable[..., ImageSet], root: Path, tmp_path: Path, cache: str
) -> None:
    (tmp_path / "a file").write_text("not a folder")
    assert str(tmp_path / cache) in refused(load, root, cache=str(tmp_path / cache))


FILLS_ITS_DISK = """
mount -t tmpfs -o size=100k tmpfs "$1" || exit 77
exec "$2" -m s9.train data=folder data.root="$3" data.cache="$1" data.image_size=128 data.val_size=0
"""


def test_a_full_disk_is_one_line_and_exit_code_2(root: Path, tmp_path: Path) -> None:
    """On a file system of 100 kB that only this process sees; who writes to a mapped file there is killed by SIGBUS."""
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-m", "sh", "-c", FILLS_ITS_DISK, "sh", str(tmp_path / "disk"), sys.executable, str(root)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode in (1, 77) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("needs the right to mount")
    assert done.returncode == 2, done.stderr
    assert re.match(rf"error: data\.cache={tmp_path / 'disk'}: 59\d kB needed, 10\d kB free; choose", done.stderr)
    assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_grow_is_said_in_one_line_and_leaves_no_cache_behind(
    load: Callable[..., ImageSet], root: Path, tmp_path: Path
) -> None:
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, allowed[1]))  # bytes
    try:
        said = refused(load, root, image_size=128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert said.startswith(f"data.cache={tmp_path / 'cache'}: cannot be written (")
    assert not stored(tmp_path)


# Broken images


def truncated_png(file: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:1000])


def truncated_jpeg(file: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:900])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("<!DOCTYPE html><title>404</title>")


def dangling_link(file: Path) -> None:
    file.symlink_to(file.with_name("moved away.png"))


def bomb(file: Path) -> None:
    """A small file that says it is an image of 400 megapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


BROKEN = [truncated_png, truncated_jpeg, empty, text, bomb, dangling_link]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_a_broken_image_is_named(
    load: Callable[..., ImageSet], root: Path, make: Callable[[Path], None], split: str
) -> None:
    file = root / split / "dog" / "broken one.jpg"
    make(file)
    assert str(file) in refused(load, root)


def test_a_broken_image_leaves_no_cache_behind(load: Callable[..., ImageSet], root: Path, tmp_path: Path) -> None:
    empty(root / "train" / "dog" / "broken.png")
    refused(load, root)
    assert not stored(tmp_path)


def test_a_mended_image_is_read(load: Callable[..., ImageSet], root: Path) -> None:
    file = root / "train" / "dog" / "broken.png"
    empty(file)
    refused(load, root)
    colour(BLUE).save(file)
    assert tuple(load(root).train.images[-1, 0, 0]) == BLUE


# Folders that are not as they must be


def test_a_class_that_test_lacks_is_named(load: Callable[..., ImageSet], root: Path) -> None:
    fill_class(root / "train" / "bird", BLUE)
    assert str(root / "test" / "bird") in refused(load, root)


def test_a_class_that_train_lacks_is_named(load: Callable[..., ImageSet], root: Path) -> None:
    fill_class(root / "test" / "bird", BLUE)
    assert str(root / "train" / "bird") in refused(load, root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_is_named(load: Callable[..., ImageSet], root: Path, split: str) -> None:
    for file in (root / split / "dog").iterdir():
        file.unlink()
    assert str(root / split / "dog") in refused(load, root)


def test_a_single_class_is_refused(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    for split in ("train", "test"):
        fill_class(tmp_path / "one" / split / "cat", RED)
    said = refused(load, tmp_path / "one")
    assert str(tmp_path / "one" / "train") in said and "two" in said


def test_a_missing_root_is_named(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    assert f"data.root={tmp_path / 'nowhere'}" in refused(load, tmp_path / "nowhere")


def test_a_folder_of_test_alone_is_refused(load: Callable[..., ImageSet], root: Path) -> None:
    (root / "train").rename(root.parent / "elsewhere")
    assert refused(load, root).startswith(f"data.root={root}: has test, but no train; wanted: ")


# The real images


@pytest.mark.real
@pytest.mark.slow
def test_the_jpeg_copy_of_cifar10_is_whole_and_named_so(cifar10_images: Path, load: Callable[..., ImageSet]) -> None:
    data = load(cifar10_images, image_size=32, val_size=5000)
    assert data.facts.variant == "CIFAR-10 (JPEG)"
    assert (len(data.train), len(data.val), len(data.test)) == (45_000, 5_000, 10_000)
    assert (np.bincount(data.train.labels) == 4_500).all() and (np.bincount(data.val.labels) == 500).all()
    assert data.facts.mean == pytest.approx((0.4913, 0.4821, 0.4465), abs=1e-4)
    assert data.facts.std == pytest.approx((0.2452, 0.2428, 0.2606), abs=1e-4)
