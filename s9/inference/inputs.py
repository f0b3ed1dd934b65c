"""Which images a command is given: files, folders, patterns and standard input; and their pixels."""

import glob
import io
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from s9.data.sources.decode import decode_pixels, quiet
from s9.data.sources.formats import FORMATS, UNREADABLE
from s9.data.sources.layout import ending_of, entries, hidden, is_folder, is_image, one_form
from s9.system.errors import UserError

STDIN = "-"
KINDS = 8  # kinds of left-out files that are listed by name


class Given(NamedTuple):
    """name: as results call the image. problem: why `path` is not worth a try; empty: it is."""

    name: str
    path: str
    problem: str = ""


@dataclass
class Images:
    """The images in the order in which they were given; within a folder or a pattern, in the order of their names."""

    found: list[Given] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # files that are not tried, by kind

    def said(self) -> str:
        """What was left out, in one line; empty if nothing was."""
        kinds = self.left_out.most_common()
        parts = [f"{count:,} {kind}" for kind, count in kinds[:KINDS]]
        if others := sum(count for _, count in kinds[KINDS:]):
            parts.append(f"{others:,} others")
        return f"left out: {', '.join(parts)}" if parts else ""


def find_images(given: Sequence[str], room: Path) -> Images:
    """The images that are meant by files, folders, patterns such as 'photos/*.jpg', and `-`.

    A file that is given by name is an image, whatever its ending; in folders and patterns the ending decides. A name
    that does not exist is found too, with its problem, so that the others are not lost for a mistake in one.

    Args:
        given: of these, `-` is standard input: the bytes of one image, or paths, one a line or after each a zero byte.
        room: an empty folder, for the image on standard input.

    Raises:
        UserError: there is none to try.
    """
    images = Images()
    for text in given:
        if text == STDIN:
            _from_stdin(images, room)
        else:
            _add(images, text)
    if not images.found:
        raise UserError(f"image={', '.join(given)}: no image there{'; ' if images.left_out else ''}{images.said()}")
    if all(image.problem for image in images.found):
        first, more = images.found[0], len(images.found) - 1
        raise UserError(f"image={first.name}: {first.problem}{f'; and {more:,} more' if more else ''}")
    return images


def _add(images: Images, text: str) -> None:
    path = os.path.expanduser(text)  # noqa: PTH111  # strings throughout: names of 100,000 files
    if os.path.isdir(path):  # noqa: PTH112
        images.found += sorted(_below(images, path, (os.path.realpath(path),)), key=_by_name)
    elif os.path.lexists(path):
        images.found.append(Given(text, path))
    elif glob.has_magic(path):
        _add_pattern(images, text, path)
    else:
        images.found.append(Given(text, path, "there is no such file"))


def _by_name(image: Given) -> str:
    return one_form(image.path)


def _add_pattern(images: Images, text: str, pattern: str) -> None:
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207  # pathlib knows no absolute patterns
    found: set[Given] = set()
    for path in matches:
        if os.path.isdir(path):  # noqa: PTH112
            below = () if "**" in pattern else _below(images, path, (os.path.realpath(path),))
            found.update(below)
        elif is_image(path):
            found.add(Given(path, path))
        else:
            images.left_out[_kind(path)] += 1
    images.found += sorted(found, key=_by_name)
    if not matches:
        images.found.append(Given(text, pattern, "no file has such a name"))


def _below(images: Images, folder: str, above: tuple[str, ...]) -> Iterator[Given]:
    """above: the real paths of the folders from the given one down to `folder`, both included."""
    try:
        inside = entries(folder)
    except UserError as error:
        yield Given(folder, folder, _reason(error, folder))
        return
    for entry in inside:
        if hidden(entry.name):
            images.left_out["hidden"] += 1
        elif is_folder(entry):
            real = os.path.realpath(entry.path)
            if any(os.path.commonpath((real, outer)) == real for outer in above):
                images.left_out["link to a folder that holds it"] += 1
            else:
                yield from _below(images, entry.path, (*above, real))
        elif is_image(entry.name) and _can_be_read(entry):
            yield Given(entry.path, entry.path)
        else:
            images.left_out[_kind(entry.name)] += 1


def _can_be_read(entry: os.DirEntry[str]) -> bool:
    """False for a named pipe, on which reading waits for ever. A link to nothing is tried, and then named."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _kind(name: str) -> str:
    ending = ending_of(name)
    if not ending[1:].isalnum() or len(ending) > 12:
        return "without an ending"
    return f"{ending} (cannot be read here)" if ending in UNREADABLE else ending


def _from_stdin(images: Images, room: Path) -> None:
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("image=-: nothing is piped in; pipe in one image, or paths, one a line")
    content = sys.stdin.buffer.read()
    names = content.split(b"\0" if b"\0" in content else b"\n")
    if os.path.lexists(names[0].removesuffix(b"\r")) or not (b"\0" in content or _opens(content)):
        for name in names:
            if line := os.fsdecode(name.removesuffix(b"\r")):
                _add(images, line)
    else:
        file = room / "stdin"
        file.write_bytes(content)
        images.found.append(Given(STDIN, str(file)))


def _opens(content: bytes) -> bool:
    """Whether this is an image; paths are not, nor is nothing."""
    try:
        with quiet(), Image.open(io.BytesIO(content), formats=FORMATS):
            return True
    except Exception:  # a decoder may raise anything
        return False


def pixels_of(image: Given, image_size: int, resize: str, bits: int | None) -> np.ndarray | str:
    """uint8 (image_size, image_size, 3), or why there are none. bits: as in `decode_pixels`."""
    if image.problem:
        return image.problem
    try:
        return decode_pixels(Path(image.path), image_size, bits, resize=resize)
    except UserError as error:
        return _reason(error, image.path)


def _reason(error: UserError, path: str) -> str:
    """The error without the file's name, which comes before, and without advice for a folder of training images."""
    return str(error).removeprefix(f"{path}: ").removesuffix("; mend or remove it")
