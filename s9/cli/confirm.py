"""`python -m s9.confirm`: runs a sweep's best cell and its baseline on fresh seeds, and says what these seeds show."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from s9.cli.compose import Asked, compose
from s9.cli.door import key_values
from s9.cli.help import groups
from s9.cli.launch import asked_of, quoted, read_flags
from s9.cli.mistakes import parse
from s9.cli.plan import Plan, of_sweep, plan_of
from s9.cli.sweep import run_plan, say
from s9.sweeps.answer import answer_of
from s9.sweeps.confirmation import ConfirmationFolder
from s9.sweeps.confirmed import confirmed_in_words
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.table import SEED, Cell
from s9.sweeps.values import have, meaning, meaning_of
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
    stored = _stored(sweep)
    answer = answer_of(sweep)
    rows, cells = answer.rows, [cell for cell in answer.cells if cell.n]
    if len(cells) < 2:
        raise UserError(f"sweep={sweep.path}: {len(cells)} cells have a score; a confirmation needs two")
    count = _count(given["seeds"])
    best = _chosen("best", given["best"], cells) if given["best"] else dict(cells[answer.analysis.best or 0].values)
    options = [f"{key}={value}" for key, value in best.items() if key in groups() and not _is_none(key, value)]
    launched = any(a.startswith(LAUNCHER[0]) for a in more)
    flags, asked = _fixed(stored["arguments"], stored["keys"], options, launched=launched)
    chosen = _chosen("baseline", given["baseline"], cells) if given["baseline"] else None
    baseline = chosen or _default(asked, [dict(cell.values) for cell in _in_order(cells, rows)])
    if best == baseline and given["baseline"]:
        raise UserError(f"best and baseline are the same cell, {named(best)}")
    if best == baseline:
        baseline = next(dict(cell.values) for cell in cells if dict(cell.values) != best)
        say(f"the best cell, {named(best)}, would be its own baseline: the baseline is the cell with the next mean")
    folder = ConfirmationFolder(sweep.path)
    composed, _ = compose(replace(asked, overrides=[*asked.overrides, *options]))
    used = [int(composed.seed), *(int(row.values[SEED]) for row in rows if SEED in row.values)]
    digests = [_digests(values, cells, stored.get("cells", {})) for values in (best, baseline)]
    of_cells = [digest for known in digests for digest in known] if all(digests) else []
    wanted = folder.asked_for(best, baseline, count, used=used, paired=bool(stored.get("paired")), cells=of_cells)
    say(f"best: {named(best)}; baseline: {named(baseline)}; fresh seeds: {', '.join(map(str, wanted.seeds))}")
    if count < len(wanted.seeds):
        say(f"{len(wanted.seeds)} seeds were asked for before: all of them count")
    jobs = [*(o for o in asked.overrides if _key(o) != SEED), _cells([best, baseline])]
    jobs += [f"{SEED}={','.join(map(str, wanted.seeds))}", f"hydra.sweep.dir={quoted(folder.folder.path)}", *more]
    dry = any(a.lower() == "sweep.dry_run=true" for a in more)
    plan = plan_of(asked_of(read_flags([*flags, *jobs])))
    for what, values, known in zip(("best", "baseline"), (best, baseline), digests, strict=True):
        _refuse_another(what, values, known, plan)
    if not dry:
        folder.note(wanted)
    code = run_plan(plan, [*flags, *jobs], interrupts)
    if not dry:
        answer = answer_of(sweep)
        print("\n".join(confirmed_in_words(sweep.path, answer.cells, answer.confirmations, answer.analysis)))
    return code


def _stored(sweep: SweepFolder) -> dict[str, Any]:
    stored = sweep.read()
    if not stored:
        give = "give the folder of a sweep, as outputs/sweeps/<name>"
        raise UserError(f"sweep={sweep.path}: there is no {sweep.asked.name} in it; {give}")
    return stored


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"seeds={text}: must be a number of seeds, 2 or more")
    return int(text)


def _digests(values: Mapping[str, str], cells: Sequence[Cell], held: Mapping[str, str]) -> set[str]:
    """Of the cell with these values, by sweep.json; of older versions none."""
    return {held[row.job] for cell in cells if cell.values == values for row in cell.rows if row.job in held}


def _refuse_another(what: str, values: Mapping[str, str], known: Collection[str], plan: Plan) -> None:
    """Raises UserError where the planned jobs with these values are not of the one configuration that the sweep had."""
    planned = {job.cell for job in plan.jobs if have(job.values, values)}
    if len(planned) != 1 or (known and planned != set(known)):
        again = "give the sweep's commands again, the newest last, then confirm"
        raise UserError(f"{what}: {named(values)} does not stand for the configuration of its jobs any more; {again}")


def _fixed(
    arguments: Sequence[str], swept: Sequence[str], options: Sequence[str], *, launched: bool
) -> tuple[list[str], Asked]:
    """(the flags of the sweep's command, its arguments but for what is swept and which jobs it has).

    options: of swept groups, with which the rest can be composed. launched: another launcher is given, to which the
    sweep's own says nothing.
    """
    flags = read_flags(arguments)
    left_out = (*LEFT_OUT, *LAUNCHER) if launched else LEFT_OUT
    kept = [o for o in flags.overrides if _key(o) not in swept and not _key(o).startswith(left_out)]
    rest = list(arguments)
    for override in flags.overrides:
        rest.remove(override)
    asked = asked_of(flags)
    composable = [*(o for o in flags.overrides if of_sweep(o) or o in kept), *options]
    _, own = compose(replace(asked, overrides=composable))
    params = own.sweeper.params or {}
    fixed = [f"{key}={value}" for key, value in params.items() if key.lstrip("+") not in swept]
    return rest, replace(asked, overrides=[*fixed, *kept, "hydra.sweeper.params=null"])


def _key(override: str) -> str:
    return str(parse(override).get_key_element().lstrip("+~"))


def _cells(cells: Sequence[Mapping[str, str]]) -> str:
    """sweep.cells= of these; ++ also adds a key that the configuration has not, and Hydra takes no experiment=null."""
    signed = [
        [f"{'' if key in groups() else '++'}{key}: {value}" for key, value in cell.items() if not _is_none(key, value)]
        for cell in cells
    ]
    return f"sweep.cells=[{','.join('{' + ','.join(cell) + '}' for cell in signed)}]"


def _is_none(key: str, value: str) -> bool:
    """Whether it says that a group has no option."""
    return key in groups() and value == "null"


def _in_order(cells: Sequence[Cell], rows: Sequence[Any]) -> list[Cell]:
    """As the sweep's commands asked for them."""
    place = {id(row): at for at, row in enumerate(rows)}
    return sorted(cells, key=lambda cell: min(place[id(row)] for row in cell.rows))


def _default(asked: Asked, cells: Sequence[dict[str, str]]) -> dict[str, str]:
    """The cell that has the values of the configuration, else the first."""
    with suppress(UserError):  # a fixed argument may need a swept option
        composed, own = compose(asked)
        for cell in cells:
            if all(_same(key, written, composed, own.runtime.choices) for key, written in cell.items()):
                return cell
    say(f"no cell has the configuration's own values; the sweep's first is {named(cells[0])}")
    return cells[0]


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
    each = re.split(rf"\s+(?=(?:{keys})=)", text.strip())  # values may have spaces
    words = dict(word.partition("=")[::2] for word in each)
    found = [cell for cell in cells if have(cell.values, words)]
    if len(found) != 1:
        listed = "; ".join(f"'{named(cell.values)}'" for cell in (found or cells)[:3])
        what_is = f"{len(found)} cells have these values" if found else "no cell with a score has these values"
        raise UserError(f"{what}={text}: {what_is}; there are {listed}{' ...' if len(found or cells) > 3 else ''}")
    return dict(found[0].values)
