"""Scores a run again from its folder, to the last digit.   python -m s9.evaluate run=outputs/..."""

import sys
from pathlib import Path

from s9 import command_line
from s9.errors import UserError

USAGE = """python -m s9.evaluate run=outputs/<date>/<time>-<suffix> [weights=final|best] [split=test|val]
                      [precision=auto|float32|bfloat16]

Loads the run's configuration, data and weights and scores them; changes nothing in the folder.
On the machine that trained it, the final weights give the numbers of summary.json to the last digit. Another processor
or precision rounds differently, and that is said; precision=float32 on both machines comes nearest to the same.
precision=auto: as the run was trained, where this machine can.
Exit code 1: other numbers on the same machine and in the same precision; 2: it cannot be scored."""

ALLOWED = {"weights": ("final", "best"), "split": ("test", "val"), "precision": ("auto", "float32", "bfloat16")}


def main(arguments: list[str]) -> None:
    defaults = {"run": None} | {key: allowed[0] for key, allowed in ALLOWED.items()}
    given = command_line.key_values(arguments, defaults, USAGE)
    for key, allowed in ALLOWED.items():
        if given[key] not in allowed:
            raise UserError(f"{key}={given[key]}: must be {' or '.join(allowed)}")
    folder, split, weights = Path(given["run"]), given["split"], given["weights"]

    from s9 import runtime
    from s9.data import sources
    from s9.data.image_set import in_short
    from s9.models.precision import guard_bfloat16
    from s9.models.s9net import S9Net
    from s9.tracking import comparison, record
    from s9.training.evaluation import score_with_flip
    from s9.training.weights import load_weights

    config, known = record.read_config(folder), record.read_images(folder)
    device = runtime.pick_device(config.trainer.device)
    as_trained = config.trainer.precision if runtime.has_real_bfloat16(device) else "float32"
    wanted = as_trained if given["precision"] == "auto" else given["precision"]
    precision = runtime.pick_precision(wanted, device, "precision")
    data = sources.load(config.data, config.seed)
    changes = known.changes(data.facts) if known else []
    data = data.as_known_to(known) if known else data
    images = data.test if split == "test" else data.val
    if not len(images):
        raise UserError(f"split={split}: this run held none out (data.val_size=0)")
    model = S9Net(config.model, len(data.class_names), data.image_size)
    load_weights(model, folder / (record.FINAL if weights == "final" else record.BEST))
    guard_bfloat16(model, data.image_size, device, precision)
    model.to(device)
    scores, _ = score_with_flip(model, images, data, device, precision)

    arithmetic = runtime.describe_arithmetic(precision)
    print(f"{folder}: {weights} weights on {data.variant}, {split}, in {arithmetic['precision']}")
    for key in ("accuracy", "accuracy_flip", "loss"):
        print(f"{split}/{key:<14} {scores[key]!r}")
    if not known:
        print("which images this run was trained on is not recorded, as in runs of before November 2026")
    if changes:
        print(f"these are not the images of the run: {in_short(changes)}; not compared with summary.json")
    elif weights == "final" and (folder / record.SUMMARY).exists():
        machine = runtime.describe_machine(device) | arithmetic
        lines, unexplained = comparison.compared(record.read_summary(folder), scores, split, machine)
        print("\n".join(lines))
        if unexplained:
            sys.exit(1)


if __name__ == "__main__":
    command_line.open_door(main)
