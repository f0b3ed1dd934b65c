"""Scoring a network on a split: probabilities, loss and accuracy; training and s9.evaluate share this code."""

import torch
import torch.nn.functional as F
from torch import nn

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
    """`loss` (mean negative log likelihood, nats), `accuracy` in [0, 1] and the counts `correct` and `total`."""
    labels = torch.from_numpy(split.labels)
    correct = int((probs.argmax(1) == labels).sum())
    loss = F.nll_loss(probs.clamp_min(1e-12).log(), labels).item()
    return {"loss": loss, "accuracy": correct / len(split), "correct": correct, "total": len(split)}


def score_with_flip(model: nn.Module, split: Split, facts: ImageFacts, compute: Compute) -> tuple[Scores, torch.Tensor]:
    """(scores, probabilities) of the plain images; flip averaging only adds the score `accuracy_flip`."""
    probs = predict(model, split, facts, compute)
    flipped = score(predict(model, split, facts, compute, flip=True), split)
    return score(probs, split) | {"accuracy_flip": flipped["accuracy"]}, probs
