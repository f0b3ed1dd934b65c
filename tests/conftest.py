"""What every test starts from: no network, no key, a cache of its own; and a short way to a configuration."""

import copy
import functools
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Tests run side by side: one thread each. Set before torch is imported, here and in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from s9.cli.compose import compose_config
from s9.config.schema import Config
from s9.tracking.folder import RunFolder

ROOT = Path(__file__).parent.parent


def has_bfloat16() -> bool:
    import torch

    from s9.system.compute import has_real_bfloat16

    return has_real_bfloat16(torch.device("cpu"))


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


BROWSERS = ("google-chrome", "chromium", "chromium-browser", "firefox")
NEEDS: dict[str, Callable[[], bool]] = {
    "bf16": has_bfloat16,
    "gpu": has_gpu,
    "slurm": lambda: shutil.which("sbatch") is not None,
    "browser": lambda: any(map(shutil.which, BROWSERS)),
}
REASONS = {
    "bf16": "needs bf16 in hardware",
    "gpu": "needs a GPU",
    "slurm": "needs a SLURM: there is no sbatch",
    "browser": f"needs a browser: one of {', '.join(BROWSERS)}",
}
_homes = itertools.count()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs something that is not on this machine."""
    for name, is_there in NEEDS.items():
        if item.get_closest_marker(name) and not is_there():
            pytest.skip(REASONS[name])


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test gets a folder; tmp_path_factory would look through all of them for each new one."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, homes: Path) -> None:
    """No connection leaves this machine, nothing of the user's is read or written."""
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"tests have no network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    home = homes / str(next(_homes))
    home.mkdir()
    # WANDB_SERVICE is W&B's note of its own process: brought back after a test that has ended that, it would mislead.
    for key in [k for k in os.environ if k.startswith("WANDB_") and k != "WANDB_SERVICE"]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("S9_CACHE", str(home / "cache"))
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    # One font cache for all, since making it takes matplotlib seconds in each new home.
    monkeypatch.setenv("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / "s9-tests-matplotlib"))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Config:
    return compose_config(list(overrides))


def composed(*overrides: str) -> Config:
    """A copy of what compose_config makes of these, which takes a third of a second, once."""
    return copy.deepcopy(_composed(overrides))


@contextmanager
def claimed(folder: RunFolder) -> Iterator[None]:
    """Inside the `with` block, the run is locked as by another process that trains it."""
    lock = folder.claim()
    try:
        yield
    finally:
        lock.release()


@pytest.fixture
def digits() -> Callable[..., Config]:
    """A quick configuration on the embedded digits; overrides come last and win."""

    def compose(*overrides: str) -> Config:
        quick = ["data=digits", "model=strided", "aug=none", "trainer.epochs=1", "wandb=disabled"]
        return composed(*quick, *overrides)

    return compose


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs at whose figures nobody looks: drawing them takes several times as long as the rest of a short run."""
    from s9.tracking import figures

    monkeypatch.setattr(figures, "draw_all", lambda folder: [])


@pytest.fixture(scope="session")
def cifar10_images() -> Path:
    """The folder of the real images; tests that need it are skipped, with the reason, where it is not given."""
    folder = Path(os.environ.get("S9_CIFAR10_IMAGES", "data/cifar10-images"))
    if not (folder / "train").is_dir():
        pytest.skip("needs the CIFAR-10 images: unpack them and set S9_CIFAR10_IMAGES to their folder")
    return folder.resolve()
