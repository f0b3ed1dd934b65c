"""Decodes the files of a folder into the cache, once: squares, digests, hashes, and which files are broken."""

import hashlib
import logging
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from s9.config.data import FolderConfig
from s9.data.image_set import CHUNK
from s9.data.sources.cache import ANOTHER, cache_folder, cached_arrays
from s9.data.sources.decode import ALL_BITS, DIGEST_SIZE, BrokenImageError, Decoded, decode_image, quiet
from s9.data.sources.folder_files import File
from s9.data.sources.pool import MANY, in_order
from s9.data.sources.square import THUMBNAIL
from s9.system.errors import UserError

log = logging.getLogger("s9")

FORMAT = 4  # version of the stored arrays; with another number everything is decoded again
SMALL, LARGE, LARGE_FROM = 32, 64, 48  # pixels: the image sizes that are chosen, and from which shorter side the larger
LOOKED_AT = 200  # files of train whose sizes are read

Splits = dict[str, list[File]]


def chosen_size(files: list[File]) -> tuple[int, int]:
    """(image size, median of the shorter sides in pixels) by the headers of some files, evenly spaced.

    The networks here see most of an image of 32 or 64 pixels; with four times the pixels a step takes four times as
    long.
    """
    sides = []
    with quiet():
        for index in np.unique(np.linspace(0, len(files) - 1, LOOKED_AT).astype(int)):
            try:
                with Image.open(files[index].path) as image:
                    sides.append(min(image.size))
            except Exception:  # a broken file is named when it is decoded
                continue
    side = int(np.median(sides)) if sides else SMALL
    return (LARGE if side >= LARGE_FROM else SMALL), side


def decoded(splits: Splits, config: FolderConfig, image_size: int, bits: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of the files of each split, mapped from the cache: images, digests, whole, near and small.

    train_sums, or those of the first split where there is no train: int64 (N, 6), per image the sums of each channel
    and of its squares. broken, where there are any:
    strings (count, 3) of split, index and reason; such a row of the images is black. high_depth: see `_decode`.

    Args:
        bits: with which to read files of more than 8 bits per channel, as a network was trained; None: those in use.

    Raises:
        UserError: the cache cannot be written, a file cannot be read, or one is broken or deep where that is refused.
    """
    settings, folder = f"{image_size}\n{config.resize}", cache_folder(config.cache)
    decode = partial(_decode, splits, config, image_size)
    arrays = cached_arrays(folder, _key(splits, settings), partial(decode, bits=None))
    if bits is None or "high_depth" not in arrays or arrays["high_depth"][1] == bits:
        return arrays
    return cached_arrays(folder, _key(splits, f"{settings}\n{bits} bits"), partial(decode, bits=bits))


def _key(splits: Splits, settings: str) -> str:
    """The cache key: all that decoding depends on, and nothing else. A folder may move, and other files may change."""
    digest = hashlib.sha256(f"{FORMAT}\n{settings}\n".encode())
    for split, files in splits.items():
        for file in files:
            of_file = f"{split}/{file.name}\0{file.size}\0{file.modified}\n"
            digest.update(of_file.encode(errors="surrogateescape"))
    return f"folder-{digest.hexdigest()[:24]}"


def _decode(splits: Splits, config: FolderConfig, size: int, to: Path, *, bits: int | None) -> None:
    """Decodes straight into files, so that the folder may be larger than memory.

    The bits that deep files use are known only when all are decoded; if they are not 16, these files are decoded again.
    """
    started, count = time.monotonic(), sum(map(len, splits.values()))
    _say_before(count, size, to)
    broken: list[tuple[str, int, str]] = []
    deep: list[tuple[int, int, int]] = []  # (number of the split, number of the file in it, highest value)
    one = partial(_one, image_size=size, config=config)
    with quiet(), _bar(count) as bar:
        for number, (split, files) in enumerate(splits.items()):
            arrays = _empty(len(files))
            with (to / f"{split}_images.npy").open("wb") as out:  # not mapped: a full disk would kill the process
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), size, size, 3)}
                np.lib.format.write_array_header_1_0(out, header)
                for index, made in enumerate(in_order(one, files)):
                    if isinstance(made, str):
                        broken.append((split, index, made))
                        out.write(bytes(3 * size**2))
                    else:
                        out.write(np.ascontiguousarray(made.pixels).data)
                        _keep(arrays, index, made)
                        if made.greatest is not None:
                            deep.append((number, index, made.greatest))
                    bar.update()
            _save(arrays, split, to)
        if deep:
            bits = bits or _bits_in_use(deep)
            np.save(to / "high_depth.npy", np.array([len(deep), bits, *deep[0][:2]]))
            if bits != ALL_BITS:
                _decode_again(splits, deep, to, image_size=size, bits=bits, resize=config.resize)
    if broken:
        np.save(to / "broken.npy", np.array([(split, str(index), reason) for split, index, reason in broken]))
    first = next(iter(splits))
    np.save(to / f"{first}_sums.npy", _sums(np.load(to / f"{first}_images.npy", mmap_mode="r", allow_pickle=False)))
    stored = sum(path.stat().st_size for path in to.iterdir())
    log.info(
        f"decoded in {time.monotonic() - started:.0f} s; the cache in {to.parent} holds {in_bytes(stored)} of them"
    )


def _one(file: File, image_size: int, config: FolderConfig) -> Decoded | str:
    """The decoded file, or why it is broken."""
    try:
        made = decode_image(Path(file.path), image_size, resize=config.resize)
    except BrokenImageError as error:
        if config.broken == "refuse":
            raise UserError(str(error)) from None
        return error.reason
    if made.greatest is not None and config.high_depth == "refuse":
        raise too_deep(file)
    return made


def _empty(count: int) -> dict[str, np.ndarray]:
    digests, whole = (np.zeros((count, DIGEST_SIZE), np.uint8) for _ in range(2))
    small = np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8)
    return {"digests": digests, "whole": whole, "near": np.zeros(count, np.uint64), "small": small}


def _keep(arrays: dict[str, np.ndarray], index: int, made: Decoded) -> None:
    arrays["digests"][index] = np.frombuffer(made.digest, np.uint8)
    arrays["whole"][index] = np.frombuffer(made.whole, np.uint8)
    arrays["near"][index], arrays["small"][index] = made.near, made.small


def _save(arrays: dict[str, np.ndarray], split: str, to: Path) -> None:
    for name, array in arrays.items():
        np.save(to / f"{split}_{name}.npy", array)


def _sums(images: np.ndarray) -> np.ndarray:
    sums = np.empty((len(images), 6), np.int64)
    for start in range(0, len(images), CHUNK):
        some = np.asarray(images[start : start + CHUNK])
        sums[start : start + CHUNK, :3] = some.sum((1, 2), dtype=np.int64)
        sums[start : start + CHUNK, 3:] = (some.astype(np.uint16) ** 2).sum((1, 2), dtype=np.int64)
    return sums


def _bits_in_use(deep: list[tuple[int, int, int]]) -> int:
    """The bits in use, at least 8: those of train (split 0), as for mean and std; without deep files there, of all."""
    of_train = [greatest for number, _, greatest in deep if number == 0]
    return max(8, max(of_train or [greatest for *_, greatest in deep]).bit_length())


def _decode_again(
    splits: Splits, deep: list[tuple[int, int, int]], to: Path, *, image_size: int, bits: int, resize: str
) -> None:
    """Decodes the deep files in the depth that is now known: their pixels, and the hashes by which copies are found."""
    for number, (split, files) in enumerate(splits.items()):
        if not any(of_split == number for of_split, *_ in deep):
            continue
        arrays = {name: np.load(to / f"{split}_{name}.npy", allow_pickle=False) for name in _empty(0)}
        path = to / f"{split}_images.npy"
        header = path.stat().st_size - len(files) * 3 * image_size**2
        with path.open("r+b") as out:
            for index in (index for of_split, index, _ in deep if of_split == number):
                out.seek(header + index * 3 * image_size**2)
                made = decode_image(Path(files[index].path), image_size, bits, resize=resize)
                out.write(np.ascontiguousarray(made.pixels).data)
                _keep(arrays, index, made)
        _save(arrays, split, to)


def too_deep(file: File) -> UserError:
    return UserError(
        f"{file.path}: has more than 8 bits per channel; data.high_depth=scale scales the bits in use to 8"
    )


def _say_before(count: int, size: int, to: Path) -> None:
    """Says that decoding takes a while. Raises UserError where the disk has no room for the images."""
    needed, free = count * (3 * size**2 + THUMBNAIL**2 + 100), shutil.disk_usage(to).free
    if needed > free:
        raise UserError(f"data.cache={to.parent}: {in_bytes(needed)} needed, {in_bytes(free)} free; {ANOTHER}")
    if count >= MANY:
        log.info(f"decodes {count:,} images once, to {size} x {size} pixels: {in_bytes(needed)} in {to.parent}")


def _bar(count: int) -> "tqdm[Any]":
    return tqdm(total=count, unit="image", leave=False, disable=count < MANY or not sys.stderr.isatty())


def in_bytes(count: int) -> str:
    """`6.1 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{max(1, round(count / 1000))} kB"
