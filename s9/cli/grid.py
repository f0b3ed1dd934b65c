"""The jobs that a sweep's arguments ask for, as lists of arguments: the grid, cells, exclusions and a sample."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from s9.cli.mistakes import parse
from s9.config.sweep import SweepConfig
from s9.sweeps.condition import condition
from s9.system.errors import UserError

MOST = 100_000  # combinations, also where a sample is drawn from them; more are a mistake
SEED = "seed"
BOOLS = {"True": "true", "False": "false"}  # from what Hydra writes to what people write


@dataclass(frozen=True)
class Combination:
    """One job as arguments. swept: the keys that differ between jobs, with their values as written."""

    arguments: tuple[str, ...]
    swept: dict[str, str]


Known = Callable[[Combination, str], Any]


@dataclass(frozen=True)
class Grid:
    """All combinations of a sweep.

    keys: what is swept, in the order of the arguments. left_out: jobs that were excluded. cells: before the sample.
    """

    keys: tuple[str, ...]
    combinations: list[Combination]
    left_out: int = 0
    cells: int = 0


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
    listed = itertools.islice(parsed.sweep_string_iterator(), MOST + 1)  # a range may have no end that is ever reached
    values = [f"{parsed.get_key_element()}={BOOLS.get(value, value)}" for value in listed]
    if len(values) > MOST:
        raise UserError(f"{override}: more than {MOST:,} values; give fewer")
    if not values:
        raise UserError(f"{override}: names no value; allowed: {', '.join(options(parsed.key_or_group)) or 'values'}")
    return values


class _Loader:
    """What Hydra's glob needs of its configuration loader."""

    def __init__(self, options: Callable[[str], list[str]]):
        self.options = options

    def get_group_options(self, group: str, **_: Any) -> list[str]:
        return [name for name in self.options(group) if not name.endswith("_schema")]


def grid_of(arguments: Sequence[str], sweep: SweepConfig, options: Callable[[str], list[str]], known: Known) -> Grid:
    """The combinations of these arguments, each in the order of the arguments.

    Args:
        arguments: without those of Hydra itself. options: lists a group's options.
        known: a key's value in one combination, for conditions on keys that the arguments do not name.

    Raises:
        UserError: values that cannot be listed; a key that is given twice; a condition that cannot be judged.
    """
    given = {_key(a): one_by_one(a, options) for a in arguments}  # the last counts
    axes = {key: values for key, values in given.items() if len(values) > 1 or parse_sweeps(arguments, key)}
    fixed = {key: values[0] for key, values in given.items() if key not in axes}
    cells = [{_key(a): a for a in itertools.starmap(as_argument, cell.items())} for cell in sweep.cells]
    of_cells = list(dict.fromkeys(key for cell in cells for key in cell))
    for key in of_cells:
        if key in axes:
            raise UserError(f"{key}: is in sweep.cells and has several values of its own; leave out one of them")
    size = math.prod(map(len, axes.values())) * max(1, len(cells))
    if size > MOST:
        raise UserError(f"{size:,} jobs: at most {MOST:,}; give fewer values")
    combinations = []
    for cell in cells or [{}]:
        for chosen in itertools.product(*axes.values()):
            own = fixed | cell | dict(zip(axes, chosen, strict=True))
            ordered = {key: own[key] for key in (*given, *cell)}
            swept = {key: own[key].partition("=")[2] for key in (*of_cells, *axes) if key in own}
            combinations.append(Combination(tuple(ordered.values()), swept))
    kept = _excluded(combinations, sweep.exclude, known)
    sampled = _sampled(kept, sweep)
    return Grid((*of_cells, *axes), sampled, left_out=len(combinations) - len(kept), cells=len(cells_in(kept)))


def parse_sweeps(arguments: Sequence[str], key: str) -> bool:
    """Whether one of the arguments sweeps the key, be it over a single value."""
    return any(parse(a).is_sweep_override() and _key(a) == key for a in arguments)


def _key(argument: str) -> str:
    name: str = parse(argument).get_key_element().lstrip("+")
    return name


def as_argument(key: str, value: Any) -> str:
    """`key=value` as a person would write it."""
    if isinstance(value, str):
        try:
            plain = OverridesParser.create().parse_override(f"{key}={value}").value() == value
        except HydraException:
            plain = False
        return f"{key}={value if plain else _quoted(value).with_quotes()}"
    text: str = Override._get_value_element_as_str(_quoted(value))
    return f"{key}={text.lower() if isinstance(value, bool) else text}"


def _quoted(value: Any) -> Any:
    """The value, with quotes around every text in it."""
    if isinstance(value, str):
        return QuotedString(value, quote=Quote.double if "'" in value else Quote.single)
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return {key: _quoted(item) for key, item in value.items()} if isinstance(value, dict) else value


def _excluded(combinations: list[Combination], text: str | None, known: Known) -> list[Combination]:
    if text is None:
        return combinations
    excludes = condition(text)

    def holds(combination: Combination) -> bool:
        values = {_key(a): _value(a) for a in combination.arguments}
        return excludes.holds(lambda key: values[key] if key in values else known(combination, key))

    return [combination for combination in combinations if not holds(combination)]


def _value(argument: str) -> Any:
    value = parse(argument).value()
    return value.text if isinstance(value, QuotedString) else value


def cells_in(combinations: Sequence[Combination]) -> dict[tuple[tuple[str, str], ...], list[Combination]]:
    """The combinations by cell: their swept values without the seed."""
    cells: dict[tuple[tuple[str, str], ...], list[Combination]] = {}
    for combination in combinations:
        cell = tuple(item for item in combination.swept.items() if item[0] != SEED)
        cells.setdefault(cell, []).append(combination)
    return cells


def _sampled(combinations: list[Combination], sweep: SweepConfig) -> list[Combination]:
    """A sample of the cells, each with all its seeds."""
    cells = cells_in(combinations)
    if sweep.sample is None or sweep.sample >= len(cells):
        return combinations
    drawn = random.Random(sweep.sample_seed).sample(range(len(cells)), sweep.sample)
    return [combination for at in sorted(drawn) for combination in list(cells.values())[at]]
