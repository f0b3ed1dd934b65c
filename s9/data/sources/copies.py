"""Finds images that are in two splits: the same pixels, or near copies (another size or shape, saved again, grey).

An image that the network has trained on says nothing on test. Near copies agree in all but a few bits of their
perceptual hash, and so do their thumbnails in grey, which are compared too, since plain images (digits on white) often
have equal hashes. Both are of the whole image, so that data.image_size and data.resize change nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BITS = 4  # of 64 that may differ; of two different photos at least 14 did (python -m tests.near_copies)
LEVELS = 8.0  # mean difference of two thumbnails, brightness taken out; of the copies there up to 7.1
_PARTS = BITS + 1  # of a hash: two hashes that differ in BITS bits agree in one part at least
_BLOCK = 2_000_000  # pairs that are compared at a time


class Images(NamedTuple):
    """What is compared of n images."""

    whole: np.ndarray  # uint8 (n, digest size): of the pixels of the whole image
    near: np.ndarray  # uint64 (n,): perceptual hash
    small: np.ndarray  # uint8 (n, T, T): thumbnails


class Copy(NamedTuple):
    """Image `number` of one set is image `of` of the other: the same pixels, or a near copy."""

    number: int
    of: int
    same: bool


def copies(images: Images, of: Images) -> list[Copy]:
    """The images that are also in `of`, each once, in their order; with several that fit, the same pixels first."""
    known = {digest: number for number, digest in reversed(list(enumerate(as_bytes(of.whole))))}
    same = {i: known[digest] for i, digest in enumerate(as_bytes(images.whole)) if digest in known}
    found = {i: Copy(i, number, True) for i, number in same.items()}
    for i, j in _near(images.near, of.near):
        if i not in found and difference(images.small[i], of.small[j]) <= LEVELS:
            found[i] = Copy(i, j, False)
    return [found[i] for i in sorted(found)]


def _near(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) whose hashes differ in at most BITS bits; a pair may come more than once."""
    width = -(-64 // _PARTS)
    for part in range(_PARTS):
        shift, mask = np.uint64(part * width), np.uint64(2**width - 1)
        mine, other = (ours >> shift) & mask, (theirs >> shift) & mask
        order = np.argsort(other, kind="stable")
        first, last = np.searchsorted(other[order], mine, "left"), np.searchsorted(other[order], mine, "right")
        block_of = np.cumsum(last - first) // _BLOCK
        for block in np.split(np.arange(len(mine)), np.flatnonzero(np.diff(block_of)) + 1):
            counts = (last - first)[block]
            i = np.repeat(block, counts)
            j = order[np.arange(len(i)) + np.repeat(first[block] - (np.cumsum(counts) - counts), counts)]
            close = np.bitwise_count(ours[i] ^ theirs[j]) <= BITS
            yield from zip(i[close].tolist(), j[close].tolist(), strict=True)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two thumbnails (T, T) in grey levels, after the mean of each is taken out."""
    one, two = (image.astype(np.float32) - image.mean(dtype=np.float32) for image in (a, b))
    return float(np.abs(one - two).mean())


def as_bytes(digests: np.ndarray) -> list[bytes]:
    """The rows of uint8 (n, size), each as bytes."""
    return [bytes(digest) for digest in np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel()]
