"""`python -m s9.confirm`: runs a sweep's best cell and its baseline on fresh seeds, and says what these seeds show."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from s9.cli.compose import Asked, compose
from s9.cli.door import key_values
from s9.cli.launch import asked_of, quoted, read_flags, start
from s9.cli.mistakes import all_keys, parse
from s9.cli.plan import of_sweep, plan_of
from s9.cli.sweep import say
from s9.sweeps.answer import answer_of
from s9.sweeps.confirmation import ConfirmationFolder
from s9.sweeps.confirmed import confirmed_in_words
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.table import SEED, Cell
from s9.sweeps.values import mean_the_same, meaning, meaning_of
from s9.sweeps.words import named
from s9.system.errors import UserError
from s9.system.interrupt import Interrupts

OWN = {"sweep": None, "seeds": "8", "best": "", "baseline": ""}
PASSED_ON = ("hydra/launcher=", "hydra.launcher.", "sweep.retry=", "sweep.dry_run=", "sweep.jobs_per_gpu=")
LEFT_OUT = ("sweep.", "hydra.sweep.", "hydra.sweeper.")  # of the sweep's own command: which jobs it has, its folder
LAUNCHER = ("hydra/launcher", "hydra.launcher.")


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
    answer = answer_of(sweep)
    rows, cells = answer.rows, [cell for cell in answer.cells if cell.n]
    if len(cells) < 2:
        raise UserError(f"sweep={sweep.path}: {len(cells)} cells have a score; a confirmation needs two")
    count = _count(given["seeds"])
    flags, asked = _fixed(stored["arguments"], stored["keys"], launched=any(a.startswith(LAUNCHER[0]) for a in more))
    composed, own = compose(asked)
    default = _default(composed, own.runtime.choices, [dict(cell.values) for cell in _in_order(cells, rows)])
    best = _chosen("best", given["best"], cells) if given["best"] else dict(cells[answer.analysis.best or 0].values)
    baseline = _chosen("baseline", given["baseline"], cells) if given["baseline"] else default
    if best == baseline and given["baseline"]:
        raise UserError(f"best and baseline are the same cell, {named(best)}")
    if best == baseline:
        baseline = next(dict(cell.values) for cell in cells if dict(cell.values) != best)
        say(f"the best cell, {named(best)}, would be its own baseline: the baseline is the cell with the next mean")
    folder = ConfirmationFolder(sweep.path)
    used = [int(composed.seed), *(int(row.values[SEED]) for row in rows if SEED in row.values)]
    wanted = folder.asked_for(best, baseline, count, used=used, paired=bool(stored.get("paired")))
    say(f"best: {named(best)}; baseline: {named(baseline)}; fresh seeds: {', '.join(map(str, wanted.seeds))}")
    if count < len(wanted.seeds):
        say(f"{len(wanted.seeds)} seeds were asked for before: all of them count")
    known = {*all_keys(OmegaConf.to_container(composed)), *own.runtime.choices}
    jobs = [*(o for o in asked.overrides if _key(o) != SEED), _cells([best, baseline], known)]
    jobs += [f"{SEED}={','.join(map(str, wanted.seeds))}", f"hydra.sweep.dir={quoted(folder.folder.path)}", *more]
    dry = any(a.lower() == "sweep.dry_run=true" for a in more)
    if not dry:
        plan_of(asked_of(read_flags([*flags, *jobs])))  # a mistake is found before anything is stored
        folder.note(wanted)
    code = start([*flags, *jobs], interrupts)
    if not dry:
        answer = answer_of(sweep)
        print("\n".join(confirmed_in_words(sweep.path, answer.cells, answer.confirmations, answer.analysis)))
    return code


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"seeds={text}: must be a number of seeds, 2 or more")
    return int(text)


def _fixed(arguments: Sequence[str], swept: Sequence[str], *, launched: bool) -> tuple[list[str], Asked]:
    """(the flags of the sweep's command, its arguments but for what is swept and which jobs it has).

    launched: another launcher is given, to which the sweep's own says nothing.
    """
    flags = read_flags(arguments)
    left_out = (*LEFT_OUT, *LAUNCHER) if launched else LEFT_OUT
    kept = [o for o in flags.overrides if _key(o) not in swept and not _key(o).startswith(left_out)]
    rest = list(arguments)
    for override in flags.overrides:
        rest.remove(override)
    asked = asked_of(flags)
    params = compose(replace(asked, overrides=[o for o in flags.overrides if of_sweep(o) or o in kept]))[
        1
    ].sweeper.params
    fixed = [f"{key}={value}" for key, value in (params or {}).items() if key.lstrip("+") not in swept]
    return rest, replace(asked, overrides=[*fixed, *kept, "hydra.sweeper.params=null"])


def _key(override: str) -> str:
    return str(parse(override).get_key_element().lstrip("+~"))


def _cells(cells: Sequence[Mapping[str, str]], known: Collection[str]) -> str:
    """sweep.cells= of these; a key that the configuration has not is added."""
    signed = [[f"{'' if key in known else '++'}{key}: {value}" for key, value in cell.items()] for cell in cells]
    return f"sweep.cells=[{','.join('{' + ','.join(cell) + '}' for cell in signed)}]"


def _in_order(cells: Sequence[Cell], rows: Sequence[Any]) -> list[Cell]:
    """As the sweep's commands asked for them."""
    place = {id(row): at for at, row in enumerate(rows)}
    return sorted(cells, key=lambda cell: min(place[id(row)] for row in cell.rows))


def _default(composed: Any, choices: Mapping[str, str], cells: Sequence[dict[str, str]]) -> dict[str, str]:
    """The cell that has the values of the configuration, else the first."""

    def has(cell: Mapping[str, str]) -> bool:
        return all(_same(key, written, composed, choices) for key, written in cell.items())

    found = next((cell for cell in cells if has(cell)), None)
    if found is None:
        say(f"no cell has the configuration's own values; the sweep's first is {named(cells[0])}")
    return found or cells[0]


def _same(key: str, written: str, composed: Any, choices: Mapping[str, str]) -> bool:
    held = choices[key] if key in choices else OmegaConf.select(composed, key)
    held = OmegaConf.to_container(held) if OmegaConf.is_config(held) else held
    return meaning(written) == meaning_of(held)


def _chosen(what: str, text: str, cells: Sequence[Cell]) -> dict[str, str]:
    """The cell whose values these words name: `optimizer.lr=0.1 model.dropout=0`, in any order.

    Raises:
        UserError: no cell, or several, have these values.
    """
    keys = "|".join(re.escape(key) for key in {key for cell in cells for key in cell.values})
    words = dict(
        word.partition("=")[::2] for word in re.split(rf"\s+(?=(?:{keys})=)", text.strip())
    )  # values may have spaces
    found = [cell for cell in cells if mean_the_same(words, {k: v for k, v in cell.values.items() if k in words})]
    if len(found) != 1:
        listed = "; ".join(f"'{named(cell.values)}'" for cell in (found or cells)[:3])
        what_is = f"{len(found)} cells have these values" if found else "no cell with a score has these values"
        raise UserError(f"{what}={text}: {what_is}; there are {listed}{' ...' if len(found or cells) > 3 else ''}")
    return dict(found[0].values)
