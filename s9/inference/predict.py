"""Classifies images as they are read, and writes the answers as they come."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from s9.data.sources.decode import quiet
from s9.data.sources.pool import in_order
from s9.inference.classifier import Classifier, Prediction
from s9.inference.inputs import Given, Images, pixels_of
from s9.inference.written import FORMS, Answer
from s9.system.letters import one_line

BATCH = 100  # images; with more the network is hardly faster, and answers come later
MOST_DRAWN, MOST_BARS = 30, 10  # images in the picture, and classes of each

Decoded = tuple[Given, np.ndarray | str]  # the image's pixels, or why there are none


@dataclass(frozen=True)
class Wanted:
    """top: classes per image. form: table, json or csv. save: where the picture goes, if one is wanted."""

    top: int
    form: str
    flip: bool = False
    save: Path | None = None


def predict_images(classifier: Classifier, images: Images, wanted: Wanted) -> int:
    """Writes answers to stdout as they come, and problems to stderr.

    Returns:
        The exit code: 0; 1 if some images could not be read; 2 if none could.

    Raises:
        UserError: the picture cannot be written.
    """
    if images.left_out:
        print(images.said(), file=sys.stderr)
    if hasattr(sys.stdout, "reconfigure"):  # a letter that the reader's encoding lacks does not end the command
        sys.stdout.reconfigure(errors="backslashreplace")
    write = FORMS[wanted.form](images.found, classifier.classes, wanted.top, sys.stdout)
    drawn: list[tuple[Given, Prediction]] = []
    read = 0
    for answers in in_batches(classifier, images.found, flip=wanted.flip):
        for answer in answers:
            write(answer)
        good = [(answer.image, answer.prediction) for answer in answers if answer.prediction]
        read += len(good)
        drawn += good[: MOST_DRAWN - len(drawn)] if wanted.save else []
        sys.stdout.flush()
    if wanted.save and drawn:
        _save(drawn, wanted.save, wanted.top, classifier)
        if read > len(drawn):
            print(f"{wanted.save}: shows the first {len(drawn)} of {read:,} images", file=sys.stderr)
        if min(wanted.top, len(classifier.classes)) > MOST_BARS:
            print(f"{wanted.save}: shows the first {MOST_BARS} classes of each image", file=sys.stderr)
    return 0 if read == len(images.found) else 1 if read else 2


def in_batches(classifier: Classifier, images: Sequence[Given], *, flip: bool = False) -> Iterator[list[Answer]]:
    """The answers in the order of the images, a batch at a time; problems are also said on stderr.

    No more than some thousand decoded images are in memory.
    """
    facts = classifier.facts
    decode = partial(pixels_of, image_size=facts.image_size, resize=classifier.resize, bits=facts.bits)
    waiting: list[Decoded] = []
    with quiet(), _bar(len(images)) as bar:
        for image, made in zip(images, in_order(decode, images), strict=True):
            if isinstance(made, str):
                bar.clear()
                print(one_line(f"{image.name}: {made}"), file=sys.stderr)
            waiting.append((image, made))
            if len(waiting) == BATCH:
                yield _answers(classifier, waiting, flip=flip)
                waiting = []
            bar.update()
        yield _answers(classifier, waiting, flip=flip)


def _bar(count: int) -> "tqdm[Any]":
    """A bar, except next to answers that scroll through the same terminal, and so show how far they are."""
    silent = not sys.stderr.isatty() or sys.stdout.isatty()
    return tqdm(total=count, unit="image", leave=False, disable=silent)


def _answers(classifier: Classifier, decoded: Sequence[Decoded], *, flip: bool) -> list[Answer]:
    squares = [made for _, made in decoded if not isinstance(made, str)]
    probs = iter(classifier.probs(np.stack(squares), flip=flip) if squares else ())
    return [
        Answer(image, None, made)
        if isinstance(made, str)
        else Answer(image, Prediction(classifier.classes, next(probs)))
        for image, made in decoded
    ]


def _save(drawn: Sequence[tuple[Given, Prediction]], path: Path, top: int, by: Classifier) -> None:
    from s9.inference.bars import save_bars

    save_bars(drawn, path, min(top, MOST_BARS), title=by.name, bits=by.facts.bits)
