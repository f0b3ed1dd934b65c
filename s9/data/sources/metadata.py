"""Image files without the metadata that keeps some of them from loading."""

import re
import zlib
from typing import Literal

ORIENTATION = 0x0112  # the tag of EXIF and TIFF
_TURN = (ORIENTATION, 3)  # (tag, type) in a TIFF; type 3 is a 16-bit number
_TIFF_PIXELS = {  # tags that say how the pixels are stored
    *(*range(254, 260), 262, 266, 273, *range(277, 285), 317),
    *(*range(320, 326), 338, 339, 347, *range(512, 533)),
}


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
