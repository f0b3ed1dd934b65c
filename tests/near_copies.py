"""How far copies of photos are from the photos: bits of the perceptual hash, and grey levels.

python -m tests.near_copies photos
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from s9.data.sources.copies import BITS, LEVELS, difference
from s9.data.sources.square import perceptual_hash, thumbnail


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def scaled(image: Image.Image, share: float) -> Image.Image:
    return image.resize((round(share * image.width), round(share * image.height)))


def brighter(image: Image.Image, levels: int) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(int) + levels).clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 60": lambda image: saved_again(image, 60),
    "JPEG, quality 30": lambda image: saved_again(image, 30),
    "half the size": lambda image: scaled(image, 0.5),
    "0.7 of the size, quality 70": lambda image: saved_again(scaled(image, 0.7), 70),
    "20 levels brighter": lambda image: brighter(image, 20),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "2 pixels off each side": lambda image: ImageOps.crop(image, 2),
    "8 pixels off each side": lambda image: ImageOps.crop(image, 8),
    "mirrored": ImageOps.mirror,
    "stretched to a square": lambda image: image.resize((300, 300)),
}


def main(root: Path) -> None:
    """Prints a line for each change, and the least number of bits between two different photos."""
    photos = [Image.open(path).convert("RGB") for path in sorted(root.rglob("*.jpg"))]
    hashes = [perceptual_hash(photo) for photo in photos]
    small = [thumbnail(photo) for photo in photos]
    print(f"{len(photos)} photos; found: at most {BITS} bits and {LEVELS:g} levels differ")
    for name, change in CHANGES.items():
        copies = [change(photo) for photo in photos]
        bits = np.array([(perceptual_hash(copy) ^ of).bit_count() for copy, of in zip(copies, hashes, strict=True)])
        levels = np.array([difference(thumbnail(copy), of) for copy, of in zip(copies, small, strict=True)])
        found = np.mean((bits <= BITS) & (levels <= LEVELS))
        print(f"{name:28} {100 * found:4.0f} % found; bits: median {np.median(bits):.0f}, most {bits.max()}; ", end="")
        print(f"levels: median {np.median(levels):.1f}, most {levels.max():.1f}")
    least = min((a ^ b).bit_count() for number, a in enumerate(hashes) for b in hashes[:number])
    print(f"two different photos: {least} bits or more")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
