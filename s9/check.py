"""The layer table, then each rule of the assignment with what was measured.   python -m s9.check model=dilated aug=full

Exit code 1 where a rule is broken that the configuration does not name as a known weak point.
"""

import sys

from s9 import command_line
from s9.config import Config
from s9.errors import UserError, nearest
from s9.models.analysis import Rule, model_facts, model_rules, table_lines
from s9.models.augmentation_rules import augmentation_rules

USAGE = """python -m s9.check [model=...] [aug=...] [data=...] [key=value ...]

Prints the layer table and the rules of the assignment; trains nothing.
Exit code 0: all hold; 1: one is broken; 2: the configuration is not valid."""


def main(arguments: list[str]) -> None:
    if any(a in ("-h", "--help") for a in arguments):
        print(USAGE)
        return
    config = command_line.compose_config(arguments)
    num_classes, image_size, mean, std = data_facts(config)
    facts = model_facts(config.model, num_classes, image_size)
    print("\n".join(table_lines(facts, image_size)))
    rules = model_rules(config.model, num_classes, image_size) + augmentation_rules(config.aug, mean, std, image_size)
    print(f"\nmodel={config.model.name} aug={config.aug.name}")
    weak = config.model.known_weak_points
    for name in weak:
        if name not in [rule.name for rule in rules]:
            raise UserError(
                f"model.known_weak_points.{name}: there is no such rule{nearest(name, [r.name for r in rules])}"
            )
    words = [verdict(rule, weak) for rule in rules]
    counts = {word: words.count(word) for word in ("pass", "known", "FAIL")}
    print(f"{len(rules)} rules: {counts['pass']} hold, {counts['known']} known weak points, {counts['FAIL']} broken")
    if "FAIL" in words:
        sys.exit(1)


def data_facts(config: Config) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
    """(num_classes, image_size, mean, std): CIFAR-10's are known without its images, others are loaded."""
    if config.data.name == "cifar10":
        from s9.data.cifar10 import CLASS_NAMES, MEAN, STD

        return len(CLASS_NAMES), 32, MEAN, STD
    from s9.data.sources import load

    data = load(config.data, config.seed)
    return len(data.class_names), data.image_size, data.mean, data.std


def verdict(rule: Rule, known_weak_points: dict[str, str]) -> str:
    """Prints the rule's line; `pass`, `known` (broken, and named as such in the model's file) or `FAIL`."""
    word = "pass" if rule.holds else "known" if rule.name in known_weak_points else "FAIL"
    print(f"{word:<6}{rule.name:<20}{rule.demand}: {rule.measured}")
    if word == "known":
        print(f"{'':<26}known weak point: {known_weak_points[rule.name]}")
    return word


if __name__ == "__main__":
    command_line.open_door(main)
