"""Values of swept keys: texts, which may be spelled in several ways and mean the same."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException


@functools.cache  # a sweep asks again and again
def meaning(text: str) -> str:
    """The same for all spellings of a value: `0` and `0.0`, `a b` and `'a b'`."""
    try:
        return meaning_of(OverridesParser.create().parse_override(f"x={text}").value())
    except HydraException:  # no value that Hydra can read: a text by itself
        return json.dumps(text)


def meaning_of(value: Any) -> str:
    """`meaning` of a value that has been read."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    """Without quotes; numbers as floats, so that 1 and 1.0 are equal."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def mean_the_same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return one.keys() == other.keys() and all(meaning(value) == meaning(other[key]) for key, value in one.items())


def have(values: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether they have all of `wanted`, and perhaps more keys; a key that they have not is null, as no experiment."""
    return all(meaning(values.get(key, "null")) == meaning(value) for key, value in wanted.items())


def one_spelling(jobs: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The jobs' values, each as its first job spells it."""
    first: dict[tuple[str, str], str] = {}
    return {
        job: {key: first.setdefault((key, meaning(value)), value) for key, value in values.items()}
        for job, values in jobs.items()
    }
