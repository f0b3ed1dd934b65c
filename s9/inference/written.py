"""How answers are written: a table for people, JSON lines or CSV for programs."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from rich.cells import cell_len, set_cell_size

from s9.inference.classifier import Prediction
from s9.inference.inputs import Given
from s9.system.letters import one_line

PERCENT = len(" 100.0 %")
GAP = "  "
NAME = 20  # columns that a file's name has at least, before its classes go below each other
PADDED = 60, 24  # columns of names and classes: where no terminal sets a limit, longer ones are not aligned


class Answer(NamedTuple):
    """What the network says about an image, or why it could not be read."""

    image: Given
    prediction: Prediction | None
    problem: str = ""


Write = Callable[[Answer], object]


def table(images: Sequence[Given], classes: Sequence[str], top: int, out: TextIO) -> Write:
    """A line an image, or a line a class in a terminal that is too narrow for that; unread images are left out.

    Only in a terminal are names shortened: what is piped can be searched for them.
    """
    top = min(top, len(classes))
    name_width = max(cell_len(one_line(image.name)) for image in images)
    class_width = max(cell_len(one_line(name)) for name in classes)
    between = GAP
    if out.isatty():
        columns = shutil.get_terminal_size().columns
        room = columns - top * (len(GAP) + class_width + PERCENT)
        if room < min(name_width, NAME):
            room = max(columns - len(GAP) - class_width - PERCENT, columns // 3)
            between = f"\n{' ' * min(name_width, room)}{GAP}"
        name_width = min(name_width, room)
        class_width = max(min(class_width, columns - name_width - len(GAP) - PERCENT), 1)
        fit = shortened
    else:
        name_width, class_width = min(name_width, PADDED[0]), min(class_width, PADDED[1])
        fit = padded

    def write(answer: Answer) -> None:
        if answer.prediction:
            answers = answer.prediction.top(top)
            cells = [f"{fit(one_line(name), class_width)} {100 * prob:5.1f} %" for name, prob in answers]
            print(fit(one_line(answer.image.name), name_width), between.join(cells), sep=GAP, file=out)

    return write


def padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def shortened(text: str, width: int) -> str:
    """The text in exactly `width` columns, without its middle if it is longer: names differ at their ends."""
    if cell_len(text) <= width:
        return padded(text, width)
    head = (width - 1) // 2
    return f"{set_cell_size(text, head)}…{set_cell_size(text[::-1], width - 1 - head)[::-1]}"


def json_lines(images: Sequence[Given], classes: Sequence[str], top: int, out: TextIO) -> Write:
    r"""An object an image, in ASCII: a byte of a name that is not UTF-8 is \udc80 to \udcff, as in os.fsdecode."""

    def write(answer: Answer) -> None:
        answers = answer.prediction.top(top) if answer.prediction else []
        said = {
            "image": answer.image.name,
            "top": [{"class": name, "probability": probability} for name, probability in answers],
        }
        print(json.dumps(said | ({"error": answer.problem} if answer.problem else {})), file=out)

    return write


def csv_rows(images: Sequence[Given], classes: Sequence[str], top: int, out: TextIO) -> Write:
    """A row an image, with as many pairs of columns as there are classes in it."""
    rows = csv.writer(out, lineterminator="\n")
    count = min(top, len(classes))
    pairs = [f"{what}_{rank + 1}" for rank in range(count) for what in ("class", "probability")]
    rows.writerow(["image", *pairs, "error"])

    def write(answer: Answer) -> None:
        said = [part for pair in answer.prediction.top(top) for part in pair] if answer.prediction else [""] * 2 * count
        rows.writerow([answer.image.name, *said, answer.problem])

    return write


FORMS = {"table": table, "json": json_lines, "csv": csv_rows}
