"""Floating-point operations of a training: what it costs, whatever machine it runs on."""

from collections.abc import Sequence

from s9.config.model import ModelConfig
from s9.config.schema import Config
from s9.data.image_set import ImageFacts
from s9.models.analysis import layer_table
from s9.training.resolution import sizes

PER_MULTIPLY = 2  # a multiplication and an addition
PASSES = 3  # forward, the gradient of the layer's input, and that of its weights; each costs about the same


def operations(
    config: Config,
    facts: ImageFacts,
    *,
    batch_size: int,
    steps: int,
    total_steps: int,
    teachers: Sequence[ModelConfig] = (),
) -> int:
    """Of the first `steps` steps, of `batch_size` images each, of a run of `total_steps`.

    Teachers only go forward, with whole images, and not for the epochs that repeat images (distillation.views).

    Counted are convolutions and fully connected layers, as in the README of KellerJordan/cifar10-airbench; norms,
    activations, augmentation and the optimizer are not. Scoring val and test is not training.
    """

    def multiplies(model: ModelConfig, size: int) -> int:
        return sum(row.multiplies for row in layer_table(model, facts.num_classes, size))

    views = config.distillation.views or config.trainer.epochs
    taught = min(steps, views * total_steps // config.trainer.epochs)
    found = taught * PER_MULTIPLY * batch_size * sum(multiplies(teacher, facts.image_size) for teacher in teachers)
    for size, count in sizes(config.trainer, facts.image_size, steps=steps, total_steps=total_steps):
        found += count * PER_MULTIPLY * batch_size * PASSES * multiplies(config.model, size)
    return found
