"""One image file: every kind that Pillow reads, broken metadata around sound pixels, more than 8 bits per channel."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, features

from s9.data.sources.decode import decode_image, quiet
from s9.data.sources.formats import READABLE, UNREADABLE
from s9.system.errors import UserError

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)
WRITES = {".apng": "PNG", ".jfif": "JPEG", ".jpe": "JPEG", ".mpo": "JPEG", ".j2c": "JPEG2000", ".dds": "DDS"}


def colour(rgb: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, rgb)


def pixels(file: Path, image_size: int = 8, bits: int = 16) -> np.ndarray:
    with quiet():
        return decode_image(file, image_size, bits).pixels


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Kinds of files


@pytest.mark.parametrize("ending", sorted(READABLE - {".psd"}))  # which Pillow does not write
@pytest.mark.parametrize("case", [str.lower, str.upper], ids=["lower", "upper"])
def test_every_ending_that_is_named_is_read(tmp_path: Path, ending: str, case: Callable[[str], str]) -> None:
    image = colour((255, 255, 255)).convert("1") if ending == ".pbm" else colour(RED, (32, 32))
    image = image.convert("L") if ending == ".pgm" else image
    file = tmp_path / f"image{case(ending)}"
    image.save(file, WRITES.get(ending, Image.registered_extensions()[ending]))
    wanted = np.asarray(image.convert("RGB"))[0, 0].astype(int)
    assert np.abs(pixels(file).astype(int) - wanted).max() <= 8


@pytest.mark.parametrize(
    ("ending", "feature"), [(".webp", "webp"), (".avif", "avif"), (".jp2", "jpg_2000")], ids=lambda value: value
)
def test_what_this_pillow_cannot_decode_is_not_named_as_readable(ending: str, feature: str) -> None:
    here = features.get_supported()
    assert (ending in READABLE, ending in UNREADABLE) == (feature in here, feature not in here)


def test_no_ending_is_both_readable_and_not() -> None:
    assert not READABLE & UNREADABLE


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(tmp_path: Path, kind: str) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    file = tmp_path / "frames"
    file.write_bytes(written(colour(RED), kind, save_all=True, append_images=[colour(GREEN), colour(BLUE)], **lossless))
    assert (pixels(file) == RED).all()


def test_an_image_is_read_by_its_content_whatever_its_ending(tmp_path: Path) -> None:
    colour(RED).save(tmp_path / "photo.jpg", "PNG")
    assert (pixels(tmp_path / "photo.jpg") == RED).all()


def test_a_postscript_file_is_not_run_whatever_its_ending(tmp_path: Path) -> None:
    """Pillow would hand it to Ghostscript."""
    (tmp_path / "photo.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match=r"photo\.jpg: cannot be read as an image"):
        pixels(tmp_path / "photo.jpg")


# Broken metadata


def chunk(kind: bytes, content: bytes, sound: bool = True) -> bytes:
    """Of a PNG; with a wrong check sum where it is not sound."""
    check = zlib.crc32(kind + content) ^ (0 if sound else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def segment(marker: int, content: bytes) -> bytes:
    """Of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def png_with(*chunks: bytes, late: bool = False, image: Image.Image | None = None) -> bytes:
    content = written(image or colour(RED), "PNG")
    at = content.index(b"IEND") - 4 if late else 33
    return content[:at] + b"".join(chunks) + content[at:]


def jpeg_with(*segments: bytes) -> bytes:
    content = written(colour(RED), "JPEG", quality=95)
    return content[:2] + b"".join(segments) + content[2:]


def tiff_with(tag: int, kind: int, count: int, value: int) -> bytes:
    """A TIFF whose entry `tag` says so."""
    content = bytearray(written(colour(RED), "TIFF", tiffinfo={tag: 0}))
    start = struct.unpack_from("<I", content, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], 12):
        if struct.unpack_from("<H", content, entry)[0] == tag:
            struct.pack_into("<HII", content, entry + 2, kind, count, value)
    return bytes(content)


def avif_with_broken_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "red"
    content = written(colour(RED, (32, 32)), "AVIF", exif=exif, quality=95)
    assert content.count(b"MM\0*") + content.count(b"II*\0") == 1
    return content.replace(b"MM\0*", b"\xff" * 4).replace(b"II*\0", b"\xff" * 4)


EXIF_CUT = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01"
METADATA: dict[str, Callable[[], bytes]] = {
    "JPEG, EXIF cut": lambda: jpeg_with(segment(0xE1, EXIF_CUT)),
    "JPEG, EXIF of noise": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + b"\x99" * 40)),
    "JPEG, ICC cut": lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0")),
    "JPEG, ICC of noise": lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\2" + b"\x99" * 40)),
    "JPEG, XMP of noise": lambda: jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\x99" * 40)),
    "JPEG, several pictures of noise": lambda: jpeg_with(segment(0xE2, b"MPF\0II*\0\x08\0\0\0\3\0" + b"\x99" * 40)),
    "JPEG, Photoshop cut": lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\0")),
    "JPEG, JFIF cut": lambda: jpeg_with(segment(0xE0, b"JFIF\0")),
    "PNG, EXIF of noise": lambda: png_with(chunk(b"eXIf", b"\x99" * 40)),
    "PNG, EXIF with a wrong check sum": lambda: png_with(chunk(b"eXIf", b"MM\0*", sound=False)),
    "PNG, ICC of noise": lambda: png_with(chunk(b"iCCP", b"profile\0\x99" + b"\x99" * 40)),
    "PNG, ICC with a wrong check sum": lambda: png_with(chunk(b"iCCP", b"profile\0\0", sound=False)),
    "PNG, text of noise": lambda: png_with(chunk(b"zTXt", b"a\0\x99\x99")),
    "PNG, text of noise at the end": lambda: png_with(chunk(b"zTXt", b"a\0\x99\x99"), late=True),
    "PNG, large text": lambda: png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000))),
    "PNG, colours cut": lambda: png_with(chunk(b"cHRM", b"\0")),
    "WebP, noise": lambda: written(colour(RED), "WEBP", lossless=True, exif=b"\x99" * 9, icc_profile=b"\x99" * 9),
    "TIFF, XMP that is a number": lambda: tiff_with(700, 4, 2, 8),
    "TIFF, EXIF that is nowhere": lambda: tiff_with(34665, 4, 1, 10**9),
    "TIFF, text that is nowhere": lambda: tiff_with(270, 2, 100, 10**9),
    "TIFF, a turn that is none": lambda: tiff_with(274, 2, 8, 8),
    "AVIF, EXIF of noise": avif_with_broken_exif,
}


@pytest.mark.parametrize("kind", METADATA)
def test_broken_metadata_does_not_refuse_sound_pixels(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind.startswith("AVIF") and ".avif" not in READABLE:
        pytest.skip("this Pillow reads no AVIF")
    (tmp_path / "image").write_bytes(METADATA[kind]())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = pixels(tmp_path / "image").astype(int)
    assert np.abs(found - RED).max() <= 8
    assert ([str(warning.message) for warning in told], capfd.readouterr()) == ([], ("", ""))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def half_red() -> Image.Image:
    """Red on the left, blue on the right."""
    image = colour(BLUE, (32, 32))
    image.paste(RED, (0, 0, 16, 32))
    return image


def red_edge(found: np.ndarray) -> str:
    edges = {"left": found[:, 0], "right": found[:, -1], "top": found[0], "bottom": found[-1]}
    return " ".join(edge for edge, line in edges.items() if (line[:, 0] > line[:, 2]).all())


def test_the_orientation_is_kept_where_other_metadata_is_broken(tmp_path: Path) -> None:
    broken = [chunk(b"eXIf", turned(6)), chunk(b"iCCP", b"profile\0\0", sound=False)]
    (tmp_path / "photo.png").write_bytes(png_with(*broken, image=half_red()))
    assert red_edge(pixels(tmp_path / "photo.png", 32)) == "top"


def test_the_orientation_is_taken_from_exif_of_which_another_part_is_broken(tmp_path: Path) -> None:
    """A turned photo (tag 0x112, a number: 6) whose EXIF gives its width (tag 0x100) as text of 4 bytes."""
    entries = struct.pack(">HHI4s", 0x0100, 2, 4, b"far\0") + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    half_red().save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert red_edge(pixels(tmp_path / "photo.jpg", 32)) == "top"


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_image_is_turned_once(tmp_path: Path, kind: str, depth: int) -> None:
    """A TIFF is turned by the libraries that read it, a PNG is not."""
    image, file = half_red(), tmp_path / "photo"
    if depth == 8:
        image.save(file, kind, **({"exif": turned(6)} if kind == "PNG" else {"tiffinfo": {0x0112: 6}}))
    else:
        deep = np.asarray(image).astype(np.uint16) * 257
        png = deep_file(".png", deep)
        turned_png = png[:33] + chunk(b"eXIf", turned(6)) + png[33:]
        file.write_bytes(turned_png if kind == "PNG" else tiff_of(deep, orientation=6))
    assert red_edge(pixels(file, 32)) == "top"


def tiff_of(deep: np.ndarray, orientation: int = 1) -> bytes:
    """uint16 (H, W, 3) as an uncompressed TIFF."""
    height, width, _ = deep.shape
    data = deep.astype("<u2").tobytes()
    entries = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8 + len(data)), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 8), (274, 3, 1, orientation), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data))),
    ]
    listed = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    bits = struct.pack("<3H", 16, 16, 16)
    return b"II*\0" + struct.pack("<I", 8 + len(data) + len(bits)) + data + bits + listed


def test_a_large_image_is_read_without_a_warning(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000), 1).save(tmp_path / "large.png")  # more than Pillow warns of, less than it refuses
    assert (pixels(tmp_path / "large.png") == 255).all()


# More than 8 bits per channel

GREY = np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8)  # 12 bits are in use
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], -1)


def deep_file(kind: str, values: np.ndarray) -> bytes:
    if kind == ".tif" and values.ndim == 3:
        return tiff_of(values)
    if kind == ".tif":
        return written(Image.fromarray(values), "TIFF")
    if kind == ".jp2":
        values = np.kron(values, np.ones((8, 8, 1)[: values.ndim], np.uint16))  # it takes no small images
        options = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
        return bytes(cv2.imencode(kind, values[..., ::-1] if values.ndim == 3 else values, options)[1].tobytes())
    return bytes(cv2.imencode(kind, values[..., ::-1] if values.ndim == 3 else values)[1].tobytes())


@pytest.mark.parametrize("kind", [".png", ".tif", ".ppm", ".jp2"])
@pytest.mark.parametrize("values", [GREY, COLOUR], ids=["grey", "colour"])
def test_12_bits_in_16_become_8_bits(tmp_path: Path, kind: str, values: np.ndarray) -> None:
    kind = ".pgm" if kind == ".ppm" and values.ndim == 2 else kind
    (tmp_path / f"deep{kind}").write_bytes(deep_file(kind, values))
    found = decode_image(tmp_path / f"deep{kind}", 8, bits=12)
    wanted = values / 4095 * 255 if values.ndim == 3 else np.stack([values / 4095 * 255] * 3, -1)
    assert np.abs(found.pixels - wanted).max() <= (0.51 if kind != ".jp2" else 4)
    assert found.greatest is not None and abs(found.greatest - 4095) <= (0 if kind != ".jp2" else 40)


def test_what_is_above_the_bits_in_use_is_white(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(deep_file(".png", GREY))
    found = pixels(tmp_path / "deep.png", bits=10)[..., 0]
    assert (found[GREY >= 1023] == 255).all() and (found[GREY < 1000] < 250).all()


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_an_8_bit_file_has_no_greatest_value(tmp_path: Path, ending: str) -> None:
    colour(RED).save(tmp_path / f"image{ending}")
    assert decode_image(tmp_path / f"image{ending}", 8).greatest is None


@pytest.mark.parametrize("way", ["alpha", "grey and alpha", "a clear colour", "a clear grey"])
def test_what_is_transparent_of_16_bits_becomes_white(tmp_path: Path, way: str) -> None:
    grey = np.full((8, 8), 1000, np.uint16)
    grey[:, 4:] = 3000
    opaque = np.full((8, 8), 65535, np.uint16)
    opaque[:, 4:] = 0
    channels = [grey] * 3 if way in ("alpha", "a clear colour") else [grey]
    channels += [opaque] if "alpha" in way else []
    kind = {"alpha": 6, "grey and alpha": 4, "a clear colour": 2, "a clear grey": 0}[way]
    clear = b"" if "alpha" in way else chunk(b"tRNS", struct.pack(">H", 3000) * len(channels))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack(channels, -1))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, kind, 0, 0, 0))
    content = header + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    found = pixels(tmp_path / "deep.png", bits=12)
    assert (found[:, 4:] == 255).all() and (found[:, :4] == round(1000 / 4095 * 255)).all()


def test_a_broken_profile_of_a_deep_file_is_not_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = deep_file(".png", COLOUR)
    (tmp_path / "deep.png").write_bytes(content[:33] + chunk(b"iCCP", b"x\0\0junk") + content[33:])
    assert np.abs(pixels(tmp_path / "deep.png", bits=12) - COLOUR / 4095 * 255).max() <= 0.51
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_whose_range_is_not_known_are_refused(tmp_path: Path, kind: type[Any]) -> None:
    Image.fromarray(GREY.astype(kind)).save(tmp_path / "deep.tif")
    with pytest.raises(
        UserError, match=re.escape(f"{tmp_path / 'deep.tif'}: cannot be read as an image (signed, 32-bit")
    ):
        pixels(tmp_path / "deep.tif")


def test_half_a_deep_file_is_refused(tmp_path: Path) -> None:
    content = deep_file(".png", np.random.default_rng(0).integers(0, 4096, (32, 32, 3)).astype(np.uint16))
    (tmp_path / "deep.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read as an image"):
        pixels(tmp_path / "deep.png")
