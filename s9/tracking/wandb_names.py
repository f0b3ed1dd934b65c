"""What tells the runs of a sweep apart in W&B: a name and string labels, both made of the swept keys and values."""

from collections.abc import Collection, Mapping

LONGEST_NAME, LONGEST_TAG = 128, 64  # characters: the limits of W&B's server and of wandb.init
LABELS = "swept"  # the key of the labels in W&B's configuration


def short_keys(keys: Collection[str]) -> dict[str, str]:
    """From each key to its last parts, as few as tell it from the others: model.dropout becomes dropout."""
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [f".{other}" for other in keys if other != key]
        found[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return found


def name_of(swept: Mapping[str, str], before: str | None, job: str) -> str:
    """`dropout=0.1 lr=0.03 seed=2`, after the name that the user has given to all runs, if any.

    Args:
        job: ends a name that is too long for W&B, so that the name stays the only one of its kind.
    """
    short = short_keys(swept)
    words = [*filter(None, [before]), *(f"{short[key]}={value}" for key, value in swept.items() if key != "name")]
    name = " ".join(" ".join(words).split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - len(job) - 4]}... {job}"


def labels_of(swept: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The swept values as text for W&B's configuration, since W&B groups by a number such as 0.003 wrongly."""
    return {LABELS: {label_of(key): value for key, value in swept.items()}} if swept else {}


def label_of(key: str) -> str:
    """model_dropout for model.dropout, since W&B takes a dot in a key for one mapping inside another."""
    return key.replace(".", "_")


def tags_of(own: Collection[str], sweep: str) -> list[str]:
    return list(dict.fromkeys([*own, sweep[:LONGEST_TAG]]))
