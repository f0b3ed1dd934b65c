"""All rules of the assignment, judged: what holds, what is broken, and what a model breaks on purpose."""

from s9.assignment.augmentation import augmentation_rules
from s9.assignment.network import model_rules
from s9.config.schema import Config
from s9.data.image_set import ImageFacts
from s9.models.analysis import ModelFacts
from s9.system.errors import UserError, nearest


def judged(config: Config, images: ImageFacts, facts: ModelFacts, *, whole: bool) -> tuple[list[str], int]:
    """(lines to print, number of rules that are broken and not named as a known weak point).

    Args:
        whole: one line per rule; else one line says how many hold.

    Raises:
        UserError: the model's file names a known weak point that is not a rule.
    """
    rules = model_rules(config.model, facts) + augmentation_rules(config.aug, images)
    weak = config.model.known_weak_points
    for name in weak:
        if name not in [rule.name for rule in rules]:
            close = nearest(name, [rule.name for rule in rules])
            raise UserError(f"model.known_weak_points.{name}: there is no such rule{close}")
    words = ["pass" if rule.holds else "known" if rule.name in weak else "FAIL" for rule in rules]
    counts = {word: words.count(word) for word in ("pass", "known", "FAIL")}
    total = f"{counts['pass']} hold, {counts['known']} known weak points, {counts['FAIL']} broken"
    if not whole:
        return [f"the assignment's {len(rules)} rules: {total} (rules=assignment lists them)"], counts["FAIL"]
    lines = []
    for word, rule in zip(words, rules, strict=True):
        lines.append(f"{word:<6}{rule.name:<20}{rule.demand}: {rule.measured}")
        lines += [f"{'':<26}known weak point: {weak[rule.name]}"] if word == "known" else []
    return [*lines, f"{len(rules)} rules: {total}"], counts["FAIL"]
