"""Scores a run again from its folder, to the last digit.   python -m s9.evaluate run=outputs/..."""

import sys
from pathlib import Path

from s9 import command_line
from s9.errors import UserError

USAGE = """python -m s9.evaluate run=outputs/<date>/<time>-<suffix> [weights=final|best] [split=test|val]

Loads the run's configuration, data and weights and scores them; changes nothing in the folder.
On the machine that trained it, the final weights give the numbers of summary.json to the last digit."""


def main(arguments: list[str]) -> None:
    given = command_line.key_values(arguments, {"run": None, "weights": "final", "split": "test"}, USAGE)
    for key, allowed in (("weights", ("final", "best")), ("split", ("test", "val"))):
        if given[key] not in allowed:
            raise UserError(f"{key}={given[key]}: must be {' or '.join(allowed)}")
    folder = Path(given["run"])

    from s9 import runtime
    from s9.data import sources
    from s9.models.precision import guard_bfloat16
    from s9.models.s9net import S9Net
    from s9.tracking import record
    from s9.training.evaluation import score_with_flip
    from s9.training.weights import load_weights

    config = record.read_config(folder)
    device = runtime.pick_device(config.trainer.device)
    precision = runtime.pick_precision(config.trainer.precision, device)
    data = sources.load(config.data, config.seed)
    split = data.test if given["split"] == "test" else data.val
    if not len(split):
        raise UserError(f"split={given['split']}: this run held none out (data.val_size=0)")
    model = S9Net(config.model, len(data.class_names), data.image_size)
    load_weights(model, folder / (record.FINAL if given["weights"] == "final" else record.BEST))
    guard_bfloat16(model, data.image_size, device, precision)
    model.to(device)
    scores, _ = score_with_flip(model, split, data, device, precision)

    print(f"{folder}: {given['weights']} weights on {data.variant}, {given['split']}")
    for key in ("accuracy", "accuracy_flip", "loss"):
        print(f"{given['split']}/{key:<14} {scores[key]!r}")
    if given["weights"] == "final" and (folder / record.SUMMARY).exists():
        stored = record.read_summary(folder).get(given["split"], {})
        differing = [key for key in stored if stored[key] != scores[key]]
        print(
            "the same as in summary.json" if not differing else f"differs from summary.json in {', '.join(differing)}"
        )
        if differing:
            sys.exit(1)


if __name__ == "__main__":
    command_line.open_door(main)
