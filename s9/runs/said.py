"""What a run says of its batches, classes and scores: lines before the first step, and after the last one."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from s9.config.schema import Config, ResolutionConfig, TrainerConfig
from s9.data.batches import USUAL, KeyedBatches
from s9.data.classes import are_uneven, class_counts
from s9.data.image_set import ImageSet
from s9.data.loaders import TrainLoader
from s9.system.letters import one_line
from s9.tracking.lr_range import SUGGESTED, suggestion_in_words
from s9.tracking.progress import accuracy_in_words
from s9.training.resolution import size_at

ENOUGH = 500  # steps of a whole run
LEFT_OUT = 0.01  # of train: where an epoch leaves out more, a line says so


def before(config: Config, data: ImageSet, loader: TrainLoader) -> Iterator[str]:
    """A line for each thing that is not as one would expect from the settings alone."""
    if loader.said:
        yield loader.said
    yield from _of_batches(config.trainer, loader.batches)
    yield from _of_steps(config.trainer, loader.batches)
    yield from _of_resolution(config.trainer.resolution, data.facts.image_size)
    yield from _of_views(config.distillation.views, config.trainer.epochs)
    yield from _of_classes(data, loader.batches)


def _of_batches(trainer: TrainerConfig, batches: KeyedBatches) -> Iterator[str]:
    size, train = batches.batch_size, batches.size
    if trainer.batch_size is None and size < USUAL:
        yield f"batches of {size}: {_steps(batches.steps)} an epoch (trainer.batch_size=null)"
    if trainer.batch_size is not None and trainer.batch_size > size:
        yield f"trainer.batch_size={trainer.batch_size}: a batch has all {size} images of train"
    rest = train - batches.whole * size
    if rest > LEFT_OUT * train and batches.steps == batches.whole and batches.balanced is None:
        yield (
            f"each epoch leaves out {rest:,} of {train:,} train images, other ones each time: a last batch of {rest} "
            "is not trained on"
        )


def _of_steps(trainer: TrainerConfig, batches: KeyedBatches) -> Iterator[str]:
    steps, asked = batches.steps, trainer.steps_per_epoch
    if asked is not None and asked > steps:
        yield f"trainer.steps_per_epoch={asked}: one pass over train has {steps} steps, and so has an epoch"
    elif asked is not None:
        return  # the epochs are short because they were asked for
    if steps * trainer.epochs < ENOUGH:
        yield (
            f"only {_steps(steps * trainer.epochs)} in all; a network learns little in so few: "
            f"trainer.epochs={-(-ENOUGH // steps)} gives {ENOUGH}"
        )


def _of_resolution(resolution: ResolutionConfig, image_size: int) -> Iterator[str]:
    first = size_at(resolution, 0, image_size)
    if first < image_size:
        yield (
            f"training begins with {first} x {first} pixels and has all {image_size} x {image_size} from "
            f"{100 * resolution.full:g} % of the run on; val has all of them from the start, so its scores come late"
        )
    elif resolution != ResolutionConfig():
        yield f"trainer.resolution: has no effect, since its first images have all {image_size} x {image_size} pixels"


def _of_views(views: int | None, epochs: int) -> Iterator[str]:
    if views is not None and views < epochs:
        yield f"epochs from {views + 1} on repeat the images of the first {views}, which the teacher labels once"
    elif views is not None:
        yield f"distillation.views={views}: has no effect, since the run has {epochs} epochs"


def _of_classes(data: ImageSet, batches: KeyedBatches) -> Iterator[str]:
    """How uneven the classes are, or what data.balance=true makes of them."""
    counts = _train_counts(data)
    there = np.flatnonzero(counts) if batches.balanced is not None else np.arange(len(counts))
    few, many = there[counts[there].argmin()], there[counts[there].argmax()]
    few_named, many_named = (f"{counts[n]:,} ({one_line(data.facts.class_names[n])})" for n in (few, many))
    if batches.balanced is not None:
        share = batches.places // len(there)
        yield (
            f"data.balance=true: an epoch shows each class {share:,} times: each of {few_named} images "
            f"{_times(share, counts[few])}, each of {many_named} {_times(share, counts[many])}"
        )
    elif are_uneven(counts):
        yield (
            f"classes are uneven: from {few_named} to {many_named} train images; "
            "data.balance=true shows each equally often"
        )


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _times(share: int, images: int) -> str:
    """How often each of so many images is shown, for `share` places."""
    low, rest = divmod(share, images)
    if low == 0:
        return "at most once"
    often = f"{low} or {low + 1}" if rest else f"{low}"
    return "once" if often == "1" else f"{often} times"


def uneven(data: ImageSet) -> bool:
    """Whether the classes of train are uneven, so that the balanced accuracy is shown."""
    return are_uneven(_train_counts(data))


def _train_counts(data: ImageSet) -> np.ndarray:
    return class_counts(data.train.labels, data.facts.num_classes)


def after(summary: Mapping[str, Any], splits: tuple[str, ...], *, balanced: bool) -> Iterator[str]:
    """The scores of these splits. balanced: with the balanced accuracy. Of a range test, what it suggests instead."""
    if SUGGESTED in summary:
        yield suggestion_in_words(summary[SUGGESTED])
        return
    for split in splits:
        if split in summary:
            of = summary[split]
            accuracy = f"{of['correct']}/{of['total']} correct ({accuracy_in_words(of, balanced=balanced)})"
            flip = f"with flip averaging {100 * of['accuracy_flip']:.2f} %"
            yield f"{split}: average loss {of['loss']:.4f}, {accuracy}, {flip}"
