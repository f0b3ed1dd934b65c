"""Weights on disk: safetensors files that hold numbers only, written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.optim.swa_utils import AveragedModel

from s9.errors import UserError
from s9.files import write_whole


def plain_module(model: nn.Module) -> nn.Module:
    """The network itself, without what averaging or compilation wrapped around it."""
    if isinstance(model, AveragedModel):
        model = model.module
    return getattr(model, "_orig_mod", model)


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the model's weights and batch statistics; a reader sees the old file or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in plain_module(model).state_dict().items()}
    write_whole(path, save(state))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills the model from `path`.

    Raises:
        UserError: the file is missing, damaged, or of another network.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from None
    wanted = plain_module(model).state_dict()
    for name in sorted(wanted.keys() | state.keys()):
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape:
            have = tuple(state[name].shape) if name in state else "missing"
            want = tuple(wanted[name].shape) if name in wanted else "nothing"
            raise UserError(f"{path}: of another network; {name} is {have}, wanted {want}")
    plain_module(model).load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})


def load_mean_weights(model: nn.Module, paths: Sequence[Path]) -> None:
    """Fills the model with the mean of the weights and batch statistics of one or more files.

    Several make a "model soup" (Wortsman et al. 2022, arXiv:2203.05482): it can help where all went on from the
    same weights. Their batch statistics only come near to the mean network's; training makes them its own.

    Raises:
        UserError: as `load_weights`, of the first that does not fit.
    """
    states = []
    for path in paths:
        load_weights(model, path)
        states.append({name: value.clone() for name, value in plain_module(model).state_dict().items()})
    stacked = {name: torch.stack([state[name].double() for state in states]) for name in states[0]}
    plain_module(model).load_state_dict({name: values.mean(0) for name, values in stacked.items()})
