"""CIFAR-10 from its original archive: found, or fetched once (resumed, locked, checked by md5), then cached.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from s9.config.data import Cifar10Config
from s9.data.image_set import ImageFacts, ImageSet, Split
from s9.data.sources.cache import cache_folder, cached_arrays, save_arrays
from s9.data.sources.download import Wanted, download, md5_of
from s9.data.split import hold_out
from s9.system.errors import UserError

ARCHIVE = "cifar-10-python.tar.gz"
SIZE = 170_498_071  # bytes
MD5 = "c58f30108f718f92721af3b95e74349a"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of the original train files. The widely copied std (0.2023, 0.1994, 0.2010) is wrong.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
FACTS = ImageFacts("CIFAR-10", CLASS_NAMES, 32, mean=MEAN, std=STD)


def load_cifar10(config: Cifar10Config, seed: int) -> ImageSet:
    """The original 50,000 train and 10,000 test images.

    Raises:
        UserError: says what is missing, where it was looked for, and what to do instead.
    """
    cache = cache_folder(config.cache)
    arrays = cached_arrays(
        cache, f"cifar10-{MD5[:12]}", lambda part: save_arrays(part, read_archive(find_archive(config, cache)))
    )
    train = Split(arrays["train_images"], arrays["train_labels"])
    train, val = hold_out(train, config.val_size, seed)
    test = Split(arrays["test_images"], arrays["test_labels"])
    contents = {  # every class gets the archive's md5, which was checked
        split: {name: (int((of.labels == label).sum()), MD5) for label, name in enumerate(CLASS_NAMES)}
        for split, of in (("train", Split(arrays["train_images"], arrays["train_labels"])), ("test", test))
    }
    names = arrays["test_names"].tolist() if "test_names" in arrays else []  # a cache from before December 2026
    return ImageSet(replace(FACTS, contents=contents), train, val, test, test_names=tuple(names))


def find_archive(config: Cifar10Config, cache: Path) -> Path:
    """The checked archive: `data.archive`, else the cache's, else fetched from `data.urls` in turn."""
    if config.archive is not None:
        return _given(config.archive)
    wanted = Wanted(cache / ARCHIVE, SIZE, MD5)
    if wanted.is_here():  # no lock: its file may be another user's
        return wanted.target
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{wanted.target}.lock"):
        if wanted.is_here():
            return wanted.target
        reasons = download(config.urls, wanted) if config.urls else ["no url"]
        if not reasons:
            return wanted.target
    raise UserError(
        f"CIFAR-10 is not here: looked in {wanted.target} and tried {'; '.join(reasons)}. Ways on: "
        f"data.archive=<{ARCHIVE}>; data=folder data.root=<images>; data=digits"
    )


def _given(archive: str) -> Path:
    try:
        path = Path(archive).expanduser()
        found = md5_of(path) if path.is_file() else None
    except (OSError, RuntimeError) as error:  # no permission to read it, or no home folder
        raise UserError(f"data.archive={archive}: cannot be read ({error})") from None
    if found is None:
        raise UserError(f"data.archive={archive}: there is no such file")
    if found != MD5:
        raise UserError(f"data.archive={archive}: md5 is {found}, not {MD5}; damaged, or another file")
    return path


class _ArraysOnly(pickle.Unpickler):
    """The archive's files are pickles: let them make numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a CIFAR-10 file")


def read_archive(archive: Path) -> Mapping[str, np.ndarray]:
    """The arrays of both splits and the names of test, read from the archive without unpacking it."""
    images: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    names: list[str] = []
    with tarfile.open(archive, "r:gz") as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            name = Path(member.name).name
            split = "test" if name == "test_batch" else "train" if name.startswith("data_batch_") else None
            content = tar.extractfile(member) if split else None
            if split and content:
                batch = _ArraysOnly(content, encoding="bytes").load()
                images[split].append(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
                labels[split] += batch[b"labels"]
                if split == "test":
                    files = zip(batch[b"labels"], batch.get(b"filenames", ()), strict=False)
                    names += [f"{CLASS_NAMES[label]}/{file.decode()}" for label, file in files]
    if not images["train"] or not images["test"]:
        raise UserError(f"{archive}: has no data_batch_* and test_batch files")
    arrays = {f"{split}_images": np.ascontiguousarray(np.concatenate(images[split])) for split in images}
    arrays |= {f"{split}_labels": np.array(labels[split], np.int64) for split in labels}
    return arrays | {"test_names": np.array(names, np.str_)}
