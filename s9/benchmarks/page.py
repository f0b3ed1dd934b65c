"""The tables of a page of measurements, written from the JSON files that `python -m s9.bench` stored."""

import json
import re
from pathlib import Path
from typing import Any

from s9.system.errors import UserError

BLOCK = re.compile(r"(<!-- tables of (\S+\.json) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_page(page: Path) -> list[str]:
    """Rewrites all between `<!-- tables of NAME.json -->` and `<!-- end -->`; returns the names of the files read.

    Raises:
        UserError: the page or one of the files cannot be read, or the page has no such lines.
    """
    names: list[str] = []

    def block(match: re.Match[str]) -> str:
        names.append(match[2])
        return f"{match[1]}{tables(json.loads((page.parent / match[2]).read_bytes()))}{match[3]}"

    try:
        text = BLOCK.sub(block, page.read_text())
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"page={page}: cannot be rewritten ({error})") from None
    if not names:
        raise UserError(f"page={page}: has no <!-- tables of NAME.json --> with an <!-- end -->")
    page.write_text(text)
    return names


def tables(content: dict[str, Any]) -> str:
    """In Markdown: where and how the rows were measured, then one table row per measurement."""
    machine = content["machine"]
    where = f"{machine['processor']}, {machine['device']}, torch {machine['versions']['torch']}"
    lines = [f"`{content['command']}`: {where}, {content['data']}, commit {machine['commit'][:7]}.", ""]
    lines += ["| part | what | median | lowest to highest | compared |", "|---|---|---|---|---|"]
    for row in content["rows"]:
        median, low, high = (_number(row[key]) for key in ("median", "low", "high"))
        spread = f"{low} to {high}" if row["repeats"] > 1 else "once"
        against = f"{row['ratio']:.2f} x" if row["ratio"] else ""
        lines.append(f"| {row['part']} | {row['what']} | {median} {row['unit']} | {spread} | {against} |")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 2}f}"
