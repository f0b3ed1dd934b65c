"""The network that is exported: ordinary layers only, with what a user without s9 must know of its images."""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import s9
from s9.inference.classifier import Classifier
from s9.models.convolution import Convolution

ABOUT = "about.json"  # in the archive of torch.export.save, from where torch.export.load reads it
BATCH = 100  # images; the file takes any number of them

Logits = Callable[[np.ndarray], np.ndarray]  # from images as the file takes them to float32 (B, num_classes)


class Prepared(nn.Module):
    """Images as the exported file takes them -> logits (B, num_classes).

    Args:
        preprocessing: whether images are uint8 (B, 3, H, W), to which scaling, mean and std are applied here; else they
            are float32 and normalised.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, network: nn.Module, classifier: Classifier, preprocessing: bool):
        super().__init__()
        self.network, self.preprocessing = network, preprocessing
        shift, spread = (
            torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (classifier.facts.mean, classifier.facts.std)
        )
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", spread.reciprocal(), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.preprocessing:
            images = (images.float() - self.shift) * self.scale
        logits: torch.Tensor = self.network(images)
        return logits


def plain(network: nn.Module) -> nn.Module:
    """A copy in which each convolution is an nn.Conv2d.

    An s9 convolution takes forms that are fast on the CPU in torch; a file would hold these rearrangements of pixels.
    """
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Convolution):
                setattr(parent, name, _ordinary(layer))
    return network.eval().requires_grad_(False)


def _ordinary(layer: Convolution) -> nn.Conv2d:
    shape: dict[str, Any] = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
    new = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size[0], bias=False, **shape)
    new.weight = layer.weight
    return new


def exported_program(classifier: Classifier, preprocessing: bool) -> torch.export.ExportedProgram:
    """The graph for any number of images, without the paths of this machine that torch notes at each node."""
    network = Prepared(plain(classifier.model), classifier, preprocessing).eval()
    size = classifier.facts.image_size
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8 if preprocessing else torch.float32)
    with silent(), torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def about_file(classifier: Classifier, preprocessing: bool) -> dict[str, str]:
    """The metadata of an exported file; lists and numbers as JSON."""
    facts = classifier.facts
    size = f"(batch, 3, {facts.image_size}, {facts.image_size})"
    values: dict[str, Any] = {
        "class_names": facts.class_names,
        "image_size": facts.image_size,
        "resize": classifier.resize,
        "mean": facts.mean,
        "std": facts.std,
        "metrics": classifier.metrics,
    }
    texts = {
        "run": Path(classifier.name).resolve().name.removesuffix(".safetensors"),
        "trained_on": facts.variant,
        "preprocessing": json.dumps(preprocessing),
        "input": f"images: uint8 {size}, RGB" if preprocessing else f"images: float32 {size}, (RGB / 255 - mean) / std",
        "output": f"logits: float32 (batch, {facts.num_classes}); their softmax gives probabilities",
        "s9_version": s9.__version__,
    }
    return texts | {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def as_archive(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    """The content of a .pt2 file. torch.export.load(file, extra_files=found) puts `about` into found["about.json"]."""
    archive = io.BytesIO()
    with silent():
        torch.export.save(program, archive, extra_files={ABOUT: json.dumps(about, ensure_ascii=False)})
    return archive.getvalue()


def archive_logits(content: bytes) -> Logits:
    """What a .pt2 file computes, on the CPU."""
    with silent():
        module = torch.export.load(io.BytesIO(content)).module()

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = module(torch.from_numpy(images)).numpy()
        return found

    return logits


def as_input(classifier: Classifier, squares: np.ndarray, preprocessing: bool) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (N, 3, H, W) as the exported file takes them, contiguous."""
    if preprocessing:
        return np.ascontiguousarray(squares.transpose(0, 3, 1, 2))
    return classifier.normalised(squares).contiguous().numpy()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps what exporters print, log and warn about away from the screen; an error is raised as ever."""
    level, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
