"""What a network looks at, as arrays: Grad-CAM, first filters, feature maps, receptive field in theory and effect.

All of it is computed in float32 without a random choice, so the same weights and images give the same arrays.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from s9.config.model import ModelConfig
from s9.data.image_set import ImageFacts
from s9.models.analysis import model_facts
from s9.models.convolution import Convolution
from s9.models.s9net import S9Net, padding_of, rows

MOST_FILTERS = 64
CHANNELS_SHOWN = 8  # of each block
LARGEST = 96  # pixels: the longer side of what is stored; larger images and maps are averaged down to it
PIXELS = 64 * 32 * 32  # of images whose gradients are held in memory at a time
WITHIN = 0.9  # of the gradient, for the side of the effective receptive field


class FeatureMaps(NamedTuple):
    """The strongest channels of one block's output. maps: uint8 (K, H, W); shape: all channels, pixels on a side."""

    block: str
    maps: np.ndarray
    shape: tuple[int, int]


class ReceptiveField(NamedTuple):
    """Of the middle position of the last map, in input pixels along x and y alike.

    first, end: the theoretical square reaches from pixel `first` to the one before `end`, perhaps beyond the image.
    effective: float16 (H, W), mean absolute gradient over images, its maximum is 1. side: of the square around the
    middle of the theoretical one that holds WITHIN of that gradient.
    """

    first: int
    end: int
    effective: np.ndarray
    side: int


class _End(nn.Module):
    """A network from its last feature map on: (B, channels, H, W) -> logits."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.map, self.head = nn.Identity(), head

    def forward(self, last: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.map(last).float().mean(dim=(2, 3)))
        return logits


def grad_cam(model: S9Net, images: torch.Tensor, classes: torch.Tensor | np.ndarray) -> np.ndarray:
    """What in each image speaks for a class: float32 (N, H, W) in [0, 1]; sets the network to eval mode.

    The maximum of each image is 1; where nothing speaks for the class, all is 0. The map explained is the last one
    before the average. The network itself gets no hooks and no gradients.
    Source: Selvaraju et al., "Grad-CAM", 2017 (arXiv 1610.02391), by captum.

    Args:
        images: (N, 3, H, W), normalised, on the network's device. classes: int64 (N,).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm, which captum imports, misses a widget in notebooks
        from captum.attr import LayerGradCam  # here: takes a second to import, matplotlib with it

    if not len(images):
        return np.zeros((0, *images.shape[2:]), np.float32)
    model.eval()
    with torch.no_grad():
        last = model.layer_outputs(images)[-1].float()
    wanted = torch.as_tensor(classes, device=last.device)
    end = _End(model.head)
    with torch.enable_grad():
        last.requires_grad_()
        cams = LayerGradCam(end, end.map).attribute(last, wanted, relu_attributions=True).detach()
    cams = F.interpolate(cams, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0].clamp_min(0)
    most = cams.amax(dim=(1, 2), keepdim=True)
    found: np.ndarray = torch.where(most > 0, cams / most, torch.zeros_like(cams)).cpu().numpy()
    return found


def first_filters(model: S9Net) -> tuple[np.ndarray, int]:
    """(the first layer's filters, the strongest MOST_FILTERS of them, strongest first; how many filters it has).

    The filters are float16 (N, 3 or 1, k, k); one input channel in a grouped convolution. Strength: the norm.
    """
    first = next(module for module in model.modules() if isinstance(module, Convolution))
    weight = first.weight.detach().float().cpu()
    strongest = torch.argsort(weight.flatten(1).norm(dim=1), descending=True, stable=True)[:MOST_FILTERS]
    return weight[strongest].half().numpy(), len(weight)


@torch.no_grad()
def feature_maps(model: S9Net, config: ModelConfig, image: torch.Tensor) -> list[FeatureMaps]:
    """The output of each block's last layer for one image, (1, 3, H, W): the channels with the largest mean.

    Each map is scaled on its own: its smallest value is 0, its largest 255; a map of one value is 0.
    """
    model.eval()
    blocks = [name.partition(".")[0] for name, _ in rows(config)]
    last_of_block = dict(zip(blocks, (out[0].float().cpu() for out in model.layer_outputs(image)), strict=True))
    found = []
    for block, out in last_of_block.items():
        strongest = torch.argsort(out.mean(dim=(1, 2)), descending=True, stable=True)[:CHANNELS_SHOWN]
        maps = shrunk(out[strongest].numpy())
        low = maps.min(axis=(1, 2), keepdims=True)
        spread = maps.max(axis=(1, 2), keepdims=True) - low
        scaled = np.where(spread > 0, 255 * (maps - low) / np.where(spread > 0, spread, 1), 0).round().astype(np.uint8)
        found.append(FeatureMaps(block, scaled, (len(out), out.shape[1])))
    return found


def receptive_square(config: ModelConfig, facts: ImageFacts) -> tuple[int, int]:
    """(first, end) in input pixels of what the middle position of the last map can see, which may be off the image."""
    table = [row for row in model_facts(config, facts).table if row.name not in ("average", "head")]
    jumps = [1, *(row.jump for row in table[:-1])]
    outside = sum(padding_of(layer) * jump for (_, layer), jump in zip(rows(config), jumps, strict=True))
    last = table[-1]
    first = last.size // 2 * last.jump - outside
    return first, first + last.receptive_field


def receptive_field(model: S9Net, images: torch.Tensor, square: tuple[int, int]) -> ReceptiveField:
    """How much each pixel moves the middle position of the last map, and the square that `receptive_square` gave.

    Source: Luo et al., "Understanding the Effective Receptive Field", 2016 (arXiv 1701.04128): the gradient of the sum
    over the channels; here its absolute value, summed over colours, mean over `images`, (N, 3, H, W).
    """
    model.eval()
    first, end = square
    total = np.zeros(images.shape[2:])
    for some in images.split(max(1, PIXELS // images[0, 0].numel())):
        with torch.enable_grad():
            seen = some.detach().clone().requires_grad_()
            last = model.layer_outputs(seen)[-1].float()
            (gradient,) = torch.autograd.grad(last[:, :, last.shape[2] // 2, last.shape[3] // 2].sum(), seen)
        total += gradient.abs().sum(dim=1).double().cpu().numpy().sum(0)
    side = _side_within(total, (first + end - 1) / 2)
    effective = shrunk(total[None].astype(np.float32))[0]
    return ReceptiveField(first, end, (effective / max(effective.max(), 1e-30)).astype(np.float16), side)


def _side_within(total: np.ndarray, middle: float) -> int:
    """Pixels of the side of the smallest square around `middle`, in x and y, that holds WITHIN of `total`."""
    away = np.abs(np.arange(len(total)) - middle)
    distance = np.maximum(away[:, None], away[None, :])
    reached = np.cumsum(np.bincount(np.floor(distance + 0.5).astype(int).ravel(), total.ravel()))
    return 2 * int(np.searchsorted(reached, WITHIN * reached[-1])) + 1


def shrunk(images: np.ndarray) -> np.ndarray:
    """float32 (N, H, W) or (N, C, H, W), averaged down where a side is longer than LARGEST."""
    longest = max(images.shape[-2:])
    if longest <= LARGEST:
        return images
    height, width = (max(1, round(side * LARGEST / longest)) for side in images.shape[-2:])
    found: np.ndarray = F.adaptive_avg_pool2d(torch.from_numpy(images), (height, width)).numpy()
    return found
