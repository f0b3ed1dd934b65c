"""Scores a trained network: on its run's images to the last digit, or on any others.   python -m s9.evaluate run=..."""

from functools import partial
from pathlib import Path

from s9.cli.door import key_values, open_door, refuse_unknown
from s9.system.errors import UserError

USAGE = """python -m s9.evaluate run=<folder|frontier|file.safetensors> [weights=final|best] [split=test|val|all]
                      [precision=auto|float32|bfloat16] [robustness=false|true] [images=2000] [save=<folder>]
                      [data=folder|digits|cifar10] [data.root=<folder>] [data.<key>=<value> ...]

Prints accuracy, balanced and top 5 accuracy, accuracy with flip averaging, loss, expected calibration error (15 bins of
equal width), a table of the classes and the surest mistakes. Changes nothing in the run's folder.
run=         the folder of a run, the name of shipped weights, or a file of weights (then data= too)
data.root=   scores other images: the run's data with these keys, or the option that data= names. Their classes must be
             among those of the network, which also decides their size. split=all: all of them, also train and val.
             split=val: a fifth of other images' train, unless they have a val or data.val_size= is given
robustness=  true: accuracy after noise, blur, contrast, JPEG, rotation and shift, each at five strengths, on images=
             evenly spaced images
save=        a new folder for scores.json, classes.csv, mistakes.csv, reliability.png, misclassified.png and,
             where asked for, robustness.csv and robustness.png
precision=   auto: as the run was trained, where this machine can

On the machine that trained it, the final weights give the numbers of summary.json to the last digit. Another processor
or precision rounds differently, which is said with whether the difference is within rounding.
Exit code 1: other numbers on the same machine and in the same precision; 2: it cannot be scored; else 0."""

ALLOWED = {
    "weights": ("final", "best"),
    "split": ("test", "val", "all"),
    "precision": ("auto", "float32", "bfloat16"),
    "robustness": ("false", "true"),
}
KEYS = {key: values[0] for key, values in ALLOWED.items()} | {"run": None, "images": "2000", "save": ""}
OF_DATA = ("data=", "data.")  # arguments that choose the images


def main(arguments: list[str]) -> int:
    of_data = [a for a in arguments if a.lstrip("+~").startswith(OF_DATA)]
    given = key_values([a for a in arguments if a not in of_data], KEYS, USAGE)
    refuse_unknown(given, ALLOWED)
    if not given["images"].isdecimal() or int(given["images"]) < 1:
        raise UserError(f"images={given['images']}: must be a number of images, 1 or more")
    if given["robustness"] == "false" and given["images"] != KEYS["images"]:
        raise UserError(f"images={given['images']}: only robustness looks at a part of the images; add robustness=true")

    from rich.console import Console

    from s9.cli.evaluate import chosen_data
    from s9.inference.evaluate import score_again
    from s9.inference.evaluate_files import check_folder, names_of_files, write_evaluation
    from s9.inference.robustness import robustness
    from s9.inference.scores import show, show_robustness
    from s9.runs.donor_folders import folder_of

    save, console = Path(given["save"]) if given["save"] else None, Console(highlight=False)
    if save:
        check_folder(save, folder_of(given["run"])[0].path)
    data = partial(chosen_data, overrides=of_data) if of_data else None
    how = {key: given[key] for key in ("weights", "split", "precision")}
    found = score_again(given["run"], **how, data=data)
    show(found, console)
    robust = robustness(found, int(given["images"])) if given["robustness"] == "true" else None
    if robust:
        show_robustness(robust, len(found.images), console)
    if save:
        written = write_evaluation(found, robust, save)
        print(f"\nsaved in {save}: {', '.join(written)}")
    else:
        print(f"\nsave=<folder> would write {', '.join(names_of_files(robust is not None))}")
    return 1 if found.unexplained else 0


if __name__ == "__main__":
    open_door(main, USAGE)
