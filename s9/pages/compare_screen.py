"""A comparison on the screen, at any width: nothing is cut off, wide tables continue below."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from s9.pages.compare_facts import Comparison
from s9.pages.compare_words import p_of, points_of
from s9.system.letters import as_text, one_line
from s9.tracking.differences import KeyDifference

FOLDED = 8  # more differing keys below one group of layers or transforms than this are counted, not listed
IMAGES = 8  # names listed for each run
PAIRS = 45  # rows: those with the smallest p
KEY, VALUE = 34, 22  # characters


def show(found: Comparison, console: Console) -> None:
    """Prints all but the curves and the whole list of images, which are on the page."""
    for run in found.runs:
        _say(console, f"{run.label}  {run.folder}  ({run.name}, {run.state})")
    _head(console, "Is the difference more than chance?")
    for sentence in found.answer:
        _say(console, sentence)
    if len(found.pairs) > 1:
        _pairs(found, console)
    if found.warnings:
        _head(console, "What makes this comparison unfair")
        for line in found.warnings:
            _say(console, f"- {line}")
    _head(console, "Results (of the final weights, unless it says best)")
    labels = [run.label for run in found.runs]
    if found.results:
        _table(console, "", labels, list(found.results.items()), justify="right")
    else:
        _say(console, "none yet")
    _keys(found.keys, labels, console)
    _images(found, console)


def _pairs(found: Comparison, console: Console) -> None:
    table = _empty()
    for name in (
        "pair",
        "only 1st\nright",
        "only 2nd\nright",
        "lead of 1st,\npoints",
        "95 % interval",
        "p",
        "p (Holm)",
    ):
        table.add_column(name, justify="left" if name == "pair" else "right", overflow="fold")
    shown = sorted(found.pairs, key=lambda pair: pair.p)[:PAIRS]
    for pair in shown:
        counts = f"{pair.only_first:,}", f"{pair.only_second:,}"
        interval = f"{points_of(pair.low)} to {points_of(pair.high)}"
        ps = [p_of(p).removeprefix("= ").replace("below ", "<") for p in (pair.p, pair.adjusted)]
        table.add_row(f"{pair.first} {pair.second}", *counts, points_of(pair.difference), interval, *ps)
    console.print(table)
    if len(found.pairs) > PAIRS:
        _say(console, f"The other {len(found.pairs) - PAIRS:,} pairs are on the page.")


def _keys(keys: Sequence[KeyDifference], labels: Sequence[str], console: Console) -> None:
    """Keys that can change a result in a table; long lists of layers or transforms are counted."""
    _head(console, "Keys that differ")
    matter, free = [one for one in keys if not one.free], [one for one in keys if one.free]
    listed, counted = [], dict[str, int]()
    groups = [_group(one.key) for one in matter]
    for one, group in zip(matter, groups, strict=True):
        if group and groups.count(group) > FOLDED:
            counted[group] = counted.get(group, 0) + 1
        else:
            listed.append((one.key, list(one.values)))
    if listed:
        _table(console, "", labels, listed)
    for group, count in counted.items():
        _say(console, f"and {count} keys of {group}, which are on the page")
    if not matter:
        _say(console, "none that can change a result")
    if free:
        _say(console, f"Without an effect on results: {', '.join(one.key for one in free)}")


def _group(key: str) -> str:
    """model.blocks or aug.transforms; empty for other keys."""
    return next((group for group in ("model.blocks", "aug.transforms") if key.startswith(f"{group}.")), "")


def _images(found: Comparison, console: Console) -> None:
    same = found.same
    if len(same.labels) < 2:
        return
    _head(console, f"Of {len(same.names):,} test images, which only one run gets right (surest mistakes first)")
    for label in same.labels:
        indices = same.only(label)
        names = "; ".join(_image(found, int(index), label) for index in indices[:IMAGES])
        more = f"; {len(indices) - IMAGES:,} more on the page" if len(indices) > IMAGES else ""
        _say(console, f"only {label}: {len(indices):,}" + (f": {names}{more}" if names else ""))
    wrong = same.wrong_by_all()
    names = "; ".join(f"{same.names[index]} ({same.true[index]})" for index in wrong[:IMAGES])
    more = f"; {len(wrong) - IMAGES:,} more on the page" if len(wrong) > IMAGES else ""
    _say(console, f"all wrong: {len(wrong):,}" + (f": {names}{more}" if names else ""))


def _image(found: Comparison, index: int, label: str) -> str:
    """`cat/0001.png (cat, B: dog)`: the name, the true class, and what another run says of the image."""
    same = found.same
    others = [n for n, other in enumerate(same.labels) if other != label]
    surest = max(others, key=lambda n: float(same.probs[n, index]))
    return f"{same.names[index]} ({same.true[index]}; {same.labels[surest]}: {same.predicted[surest, index]})"


def _table(
    console: Console,
    corner: str,
    labels: Sequence[str],
    rows: Sequence[tuple[str, list[str]]],
    *,
    justify: str = "left",
) -> None:
    """A column for each run; where they do not fit, the other runs' columns follow in a table below."""
    first = min(KEY, max(len(name) for name, _ in rows))
    width = min(VALUE, max(4, *(len(value) for _, values in rows for value in values))) + 1
    at_once = max(1, (console.width - first - 1) // width)
    for start in range(0, len(labels), at_once):
        table = _empty()
        table.add_column(corner, overflow="fold", max_width=KEY)
        for label in labels[start : start + at_once]:
            table.add_column(label, justify="right" if justify == "right" else "left", overflow="fold", max_width=VALUE)
        for name, values in rows:
            cells = (name, *values[start : start + at_once])
            table.add_row(*(as_text(one_line(text), console.encoding) for text in cells))
        console.print(table)


def _empty() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)


def _head(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _say(console: Console, text: str) -> None:
    console.print(as_text(one_line(text), console.encoding), overflow="fold")
