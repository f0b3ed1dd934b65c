"""Distillation: a trained network's probabilities as labels, beside the true ones.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

import torch
import torch.nn.functional as F
from torch import nn

from s9.config.schema import DistillationConfig


class Teacher:
    """Networks that are trained no more, in their evaluation form; they see the same augmented images as their student.

    Several teach as one, by the geometric mean of their probabilities, which is the mean of their logits.
    Why the same images: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", 2022.
    """

    def __init__(self, models: list[nn.Module], config: DistillationConfig):
        self.models = [model.eval().requires_grad_(False) for model in models]
        self.config = config

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, 3, H, W), normalised -> logits (B, num_classes)."""
        return torch.stack([model(images) for model in self.models]).mean(0)

    def taught(self, loss: torch.Tensor, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The loss of the true labels and that of the teacher's logits, by their shares; all in float32.

        The teacher's is the Kullback-Leibler divergence at `temperature`, times its square: so the size of its
        gradient hardly depends on the temperature where that is high. (The paper has the cross entropy, which is more
        by the entropy of the teacher: the gradient is the same.)

        Args:
            loss: of the true labels, in nats, a scalar. logits: the student's, wanted: the teacher's; (B, num_classes).

        Returns:
            A scalar, in nats.
        """
        temperature = self.config.temperature
        student, teacher = ((values / temperature).log_softmax(1) for values in (logits, wanted.float()))
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
        return torch.lerp(loss, divergence, self.config.share)
