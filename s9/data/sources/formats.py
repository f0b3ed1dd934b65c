"""Which image formats Pillow reads here as still images, and the endings of their files."""

from PIL import features

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
