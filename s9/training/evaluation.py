"""Scoring a network on a split: probabilities, loss and accuracy; training and s9.evaluate share this code."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from s9.data.classes import class_counts
from s9.data.image_set import ImageFacts, Split
from s9.data.loaders import eval_batches
from s9.system.compute import Compute

Scores = dict[str, float]


@torch.no_grad()
def predict(model: nn.Module, split: Split, facts: ImageFacts, compute: Compute, *, flip: bool = False) -> torch.Tensor:
    """Probabilities (N, num_classes) in float32 on the CPU; with `flip`, the mean over each image and its mirror."""
    model.eval()
    parts = []
    for raw, _ in eval_batches(split):
        images = compute.normalised(raw, facts.mean, facts.std)
        with compute.autocast():
            views = [model(images)] + ([model(images.flip(3))] if flip else [])
        parts.append(torch.stack([logits.float().softmax(1) for logits in views]).mean(0))
    return torch.cat(parts).cpu()  # one wait for the device


def score(probs: torch.Tensor, split: Split) -> Scores:
    """`loss` (mean negative log likelihood, nats), accuracies in [0, 1] and the counts `correct` and `total`.

    `accuracy` is over all images; `balanced_accuracy` is the mean over the classes that occur of each one's accuracy.
    """
    labels = torch.from_numpy(split.labels)
    images, right = by_class(probs, split)
    there, correct = images > 0, int(right.sum())
    loss = F.nll_loss(probs.clamp_min(1e-12).log(), labels).item()
    accuracies = {"accuracy": correct / len(split), "balanced_accuracy": float(np.mean(right[there] / images[there]))}
    return {"loss": loss, **accuracies, "correct": correct, "total": len(split)}


def by_class(probs: torch.Tensor, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """(images, right ones) of each class, int64 (num_classes,) both."""
    labels, num_classes = split.labels, probs.shape[1]
    right = probs.argmax(1).numpy() == labels
    return class_counts(labels, num_classes), class_counts(labels[right], num_classes)


def class_scores(
    class_names: Sequence[str], train: Split, scored: Mapping[str, tuple[Split, torch.Tensor]]
) -> dict[str, dict[str, float]]:
    """By class: its images in `train` and in each scored split, and its accuracy there, if it has images there.

    Args:
        scored: from the names of splits to their images and probabilities.
    """
    found: dict[str, dict[str, float]] = {
        name: {"train": int(count)}
        for name, count in zip(class_names, class_counts(train.labels, len(class_names)), strict=True)
    }
    for split, (of, probs) in scored.items():
        for name, images, right in zip(class_names, *by_class(probs, of), strict=True):
            found[name] |= {split: int(images)} | ({f"{split}_accuracy": int(right) / int(images)} if images else {})
    return found


def score_with_flip(model: nn.Module, split: Split, facts: ImageFacts, compute: Compute) -> tuple[Scores, torch.Tensor]:
    """(scores, probabilities) of the plain images; flip averaging only adds the score `accuracy_flip`."""
    probs = predict(model, split, facts, compute)
    flipped = score(predict(model, split, facts, compute, flip=True), split)
    return score(probs, split) | {"accuracy_flip": flipped["accuracy"]}, probs
