"""What s9.evaluate prints: scores, classes, surest mistakes and robustness, at any width of the screen."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from s9.inference.evaluate import Evaluation
from s9.inference.robustness import CORRUPTIONS, Robustness
from s9.system.letters import as_text, one_line

MOST_CLASSES = 50  # in the table; of more classes the worst ones
MOST_MISTAKES = 10

WORDS = ("true", "predicted", "mostly taken for", "unit")  # columns of words are flush left

Row = Sequence[object]


def show(of: Evaluation, console: Console) -> None:
    """The scores, how they compare with the run's, a table of the classes, and the surest mistakes."""
    for line in of.lines:
        _say(line, console)
    rows = class_rows(of)
    shown = [row for row in rows if row[1]]
    occur = len(shown)
    if occur < len(rows):
        verb = "occurs" if occur == 1 else "occur"
        _say(f"{occur} of the network's {len(rows)} classes {verb}; the network may answer any of them", console)
    title = "Classes"
    if len(shown) > MOST_CLASSES:
        shown = sorted(shown, key=lambda row: row[2] / row[1])[:MOST_CLASSES]
        title = f"The {MOST_CLASSES} worst of {occur:,} classes (save= writes all)"
    columns = ("class", "images", "accuracy %", "precision %", "mostly taken for", "images")
    cells = [
        (name, n, _percent(right, n), _percent(right, said), *confused) for name, n, right, said, *confused in shown
    ]
    _table(title, columns, cells, console)

    each, mistakes = of.of_each, of.of_each.mistakes
    count = f"{len(mistakes):,} of {len(of.images):,} images {'is' if len(mistakes) == 1 else 'are'} wrong"
    if not len(mistakes):
        console.print(f"\n{count}")
        return
    surest = [
        (each.names[n], each.classes[each.labels[n]], each.classes[each.preds[n]], f"{100 * each.sure[n]:.1f}")
        for n in mistakes[:MOST_MISTAKES]
    ]
    _table(f"Surest mistakes ({count})", ("file", "true", "predicted", "probability %"), surest, console)


def class_rows(of: Evaluation) -> list[tuple[str, int, int, int, str, int]]:
    """(class, images, right ones, images that are taken for it, class it is mostly taken for, how many) of each."""
    each = of.of_each
    said = np.bincount(each.preds, minlength=len(each.classes)).tolist()
    rows = each.class_rows()
    return [(row[0], row[2], row[3], said[n], row[6], row[7] or 0) for n, row in enumerate(rows)]


def show_robustness(of: Robustness, total: int, console: Console) -> None:
    """The accuracy by corruption and strength with the means, and what the strengths are."""
    part = f"all {total:,} images" if of.images == total else f"{of.images:,} evenly spaced of {total:,} images"
    means = of.accuracy.mean(0)
    numbers = [str(n + 1) for n in range(len(means))]
    rows: list[Row] = [("unchanged", *("" for _ in numbers), f"{100 * of.clean:.2f}")]
    for name, accuracies, mean in (
        *((c.name, row, row.mean()) for c, row in zip(CORRUPTIONS, of.accuracy, strict=True)),
        ("mean", means, of.mean),
    ):
        rows.append((name, *(f"{100 * accuracy:.2f}" for accuracy in (*accuracies, mean))))
    _table(f"Robustness: accuracy % by strength, {part}", ("corruption", *numbers, "mean"), rows, console)
    strengths: list[Row] = [(c.name, *(f"{strength:g}" for strength in c.strengths), c.unit) for c in CORRUPTIONS]
    _table("The strengths", ("corruption", *numbers, "unit"), strengths, console)
    _say("images that are JPEGs already may lose more at one quality than at a lower one", console)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"


def _table(title: str, columns: Sequence[str], rows: Sequence[Row], console: Console) -> None:
    """Numbers are flush right; long names are folded, never cut off."""
    console.print()
    console.print(Text(title, style="bold"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        is_text = number == 0 or column in WORDS
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        table.add_row(*(as_text(one_line(text), console.encoding) for text in texts))
    console.print(table)


def _say(line: str, console: Console) -> None:
    console.print(as_text(line, console.encoding), soft_wrap=True)
