"""Prints the layer table and how many of the assignment's rules hold.   python -m s9.check model=dilated aug=full"""

from s9.cli.door import open_door
from s9.system.errors import UserError

USAGE = """python -m s9.check [model=...] [aug=...] [data=...] [rules=assignment] [key=value ...]

Prints the layer table with its totals, and how many of the assignment's rules hold; trains nothing.
rules=assignment lists and judges each rule of the assignment that s9 began with.
Exit code 0; 1: rules=assignment, and one is broken that the model's file does not name as a known weak point;
2: the configuration is not valid."""

RULES = "rules="


def main(arguments: list[str]) -> int:
    from s9.assignment.judge import judged
    from s9.cli.compose import compose_config
    from s9.data.sources.load import image_facts
    from s9.models.analysis import model_facts, table_lines

    asked = [a.removeprefix(RULES) for a in arguments if a.startswith(RULES)]
    if asked not in ([], ["assignment"]):
        raise UserError(f"{RULES}{asked[-1]}: must be assignment, once")
    config = compose_config([a for a in arguments if not a.startswith(RULES)])
    images = image_facts(config.data, config.seed)
    facts = model_facts(config.model, images)
    print("\n".join(table_lines(facts, images.image_size)))
    lines, broken = judged(config, images, facts, whole=bool(asked))
    print(f"\nmodel={config.model.name} aug={config.aug.name}")
    print("\n".join(lines))
    return 1 if asked and broken else 0


if __name__ == "__main__":
    open_door(main, USAGE)
