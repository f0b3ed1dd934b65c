"""The device and precision of a network: picked once by each command, then passed on."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch

from s9.system.errors import UserError

Channels = tuple[float, ...]  # (3,) of RGB in [0, 1]


@dataclass(frozen=True)
class Compute:
    """A device and its autocast dtype; float32 means no autocast."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Runs convolutions and matrix products in `precision`."""
        return nullcontext() if self.precision == torch.float32 else torch.autocast(self.device.type, self.precision)

    def normalised(self, images: torch.Tensor, mean: Channels, std: Channels) -> torch.Tensor:
        """uint8 (B, 3, H, W) to normalised float32 on the device, channels last."""
        images = on_device(images, self.device).float()
        shift, scale = _shift_and_scale(mean, std, self.device)
        return images.sub_(shift).mul_(scale).contiguous(memory_format=torch.channels_last)

    @property
    def precision_name(self) -> str:
        """float32 or bfloat16."""
        return str(self.precision).removeprefix("torch.")


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. Only a copy to CUDA does not wait: one to mps may read memory that is in use again."""
    return values.to(device, non_blocking=device.type == "cuda")


@lru_cache(maxsize=8)  # so that no step copies anything from the host
def _shift_and_scale(mean: Channels, std: Channels, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and 1 / std, (1, 3, 1, 1) each, in grey levels from 0 to 255."""
    shift, spread = (torch.tensor(values, device=device).view(1, 3, 1, 1).mul_(255) for values in (mean, std))
    return shift, spread.reciprocal_()


def pick_compute(device: str, precision: str, prefix: str = "trainer.") -> Compute:
    """What `trainer.device` and `trainer.precision` mean on this machine. prefix: of the keys that set them.

    Raises:
        UserError: the machine lacks the device, or the device lacks the bfloat16 that was asked for.
    """
    picked = pick_device(device, f"{prefix}device")
    return Compute(picked, pick_precision(precision, picked, f"{prefix}precision"))


def pick_device(name: str, key: str = "trainer.device") -> torch.device:
    """The device of this name; `auto` is the first of cuda, mps, cpu that this machine has. key: the one that set it.

    Raises:
        UserError: the device is not on this machine.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *there]
    if name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise UserError(f"{key}={name}: not on this machine; here: auto, {', '.join(there)}")
    return torch.device(name)


def has_real_bfloat16(device: torch.device) -> bool:
    """Whether bf16 is done in hardware; emulated bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch cannot tell for Arm processors, so the safe answer is no: float32.
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return False


def pick_precision(name: str, device: torch.device, key: str = "trainer.precision") -> torch.dtype:
    """The autocast dtype; float32 means no autocast. `key`: the key that set `name`.

    Raises:
        UserError: bfloat16 was asked for, and the device lacks it.
    """
    real = has_real_bfloat16(device)
    if name == "auto":
        return torch.bfloat16 if real else torch.float32
    if name == "bfloat16" and not real:
        raise UserError(f"{key}=bfloat16: this {device.type} has no bf16 in hardware; allowed: auto, float32")
    return torch.bfloat16 if name == "bfloat16" else torch.float32
