"""A folder of many small JPEG files in many classes, to see how long s9 takes for such.

python -m tests.many_images big classes=1000 images=500
python -m s9.train data=folder data.root=big trainer.epochs=1 trainer.steps_per_epoch=1     # twice
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32  # pixels


def make_class(folder: Path, number: int, images: int) -> None:
    """Smooth shapes in random colours, another one for each file."""
    folder.mkdir(parents=True)
    rough = np.random.default_rng(number).integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)
    for index, pixels in enumerate(rough):
        image = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        image.save(folder / f"{index:05}.jpg", quality=75)


def main(root: Path, classes: int, images: int) -> None:
    with ProcessPoolExecutor() as pool:
        folders = [root / f"class{number:04}" for number in range(classes)]
        list(pool.map(make_class, folders, range(classes), [images] * classes))


if __name__ == "__main__":
    asked = dict(argument.split("=") for argument in sys.argv[2:])
    main(Path(sys.argv[1]), classes=int(asked["classes"]), images=int(asked["images"]))
