"""What fresh seeds say of a sweep's best cell, in words."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from s9.sweeps.analysis import Analysis
from s9.sweeps.confirmation import Confirmation, command_of, confirms
from s9.sweeps.table import SEED, Cell
from s9.sweeps.values import mean_the_same
from s9.sweeps.words import interval_of, named, p_of, signed


def confirmed_in_words(
    path: Path, cells: Sequence[Cell], confirmations: Sequence[Confirmation], analysis: Analysis
) -> list[str]:
    """What fresh seeds say, the newest confirmation first, or the command that asks them."""
    if sum(cell.n > 0 for cell in cells) < 2:
        return []
    if (sweep := confirms(path)) is not None:
        shows = f"python -m s9.report {shlex.quote(f'sweep={sweep}')}"
        return [f"These are fresh seeds, which confirm another sweep: {shows} shows what they say."]
    former = sum(one.former for one in confirmations)
    confirmations = [one for one in confirmations if not one.former]
    said = [line for confirmation in reversed(confirmations) for line in _confirmed(path, confirmation)]
    if former:
        said.append(f"Confirmations of cells that this sweep no longer has are left out: {former}.")
    if not confirmations:
        why = "The best cell's mean is too high, because the cell was chosen for it"
        return [*said, f"{why}. To measure the cell without bias: {command_of(path)}"]
    if len(confirmations) > 1:
        said.append(f"{len(confirmations)} confirmations were made; each interval is 95 % by itself.")
    used = {row.values.get(SEED) for cell in cells for row in cell.rows}
    if both := sorted({seed for one in confirmations for seed in one.asked.seeds if str(seed) in used}):
        seeds = ", ".join(map(str, both))
        said.append(f"The sweep has seeds of a confirmation by now ({seeds}): they no longer count as fresh for it.")
    best = cells[analysis.best or 0]
    if not any(mean_the_same(best.values, one.asked.best) for one in confirmations):
        said.append(f"The best mean is now that of another cell, {named(best.values)}: {command_of(path)}")
    return said


def _confirmed(path: Path, confirmation: Confirmation) -> list[str]:
    asked, difference = confirmation.asked, confirmation.difference
    pair, count = f"{named(asked.best)} against {named(asked.baseline)}", len(asked.seeds)
    if not confirmation.whole:
        lacking = f"{confirmation.n[0]} and {confirmation.n[1]} of {count} fresh seeds are done"
        return [f"Confirmation of {pair}: {lacking}; go on with: {command_of(path, asked)}"]
    if difference is None:
        same = "each seed shows the same difference" if asked.paired else "the seeds of a cell all score the same"
        return [f"Confirmation of {pair}: {same}, so nothing says what is chance."]
    real = difference.low > 0 or difference.high < 0
    verdict = "the difference is real on this split" if real else "the difference cannot be told from chance"
    said = [
        f"Confirmed on {count} fresh seeds each, without bias: {pair} is {signed(difference)} "
        f"(95 % interval {interval_of(difference)}, {p_of(difference.p or 0)}): {verdict}."
    ]
    if len(asked.counts) > 1:
        counts = " to ".join(map(str, asked.counts))
        said.append(f"The number of fresh seeds was raised from {counts}, so the interval is somewhat too narrow.")
    return said
