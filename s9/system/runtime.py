"""The machine under a run: processor, device, versions, and which source of s9 it runs."""

import hashlib
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import torch

from s9.system.compute import Compute
from s9.system.process import available_cores

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "albumentations", "wandb", "numpy")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor_name() -> str:
    """A name such as `AMD EPYC, 2 cores`, from the kernel if it gives one."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {available_cores()} cores"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What must be stored with a number so that it can be judged later: processor, device, versions, commit."""
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


def describe_arithmetic(compute: Compute) -> dict[str, Any]:
    """Precision and threads, on which rounding depends besides the machine; call it when the threads are set."""
    return {"precision": compute.precision_name, "threads": torch.get_num_threads()}


@cache  # a run asks twice, and git takes a while
def git_state() -> dict[str, Any]:
    """The source of s9 that runs: the commit, and whether the tree differs from it; else the installed wheel.

    The commit counts only if git knows this file: s9 may be installed inside another project's repository, whose
    commit says nothing about s9. `wheel` is the version and the sha256 of the wheel's RECORD, which lists the sha256
    of every file; None if s9 was not imported from an installed wheel.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is not None:
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    return {"commit": None, "dirty": None, "wheel": _wheel()}


def _wheel() -> str | None:
    try:
        installed = distribution("s9")
    except PackageNotFoundError:
        return None
    record, own = installed.read_text("RECORD"), Path(str(installed.locate_file("s9/system/runtime.py")))
    if record is None or not own.exists() or not own.samefile(__file__):  # s9 was imported from elsewhere
        return None
    return f"s9 {installed.version}, RECORD {hashlib.sha256(record.encode()).hexdigest()}"
