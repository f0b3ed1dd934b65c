"""What every data set gives: uint8 images, labels, class names, mean and std, split into train, val and test."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from s9.system.errors import UserError

CHUNK = 1000  # images read at a time where all of them may not fit into memory


class Rows:
    """Selected rows of a memory-mapped array, in any order; indexing reads the rows into an ordinary array."""

    def __init__(self, array: np.memmap, index: np.ndarray):
        self.array, self.index = array, index
        self.shape, self.dtype = (len(index), *array.shape[1:]), array.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple) and key[0] is Ellipsis:
            return self[:][key]
        rows, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        read = np.asarray(self.array[self.index[rows]])
        return read[rest if read.ndim < self.array.ndim else (slice(None), *rest)]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def __reduce__(self) -> tuple[Any, ...]:  # a worker process maps the file too, instead of getting a copy
        return _mapped_rows, (str(self.array.filename), self.index)


def _mapped_rows(path: str, index: np.ndarray) -> Rows:
    return Rows(np.load(path, mmap_mode="c", allow_pickle=False), index)


@dataclass(frozen=True)
class Split:
    """images: uint8 (N, H, W, 3), in memory or mapped from disk; labels: int64 (N,)."""

    images: np.ndarray | Rows
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> "Split":
        """The images at `index`; copied only if they are in memory."""
        if isinstance(self.images, Rows):
            return Split(Rows(self.images.array, self.images.index[index]), self.labels[index])
        if isinstance(self.images, np.memmap):
            return Split(Rows(self.images, np.arange(len(self))[index]), self.labels[index])
        return Split(self.images[index], self.labels[index])


# split -> class -> (number of images, digest of their names and contents)
Contents = Mapping[str, Mapping[str, tuple[int, str]]]


@dataclass(frozen=True)
class ImageFacts:
    """What a network must know about its images; stored with each run, so that its weights keep their meaning.

    class_names: by label. image_size: pixels on a side. mean, std: (3,) of RGB in [0, 1]. variant: the name of the
    images wherever accuracies are reported. contents: the images of each class, by split as stored on disk: a val that
    is held out of train counts as train. bits: in use, of files with more than 8 bits per channel; None: no such files.
    """

    variant: str
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    contents: Contents = field(default_factory=dict)
    bits: int | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Equal for the same images in the same classes and splits, wherever they are stored."""
        return hashlib.sha256(json.dumps(self.contents, sort_keys=True).encode()).hexdigest()[:24]

    def changes(self, now: "ImageFacts", splits: Iterable[str] = ("train", "val", "test")) -> list[str]:
        """How the images `now` differ from these, as phrases such as `train/ants has 16 images, had 15`."""
        found = []
        for split in splits:
            before, after = self.contents.get(split, {}), now.contents.get(split, {})
            for name in sorted(before.keys() | after.keys()):
                at = f"{split}/{name}"
                if name not in after:
                    found.append(f"{at} is gone")
                elif name not in before:
                    found.append(f"{at} is new")
                elif before[name][0] != after[name][0]:
                    found.append(f"{at} has {after[name][0]:,} images, had {before[name][0]:,}")
                elif before[name][1] != after[name][1]:
                    found.append(f"{at} has other images, or other names of them")
        if self.image_size != now.image_size:
            found.append(f"images are of {now.image_size} pixels, were of {self.image_size}")
        return found


def in_short(changes: list[str], most: int = 3) -> str:
    """The first `most` changes, and the number of the others."""
    more = len(changes) - most
    return "; ".join(changes[:most]) + (f"; and {more} more" if more > 0 else "")


class Problem(NamedTuple):
    """What is wrong with an image file, and what was done about it. Files are named from the root on."""

    file: str
    problem: str  # same pixels as, near copy of, or why the file cannot be read
    other: str  # the file that it is a copy of, or empty
    done: str  # dropped or kept; named: an image in two classes, of which one may be wrong


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, and what its network must know about them.

    test_names: class/file of each test image, in the order of `test`; empty where the data set has no names. A name of
    a file that is not UTF-8 has lone surrogates, as in `os.fsdecode`. original: the whole image of a place in train,
    before it became a square, uint8 (H, W, 3) with its longer side at most as long as asked; None: images are whole.
    """

    facts: ImageFacts
    train: Split
    val: Split
    test: Split
    test_names: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    original: Callable[[int, int], np.ndarray] | None = None

    def as_known_to(self, facts: ImageFacts) -> "ImageSet":
        """These images with the class order, mean and std of another run's `facts`.

        Raises:
            UserError: the class names differ.
        """
        ours_in_order = self.facts.class_names
        theirs, ours = set(facts.class_names), set(ours_in_order)
        if theirs != ours:
            pairs = (("lack", theirs - ours), ("have", ours - theirs))
            said = [f"{verb} {', '.join(sorted(names)[:5])}" for verb, names in pairs if names]
            raise UserError(f"the images are of other classes than those that the run knows: they {' and '.join(said)}")
        order = np.array([facts.class_names.index(name) for name in ours_in_order])
        train, val, test = (Split(of.images, order[of.labels]) for of in (self.train, self.val, self.test))
        known = replace(self.facts, class_names=facts.class_names, mean=facts.mean, std=facts.std)
        return replace(self, facts=known, train=train, val=val, test=test)

    def examples(self, count: int) -> Split:
        """`count` images, evenly spaced over train and so over the classes; in memory."""
        some = self.train.take(self._spaced(count))
        return Split(np.asarray(some.images), some.labels)

    def originals(self, count: int, side: int) -> np.ndarray:
        """The same images before they became squares: uint8 (count, H, H, 3), whole, in the middle of white squares.

        Args:
            side: H, where the images have originals.
        """
        if self.original is None:
            return np.asarray(self.examples(count).images)
        squares = np.full((count, side, side, 3), 255, np.uint8)
        for square, index in zip(squares, self._spaced(count), strict=True):
            image = self.original(int(index), side)
            top, left = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
            square[top : top + image.shape[0], left : left + image.shape[1]] = image
        return squares

    def _spaced(self, count: int) -> np.ndarray:
        return np.linspace(0, len(self.train) - 1, count).astype(np.int64)

    def names_of(self, labels: np.ndarray) -> list[str]:
        return [self.facts.class_names[label] for label in labels]


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel in [0, 1] of uint8 images (N, H, W, 3).

    From histograms: exact, and without a float copy of the data set.
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(3):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), CHUNK):
            counts += np.bincount(images[start : start + CHUNK, ..., channel].ravel(), minlength=256)
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        stds.append(max(variance**0.5, 1e-6))
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])
