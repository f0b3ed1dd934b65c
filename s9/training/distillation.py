"""Distillation: a trained network's probabilities as labels, in addition to the true labels.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

import torch
import torch.nn.functional as F

from s9.config.schema import DistillationConfig
from s9.models.s9net import S9Net
from s9.training.kept_logits import KeptLogits


class Teacher:
    """Frozen networks in evaluation mode, which see the same augmented images as their student, but always whole.

    Several networks are one teacher, by the geometric mean of their probabilities, which is the mean of their logits.
    Why the same images: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", 2022.
    """

    def __init__(self, models: list[S9Net], config: DistillationConfig, kept: KeptLogits | None = None):
        self.models = [model.eval().requires_grad_(False) for model in models]
        self.config, self.kept = config, kept

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, view: int, batch: int) -> torch.Tensor:
        """images (B, 3, H, W), normalised -> logits (B, num_classes) in float32, kept ones where these images repeat.

        Args:
            view, batch: of these images, counted from 1.
        """
        known = self.kept.read(view, batch) if self.kept else None
        if known is not None:
            return known.to(images.device)
        logits = torch.stack([model(images).float() for model in self.models]).mean(0)
        if self.kept:
            self.kept.write(view, batch, logits)
        return logits

    def taught(self, loss: torch.Tensor, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """(1 - share) x the loss on the true labels + share x the loss on the teacher's logits, all in float32.

        The loss on the teacher's logits is the Kullback-Leibler divergence at `temperature`, times temperature squared:
        so the size of its gradient hardly depends on a high temperature. (The paper uses the cross entropy, which is
        larger by the entropy of the teacher and has the same gradient.)

        Args:
            loss: on the true labels, in nats, a scalar. logits: the student's; wanted: the teacher's; (B, num_classes).

        Returns:
            A scalar, in nats.
        """
        temperature = self.config.temperature
        student, teacher = ((values / temperature).log_softmax(1) for values in (logits, wanted))
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
        return torch.lerp(loss, divergence, self.config.share)
