"""What went wrong, in one line: a lack of memory names what took it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from s9.config.schema import Config
from s9.data.augmentation.mix import Mixed
from s9.data.batches import KeyedBatches
from s9.data.image_set import ImageFacts, Split
from s9.data.loaders import ResidentBatches
from s9.data.sources import arrays
from s9.data.sources.load import load_images
from s9.runs import failure
from s9.system.compute import Compute
from s9.training import evaluation
from s9.training.learner import Learner
from s9.training.step import Place, train_step

CPU = Compute(torch.device("cpu"), torch.float32)


class Full(nn.Module):
    """A network that finds no memory for its output."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_empty(2**58)


def told(work: Callable[[], Any], config: Config | None) -> str:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        work()
    return failure.in_one_line(caught.value, config)


def of_images(count: int, size: int) -> Split:
    """Images that take no memory themselves."""
    return Split(np.broadcast_to(np.uint8(0), (count, size, size, 3)), np.broadcast_to(np.int64(0), (count,)))


def test_in_a_training_step_it_is_the_batch(digits: Callable[..., Config]) -> None:
    config = digits("trainer.batch_size=96")
    one = torch.zeros(2, 3, 8, 8)
    mixed = Mixed(one, torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), 1.0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    learner = Learner(model=Full(), optimizer=optimizer, scheduler=scheduler)
    said = "out of memory with trainer.batch_size=96; set trainer.batch_size=48, or a smaller model"
    step = lambda: train_step(learner.model, learner, mixed, config.trainer, compute=CPU, at=Place(1, 1, 32))  # noqa: E731
    assert told(step, config) == said


def test_a_batch_of_one_cannot_be_halved(digits: Callable[..., Config]) -> None:
    said = failure.in_one_line(MemoryError(), digits("trainer.batch_size=1"))
    assert said == "out of memory with trainer.batch_size=1; take a smaller model"


def test_a_batch_size_that_was_chosen_by_itself_is_told_as_such(digits: Callable[..., Config]) -> None:
    said = failure.in_one_line(MemoryError(), digits("trainer.batch_size=null"))
    wanted = "with trainer.batch_size=null, which is 128 at most; set a smaller one, or a smaller model"
    assert said == f"out of memory {wanted}"


def test_in_scoring_it_is_not_the_batch(digits: Callable[..., Config]) -> None:
    one = Split(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int64))
    facts = ImageFacts("x", ("a", "b"), 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    said = told(lambda: evaluation.predict(Full(), one, facts, CPU), digits())
    assert said.startswith("out of memory while scoring 500 images at a time; ")


def test_images_that_do_not_fit_may_stay_on_disk(digits: Callable[..., Config]) -> None:
    split = of_images(2**34, 1024)
    said = told(lambda: ResidentBatches(split, KeyedBatches(8, 4, 0), CPU.device), digits())
    assert said.startswith("out of memory with all images of train in memory; data.loader=workers data.workers=2")


def test_while_they_are_read_it_is_the_images(digits: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    config = digits()
    monkeypatch.setattr(arrays, "channel_statistics", lambda images: np.empty(2**58))
    said = told(lambda: load_images(config.data, 0), config)
    assert said.startswith("out of memory while reading the images; data.loader=workers")
