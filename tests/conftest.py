"""What every test starts from: no network, no key, a cache of its own; and a short way to a configuration."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Tests run side by side: one thread each. Set before torch is imported, here and in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from s9.command_line import compose_config
from s9.config import Config

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No connection leaves this machine, nothing of the user's is read or written."""
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"tests have no network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    home = tmp_path_factory.mktemp("home")
    for key in [k for k in os.environ if k.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("S9_CACHE", str(home / "cache"))
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    # One font cache for all, since making it takes matplotlib seconds in each new home.
    monkeypatch.setenv("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / "s9-tests-matplotlib"))
    yield


@pytest.fixture
def digits() -> Callable[..., Config]:
    """A quick configuration on the embedded digits; overrides come last and win."""

    def compose(*overrides: str) -> Config:
        quick = ["data=digits", "model=strided", "aug=none", "trainer.epochs=1", "wandb=disabled"]
        return compose_config([*quick, *overrides])

    return compose


@pytest.fixture(scope="session")
def cifar10_images() -> Path:
    """The folder of the real images; tests that need it are skipped, with the reason, where it is not given."""
    folder = Path(os.environ.get("S9_CIFAR10_IMAGES", "data/cifar10-images"))
    if not (folder / "train").is_dir():
        pytest.skip("needs the CIFAR-10 images: unpack them and set S9_CIFAR10_IMAGES to their folder")
    return folder.resolve()
