"""What a run says of each test image, as its page shows it: mistakes, classes, confusions, calibration."""

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from s9.pages.page import percent, picture
from s9.tracking.calibration import Calibration, calibration

MOST_MATRIX = 200  # classes; a matrix of more cannot be read
MOST_PAIRS = 50  # confused pairs that are listed
MOST_MISTAKES = 5000  # that are listed, the surest first
MOST_PLAIN = 100  # of them in the table that is read without JavaScript
LARGEST = 96  # pixels on a side of an image in the page; larger ones are made smaller
BARS = 3  # probabilities that are shown below an image

CLASS_COLUMNS = [
    *(("class", False), ("train images", True), ("images", True), ("right", True)),
    *(("recall %", True), ("precision %", True), ("most confused with", False), ("confused images", True)),
]
PAIR_COLUMNS = [("true class", False), ("predicted class", False), ("images", True), ("of the true class %", True)]
BIN_COLUMNS = [("probability", False), ("images", True), ("mean probability %", True), ("right %", True)]
MISTAKE_COLUMNS = [
    *(("file", False), ("true class", False), ("predicted class", False)),
    *(("probability of predicted %", True), ("of true %", True)),
]


class OnTest:
    """The predictions of a run on test.

    Args:
        stored: as `RunFolder.read_predictions` returns.
        summary: of the run. One from before December 2026 does not tell the train images of the classes.
    """

    def __init__(self, stored: dict[str, np.ndarray], summary: Mapping[str, Any] = MappingProxyType({})):
        self.stored, self.labels, self.probs = stored, stored["labels"].astype(np.int64), stored["probs"]
        self.classes = [str(name) for name in stored["class_names"]]
        self.names = [str(name) for name in stored["names"]]
        self.of_class: Mapping[str, Any] = summary.get("classes", {})
        self.preds = self.probs.argmax(1)
        self.sure = self.probs[np.arange(len(self.preds)), self.preds]

    @cached_property
    def mistakes(self) -> np.ndarray:
        """The wrong images, the surest first."""
        wrong = np.flatnonzero(self.preds != self.labels)
        return wrong[np.argsort(-self.sure[wrong], kind="stable")]

    @cached_property
    def cells(self) -> list[tuple[int, int, int]]:
        """(true, predicted, images) of each cell of the confusion matrix that has images, most images first."""
        count = len(self.classes)
        pairs, images = np.unique(self.labels * count + self.preds, return_counts=True)
        order = np.argsort(-images, kind="stable")
        return [(int(p // count), int(p % count), int(n)) for p, n in zip(pairs[order], images[order], strict=True)]

    @cached_property
    def totals(self) -> list[int]:
        """Images of each true class."""
        totals: list[int] = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        return totals

    @property
    def confused(self) -> list[tuple[int, int, int]]:
        return [cell for cell in self.cells if cell[0] != cell[1]]

    def pair_rows(self) -> list[list[str]]:
        return [
            [self.classes[true], self.classes[pred], f"{images:,}", percent(images / self.totals[true])]
            for true, pred, images in self.confused[:MOST_PAIRS]
        ]

    def class_rows(self) -> list[list[Any]]:
        """In the order of CLASS_COLUMNS; fractions in percent; None where nothing is known."""
        count = len(self.classes)
        right = np.bincount(self.labels[self.labels == self.preds], minlength=count).tolist()
        said = np.bincount(self.preds, minlength=count).tolist()
        most: dict[int, tuple[str, int]] = {}
        for true, pred, images in self.confused:
            most.setdefault(true, (self.classes[pred], images))
        return [
            [
                *(self.classes[n], self.of_class.get(self.classes[n], {}).get("train"), self.totals[n], right[n]),
                *(_part(right[n], self.totals[n]), _part(right[n], said[n])),
                *most.get(n, ("", None)),
            ]
            for n in range(count)
        ]

    def mistake_rows(self) -> list[list[Any]]:
        """File name, true class, predicted class (both as numbers), their probabilities in percent: predicted, true."""
        shown = self.mistakes[:MOST_MISTAKES]
        true, pred = self.labels[shown], self.preds[shown]
        chances = (np.round(100 * of.astype(np.float64), 1) for of in (self.sure[shown], self.probs[shown, true]))
        columns = [[self.names[n] for n in shown], *(of.tolist() for of in (true, pred, *chances))]
        return [list(row) for row in zip(*columns, strict=True)]

    def plain_mistakes(self) -> list[list[str]]:
        return [
            [name, self.classes[true], self.classes[pred], f"{sure:.1f}", f"{chance:.1f}"]
            for name, true, pred, sure, chance in self.mistake_rows()[:MOST_PLAIN]
        ]

    def plain_classes(self) -> list[list[str]]:
        return [["" if cell is None else f"{cell}" for cell in row] for row in self.class_rows()]

    def gallery(self) -> list[dict[str, Any]]:
        """The surest mistakes whose images are stored: picture, name, true, predicted and bars of probabilities."""
        shown: list[dict[str, Any]] = []
        for index, image in zip(self.stored["worst"].tolist(), self.stored["worst_images"], strict=True):
            true, predicted = self.classes[self.labels[index]], self.classes[self.preds[index]]
            name = self.names[index].removeprefix(f"{true}/")  # the class is said beside it
            shown.append({"picture": picture(_small(image)), "name": name, "true": true, "predicted": predicted})
            shown[-1]["bars"] = self._bars(index)
        return shown

    def _bars(self, index: int) -> list[dict[str, Any]]:
        """The largest probabilities of an image, and the true class's where it is not among them."""
        probs, label = self.probs[index], int(self.labels[index])
        largest = np.argsort(-probs, kind="stable")[:BARS].tolist()
        shown = largest if label in largest else [*largest, label]
        return [{"name": self.classes[n], "part": float(probs[n]), "is_true": n == label} for n in shown]

    @cached_property
    def calibration(self) -> Calibration:
        return calibration(self.probs, self.labels)

    def bin_rows(self) -> list[list[str]]:
        """The bins that have images."""
        of = self.calibration
        return [
            [
                f"{of.edges[n]:.3f} to {of.edges[n + 1]:.3f}",
                f"{of.images[n]:,}",
                percent(of.sure[n]),
                percent(of.accuracy[n]),
            ]
            for n in np.flatnonzero(of.images)
        ]

    def calibration_in_words(self) -> list[str]:
        of, sure = self.calibration, float(self.sure.mean()) if len(self.sure) else 0.0
        accuracy = 1 - len(self.mistakes) / max(len(self.preds), 1)
        lean = "underconfident" if sure < accuracy else "overconfident"
        return [
            f"Expected calibration error: {percent(of.error)} % ({len(of.images)} bins of equal width by the "
            "probability of the predicted class; the mean over images of how far the accuracy of their bin is from "
            "the mean probability there).",
            f"The mean probability of the predicted class is {percent(sure)} %, and {percent(accuracy)} % of the "
            f"predictions are right: on average the network is {lean}.",
        ]

    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        of = self.calibration
        return {
            "classes": self.classes,
            "totals": self.totals,
            "cells": self.cells if len(self.classes) <= MOST_MATRIX else None,
            "perClass": self.class_rows(),
            "mistakes": self.mistake_rows(),
            "bins": [
                [of.edges[n], of.edges[n + 1], int(of.images[n]), of.sure[n], of.accuracy[n]]
                for n in range(len(of.images))
            ],
        }


def _part(count: int, of: int) -> float | None:
    return round(100 * count / of, 2) if of else None


def _small(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), at most LARGEST on a side."""
    if max(image.shape[:2]) <= LARGEST:
        return image
    made = Image.fromarray(image)
    made.thumbnail((LARGEST, LARGEST))
    return np.asarray(made)
