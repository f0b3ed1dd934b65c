"""What `save=` of s9.evaluate writes: the scores, every mistake, the classes and the figures."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from s9.inference.evaluate import Evaluation
from s9.inference.evaluate_figures import misclassified, reliability, robustness_figure
from s9.inference.robustness import CORRUPTIONS, Robustness
from s9.inference.scores import class_rows
from s9.system.errors import UserError
from s9.system.files import write_whole
from s9.tracking.drawing import save

ALWAYS = ("scores.json", "classes.csv", "mistakes.csv", "reliability.png", "misclassified.png")
OF_ROBUSTNESS = ("robustness.csv", "robustness.png")


def check_folder(folder: Path, run: Path) -> None:
    """Raises UserError where the files cannot be written, or would lie among those of the run or of an evaluation."""
    if folder.resolve().is_relative_to(run.resolve()):
        raise UserError(f"save={folder}: is in the run's own folder, in which nothing is changed; give another one")
    if earlier := next((name for name in names_of_files(robust=True) if (folder / name).exists()), None):
        raise UserError(f"save={folder}: holds files of an earlier evaluation ({earlier}); give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"save={folder}: cannot be made a folder ({error.strerror or error})") from None


def write_evaluation(of: Evaluation, robust: Robustness | None, folder: Path) -> list[str]:
    """Writes the files into an existing folder; returns their names.

    Raises:
        UserError: a file cannot be written.
    """
    scores, classes, mistakes, of_calibration, of_mistakes = (folder / name for name in ALWAYS)
    try:
        write_whole(scores, (json.dumps(_scores(of, robust), indent=2) + "\n").encode())
        head = (
            "class",
            "images",
            "right",
            "accuracy",
            "predicted",
            "precision",
            "mostly_taken_for",
            "taken_for_images",
        )
        _write_csv(classes, [head, *_class_rows(of)])
        _write_csv(mistakes, _mistake_rows(of))
        save(reliability(of.of_each.calibration), of_calibration)
        save(misclassified(of), of_mistakes)
        if robust:
            table, figure = (folder / name for name in OF_ROBUSTNESS)
            _write_csv(table, _robustness_rows(robust))
            save(robustness_figure(robust), figure)
    except OSError as error:
        raise UserError(f"save={folder}: cannot be written ({error.strerror or error})") from None
    return names_of_files(robust is not None)


def names_of_files(robust: bool) -> list[str]:
    return [*ALWAYS, *(OF_ROBUSTNESS if robust else ())]


def _scores(of: Evaluation, robust: Robustness | None) -> dict[str, object]:
    """The scores of the split as in summary.json, with what they are of: network, images and machine."""
    found = of.images.found
    return {
        "run": of.run.given,
        "weights": of.run.weights,
        "data": found.variant,
        "images": found.fingerprint,
        of.split: of.scores,
        **({"robustness": {"clean": robust.clean, "mean": robust.mean, "images": robust.images}} if robust else {}),
        "machine": of.machine,
        "said": of.lines,
    }


def _class_rows(of: Evaluation) -> list[Sequence[object]]:
    return [
        (name, images, right, right / images if images else "", said, right / said if said else "", *confused)
        for name, images, right, said, *confused in class_rows(of)
    ]


def _mistake_rows(of: Evaluation) -> list[Sequence[object]]:
    """The surest first, with the probability of every class."""
    each, names = of.of_each, of.classifier.facts.class_names
    head = ("file", "true", "predicted", "probability", *(f"p({name})" for name in names))
    rows = [
        (each.names[n], names[each.labels[n]], names[each.preds[n]], float(each.sure[n]), *each.probs[n].tolist())
        for n in each.mistakes.tolist()
    ]
    return [head, *rows]


def _robustness_rows(of: Robustness) -> list[Sequence[object]]:
    rows = [
        (corruption.name, step + 1, strength, corruption.unit, float(accuracy))
        for corruption, accuracies in zip(CORRUPTIONS, of.accuracy, strict=True)
        for step, (strength, accuracy) in enumerate(zip(corruption.strengths, accuracies, strict=True))
    ]
    head = ("corruption", "strength", "value", "unit", "accuracy")
    return [head, ("unchanged", 0, "", "", of.clean), *rows]


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue().encode(errors="surrogateescape"))
