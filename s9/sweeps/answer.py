"""A sweep's answer in words: what makes a difference, which cells cannot be told apart, and what is not known."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s9.sweeps.analysis import Analysis, Difference, Effect, Interaction, Sample
from s9.sweeps.confirmation import Confirmation, ConfirmationFolder
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.power import seeds_needed
from s9.sweeps.statistics import ALPHA_INTERACTIONS, analyse
from s9.sweeps.table import SEED, Cell, Row, cells_of, warn_mixed

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
    confirmation: Confirmation | None


def answer_of(folder: SweepFolder) -> Answer:
    """Reads how the sweep's jobs stand and says what follows; by val, and never by test."""
    stored = folder.read()
    swept, rows = folder.rows()
    cells = cells_of(swept, rows)
    keys = [key for key in swept if key != SEED and len({cell.values.get(key, "") for cell in cells if cell.n}) > 1]
    samples = [Sample(tuple(cell.values.get(key, "") for key in keys), _by_seed(cell)) for cell in cells]
    analysis = analyse(keys, samples, paired=bool(stored.get("paired")))
    confirmation = ConfirmationFolder(folder.path).confirmation()
    told = [
        headline(keys, cells, analysis),
        *(effect_in_words(effect, len(analysis.effects)) for effect in analysis.effects),
        *interactions_in_words(analysis),
        *cells_in_words(cells, analysis),
        *confirmed_in_words(folder.path, cells, confirmation),
        *seeds_in_words(cells, analysis),
    ]
    return Answer(
        keys=keys,
        cells=cells,
        rows=rows,
        analysis=analysis,
        sentences=told,
        warnings=warnings(cells, rows, analysis),
        confirmation=confirmation,
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
        return f"No difference can be told from chance, between values of {_listed(keys)} or between cells."
    if not matter and analysis.together:
        return f"Cells differ, but values of {_listed(keys)} occur only together: which key matters cannot be told."
    if not matter:
        return "Keys act together: no key makes a difference by itself, but combinations of their values do."
    rest = [effect.key for effect in analysis.effects if not effect.differs]
    makes = "makes a difference" if len(matter) == 1 else "make a difference"
    none = f"; of {_listed(rest)} no difference can be told" if rest else ""
    return f"{_listed(matter)} {makes}{none}."


def effect_in_words(effect: Effect, keys: int) -> str:
    """One sentence on one key: the best value, which values are below it and by how much."""
    if effect.p is None:
        return f"{effect.key}: its values occur only together with values of another key, so its effect cannot be told."
    best = max((level for level in effect.levels if level.mean is not None), key=lambda level: level.mean or 0)
    against = [_seen_from(best.value, d) for d in effect.differences if best.value in (d.first, d.second)]
    holm = f" by Holm over {keys} keys" if keys > 1 else ""
    sure = f"{100 * effect.confidence:.3g} % interval"
    if not effect.differs:
        widest = max(effect.differences, key=lambda d: abs(d.mean))
        seen = widest if widest.mean >= 0 else _seen_from(widest.second, widest)
        return (
            f"{effect.key}: no difference can be told ({_p(effect.p)}{holm}); the largest, {seen.first} against "
            f"{seen.second}, is {_points(seen)}; {sure} {_interval(seen)}."
        )
    below = [f"{d.second} is {_points(d)} below ({_interval(d)})" for d in against if d.low > 0]
    alike = [d.second for d in against if d.low <= 0]
    told = [*below, f"{_listed(alike)} cannot be told from {best.value}"] if alike else below
    where = "" if below else "; values below the best differ from each other"
    return (
        f"{effect.key} makes a difference ({_p(effect.p)}{holm}): {best.value} has the highest mean, "
        f"val {points(best.mean)} %; {'; '.join(told)}{where} ({sure}s)."
    )


def interactions_in_words(analysis: Analysis) -> list[str]:
    if analysis.sd is None or len(analysis.effects) < 2:
        return []
    found: list[Interaction] = [one for one in analysis.interactions if one.differs]
    if found:
        pairs = _listed([f"{one.keys[0]} with {one.keys[1]}" for one in found])
        return [f"Interaction: {pairs}. The best value of one depends on the other, so read cells, not single keys."]
    if not analysis.interactions:
        return ["Whether keys act together cannot be tested: their values do not occur in enough combinations."]
    least = min(one.p for one in analysis.interactions)
    tested = f"the least {_p(least)} by Holm, tested at {100 * ALPHA_INTERACTIONS:.0f} %"
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


def confirmed_in_words(path: Path, cells: Sequence[Cell], confirmation: Confirmation | None) -> list[str]:
    """What fresh seeds say, or the command that asks them."""
    if sum(cell.n > 0 for cell in cells) < 2:
        return []
    command = f"python -m s9.confirm {shlex.quote(f'sweep={path}')} seeds=8"
    if confirmation is None:
        return [f"The best mean is too high, since it was chosen by it. To measure it without bias: {command}"]
    asked, difference = confirmation.asked, confirmation.difference
    pair = f"{named(asked.best)} against {named(asked.baseline)}"
    if confirmation.whole and difference is None:
        return [f"Confirmation of {pair}: all {len(asked.seeds)} fresh seeds score the same, so nothing can be told."]
    if difference is None or not confirmation.whole:
        lacking = f"{confirmation.n[0]} and {confirmation.n[1]} of {len(asked.seeds)} fresh seeds are done"
        return [f"Confirmation of {pair}: {lacking}; go on with: {command[:-1]}{len(asked.seeds)}"]
    real = difference.low > 0 or difference.high < 0
    verdict = "the difference is real on this split" if real else "the difference cannot be told from chance"
    said = [
        f"Confirmed on {len(asked.seeds)} fresh seeds each, the only unbiased number here: {pair} is "
        f"{_signed(difference)} (95 % interval {_interval(difference)}, {_p(difference.p or 0)}): {verdict}."
    ]
    if len(asked.counts) > 1:
        counts = " to ".join(map(str, asked.counts))
        said.append(f"The number of fresh seeds was raised from {counts}, so the interval is somewhat too narrow.")
    best = next((cell for cell in cells if cell.n), None)
    if best is not None and dict(best.values) != asked.best:
        said.append(f"The sweep's best mean is now another cell, {named(best.values)}; {command} confirms it.")
    return said


def seeds_in_words(cells: Sequence[Cell], analysis: Analysis) -> list[str]:
    """The spread of seeds, and how many seeds it takes to see half a point."""
    if analysis.sd is None or not analysis.sd_low or not analysis.sd_high:
        if any(cell.n for cell in cells) and analysis.df == 0:
            return ["Give several seeds, as in seed=0,1,2: only the spread between seeds says what is chance."]
        return []
    need, least, most = (seeds_needed(sd, GAP) for sd in (analysis.sd, analysis.sd_low, analysis.sd_high))
    said = [
        f"Seeds of one cell differ by {points(analysis.sd)} points (standard deviation over {analysis.df} degrees of "
        f"freedom). To see half a point between two cells in 80 of 100 cases takes {need} seeds of each "
        f"({least} to {most}, as the spread itself is known to {points(analysis.sd_low)} to "
        f"{points(analysis.sd_high)})."
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


def named(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items()) or "the only cell"


def points(value: float | None) -> str:
    """A fraction in percent or points."""
    return "" if value is None else f"{100 * value:.2f}"


def _points(difference: Difference) -> str:
    return f"{points(abs(difference.mean))} points"


def _signed(difference: Difference) -> str:
    return f"{_points(difference)} {'higher' if difference.mean >= 0 else 'lower'}"


def _interval(difference: Difference) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def _seen_from(value: str, difference: Difference) -> Difference:
    if difference.first == value:
        return difference
    d = difference
    return Difference(d.second, d.first, mean=-d.mean, low=-d.high, high=-d.low, p=d.p)


def _p(p: float) -> str:
    return "p below 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
