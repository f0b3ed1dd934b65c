"""A sweep's answer in words: what makes a difference, which cells cannot be told apart, and what is not known."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s9.sweeps.analysis import Analysis, Effect, Interaction, Sample
from s9.sweeps.confirmation import Confirmation, ConfirmationFolder, command_of, confirms
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.power import seeds_needed
from s9.sweeps.statistics import ALPHA_INTERACTIONS, analyse
from s9.sweeps.table import SEED, Cell, Row, cells_of, warn_mixed
from s9.sweeps.words import count_of, interval_of, listed, named, p_of, points, seen_from, signed, size_of

GAP = 0.005  # half a point, for the number of seeds that a comparison needs
UNEVEN = 3.0  # ratio of cells' standard deviations from which one spread for all is doubtful


@dataclass(frozen=True)
class Answer:
    """keys: swept keys with several values, without the seed. cells: the best mean first; sentences: headline first."""

    keys: list[str]
    cells: list[Cell]
    rows: list[Row]
    analysis: Analysis
    sentences: list[str]
    warnings: list[str]
    confirmations: list[Confirmation]


def answer_of(folder: SweepFolder) -> Answer:
    """Reads how the sweep's jobs stand and says what follows; by val, and never by test."""
    stored = folder.read()
    swept, rows = folder.rows()
    cells = cells_of(swept, rows)
    keys = [key for key in swept if key != SEED and len({cell.values.get(key, "") for cell in cells if cell.n}) > 1]
    samples = [Sample(tuple(cell.values.get(key, "") for key in keys), _by_seed(cell)) for cell in cells]
    analysis = analyse(keys, samples, paired=bool(stored.get("paired")))
    confirmations = ConfirmationFolder(folder.path).confirmations()
    told = [
        headline(keys, cells, analysis),
        *(effect_in_words(effect, len(analysis.effects)) for effect in analysis.effects),
        *interactions_in_words(analysis),
        *cells_in_words(cells, analysis),
        *confirmed_in_words(folder.path, cells, confirmations),
        *seeds_in_words(cells, analysis),
    ]
    return Answer(
        keys=keys,
        cells=cells,
        rows=rows,
        analysis=analysis,
        sentences=told,
        warnings=warnings(cells, rows, analysis),
        confirmations=confirmations,
    )


def _by_seed(cell: Cell) -> dict[str, float]:
    return {row.values.get(SEED, row.job): row.score for row in cell.rows if row.score is not None}


def headline(keys: Sequence[str], cells: Sequence[Cell], analysis: Analysis) -> str:
    scored = [cell for cell in cells if cell.n]
    if not scored:
        return "No job has a score yet."
    if len(scored) == 1:
        return f"One cell has a score: val {points(scored[0].mean)} %. There is nothing to compare it with."
    if analysis.sd is None:
        if analysis.df:
            return "Whether anything differs cannot be told: all seeds of a cell score the same."
        return "Whether anything differs cannot be told: every cell has one seed."
    matter = [effect.key for effect in analysis.effects if effect.differs]
    if not analysis.declared:
        return f"No difference between values of {listed(keys)} can be told from chance."
    if not matter and analysis.together:
        return f"Cells differ, but values of {listed(keys)} occur only together: which key matters cannot be told."
    if not matter:
        return "Keys act together: no key makes a difference by itself, but combinations of their values do."
    rest = [effect.key for effect in analysis.effects if not effect.differs]
    makes = "makes a difference" if len(matter) == 1 else "make a difference"
    none = f"; of {listed(rest)} no difference can be told" if rest else ""
    return f"{listed(matter)} {makes}{none}."


def effect_in_words(effect: Effect, keys: int) -> str:
    """One sentence on one key: the best value, which values are below it and by how much."""
    if effect.p is None:
        return f"{effect.key}: its values occur only together with values of another key, so its effect cannot be told."
    best = max((level for level in effect.levels if level.mean is not None), key=lambda level: level.mean or 0)
    against = [seen_from(best.value, d) for d in effect.differences if best.value in (d.first, d.second)]
    holm = f" by Holm over {keys} keys" if keys > 1 else ""
    sure = f"{100 * effect.confidence:.3g} % interval"
    if not effect.differs:
        widest = max(effect.differences, key=lambda d: abs(d.mean))
        seen = widest if widest.mean >= 0 else seen_from(widest.second, widest)
        return (
            f"{effect.key}: no difference can be told ({p_of(effect.p)}{holm}); the largest, {seen.first} against "
            f"{seen.second}, is {size_of(seen)}; {sure} {interval_of(seen)}."
        )
    below = [f"{d.second} is {size_of(d)} below ({interval_of(d)})" for d in against if d.low > 0]
    alike = [d.second for d in against if d.low <= 0]
    told = [*below, f"{listed(alike)} cannot be told from {best.value}"] if alike else below
    where = "" if below else "; values below the best differ from each other"
    return (
        f"{effect.key} makes a difference ({p_of(effect.p)}{holm}): {best.value} has the highest mean, "
        f"val {points(best.mean)} %; {'; '.join(told)}{where} ({sure}s)."
    )


def interactions_in_words(analysis: Analysis) -> list[str]:
    if analysis.sd is None or len(analysis.effects) < 2:
        return []
    found: list[Interaction] = [one for one in analysis.interactions if one.differs]
    if found:
        pairs = listed([f"{one.keys[0]} with {one.keys[1]}" for one in found])
        return [f"Interaction: {pairs}. The best value of one depends on the other, so read cells, not single keys."]
    if not analysis.interactions:
        return ["Whether keys act together cannot be tested: no two keys have values in enough combinations."]
    least = min(one.p for one in analysis.interactions)
    tested = f"the least {p_of(least)} by Holm, tested at {100 * ALPHA_INTERACTIONS:.0f} %"
    return [f"No interaction of two keys can be told ({tested}): each key is read by itself."]


def cells_in_words(cells: Sequence[Cell], analysis: Analysis) -> list[str]:
    """How many cells cannot be told from the best."""
    scored = [cell for cell in cells if cell.n]
    if analysis.sd is None or len(scored) < 2:
        return []
    like, best = sum(analysis.like_best), f"the best mean, val {points(scored[0].mean)} % ({named(scored[0].values)})"
    if like == len(scored):
        return [f"None of the {len(scored)} cells can be told from {best}."]
    told = f"{len(scored) - like} of the {len(scored)} cells are below {best}"
    rest = f"; {like - 1} cannot be told from it" if like > 1 else ""
    return [f"{told}{rest} (Tukey and Kramer, 95 % for all cells together)."]


def confirmed_in_words(path: Path, cells: Sequence[Cell], confirmations: Sequence[Confirmation]) -> list[str]:
    """What fresh seeds say, the newest confirmation first, or the command that asks them."""
    if sum(cell.n > 0 for cell in cells) < 2:
        return []
    if (sweep := confirms(path)) is not None:
        shows = f"python -m s9.report {shlex.quote(f'sweep={sweep}')}"
        return [f"These are fresh seeds, which confirm another sweep: {shows} shows what they say."]
    if not confirmations:
        why = "The best cell's mean is too high, because the cell was chosen for it"
        return [f"{why}. To measure the cell without bias: {command_of(path)}"]
    said = [line for confirmation in reversed(confirmations) for line in _confirmed(path, confirmation)]
    if len(confirmations) > 1:
        said.append(f"{len(confirmations)} confirmations were made; each interval is 95 % by itself.")
    used = {row.values.get(SEED) for cell in cells for row in cell.rows}
    if both := sorted({seed for one in confirmations for seed in one.asked.seeds if str(seed) in used}):
        seeds = ", ".join(map(str, both))
        said.append(f"The sweep has seeds of a confirmation by now ({seeds}): they no longer count as fresh for it.")
    best = next(cell for cell in cells if cell.n)
    if all(dict(best.values) != one.asked.best for one in confirmations):
        said.append(f"The best mean is now that of another cell, {named(best.values)}: {command_of(path)}")
    return said


def _confirmed(path: Path, confirmation: Confirmation) -> list[str]:
    asked, difference = confirmation.asked, confirmation.difference
    pair, count = f"{named(asked.best)} against {named(asked.baseline)}", len(asked.seeds)
    if not confirmation.whole:
        lacking = f"{confirmation.n[0]} and {confirmation.n[1]} of {count} fresh seeds are done"
        return [f"Confirmation of {pair}: {lacking}; go on with: {command_of(path, asked)}"]
    if difference is None:
        return [f"Confirmation of {pair}: all {count} fresh seeds score the same, so nothing can be told."]
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


def seeds_in_words(cells: Sequence[Cell], analysis: Analysis) -> list[str]:
    """The spread of seeds, and how many seeds it takes to see half a point."""
    if analysis.sd is None or not analysis.sd_low or not analysis.sd_high:
        if any(cell.n for cell in cells) and analysis.df == 0:
            return ["Give several seeds, as in seed=0,1,2: only the spread between seeds says what is chance."]
        return []
    need, least, most = (seeds_needed(sd, GAP) for sd in (analysis.sd, analysis.sd_low, analysis.sd_high))
    said = [
        f"The standard deviation between seeds of one cell is {points(analysis.sd)} points ({analysis.df} degrees of "
        f"freedom; 95 % interval {points(analysis.sd_low)} to {points(analysis.sd_high)}). To see half a point between "
        f"two cells in 80 of 100 cases takes {count_of(need)} seeds of each ({count_of(least)} to {count_of(most)})."
    ]
    if analysis.correlation is not None:
        how = "was declared and is used" if analysis.paired else "was not declared (sweep.paired=true) and is not used"
        said.append(f"Cells with the same seed correlate by {analysis.correlation:.2f}; pairing by seed {how}.")
    return said


def warnings(cells: Sequence[Cell], rows: Sequence[Row], analysis: Analysis) -> list[str]:
    """What limits the answer."""
    said = []
    lacking = Counter(row.state for row in rows if row.score is None)
    if lacking:
        states = ", ".join(f"{n} {'without a score' if state == 'done' else state}" for state, n in lacking.items())
        said.append(f"{lacking.total()} of {len(rows)} jobs have no score ({states}): the answer is of the others.")
    counts = {cell.n for cell in cells if cell.n}
    if len(counts) > 1:
        said.append(
            f"Cells have {min(counts)} to {max(counts)} seeds: means of keys are adjusted by an additive model."
        )
    if single := sum(cell.n == 1 for cell in cells) if analysis.sd is not None else 0:
        have = "cell has one seed; its spread is" if single == 1 else "cells have one seed; their spread is"
        said.append(f"{single} {have} taken from the other cells.")
    spreads = [cell.sd for cell in cells if cell.sd]
    if analysis.sd is not None and spreads and max(spreads) > UNEVEN * analysis.sd:
        said.append("One cell's seeds spread far more than the others': one spread for all cells is doubtful.")
    outside = [lead for lead in analysis.leads if lead is not None and lead.low > 0]
    if outside and not analysis.declared:
        said.append("Some cells' intervals leave out 0, but the keys were tested first, and none of them differs.")
    said += [f"{line}." for line in warn_mixed(rows)]
    if any(cell.n for cell in cells):
        said.append(
            "All of this holds on this split: one set of val images; other val images may rank cells otherwise."
        )
    return said
