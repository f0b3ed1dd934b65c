"""The machine under a run: seed, device, precision, versions, git commit. Knows nothing of networks or data."""

import hashlib
import os
import platform
import random
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s9.errors import UserError
from s9.process import available_cores

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "albumentations", "wandb", "numpy")


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch. Data order and augmentation do not use these streams: they are keyed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """`auto` is the first of cuda, mps, cpu that is there.

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
        raise UserError(f"trainer.device={name}: not on this machine; here: auto, {', '.join(there)}")
    return torch.device(name)


def has_real_bfloat16(device: torch.device) -> bool:
    """Whether bf16 is done in hardware; emulated bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Arm processors: torch has no such question, so float32 is the safe answer.
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return False


def pick_precision(name: str, device: torch.device, key: str = "trainer.precision") -> torch.dtype:
    """The dtype of autocast: float32 means none. `key` is what the user knows `name` by.

    Raises:
        UserError: bfloat16 was asked for where the device lacks it.
    """
    real = has_real_bfloat16(device)
    if name == "auto":
        return torch.bfloat16 if real else torch.float32
    if name == "bfloat16" and not real:
        raise UserError(f"{key}=bfloat16: this {device.type} has no bf16 in hardware; allowed: auto, float32")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor_name() -> str:
    """`AMD EPYC, 2 cores`, from the kernel where it says so."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {available_cores()} cores"


def under_torchrun() -> bool:
    """Whether torchrun has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a number needs beside it to be believed later: processor, device, versions, commit."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": sys.version.split()[0],
        "system": platform.system(),
        "versions": versions,
        **git_state(),
    }


def describe_arithmetic(precision: torch.dtype) -> dict[str, Any]:
    """What numbers are rounded by, beside the machine itself; asked when the number of threads is settled."""
    return {"precision": str(precision).removeprefix("torch."), "threads": torch.get_num_threads()}


@cache  # a run asks twice, and git takes a while
def git_state() -> dict[str, Any]:
    """Which source this is: the commit, and whether the tree differs from it; else the installed wheel.

    The commit counts only where git knows this file: s9 may be installed inside another project's repository, whose
    commit says nothing of it. `wheel` is the version and the sha256 of the wheel's RECORD, which lists the sha256 of
    every file; None where there is neither.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is not None:
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    return {"commit": None, "dirty": None, "wheel": _wheel()}


def _wheel() -> str | None:
    try:
        installed = distribution("s9")
    except PackageNotFoundError:
        return None
    record, own = installed.read_text("RECORD"), Path(str(installed.locate_file("s9/runtime.py")))
    if record is None or not own.exists() or not own.samefile(__file__):  # s9 was imported from elsewhere
        return None
    return f"s9 {installed.version}, RECORD {hashlib.sha256(record.encode()).hexdigest()}"
