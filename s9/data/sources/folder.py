"""A user's own images: root/{train,val,test}/<class>/**, decoded once and kept in s9's cache, never in their folder."""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from s9.config.data import FolderConfig
from s9.data.image_set import CHUNK, ImageFacts, ImageSet, Split, channel_statistics, hold_out
from s9.data.sources.cache import cache_folder, cached_arrays
from s9.data.sources.decode import DIGEST_SIZE, decode_image, quiet
from s9.data.sources.folder_files import File, FolderFiles, folder_files
from s9.system.errors import UserError

log = logging.getLogger("s9")

FORMAT = 2  # version of the stored arrays; with another number everything is decoded again


def load_folder(config: FolderConfig, seed: int) -> ImageSet:
    """The images under `data.root`, scaled to `data.image_size`; mean and std are those of train.

    The log says which files were left out, which folder is val, and how more than 8 bits per channel became 8.

    Raises:
        UserError: names the folder or file that is missing, empty, broken or of a class that the other split lacks.
    """
    root = Path(config.root)
    found = folder_files(root)
    if said := found.said():
        log.info(said)
    key = _key(root, found.splits, config.image_size)
    arrays = cached_arrays(cache_folder(config.cache), key, lambda part: _decode(found.splits, config, part))
    if "high_depth" in arrays:
        count, bits, split, index = arrays["high_depth"].tolist()
        if config.high_depth == "refuse":
            raise _too_deep(list(found.splits.values())[split][index])
        have = "image has" if count == 1 else "images have"
        log.info(
            f"{count:,} {have} more than 8 bits per channel; {bits} are in use and become 8 "
            "(data.high_depth=refuse refuses them)"
        )
    whole = {
        split: Split(arrays[f"{split}_images"], np.array([file.label for file in files], np.int64))
        for split, files in found.splits.items()
    }
    mean, std = ((v[0], v[1], v[2]) for v in arrays["train_statistics"].tolist())
    train, val = hold_out(whole["train"], 0 if found.val else config.val_size, seed)
    if found.val:
        val = whole["val"].take(slice(None))
        unused = f"; data.val_size={config.val_size} is not used" if config.val_size else ""
        log.info(f"val: {len(val):,} images of {found.val}{unused}")
    contents = {split: _contents(found, split, arrays[f"{split}_digests"]) for split in found.splits}
    facts = ImageFacts(_variant(root), found.class_names, config.image_size, mean=mean, std=std, contents=contents)
    names = tuple(file.name for file in found.splits["test"])
    return ImageSet(facts, train, val, whole["test"], test_names=names)


def _variant(root: Path) -> str:
    """Accuracies on the JPEG copy of CIFAR-10 must not be taken for those on the original files."""
    return "CIFAR-10 (JPEG)" if root.name == "cifar10-images" else f"folder {root.name}"


def _key(root: Path, splits: dict[str, list[File]], image_size: int) -> str:
    """The cache key; it changes with any file's name, size or modification time, and with the image size."""
    digest = hashlib.sha256(f"{FORMAT}\n{root}\n{image_size}\n".encode(errors="surrogateescape"))
    for split, files in splits.items():
        for file in files:
            of_file = f"{split}/{file.name}\0{file.size}\0{file.modified}\n"
            digest.update(of_file.encode(errors="surrogateescape"))
    return f"folder-{digest.hexdigest()[:24]}"


def _contents(found: FolderFiles, split: str, digests: np.ndarray) -> dict[str, tuple[int, str]]:
    """For each class the number of its images and a digest of their names and bytes; equal for a copied folder."""
    counts = [0] * len(found.class_names)
    of_class = [hashlib.sha256() for _ in found.class_names]
    content = digests.tobytes()
    for index, file in enumerate(found.splits[split]):
        counts[file.label] += 1
        of_file = content[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]
        of_class[file.label].update(file.name.encode(errors="surrogateescape") + b"\0" + of_file)
    return {name: (counts[i], of_class[i].hexdigest()[:24]) for i, name in enumerate(found.class_names)}


def _decode(splits: dict[str, list[File]], config: FolderConfig, to: Path) -> None:
    """Decodes straight into files, so that the folder may be larger than memory.

    The bits that deep files use are known only when all are decoded; if they are not 16, these files are decoded again.
    """
    deep: list[tuple[int, int, int]] = []  # (number of the split, number of the file in it, highest value)
    size = config.image_size
    with quiet(), ThreadPoolExecutor() as pool:
        for number, (split, files) in enumerate(splits.items()):
            digests = np.empty((len(files), DIGEST_SIZE), np.uint8)
            with (to / f"{split}_images.npy").open("wb") as out:  # not mapped: a full disk would kill the process
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), size, size, 3)}
                np.lib.format.write_array_header_1_0(out, header)
                for start in range(0, len(files), CHUNK):
                    paths = [Path(file.path) for file in files[start : start + CHUNK]]
                    for index, made in enumerate(pool.map(partial(decode_image, image_size=size), paths), start):
                        out.write(np.ascontiguousarray(made.pixels).data)
                        digests[index] = np.frombuffer(made.digest, np.uint8)
                        if made.greatest is not None:
                            if config.high_depth == "refuse":
                                raise _too_deep(files[index])
                            deep.append((number, index, made.greatest))
            np.save(to / f"{split}_digests.npy", digests)
        if deep:
            bits = _bits_in_use(deep)
            np.save(to / "high_depth.npy", np.array([len(deep), bits, *deep[0][:2]]))
            if bits != 16:
                _decode_again(splits, deep, to, image_size=size, bits=bits)
    images = np.load(to / "train_images.npy", mmap_mode="r", allow_pickle=False)
    np.save(to / "train_statistics.npy", np.array(channel_statistics(images)))


def _bits_in_use(deep: list[tuple[int, int, int]]) -> int:
    """The bits in use, at least 8: those of train (split 0), as for mean and std; without deep files there, of all."""
    of_train = [greatest for number, _, greatest in deep if number == 0]
    return max(8, max(of_train or [greatest for *_, greatest in deep]).bit_length())


def _decode_again(
    splits: dict[str, list[File]], deep: list[tuple[int, int, int]], to: Path, *, image_size: int, bits: int
) -> None:
    for number, (split, files) in enumerate(splits.items()):
        path = to / f"{split}_images.npy"
        header = path.stat().st_size - len(files) * 3 * image_size**2
        with path.open("r+b") as out:
            for index in (index for of_split, index, _ in deep if of_split == number):
                out.seek(header + index * 3 * image_size**2)
                pixels = decode_image(Path(files[index].path), image_size, bits).pixels
                out.write(np.ascontiguousarray(pixels).data)


def _too_deep(file: File) -> UserError:
    return UserError(
        f"{file.path}: has more than 8 bits per channel; data.high_depth=scale scales the bits in use to 8"
    )
