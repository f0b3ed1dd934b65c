"""What people would otherwise run: float32, NCHW, a DataLoader of two workers with albumentations image by image."""

import albumentations
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from s9.config.schema import AugConfig
from s9.data.augmentation.augment import at_size
from s9.data.augmentation.image_augment import build_transform
from s9.data.image_set import ImageSet
from s9.models.convolution import Convolution
from s9.models.s9net import S9Net

WORKERS = 2


class PlainImages(Dataset[tuple[torch.Tensor, int]]):
    """Each item is one augmented, normalised float32 image (3, H, W) and its label."""

    def __init__(self, data: ImageSet, aug: AugConfig):
        fill = tuple(round(255 * channel) for channel in data.facts.mean)
        transforms = [
            build_transform(name, t, fill) for name, t in at_size(aug, data.facts.image_size).transforms.items()
        ]
        last = [albumentations.Normalize(data.facts.mean, data.facts.std), albumentations.ToTensorV2()]
        self.transform = albumentations.Compose([*transforms, *last])
        self.images, self.labels = np.asarray(data.train.images), data.train.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(image=self.images[index])["image"], int(self.labels[index])


def plain_loader(data: ImageSet, aug: AugConfig, batch_size: int) -> DataLoader[tuple[torch.Tensor, int]]:
    """Batches as the PyTorch tutorials make them, with persistent workers."""
    return DataLoader(
        PlainImages(data, aug),
        batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        drop_last=True,
        worker_init_fn=_one_thread,
    )


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)  # more threads than cores would make it slower still


def plain_network(model: S9Net) -> S9Net:
    """Changes `model` to plain nn.Conv2d layers and NCHW memory, and returns it."""
    for module in model.modules():
        if isinstance(module, Convolution):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]  # the same attributes, torch's own forward
    return model.to(memory_format=torch.contiguous_format)


class PlainStep:
    """One step of the tutorials' loop, on (B, 3, H, W) float32 images and labels (B,)."""

    def __init__(self, model: nn.Module, device: torch.device):
        self.model, self.device = model.to(device).train(), device
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
        self.loss_sum, self.correct = 0.0, 0

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        images, labels = images.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.loss_sum += loss.item()
        self.correct += int((logits.argmax(1) == labels).sum())
