"""A trained network scored on images: those of its run, to the last digit, or any others of its classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from s9.config.data import FolderConfig
from s9.config.schema import Config
from s9.data.image_set import ImageFacts, Split, in_short
from s9.inference.classifier import Classifier, load
from s9.inference.scored_images import (
    Chosen,
    ChosenData,
    ScoredImages,
    choose,
    held_out_alike,
    images_to_score,
    learned_images,
)
from s9.pages.run_scores import OnTest
from s9.runs.about import about_weights
from s9.runs.donor_folders import WEIGHTS, folder_of
from s9.runs.trained import Trained
from s9.system import runtime
from s9.system.compute import has_real_bfloat16, pick_compute, pick_device
from s9.system.errors import UserError
from s9.tracking import comparison
from s9.tracking.calibration import calibration
from s9.tracking.folder import RunFolder
from s9.training.evaluation import Scores, predict, score

SHOWN = ("accuracy", "balanced_accuracy", "accuracy_flip", "top5_accuracy", "loss", "calibration_error")
TOP = 5
AFTER_S = 2  # seconds before a bar appears


@dataclass(frozen=True)
class ScoredRun:
    """A run's folder, or a file of weights alone, of which `config` is None.

    known: facts of the training images; None for a run from before November 2026, without contents for a file alone.
    """

    given: str
    folder: RunFolder
    file: Path
    config: Config | None
    known: ImageFacts | None
    resize: str

    @property
    def weights(self) -> str:
        """final, best, or the name of the file."""
        return self.file.stem

    def classifier(self, found: ImageFacts, precision: str) -> Classifier:
        """The network in `precision`; auto: as it was trained, where this machine can.

        Args:
            found: facts of the images to score, for a run that has not recorded its own.
        """
        device, trained_in = "auto", "auto"
        if self.config:
            device, trained_in = _device_here(self.config.trainer.device), self.config.trainer.precision
        if precision == "auto":
            precision = trained_in if has_real_bfloat16(pick_device(device)) else "float32"
        if self.known or not self.config:
            weights = "final" if self.given.endswith(WEIGHTS) or self.file == self.folder.final else "best"
            return load(self.given, weights=weights, device=device, precision=precision)
        compute = pick_compute(device, precision, prefix="")
        model = Trained(self.config, self.file, None).loaded(found, compute)
        return Classifier(self.given, model, found, self.resize, compute=compute, metrics={})


def read_run(given: str, weights: str = "final") -> ScoredRun:
    """The run that a folder, a name of shipped weights or a file of weights names. Raises UserError, as `load` does."""
    folder, file = folder_of(given, weights)
    if not folder.config.is_file():
        about, file = about_weights(given, weights)
        return ScoredRun(given, folder, file, config=None, known=about.images, resize=about.resize)
    config = folder.read_config()
    resize = config.data.resize if isinstance(config.data, FolderConfig) else "crop"  # others have squares
    return ScoredRun(given, folder, file, config=config, known=folder.read_images(), resize=resize)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network says of images. probs: float32 (N, num_classes). lines: of the images, scores and comparison.

    unexplained: whether the scores differ from the run's in a way that neither machine nor precision explains.
    """

    classifier: Classifier
    run: ScoredRun
    split: str
    images: ScoredImages
    probs: np.ndarray
    scores: Scores
    machine: dict[str, Any]
    lines: list[str]
    unexplained: bool

    @cached_property
    def of_each(self) -> OnTest:
        """The classes and mistakes."""
        texts = {"class_names": self.classifier.facts.class_names, "names": self.images.names}
        arrays = {"probs": self.probs, "labels": self.images.labels}
        return OnTest(arrays | {key: np.array(names, np.str_) for key, names in texts.items()})


def score_again(
    run: str | Path,
    *,
    weights: str = "final",
    split: str = "test",
    precision: str = "auto",
    data: ChosenData | None = None,
) -> Evaluation:
    """Scores a network on val, test or all images, and compares with its run's summary where the images are the same.

    Args:
        run: a run's folder, the name of shipped weights, or a file of weights. weights: final or best, of a folder.
        precision: auto (as the run was trained, where this machine can), float32 or bfloat16.
        data: chooses the images; None: those of the run.

    Raises:
        UserError: the run or the images cannot be read, or cannot be scored here.
    """
    source = read_run(str(run), weights)
    chosen = choose(source.config.data if source.config else None, data)
    if chosen is None:
        raise UserError(f"run={run}: a file of weights has no images; add data=folder data.root=<folder>")
    seed = source.config.seed if source.config else 0
    images = images_to_score(chosen, seed, split, known=source.known, resize=source.resize)
    classifier = source.classifier(images.found, precision)
    probs, scores = _scores(classifier, images)
    machine = runtime.describe_machine(classifier.compute.device) | runtime.describe_arithmetic(classifier.compute)

    where, precision = images.found.variant, classifier.compute.precision_name
    lines = [f"{run}: {source.weights} weights on {where}, {split}, {len(images):,} images, in {precision}"]
    lines += [f"{split}/{key:<18} {scores[key]!r}" for key in SHOWN if key in scores]
    lines += images.said if data else images.warned
    doubts, compares = _doubts(source, images, split, chosen)
    unexplained = False
    if compares and source.file == source.folder.final and source.folder.summary.exists():
        compared, unexplained = comparison.compared(source.folder.read_summary(), scores, split, machine)
        lines += compared
    return Evaluation(
        classifier=classifier,
        run=source,
        split=split,
        images=images,
        probs=probs.numpy(),
        scores=scores,
        machine=machine,
        lines=lines + doubts,
        unexplained=unexplained,
    )


def _scores(classifier: Classifier, images: ScoredImages) -> tuple[torch.Tensor, Scores]:
    """(probabilities, scores) of the plain images, in batches as in training; `accuracy_flip` is with averaging."""
    model, facts, compute = classifier.model, classifier.facts, classifier.compute
    with shown_progress(classifier, 3 * len(images), "scoring"):
        plain, flipped = (
            torch.cat([predict(model, part, facts, compute, flip=flip) for part in images.parts])
            for flip in (False, True)
        )
    labels = images.labels
    every = Split(images.parts[0].images, labels)  # only the labels are read
    scores = score(plain, every) | {"accuracy_flip": score(flipped, every)["accuracy"]}
    if facts.num_classes > TOP:
        of_true = plain[torch.arange(len(labels)), torch.from_numpy(labels)]
        scores["top5_accuracy"] = int(((plain > of_true[:, None]).sum(1) < TOP).sum()) / len(labels)
    return plain, scores | {"calibration_error": calibration(plain.numpy(), labels).error}


@contextmanager
def shown_progress(classifier: Classifier, images: int, what: str) -> Iterator[None]:
    """On a terminal, a bar of the images that the network has seen, where `images` of them take long."""
    with tqdm(total=images, desc=what, unit="image", leave=False, delay=AFTER_S, disable=None) as bar:
        hook = classifier.model.register_forward_hook(lambda _model, _inputs, logits: bar.update(len(logits)))
        try:
            yield
        finally:
            hook.remove()


def _device_here(stored: str) -> str:
    """The run's device; auto where this machine lacks it, which the comparison of the machines then says."""
    try:
        pick_device(stored)
    except UserError:
        return "auto"
    return stored


def _doubts(run: ScoredRun, images: ScoredImages, split: str, chosen: Chosen) -> tuple[list[str], bool]:
    """(lines on which of the images the network may have learned, whether the scores are compared with the run's)."""
    known, found = run.known, images.found
    if known is None:
        lines = ["which images this run was trained on is not recorded, as in runs of before November 2026"]
        return lines, run.config is not None and chosen.config == run.config.data and split != "all"
    if not known.contents:
        return [
            "whether it was trained on some of these images is not known: a file of weights does not list them"
        ], False
    whole = split == "test" and split in found.contents  # no other split decides what is in it
    changes = known.changes(found, (split,)) if whole else known.changes(found)
    lines = []
    if changes:
        lines.append(f"these are not the images of the run: {in_short(changes)}; not compared with its summary")
    elif split != "all":
        assert run.config is not None
        if split in found.contents or held_out_alike(chosen.config, run.config.data, split):
            return [], True
        lines.append(f"{split} is held out otherwise than in the run; not compared with its summary")
    if learned := learned_images(known, found, split):
        are = "is" if learned == 1 else "are"
        of = are if split == "all" else f"{are}, or {split} is held out of what {are},"
        lines.append(f"{learned:,} of the images {of} train images of the run, which it may know by heart")
    else:
        lines.append(
            "warning: whether the network was trained on some of these images cannot be told, since their class "
            "folders are not those of the run; if it was, these scores are too good"
        )
    return lines, False
