"""A sweep's answer in words: what makes a difference, which cells cannot be told apart, and what is not known."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from s9.sweeps.analysis import Analysis, Effect, Interaction, Sample
from s9.sweeps.confirmation import Confirmation, ConfirmationFolder
from s9.sweeps.confirmed import confirmed_in_words
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.power import seeds_needed
from s9.sweeps.statistics import ALPHA_INTERACTIONS, analyse
from s9.sweeps.table import SEED, Cell, Row, cells_of, warn_mixed
from s9.sweeps.words import count_of, interval_of, listed, named, p_of, points, seen_from, size_of

GAP = 0.005  # half a point, for the number of seeds that a comparison needs


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
        *confirmed_in_words(folder.path, cells, confirmations, analysis),
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
        return f"Whether anything differs cannot be told: {without_spread(scored, analysis)}."
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


def without_spread(scored: Sequence[Cell], analysis: Analysis) -> str:
    """Why there is no standard deviation."""
    if analysis.df:
        same = "each seed shifts all cells alike" if analysis.paired else "all seeds of a cell score the same"
        return f"{same}, so nothing says what is chance"
    if all(cell.n == 1 for cell in scored):
        return "every cell has one seed"
    return "sweep.paired=true compares cells that have the same seeds, and too few have"


def effect_in_words(effect: Effect, keys: int) -> str:
    """One sentence on one key: the best value, which values are below it and by how much."""
    if effect.p is None:
        return f"{effect.key}: its values occur only together with values of another key, so its effect cannot be told."
    holm = f" by Holm over {keys} keys" if keys > 1 else ""
    sure = f"{100 * effect.confidence:.3g} % interval"
    widest = max(effect.differences, key=lambda d: abs(d.mean))
    seen = widest if widest.mean >= 0 else seen_from(widest.second, widest)
    if not effect.differs:
        return (
            f"{effect.key}: no difference can be told ({p_of(effect.p)}{holm}); the largest, {seen.first} against "
            f"{seen.second}, is {size_of(seen)}; {sure} {interval_of(seen)}."
        )
    levels = [level for level in effect.levels if level.mean is not None]
    if not levels:
        return (
            f"{effect.key} makes a difference ({p_of(effect.p)}{holm}): {seen.first} is {size_of(seen)} above "
            f"{seen.second} ({sure} {interval_of(seen)}); other values occur only together with values of another key."
        )
    best = max(levels, key=lambda level: level.mean or 0)
    against = [seen_from(best.value, d) for d in effect.differences if best.value in (d.first, d.second)]
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
    first = cells[analysis.best or 0]
    what = "the best mean" if first is scored[0] else "the cell that is best on equal seeds"  # seeds were taken out
    like, best = sum(analysis.like_best), f"{what}, val {points(first.mean)} % ({named(first.values)})"
    if like == len(scored):
        return [f"None of the {len(scored)} cells can be told from {best}."]
    told = f"{len(scored) - like} of the {len(scored)} cells are below {best}"
    rest = f"; {like - 1} cannot be told from it" if like > 1 else ""
    return [f"{told}{rest} (Tukey and Kramer, 95 % for all cells together)."]


def seeds_in_words(cells: Sequence[Cell], analysis: Analysis) -> list[str]:
    """The spread of seeds, and how many seeds it takes to see half a point."""
    if analysis.sd is None or not analysis.sd_low or not analysis.sd_high:
        if any(cell.n for cell in cells) and analysis.df == 0:
            who = "all cells the same seeds" if analysis.paired else "several seeds"
            return [f"Give {who}, as in seed=0,1,2: only the spread between seeds says what is chance."]
        return []
    need, least, most = (seeds_needed(sd, GAP) for sd in (analysis.sd, analysis.sd_low, analysis.sd_high))
    less = ", less what all cells of a seed have in common," if analysis.paired else ""
    said = [
        f"The standard deviation between seeds of one cell{less} is {points(analysis.sd)} points ({analysis.df} "
        f"degrees of freedom; 95 % interval {points(analysis.sd_low)} to {points(analysis.sd_high)}). To see half a "
        f"point between two cells in 80 of 100 cases takes {count_of(need)} seeds of each ({count_of(least)} to "
        f"{count_of(most)})."
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
    if analysis.uneven is not None:
        which = named(cells[analysis.uneven].values)
        said.append(f"The seeds of {which} spread far more than the others': one spread for all cells is doubtful.")
    outside = [lead for lead in analysis.leads if lead is not None and lead.low > 0]
    if outside and not analysis.declared:
        said.append("Some cells' intervals leave out 0, but the keys were tested first, and none of them differs.")
    said += [f"{line}." for line in warn_mixed(rows)]
    if any(cell.n for cell in cells):
        said.append(
            "All of this holds on this split: one set of val images; other val images may rank cells otherwise."
        )
    return said
