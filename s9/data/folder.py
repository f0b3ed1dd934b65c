"""A user's own images: root/{train,test}/<class>/*, decoded once, kept in a cache of ours, never beside theirs."""

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from s9.config import FolderConfig
from s9.data.cache import cached_arrays
from s9.data.image_set import CHUNK, ImageSet, Split, channel_statistics, hold_out
from s9.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png"}


def load_folder(config: FolderConfig, seed: int) -> ImageSet:
    """The images under `data.root`, scaled to `data.image_size`; mean and std are those of train.

    Raises:
        UserError: names the folder or file that is missing, empty, broken or of a class that the other split lacks.
    """
    root = Path(config.root).expanduser()
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise UserError(
                f"data.root={config.root}: there is no folder {root / split}; wanted: <root>/train/<class>/* and "
                "<root>/test/<class>/*. Other ways: data=cifar10 data.archive=<file>, or data=digits"
            )
    class_names = _class_names(root)
    files = {split: _image_files(root / split, class_names) for split in ("train", "test")}
    key = _key(root, files, config.image_size)
    cache = Path(config.cache).expanduser()
    arrays = cached_arrays(cache, key, lambda part: _decode(files, config.image_size, part))
    whole = {s: Split(arrays[f"{s}_images"], np.array([file.label for file in files[s]], np.int64)) for s in files}
    mean, std = ((v[0], v[1], v[2]) for v in arrays["train_statistics"].tolist())
    train, val = hold_out(whole["train"], config.val_size, seed)
    contents = {split: _contents(root / split, of_split, class_names) for split, of_split in files.items()}
    return ImageSet(_variant(root), class_names, mean, std, train, val, whole["test"], contents)


def _variant(root: Path) -> str:
    """Accuracies on the JPEG copy of CIFAR-10 must not be taken for those on the original files."""
    name = root.resolve().name
    return "CIFAR-10 (JPEG)" if name == "cifar10-images" else f"folder {name}"


def _class_names(root: Path) -> tuple[str, ...]:
    found = {
        s: {d.name for d in (root / s).iterdir() if d.is_dir() and not d.name.startswith(".")}
        for s in ("train", "test")
    }
    if len(found["train"]) < 2:
        raise UserError(f"{root / 'train'}: needs at least two class folders, has {len(found['train'])}")
    for have, lack in (("train", "test"), ("test", "train")):
        missing = sorted(found[have] - found[lack])
        if missing:
            raise UserError(f"{root / lack / missing[0]}: no such class folder, yet {root / have} has the class")
    return tuple(sorted(found["train"]))


class _File(NamedTuple):
    path: str
    label: int
    size: int  # bytes
    modified: int  # nanoseconds


def _image_files(folder: Path, class_names: tuple[str, ...]) -> list[_File]:
    """All images below `folder`, by class and name. By scandir: pathlib takes ten times as long for 60,000 files."""
    files = []
    for label, name in enumerate(class_names):
        with os.scandir(folder / name) as entries:
            found = sorted((e for e in entries if Path(e.name).suffix.lower() in SUFFIXES), key=lambda e: e.name)
        if not found:
            raise UserError(f"{folder / name}: the class is empty; wanted: .jpg, .jpeg or .png files")
        for entry in found:
            try:
                state = entry.stat()
            except OSError as error:  # a link to a file that is gone
                raise UserError(f"{entry.path}: cannot be read ({error.strerror}); mend or remove it") from None
            if not stat.S_ISREG(state.st_mode):  # to read a named pipe would be to wait for ever
                raise UserError(f"{entry.path}: is not a file; remove it")
            files.append(_File(entry.path, label, state.st_size, state.st_mtime_ns))
    return files


def _key(root: Path, files: dict[str, list[_File]], image_size: int) -> str:
    """Changes with any file's name, size or time, and with the image size."""
    digest = hashlib.sha256(os.fsencode(root.resolve()) + f"\n{image_size}\n".encode())
    for of_split in files.values():
        for file in of_split:
            below = file.path.removeprefix(f"{root}{os.sep}")
            digest.update(os.fsencode(below) + f"\0{file.size}\0{file.modified}\n".encode())
    return f"folder-{digest.hexdigest()[:24]}"


def _contents(folder: Path, files: list[_File], class_names: tuple[str, ...]) -> dict[str, tuple[int, str]]:
    """Of each class the number of its images and a digest of their names and sizes: stays when the folder is copied."""
    found = {}
    for label, name in enumerate(class_names):
        digest, of_class = hashlib.sha256(), [file for file in files if file.label == label]
        for file in of_class:
            digest.update(os.fsencode(file.path.removeprefix(f"{folder}{os.sep}")) + f"\0{file.size}\n".encode())
        found[name] = (len(of_class), digest.hexdigest()[:24])
    return found


def _decode(files: dict[str, list[_File]], image_size: int, to: Path) -> None:
    """Decodes straight into files, so that the folder may be larger than memory."""
    with ThreadPoolExecutor() as pool:
        for split, of_split in files.items():
            path = to / f"{split}_images.npy"
            with path.open("wb") as file:  # written, not mapped: on a full disk a write fails, a mapped page kills
                shape = (len(of_split), image_size, image_size, 3)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, len(of_split), CHUNK):
                    paths = [Path(f.path) for f in of_split[start : start + CHUNK]]
                    for image in pool.map(lambda path: decode_image(path, image_size), paths):
                        file.write(np.ascontiguousarray(image).data)
            if split == "train":
                images = np.load(path, mmap_mode="r", allow_pickle=False)
                np.save(to / "train_statistics.npy", np.array(channel_statistics(images)))


def decode_image(file: Path, image_size: int) -> np.ndarray:
    """One image file of any colour mode as uint8 (image_size, image_size, 3); transparent parts become white.

    Raises:
        UserError: names the file that cannot be read.
    """
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("RGB")
    except Exception as error:  # of a damaged file a decoder may raise anything, struct.error and TypeError included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file}: cannot be read as an image ({reason}); mend or remove it") from None
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image)
