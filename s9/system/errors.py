"""Errors that the user can mend, each in one line; imports nothing of s9."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Something the user can mend. Its text is one plain line: what is wrong, where, what is allowed."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean X?` for the closest allowed word, else `; allowed: ...`."""
    options = list(allowed)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(options)}"


def require(key: str, value: Any, holds: bool, allowed: str) -> None:
    """Raises UserError `key=value: must be allowed` unless `holds`. NaN fails every comparison, so it is caught too."""
    if not holds:
        raise UserError(f"{key}={value}: must be {allowed}")


def is_number(value: Any) -> bool:
    """True for int and float, not for bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)
