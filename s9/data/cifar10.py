"""CIFAR-10 from its original archive: found, or fetched once (resumed, locked, checked by md5), then cached.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import hashlib
import http.client
import io
import pickle
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from s9.config import Cifar10Config
from s9.data.cache import cached_arrays, save_arrays
from s9.data.image_set import ImageSet, Split, hold_out
from s9.errors import UserError

ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of the original train files. The widely copied std (0.2023, 0.1994, 0.2010) is wrong.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
TIMEOUT_S = 20


def load_cifar10(config: Cifar10Config, seed: int) -> ImageSet:
    """The original 50,000 and 10,000 images.

    Raises:
        UserError: says what is missing, where it was looked for and the ways on.
    """
    cache = Path(config.cache).expanduser()
    arrays = cached_arrays(
        cache, f"cifar10-{MD5[:12]}", lambda part: save_arrays(part, read_archive(find_archive(config, cache)))
    )
    train = Split(arrays["train_images"], arrays["train_labels"])
    train, val = hold_out(train, config.val_size, seed)
    test = Split(arrays["test_images"], arrays["test_labels"])
    contents = {  # the archive is one, and its md5 was checked
        split: {name: (int((of.labels == label).sum()), MD5) for label, name in enumerate(CLASS_NAMES)}
        for split, of in (("train", Split(arrays["train_images"], arrays["train_labels"])), ("test", test))
    }
    return ImageSet("CIFAR-10", CLASS_NAMES, MEAN, STD, train, val, test, contents)


def find_archive(config: Cifar10Config, cache: Path) -> Path:
    """The checked archive: `data.archive`, else the cache's, else fetched from `data.urls` in turn."""
    if config.archive is not None:
        given = Path(config.archive).expanduser()
        if not given.is_file():
            raise UserError(f"data.archive={config.archive}: there is no such file")
        if _md5(given) != MD5:
            raise UserError(f"data.archive={config.archive}: md5 is {_md5(given)}, not {MD5}; damaged, or another file")
        return given
    target = cache / ARCHIVE
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_file() and _md5(target) == MD5:
            return target
        reasons = []
        for url in config.urls:
            try:
                fetch(url, target, MD5)
                return target
            except (OSError, ValueError, http.client.HTTPException) as error:
                reasons.append(f"{url} ({error})")
    raise UserError(
        f"CIFAR-10 is not here: looked in {target} and tried {'; '.join(reasons) or 'no url'}. Ways on: "
        f"data.archive=<{ARCHIVE}>; data=folder data.root=<images>; data=digits"
    )


def fetch(url: str, target: Path, md5: str) -> None:
    """Downloads to `target`, going on where an earlier attempt stopped; shows its progress.

    Raises:
        OSError: the host cannot be reached or broke off; what came is kept in `<target>.part`.
        ValueError: what came has another md5; it is removed.
    """
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": the part is already whole
            raise
        response = io.BytesIO()
    with response:
        resumed = have > 0 and getattr(response, "status", 206) == 206
        length = int(getattr(response, "headers", {}).get("Content-Length") or 0)
        total = length + (have if resumed else 0)
        with (
            part.open("ab" if resumed else "wb") as out,
            tqdm(total=total, initial=have if resumed else 0, unit="B", unit_scale=True, desc=target.name) as bar,
        ):
            while chunk := response.read(1 << 16):
                out.write(chunk)
                bar.update(len(chunk))
    if length and part.stat().st_size < total:
        raise OSError(f"broke off after {part.stat().st_size:,} of {total:,} bytes; the next attempt goes on there")
    if (found := _md5(part)) != md5:
        part.unlink()
        raise ValueError(f"md5 is {found}, not {md5}")
    part.replace(target)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


class _ArraysOnly(pickle.Unpickler):
    """The archive's files are pickles: let them make numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a CIFAR-10 file")


def read_archive(archive: Path) -> Mapping[str, np.ndarray]:
    """The arrays of both splits, read from the archive without unpacking it."""
    images: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    with tarfile.open(archive, "r:gz") as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            name = Path(member.name).name
            split = "test" if name == "test_batch" else "train" if name.startswith("data_batch_") else None
            content = tar.extractfile(member) if split else None
            if split and content:
                batch = _ArraysOnly(content, encoding="bytes").load()
                images[split].append(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
                labels[split] += batch[b"labels"]
    if not images["train"] or not images["test"]:
        raise UserError(f"{archive}: has no data_batch_* and test_batch files")
    arrays = {f"{split}_images": np.ascontiguousarray(np.concatenate(images[split])) for split in images}
    return arrays | {f"{split}_labels": np.array(labels[split], np.int64) for split in labels}
