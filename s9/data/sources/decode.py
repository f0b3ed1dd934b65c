"""Decodes one image file, of any kind that Pillow reads as a still image, to uint8 RGB.

Of the metadata only the orientation is used. Pillow gives at most 8 bits per channel for colour images, so OpenCV reads
the deeper ones.
"""

import hashlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from s9.data.sources.formats import FORMATS
from s9.data.sources.metadata import ORIENTATION, without_metadata
from s9.data.sources.square import perceptual_hash, squared, thumbnail
from s9.system.errors import UserError

DIGEST_SIZE = 16  # bytes
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ALL_BITS = 16  # of a channel of a file with more than 8


class Decoded(NamedTuple):
    """pixels: uint8 (image_size, image_size, 3). greatest: highest value of a file with over 8 bits per channel.

    whole: digest of the pixels before they were brought to the image size. near: perceptual hash of these pixels.
    small: uint8 thumbnail of them.
    """

    pixels: np.ndarray
    digest: bytes  # of the file's content
    greatest: int | None
    whole: bytes
    near: int
    small: np.ndarray


class BrokenImageError(UserError):
    """A file is no image that can be read here. reason: why, in short."""

    def __init__(self, file: Path, reason: str):
        super().__init__(f"{file}: cannot be read as an image ({reason}); mend or remove it")
        self.reason = reason


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Pillow's warnings about unreadable metadata and large images (Pillow refuses huge ones).

    This affects all threads, since warning filters belong to the process.
    """
    pillow = logging.getLogger("PIL")
    level = pillow.level
    pillow.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pillow.setLevel(level)


def decode_image(file: Path, image_size: int, bits: int = ALL_BITS, *, resize: str = "stretch") -> Decoded:
    """The image, brought to a square; for an animation, the first frame. Transparent parts become white.

    Args:
        bits: bits in use, of the 16 per channel of a deeper file: values of 2 ** bits - 1 and above become 255.
        resize: crop, pad or stretch; see `squared`.

    Raises:
        BrokenImageError: the file is no image that can be read here.
        UserError: the file cannot be read from the disk.
    """
    content = _read(file)
    with _refused(file):
        image, greatest = _upright(content, bits)
        pixels = np.asarray(squared(image, image_size, resize))
        whole, near = _digest(np.asarray(image).tobytes() + repr(image.size).encode()), perceptual_hash(image)
        small = thumbnail(image)
    return Decoded(pixels, _digest(content), greatest, whole=whole, near=near, small=small)


def decode_pixels(file: Path, image_size: int, bits: int | None, *, resize: str) -> np.ndarray:
    """The pixels of `decode_image` alone, in half the time. Raises what `decode_image` raises.

    Args:
        bits: as in `decode_image`; None: all of them.
    """
    content = _read(file)
    with _refused(file):
        return np.asarray(squared(_upright(content, bits or ALL_BITS)[0], image_size, resize))


def original(file: Path, longest: int, bits: int | None) -> np.ndarray:
    """uint8 (H, W, 3): the whole image, upright and in its own shape, its longer side at most `longest` pixels.

    Args:
        bits: as in `decode_pixels`.

    Raises:
        BrokenImageError, UserError: as `decode_image`.
    """
    content = _read(file)
    with _refused(file):
        image, _ = _upright(content, bits or ALL_BITS)
        image.thumbnail((longest, longest), Image.Resampling.BICUBIC)
        return np.asarray(image)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); mend or remove it") from None


@contextmanager
def _refused(file: Path) -> Iterator[None]:
    """Raises BrokenImageError for whatever happens: for a damaged file a decoder may raise anything, TypeError too."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its text names a buffer in memory
            reason = "its content is not a readable image format"
        raise BrokenImageError(file, reason) from None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_SIZE).digest()


def _upright(content: bytes, bits: int) -> tuple[Image.Image, int | None]:
    """The image in RGB, and its highest value if the file has more than 8 bits per channel."""
    image, greatest = _opened(content, bits)
    return in_rgb(image), greatest


def in_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; transparent parts become white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _opened(content: bytes, bits: int) -> tuple[Image.Image, int | None]:
    """The upright image with 8 bits per channel, and its highest value if the file has more bits."""
    image, orientation = _loaded(content)
    depth, greatest = _depth(content, image), None
    if 8 < depth <= 16:
        deep = _deep(content, image)
        greatest = int(deep[..., :3].max() if deep.ndim == 3 else deep.max())
        image = _in_8_bits(deep, bits)
    elif depth > 16 or image.mode in ("I", "F"):
        raise ValueError("signed, 32-bit or floating-point values, whose range is not known; save it with 8 or 16 bits")
    return (image.transpose(_TURNS[orientation]) if orientation in _TURNS else image), greatest


def _loaded(content: bytes) -> tuple[Image.Image, Any]:
    """The loaded image and its EXIF orientation; metadata that keeps the image from loading is left out."""
    try:
        return _load(content)
    except Exception as error:
        try:
            return _load(without_metadata(content))
        except Exception:
            raise error from None


def _load(content: bytes) -> tuple[Image.Image, Any]:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.load()
        if image.format == "TIFF":  # Pillow and OpenCV apply a TIFF's orientation when they read it
            return image, 1
        try:
            return image, image.getexif().get(ORIENTATION, 1)
        except Exception:  # broken EXIF may raise anything too
            return image, 1


def _depth(content: bytes, image: Image.Image) -> int:
    """Bits per channel, for formats that can have more than 8; 32 also for deep TIFFs that are not plainly unsigned."""
    match image.format:
        case "PNG":
            return content[24]
        case "TIFF":
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            unsigned = set(tags.get(339, (1,))) == {1}
            depth = max(tags.get(258, (1,)))
            return int(depth) if unsigned or depth <= 8 else 32
        case "PPM":
            head = re.sub(rb"#[^\n]*", b" ", content[:1000]).split()
            return int(head[3]).bit_length() if head[0] in (b"P2", b"P3", b"P5", b"P6") else 1
        case "JPEG2000":
            start = content.find(b"\xff\x4f\xff\x51")  # of the codestream; the depth is the first component's
            return (content[start + 42] & 0x7F) + 1
    return 8


def _deep(content: bytes, image: Image.Image) -> np.ndarray:
    """uint16 (H, W), or (H, W, 3 or 4) with red first."""
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    found = cv2.imdecode(np.frombuffer(without_metadata(content), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        raise ValueError("more than 8 bits per channel, in a form that cannot be read here; save it with 8")
    if found.ndim == 3:
        found = cv2.cvtColor(found, cv2.COLOR_BGR2RGB if found.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    elif (clear := image.info.get("transparency")) is not None:  # a grey value; OpenCV handles only transparent colours
        found = np.stack([found, found, found, np.where(found == clear, 0, 65535).astype(np.uint16)], -1)
    deep: np.ndarray = found
    return deep


def _in_8_bits(deep: np.ndarray, bits: int) -> Image.Image:
    scaled = np.minimum(np.rint(deep * (255 / (2**bits - 1))), 255).astype(np.uint8)
    if deep.shape[2:] == (4,):
        scaled[..., 3] = deep[..., 3] >> 8  # the opacity uses all 16 bits
    return Image.fromarray(scaled)
