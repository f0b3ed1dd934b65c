"""From a whole image to the square that a network sees, and to the hash that finds its near copies."""

import numpy as np
from PIL import Image, ImageOps

THUMBNAIL = 16  # pixels


def squared(image: Image.Image, size: int, resize: str) -> Image.Image:
    """The image as size x size pixels.

    Args:
        resize: crop takes the largest square in the middle; pad adds the image's mean colour along the shorter side;
            stretch changes the shape of what is shown.
    """
    if image.size == (size, size):
        return image
    if resize == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    if resize == "pad":
        red, green, blue = np.asarray(image.resize((1, 1), Image.Resampling.BOX))[0, 0].tolist()
        return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=(red, green, blue))
    return image.resize((size, size), Image.Resampling.BICUBIC)


def perceptual_hash(image: Image.Image) -> int:
    """64 bits, of which near copies of an image (resized, saved again) share all but a few."""
    import imagehash  # here: it imports scipy, and a folder that is in the cache does not need it

    grey = image.convert("L")
    if (factor := min(grey.size) // 64) > 1:
        grey = grey.reduce(factor)  # a fast mean: the hash looks at 32 x 32 pixels
    bits: np.ndarray = imagehash.phash(grey).hash
    return int.from_bytes(np.packbits(bits.ravel()).tobytes())


def thumbnail(image: Image.Image) -> np.ndarray:
    """uint8 (THUMBNAIL, THUMBNAIL): the whole image in grey, stretched; the same for any image size and way to crop."""
    return np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
