"""Scores a run again from its folder, to the last digit.   python -m s9.evaluate run=outputs/..."""

from pathlib import Path

from s9.cli.door import key_values, open_door, refuse_unknown

USAGE = """python -m s9.evaluate run=outputs/<date>/<time>-<suffix> [weights=final|best] [split=test|val]
                      [precision=auto|float32|bfloat16]

Loads the run's configuration, data and weights and scores them; changes nothing in the folder.
On the machine that trained it, the final weights give the numbers of summary.json to the last digit. Another processor
or precision rounds differently, and that is said; precision=float32 on both machines comes nearest to the same.
precision=auto: as the run was trained, where this machine can.
Exit code 1: other numbers on the same machine and in the same precision; 2: it cannot be scored."""

ALLOWED = {"weights": ("final", "best"), "split": ("test", "val"), "precision": ("auto", "float32", "bfloat16")}


def main(arguments: list[str]) -> int:
    given = key_values(arguments, {"run": None} | {key: allowed[0] for key, allowed in ALLOWED.items()}, USAGE)
    refuse_unknown(given, ALLOWED)

    from s9.runs.trained import score_again

    how = {key: given[key] for key in ALLOWED}
    lines, unexplained = score_again(Path(given["run"]), **how)
    print("\n".join(lines))
    return 1 if unexplained else 0


if __name__ == "__main__":
    open_door(main, USAGE)
