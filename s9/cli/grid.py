"""The jobs that a sweep's arguments ask for, as lists of arguments: the grid, cells, exclusions and a sample."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from s9.cli.mistakes import parse
from s9.config.sweep import SweepConfig
from s9.sweeps.condition import condition
from s9.system.errors import UserError

MOST = 100_000  # combinations; more are a mistake, or are sampled
SEED = "seed"


@dataclass(frozen=True)
class Combination:
    """One job as arguments. swept: the keys that differ between jobs, with their values as written."""

    arguments: tuple[str, ...]
    swept: dict[str, str]


@dataclass(frozen=True)
class Grid:
    """All combinations of a sweep. keys: what is swept, in the order of the arguments. left_out: what was excluded."""

    keys: tuple[str, ...]
    combinations: list[Combination]
    left_out: int = 0


def one_by_one(override: str, options: Callable[[str], list[str]]) -> list[str]:
    """The arguments that one argument stands for: several where it names several values.

    Raises:
        UserError: the values cannot be listed.
    """
    parsed = parse(override)
    if not parsed.is_sweep_override():
        return [override]
    if not parsed.is_discrete_sweep():
        search = "give the values, as in key=0.1,0.2, or search an interval with python -m s9.tune"
        raise UserError(f"{override}: an interval has no end of values; {search}")
    parsed.config_loader = _Loader(options)  # where glob(*) looks
    values = [f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()]
    if not values:
        raise UserError(f"{override}: names no value; allowed: {', '.join(options(parsed.key_or_group)) or 'values'}")
    return values


class _Loader:
    """What Hydra's glob needs of its configuration loader."""

    def __init__(self, options: Callable[[str], list[str]]):
        self.options = options

    def get_group_options(self, group: str, **_: Any) -> list[str]:
        return [name for name in self.options(group) if not name.endswith("_schema")]


def grid_of(arguments: Sequence[str], sweep: SweepConfig, options: Callable[[str], list[str]], known: Any) -> Grid:
    """The combinations of these arguments.

    Args:
        arguments: without those of Hydra itself. options: lists a group's options.
        known: the value of a key, for conditions on keys that the arguments do not name.

    Raises:
        UserError: values that cannot be listed; a key that is given twice; a condition that cannot be judged.
    """
    given = {parse(a).get_key_element().lstrip("+"): one_by_one(a, options) for a in arguments}  # the last counts
    axes = {key: values for key, values in given.items() if len(values) > 1 or parse_sweeps(arguments, key)}
    fixed = [values[0] for key, values in given.items() if key not in axes]
    cells = [{str(key): _as_argument(str(key), value) for key, value in cell.items()} for cell in sweep.cells]
    of_cells = list(dict.fromkeys(key for cell in cells for key in cell))
    for key in of_cells:
        if key in axes:
            raise UserError(f"{key}: is in sweep.cells and has several values of its own; leave out one of them")
    size = math.prod(map(len, axes.values())) * max(1, len(cells))
    if size > MOST:
        raise UserError(f"{size:,} jobs: at most {MOST:,}; give fewer values")
    others = [fixed_argument for fixed_argument in fixed if _key(fixed_argument) not in of_cells]
    combinations = []
    for cell in cells or [{}]:
        defaults = [a for a in fixed if _key(a) in of_cells and _key(a) not in cell]
        for chosen in itertools.product(*axes.values()):
            swept = {_key(a): a for a in (*cell.values(), *chosen)}
            named = {key: argument.partition("=")[2] for key, argument in swept.items()}
            combinations.append(Combination((*others, *defaults, *swept.values()), named))
    kept = _excluded(combinations, sweep.exclude, known)
    return Grid((*of_cells, *axes), _sampled(kept, sweep), len(combinations) - len(kept))


def parse_sweeps(arguments: Sequence[str], key: str) -> bool:
    """Whether one of the arguments sweeps the key, be it over a single value."""
    found = [parse(a) for a in arguments]
    return any(p.is_sweep_override() and p.get_key_element().lstrip("+") == key for p in found)


def _key(argument: str) -> str:
    name: str = parse(argument).get_key_element().lstrip("+")
    return name


def _as_argument(key: str, value: Any) -> str:
    """`key=value` as a person would write it."""
    if isinstance(value, str):
        try:
            plain = OverridesParser.create().parse_override(f"{key}={value}").value() == value
        except HydraException:
            plain = False
        value = value if plain else QuotedString(value, quote=_quote(value))
        return f"{key}={value if plain else value.with_quotes()}"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    text: str = Override._get_value_element_as_str(value)
    return f"{key}={text}"


def _quote(text: str) -> Any:
    from hydra.core.override_parser.types import Quote

    return Quote.double if "'" in text else Quote.single


def _excluded(combinations: list[Combination], text: str | None, known: Any) -> list[Combination]:
    if text is None:
        return combinations
    excludes = condition(text)

    def holds(combination: Combination) -> bool:
        values = {_key(a): _value(a) for a in combination.arguments}
        return excludes.holds(lambda key: values[key] if key in values else known(key))

    return [combination for combination in combinations if not holds(combination)]


def _value(argument: str) -> Any:
    value = parse(argument).value()
    return value.text if isinstance(value, QuotedString) else value


def _sampled(combinations: list[Combination], sweep: SweepConfig) -> list[Combination]:
    """A sample of the cells, each with all its seeds."""
    cells: dict[tuple[tuple[str, str], ...], list[Combination]] = {}
    for combination in combinations:
        cell = tuple(item for item in combination.swept.items() if item[0] != SEED)
        cells.setdefault(cell, []).append(combination)
    if sweep.sample is None or sweep.sample >= len(cells):
        return combinations
    drawn = random.Random(sweep.sample_seed).sample(range(len(cells)), sweep.sample)
    return [combination for at in sorted(drawn) for combination in list(cells.values())[at]]
