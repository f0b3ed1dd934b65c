"""Weights on disk: safetensors files of numbers, and of what these need to be used; written whole or not at all."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn
from torch.optim.swa_utils import AveragedModel

from s9.models.s9net import S9Net
from s9.models.shipped import ABOUT
from s9.system.errors import UserError
from s9.system.files import write_whole


def plain_module(model: nn.Module) -> nn.Module:
    """The network itself, without the wrappers of averaging and compilation."""
    if isinstance(model, AveragedModel):
        model = model.module
    return getattr(model, "_orig_mod", model)


def save_weights(model: nn.Module, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Writes the model's weights and batch statistics; a reader sees the old file or the new one, never a part.

    Args:
        about: what the weights need to be used without the run, as JSON in the file's metadata.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in plain_module(model).state_dict().items()}
    write_whole(path, save(state, {ABOUT: json.dumps(about)} if about else None))


def read_about(path: Path) -> dict[str, Any]:
    """What the file says about its weights; empty for weights from before December 2026.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from None
    return about if isinstance(about, dict) else {}


def digest_of(path: Path) -> str:
    """sha256 of the numbers, as a file without metadata holds them: what a file says about them does not count."""
    return hashlib.sha256(save(_read(path))).hexdigest()


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills the model from `path`.

    Raises:
        UserError: the file is missing, damaged, or of another network.
    """
    state = _read(path)
    _refuse_other_network(path, state, plain_module(model).state_dict())
    plain_module(model).load_state_dict(state)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from None


def head_of(model: S9Net) -> str:
    """How the names of the tensors begin that depend on the number of classes: those of the head, or the last layer."""
    return "head." if isinstance(model.head, nn.Linear) else f"layers.{list(model.layers)[-1]}."


def load_mean_weights(
    model: nn.Module, sources: Sequence[tuple[nn.Module, Path]], *, without: str | None = None
) -> None:
    """Fills the model with the mean of the weights and batch statistics of one or more files.

    The mean of several is a "model soup" (Wortsman et al. 2022, arXiv:2203.05482), which can help if all were trained
    from the same weights. Mean batch statistics only approximate the mean network's own, until training updates them.

    Args:
        sources: pairs of a network and the file of its weights. Kernels that are larger in the model are grown.
        without: tensors whose names begin so keep the model's values; None: there are none.

    Raises:
        UserError: as `load_weights`, for the first file that does not fit.
    """
    model, states = plain_module(model), []
    wanted = _named(model.state_dict(), without)
    for network, path in sources:
        load_weights(network, path)
        state = _named(network.state_dict() | dict(_grown_kernels(network, model)), without)
        _refuse_other_network(path, state, wanted)
        states.append(state)
    stacked = {name: torch.stack([state[name].double() for state in states]) for name in wanted}
    model.load_state_dict(model.state_dict() | {name: values.mean(0) for name, values in stacked.items()})


def _named(state: Mapping[str, torch.Tensor], without: str | None) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if without is None or not name.startswith(without)}


def _grown_kernels(network: nn.Module, model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, weight) of each convolution that is larger in the model: the old taps in place, zeros elsewhere.

    With padding that keeps the image size, the grown convolution computes what the old one did (Net2Net: Chen,
    Goodfellow, Shlens 2016, arXiv:1511.05641). Dilation counts: 3 x 3 with dilation 2 fits into 5 x 5 without dilation;
    5 x 5 with dilation 2 does not fit.
    """
    layers = dict(network.named_modules())
    for name, new in model.named_modules():
        old = layers.get(name)
        if isinstance(new, nn.Conv2d) and isinstance(old, nn.Conv2d) and new.kernel_size > old.kernel_size:
            places = {pixels: tap for tap, pixels in enumerate(_taps(new))}
            taps = [places.get(pixels) for pixels in _taps(old)]
            if None not in taps:
                weight = old.weight.new_zeros(*old.weight.shape[:2], *new.kernel_size)
                index = torch.tensor(taps)
                weight[:, :, index[:, None], index] = old.weight.detach()
                yield f"{name}.weight", weight


def _taps(convolution: nn.Conv2d) -> list[float]:
    """Where the taps of a square kernel lie along one side, in pixels from its middle."""
    count, dilation = convolution.kernel_size[0], convolution.dilation[0]
    return [dilation * (tap - (count - 1) / 2) for tap in range(count)]


def _refuse_other_network(path: Path, state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name in sorted(wanted.keys() | state.keys()):
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape:
            have = tuple(state[name].shape) if name in state else "missing"
            want = tuple(wanted[name].shape) if name in wanted else "nothing"
            raise UserError(f"{path}: of another network; {name} is {have}, wanted {want}")
