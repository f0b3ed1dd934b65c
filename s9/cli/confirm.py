"""`python -m s9.confirm`: runs a sweep's best cell and its baseline on fresh seeds, and says what these seeds show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf

from s9.cli.compose import Asked, compose
from s9.cli.door import key_values
from s9.cli.launch import asked_of, read_flags, start
from s9.cli.mistakes import parse
from s9.cli.sweep import say
from s9.sweeps.answer import answer_of
from s9.sweeps.confirmation import ConfirmationFolder
from s9.sweeps.confirmed import confirmed_in_words
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.table import SEED, Cell, cells_of
from s9.sweeps.words import named
from s9.system.errors import UserError
from s9.system.interrupt import Interrupts

OWN = {"sweep": None, "seeds": "8", "best": "", "baseline": ""}
PASSED_ON = ("hydra/launcher=", "hydra.launcher.", "sweep.retry=", "sweep.dry_run=", "sweep.jobs_per_gpu=")
LEFT_OUT = ("sweep.", "hydra.sweep.")  # of the sweep's own command: which jobs it has, and its folder


def confirm(arguments: Sequence[str], interrupts: Interrupts, usage: str) -> int:
    """Runs what is missing of the confirmation, prints its result and returns the exit code.

    Raises:
        UserError: in one line, what is wrong; no job has started.
        Interrupted: a signal came; all jobs are saved.
    """
    more = [a for a in arguments if a.startswith(PASSED_ON)]
    passed = dict.fromkeys((key.rstrip("=") for key in PASSED_ON), "")  # here for the line about an unknown key
    given = key_values([a for a in arguments if a not in more], OWN | passed, usage)
    sweep = SweepFolder(Path(given["sweep"]))
    stored = sweep.read()
    if not stored:
        give = "give the folder of a sweep, as outputs/sweeps/<name>"
        raise UserError(f"sweep={sweep.path}: there is no {sweep.asked.name} in it; {give}")
    keys, rows = sweep.rows()
    cells = [cell for cell in cells_of(keys, rows) if cell.n]
    if len(cells) < 2:
        raise UserError(f"sweep={sweep.path}: {len(cells)} cells have a score; a confirmation needs two")
    count = _count(given["seeds"])
    flags, asked = _fixed(stored["arguments"], stored["keys"])
    first_seed, default = _defaults(asked, [dict(cell.values) for cell in _in_order(cells, rows)])
    best = _chosen("best", given["best"], cells) if given["best"] else dict(cells[0].values)
    baseline = _chosen("baseline", given["baseline"], cells) if given["baseline"] else default
    if best == baseline and given["baseline"]:
        raise UserError(f"best and baseline are the same cell, {named(best)}")
    if best == baseline:
        baseline = next(dict(cell.values) for cell in cells if dict(cell.values) != best)
        say(f"the best cell, {named(best)}, would be its own baseline: the baseline is the cell with the next mean")
    folder = ConfirmationFolder(sweep.path)
    used = [first_seed, *(int(row.values[SEED]) for row in rows if SEED in row.values)]
    wanted = folder.asked_for(best, baseline, count, used=used, paired=bool(stored.get("paired")))
    say(f"best: {named(best)}; baseline: {named(baseline)}; fresh seeds: {', '.join(map(str, wanted.seeds))}")
    if count < len(wanted.seeds):
        say(f"{len(wanted.seeds)} seeds were asked for before: all of them count")
    pair = ",".join("{" + ",".join(f"{key}: {value}" for key, value in cell.items()) + "}" for cell in (best, baseline))
    quoted = str(folder.folder.path).replace("'", "\\'")
    own = [f"sweep.cells=[{pair}]", f"{SEED}={','.join(map(str, wanted.seeds))}", f"hydra.sweep.dir='{quoted}'"]
    dry = any(a.lower() == "sweep.dry_run=true" for a in more)
    if not dry:
        folder.note(wanted)
    code = start([*flags, *asked.overrides, *own, *more], interrupts)
    if not dry:
        answer = answer_of(sweep)
        print("\n".join(confirmed_in_words(sweep.path, answer.cells, answer.confirmations, answer.analysis)))
    return code


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"seeds={text}: must be a number of seeds, 2 or more")
    return int(text)


def _fixed(arguments: Sequence[str], swept: Sequence[str]) -> tuple[list[str], Asked]:
    """(the flags of the sweep's command, its arguments but for what is swept and which jobs it has)."""
    flags = read_flags(arguments)
    keys = {override: parse(override).get_key_element().lstrip("+~") for override in flags.overrides}
    kept = [o for o, key in keys.items() if key not in (*swept, SEED) and not key.startswith(LEFT_OUT)]
    rest = list(arguments)
    for override in flags.overrides:
        rest.remove(override)
    asked = asked_of(flags)
    return rest, Asked(kept, asked.config_dir, asked.config_name)


def _in_order(cells: Sequence[Cell], rows: Sequence[Any]) -> list[Cell]:
    """As the sweep's commands asked for them."""
    place = {id(row): at for at, row in enumerate(rows)}
    return sorted(cells, key=lambda cell: min(place[id(row)] for row in cell.rows))


def _defaults(asked: Asked, cells: Sequence[dict[str, str]]) -> tuple[int, dict[str, str]]:
    """(the seed that a run without seed= has, the cell that has the values of the configuration, else the first)."""
    composed, own = compose(asked)

    def has(cell: Mapping[str, str]) -> bool:
        return all(_same(key, written, composed, own.runtime.choices) for key, written in cell.items())

    found = next((cell for cell in cells if has(cell)), None)
    if found is None:
        say(f"no cell has the configuration's own values; the sweep's first is {named(cells[0])}")
    return int(composed.seed), found or cells[0]


def _same(key: str, written: str, composed: Any, choices: Mapping[str, str]) -> bool:
    if key in choices:
        return choices[key] == written
    value = parse(f"{key}={written}").value()
    held = OmegaConf.select(composed, key)
    held = OmegaConf.to_container(held) if OmegaConf.is_config(held) else held
    return bool((value.text if isinstance(value, QuotedString) else value) == held)


def _chosen(what: str, text: str, cells: Sequence[Cell]) -> dict[str, str]:
    """The cell whose values these words name: `optimizer.lr=0.1 model.dropout=0`, in any order.

    Raises:
        UserError: no cell, or several, have these values.
    """
    words = dict(word.partition("=")[::2] for word in text.split())
    found = [cell for cell in cells if words.items() <= dict(cell.values).items()]
    if len(found) != 1:
        listed = "; ".join(f"'{named(cell.values)}'" for cell in (found or cells)[:3])
        what_is = f"{len(found)} cells have these values" if found else "no cell with a score has these values"
        raise UserError(f"{what}={text}: {what_is}; there are {listed}{' ...' if len(found or cells) > 3 else ''}")
    return dict(found[0].values)
