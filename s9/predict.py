"""Says what a trained network sees in images.   python -m s9.predict run=frontier image=photos"""

import os
import tempfile
from pathlib import Path

from s9.cli.door import key_values, open_door, refuse_unknown
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts, leave

USAGE = """python -m s9.predict run=<shipped name|folder of a run|file of weights> image=<file|folder|'pattern'|->
                     [top=5] [format=table|json|csv] [save=<file.png>] [flip=false|true] [weights=final|best]
                     [device=auto]

Classifies images: those of image=, which may be given several times, and of arguments without a key, as in *.jpg.
Folders: all images below. image=-: standard input, the bytes of one image, or paths, one a line.
  python -m s9.predict run=frontier cat.jpg dog.jpg
  find photos -name '*.jpg' | python -m s9.predict run=outputs/<date>/<time>-<suffix> image=- format=csv > photos.csv
top: how many classes. format=json: one JSON object a line; csv: one row an image, with a header.
save: also a picture of the first images with bars. flip=true: the mean over each image and its mirror image.
Results alone go to stdout, while the rest is still being read; which files cannot be read is said on stderr.
Exit code 0: all images were read; 1: some could not be; 2: nothing could be done; 128 + n: ended by signal n."""

ALLOWED = {"format": ("table", "json", "csv"), "flip": ("false", "true"), "weights": ("final", "best")}
OWN: dict[str, str | None] = {"run": None, "image": "", "top": "5", "save": "", "device": "auto"}
OWN |= {key: allowed[0] for key, allowed in ALLOWED.items()}


def main(arguments: list[str]) -> int:
    images = [argument.removeprefix("image=") for argument in arguments if is_image(argument)]
    given = key_values([a for a in arguments if not is_image(a)], OWN, USAGE)
    refuse_unknown(given, ALLOWED)
    if not images:
        raise UserError("image= is missing: a file, a folder, a pattern, or - for standard input")
    if not given["top"].isdecimal() or int(given["top"]) < 1:
        raise UserError(f"top={given['top']}: must be a whole number from 1")
    save = Path(given["save"]).expanduser() if given["save"] else None
    if save and (save.suffix.lower() != ".png" or not save.parent.is_dir()):
        raise UserError(f"save={save}: must be the path of a .png file in a folder that exists")

    from s9.inference.inputs import find_images

    try:
        with Interrupts(end=leave), tempfile.TemporaryDirectory() as room:
            found = find_images(images, Path(room))

            from s9.inference.classifier import load
            from s9.inference.predict import Wanted, predict_images

            classifier = load(given["run"], weights=given["weights"], device=given["device"])
            wanted = Wanted(int(given["top"]), given["format"], flip=given["flip"] == "true", save=save)
            return predict_images(classifier, found, wanted)
    except Interrupted as stop:
        leave(128 + stop.number)


def is_image(argument: str) -> bool:
    """Whether the argument is image=..., or neither key=value nor an option; or a file whose name has a = in it."""
    key, equals, _ = argument.partition("=")
    if key in OWN:
        return key == "image"
    return os.path.lexists(argument) or not (equals or argument.startswith("--"))


if __name__ == "__main__":
    open_door(main, USAGE)
