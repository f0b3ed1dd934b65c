"""A folder as people have them: three uneven classes of pictures with every awkward kind of file in it.

python -m tests.awkward_folder photos          # then: python -m s9.train data=folder data.root=photos
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"meadow": (60, 160, 60), "Dusk": (190, 110, 60), "lake": (50, 90, 180)}  # with the colour of most pictures
COUNTS = {"meadow": 100, "Dusk": 40, "lake": 10}
LEFT_OUT = "2 hidden files, 1 .heic (cannot be read here), 1 .txt (not an image), 1 hidden folder"


def picture(number: int, colour: tuple[int, int, int], size: tuple[int, int] = (120, 80)) -> Image.Image:
    """A picture of (width, height) pixels: smooth shapes around a colour, another one for each number."""
    rng = np.random.default_rng([number, *colour])
    rough = rng.normal(0, 45, (6, 8, 3)) + np.array(colour)
    smooth = Image.fromarray(rough.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 4, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8))


def make_awkward_folder(root: Path) -> None:
    """root/<class>/**: 150 pictures with mixed endings, shapes and modes; turned, nested, broken and copied ones."""
    for name, colour in CLASSES.items():
        for number in range(COUNTS[name]):
            _save(picture(number, colour, _shape(number)), root / name / _file(number))
    meadow, dusk = root / "meadow", root / "Dusk"
    turned = picture(500, CLASSES["lake"], (90, 160))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    turned.transpose(Image.Transpose.ROTATE_90).save(root / "lake" / "turned.jpg", exif=exif, quality=95)
    frames = [picture(n, CLASSES["Dusk"]) for n in (600, 601)]
    frames[0].save(dusk / "moves.gif", save_all=True, append_images=frames[1:])
    picture(602, CLASSES["Dusk"]).convert("L").save(dusk / "grey.png")
    see_through = picture(603, CLASSES["meadow"]).convert("RGBA")
    see_through.putalpha(128)
    see_through.save(meadow / "see through.png")
    _save(picture(604, CLASSES["lake"], (400, 30)), root / "lake" / "PANORAMA.JPG")
    for number in range(12):  # far more than one copy, so that some are in two splits however these are drawn
        original = Image.open(meadow / _file(number)).convert("RGB")
        (meadow / f"copy of {number}.png").parent.mkdir(exist_ok=True)
        original.save(meadow / f"copy of {number}.png")
        original.resize((original.width // 2, original.height // 2)).save(meadow / f"small {number}.jpg", quality=60)
    (meadow / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (dusk / "._moves.gif").write_bytes(b"\0\5\x16\7")
    (root / ".thumbnails").mkdir()
    (root / "lake" / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (dusk / "notes.txt").write_text("all of one evening")
    whole = (meadow / _file(0)).read_bytes()
    (meadow / "half.jpg").write_bytes(whole[: len(whole) // 2])


def _shape(number: int) -> tuple[int, int]:
    return ((120, 80), (80, 120), (100, 100), (160, 90))[number % 4]


def _file(number: int) -> str:
    ending = (".jpg", ".JPG", ".jpeg", ".png", ".webp", ".bmp", ".tif")[number % 7]
    return f"{'2024/may/' if number % 5 == 0 else ''}IMG {number:03}{ending}"


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF"}.get(path.suffix[1:].lower())
    image.save(path, kind, **({"quality": 95} if kind == "JPEG" else {}))


if __name__ == "__main__":
    make_awkward_folder(Path(sys.argv[1]))
