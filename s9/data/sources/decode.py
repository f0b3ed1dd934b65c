"""Decodes one image file, of any kind that Pillow reads as a still image, to uint8 RGB.

Of the metadata only the orientation is used. Pillow gives at most 8 bits per channel for colour images, so OpenCV reads
the deeper ones.
"""

import hashlib
import io
import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from s9.system.errors import UserError

_ENDINGS = {  # by Pillow's name of the format; the most frequent formats first, since they are tried in this order
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "DIB": ".dib",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "AVIF": ".avif",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "PPM": ".ppm .pgm .pbm .pnm",
    "TGA": ".tga",
    "PCX": ".pcx",
    "QOI": ".qoi",
    "ICO": ".ico",
    "PSD": ".psd",
    "DDS": ".dds",
}
_NEEDS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # which Pillow may have been built without
_BUILT_WITH = {
    name for name in _NEEDS.values() if name in {**features.modules, **features.codecs} and features.check(name)
}
FORMATS = tuple(f for f in _ENDINGS if _NEEDS.get(f) in {None, *_BUILT_WITH})
READABLE = frozenset(" ".join(_ENDINGS[f] for f in FORMATS).split())  # endings, in lower case
_OTHERS = (
    " .heic .heif .hif .jxl .jxr .svg .svgz .eps .ps .pdf .ai .wmf .emf .xcf .exr .hdr"
    " .pfm .fits .fit .dcm .nii .avifs .icns .sgi .rgb .bw .ras .xbm .xpm .im .fli .flc"
    " .cr2 .cr3 .nef .arw .dng .raf .orf .rw2 .raw .pef .srw"
)
UNREADABLE = frozenset((" ".join(_ENDINGS.values()) + _OTHERS).split()) - READABLE  # images that cannot be read here

DIGEST_SIZE = 16  # bytes
_TIFF_PIXELS = {  # tags that say how the pixels are stored
    *(*range(254, 260), 262, 266, 273, *range(277, 285), 317),
    *(*range(320, 326), 338, 339, 347, *range(512, 533)),
}
_ORIENTATION = 0x0112  # the tag of EXIF and TIFF
_TURN = (_ORIENTATION, 3)  # (tag, type) in a TIFF; type 3 is a 16-bit number
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoded(NamedTuple):
    """pixels: uint8 (image_size, image_size, 3). greatest: highest value of a file with over 8 bits per channel."""

    pixels: np.ndarray
    digest: bytes  # of the file's content
    greatest: int | None


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


def decode_image(file: Path, image_size: int, bits: int = 16) -> Decoded:
    """The image, scaled to a square; for an animation, the first frame. Transparent parts become white.

    Args:
        bits: bits in use, of the 16 per channel of a deeper file: values of 2 ** bits - 1 and above become 255.

    Raises:
        UserError: names the file that cannot be read.
    """
    try:
        content = file.read_bytes()
        image, greatest = _opened(content, bits)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        if image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    except Exception as error:  # for a damaged file a decoder may raise anything, struct.error and TypeError included
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its text names a buffer in memory
            reason = "its content is not a readable image format"
        raise UserError(f"{file}: cannot be read as an image ({reason}); mend or remove it") from None
    return Decoded(np.asarray(image), hashlib.blake2b(content, digest_size=DIGEST_SIZE).digest(), greatest)


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
            return image, image.getexif().get(_ORIENTATION, 1)
        except Exception:  # broken EXIF may raise anything too
            return image, 1


def without_metadata(content: bytes) -> bytes:
    """The file without the parts that its pixels do not need; unchanged for formats in which none has caused errors."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _bare_png(content)
    if content.startswith(b"\xff\xd8"):
        return _bare_jpeg(content)
    if content.startswith((b"II*\0", b"MM\0*")):
        return _bare_tiff(content)
    if content[4:8] == b"ftyp":  # AVIF: renames the EXIF in the list of items
        return re.sub(rb"(infe.{8})Exif", rb"\1none", content, flags=re.DOTALL)
    return content


def _bare_png(content: bytes) -> bytes:
    kept, at = content[:8], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        kind, checked, check = content[at + 4 : at + 8], content[at + 4 : end - 4], content[end - 4 : end]
        whole_exif = kind == b"eXIf" and zlib.crc32(checked) == int.from_bytes(check)
        if kind[:1].isupper() or kind == b"tRNS" or whole_exif:
            kept += content[at:end]
        at = end
    return kept


def _bare_jpeg(content: bytes) -> bytes:
    kept, at = content[:2], 2
    while content[at : at + 1] == b"\xff" and content[at + 1] != 0xDA:  # up to the pixels
        marker, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4])
        whole_adobe = marker == 0xEE and end - at >= 14  # says which colours the channels are
        if whole_adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept += content[at:end]
        at = end
    return kept + content[at:]


def _bare_tiff(content: bytes) -> bytes:
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    at = int.from_bytes(content[4:8], order)
    count = int.from_bytes(content[at : at + 2], order)
    entries = [content[start : start + 12] for start in range(at + 2, at + 2 + 12 * count, 12)]
    numbers = [(int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)) for entry in entries]
    kept = [e for e, (tag, kind) in zip(entries, numbers, strict=True) if tag in _TIFF_PIXELS or (tag, kind) == _TURN]
    listed = len(kept).to_bytes(2, order) + b"".join(kept) + bytes(4)  # and no next image
    return content[:at] + listed + content[at + len(listed) :]


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
