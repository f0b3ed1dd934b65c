"""Weights on disk: the same bits again, the old file or the new one, and one plain line for any other file."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from s9.config.model import ModelConfig
from s9.data.sources.cifar10 import FACTS
from s9.models.s9net import S9Net
from s9.system.errors import UserError
from s9.training.learner import averaged
from s9.training.weights import load_mean_weights, load_weights, plain_module, save_weights


def network(seed: int = 0, channels: int = 8) -> S9Net:
    """A small network whose batch statistics are no longer those of the start."""
    blocks: Any = {"C1": {"conv1": {"channels": channels}, "conv2": {"channels": 6, "separable": True, "stride": 2}}}
    torch.manual_seed(seed)
    model = S9Net(ModelConfig("small", 0.0, "relu", whiten=False, head=True, blocks=blocks), FACTS)
    model.train()(torch.randn(4, 3, 32, 32))
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "final.safetensors"


@pytest.fixture
def saved(path: Path) -> Path:
    save_weights(network(), path)
    return path


def test_weights_come_back_to_the_last_bit(saved: Path) -> None:
    other = network(seed=1)
    load_weights(other, saved)
    assert same(other, network())


def test_loaded_weights_give_the_same_logits(saved: Path) -> None:
    images = torch.randn(3, 3, 32, 32)
    other = network(seed=1)
    load_weights(other, saved)
    assert torch.equal(other.eval()(images), network().eval()(images))


def test_loaded_filters_stay_channels_last(saved: Path) -> None:
    other = network(seed=1)
    load_weights(other, saved)
    filters = [p for p in other.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)


def test_averaged_weights_come_back_to_the_last_bit(path: Path) -> None:
    model = network()
    ema = averaged(model, 0.5)
    assert ema is not None
    ema.update_parameters(model)
    ema.update_parameters(network(seed=2))
    save_weights(ema, path)
    other = network(seed=1)
    load_weights(other, path)
    assert same(other, ema.module)


def test_weights_of_a_network_can_be_loaded_into_an_average(saved: Path) -> None:
    ema = averaged(network(seed=1), 0.5)
    assert ema is not None
    load_weights(ema, saved)
    assert same(ema.module, network())


def test_the_file_names_tensors_as_the_plain_network_does(path: Path) -> None:
    ema = averaged(network(), 0.5)
    assert ema is not None
    save_weights(ema, path)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(network().state_dict())


def test_the_plain_module_of_a_network_is_itself() -> None:
    model = network()
    assert plain_module(model) is model


def test_saving_leaves_nothing_else_in_the_folder(saved: Path) -> None:
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_again_replaces_the_file(saved: Path) -> None:
    save_weights(network(seed=1), saved)
    other = network()
    load_weights(other, saved)
    assert same(other, network(seed=1))


def test_saving_does_not_change_the_network(path: Path) -> None:
    model = network()
    save_weights(model, path)
    assert same(model, network())


def test_a_full_disk_leaves_the_old_file(saved: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file of this process may grow beyond 1,000 bytes
        with pytest.raises((SafetensorError, OSError), match=r"(?i)too large"):
            save_weights(network(seed=1), saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = network(seed=2)
    load_weights(kept, saved)
    assert same(kept, network())


def test_a_save_interrupted_before_the_rename_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_weights(network(seed=1), saved)
    kept = network(seed=2)
    load_weights(kept, saved)
    assert same(kept, network())


def test_a_save_after_an_interrupted_one_works(saved: Path) -> None:
    saved.with_name(f"{saved.name}.part").write_bytes(b"the half of a file")
    save_weights(network(seed=1), saved)
    kept = network(seed=2)
    load_weights(kept, saved)
    assert same(kept, network(seed=1))


def refusal(model: nn.Module, path: Path) -> str:
    """What load_weights says of the file, which must be one line that begins with its path."""
    with pytest.raises(UserError) as caught:
        load_weights(model, path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


def test_a_missing_file_is_named(path: Path) -> None:
    assert refusal(network(), path) == "there is no such file"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refusal(network(), tmp_path) == "there is no such file"


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999], ids=lambda part: f"{100 * part:g} % of it")
def test_a_truncated_file_is_refused(saved: Path, part: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(part * len(content))])
    assert refusal(network(), saved).startswith("cannot be read as safetensors (")


def test_a_file_without_its_last_byte_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1])
    assert refusal(network(), saved).startswith("cannot be read as safetensors (")


@pytest.mark.parametrize(
    "content",
    [b"accuracy: 0.9\nnot weights at all\n", b"{}", b"\n" * 5000, bytes(5000), "näm\n".encode("latin-1") * 300],
    ids=["text", "json", "empty lines", "zeros", "latin-1"],
)
def test_a_file_that_is_no_safetensors_is_refused(saved: Path, content: bytes) -> None:
    saved.write_bytes(content)
    assert refusal(network(), saved).startswith("cannot be read as safetensors (")


def test_a_pickle_of_torch_is_refused(saved: Path) -> None:
    torch.save(network().state_dict(), saved)
    assert refusal(network(), saved).startswith("cannot be read as safetensors (")


def test_weights_of_another_width_are_refused_with_the_first_tensor_that_differs(saved: Path) -> None:
    said = refusal(network(channels=9), saved)
    assert said == "of another network; layers.C1_conv1.conv.weight is (8, 3, 3, 3), wanted (9, 3, 3, 3)"


def test_weights_that_lack_a_tensor_are_refused_with_its_name(saved: Path) -> None:
    larger = network()
    larger.extra = nn.Linear(2, 3)
    assert refusal(larger, saved) == "of another network; extra.bias is missing, wanted (3,)"


def test_weights_with_a_tensor_too_many_are_refused_with_its_name(saved: Path) -> None:
    smaller = network()
    smaller.head = nn.Identity()
    assert refusal(smaller, saved) == "of another network; head.bias is (10,), wanted nothing"


def test_a_refused_file_leaves_the_network_as_it_was(saved: Path) -> None:
    model = network(seed=1, channels=9)
    refusal(model, saved)
    assert same(model, network(seed=1, channels=9))


def kernels(*rows: tuple[int, int], channels: int = 8) -> S9Net:
    """One dense layer, then a separable one for each (kernel_size, dilation)."""
    separable = {
        f"conv{number}": {"channels": channels, "separable": True, "kernel_size": size, "dilation": dilation}
        for number, (size, dilation) in enumerate(rows, start=2)
    }
    blocks: Any = {"C1": {"conv1": {"channels": channels}} | separable}
    model = S9Net(ModelConfig("kernels", 0.0, "relu", whiten=False, head=True, blocks=blocks), FACTS)
    model.train()(torch.randn(4, 3, 32, 32))
    return model


def test_kernels_that_have_grown_compute_what_the_smaller_ones_did(path: Path) -> None:
    old = kernels((3, 1), (3, 2), (3, 2), (3, 1))
    save_weights(old, path)
    new = kernels((5, 1), (5, 1), (9, 1), (3, 1))
    load_mean_weights(new, [(kernels((3, 1), (3, 2), (3, 2), (3, 1)), path)])
    images = torch.randn(3, 3, 32, 32)
    assert torch.allclose(new.eval()(images), old.eval()(images), atol=1e-5)
    middle, small = new.layers["C1_conv2"].conv[0].weight, old.layers["C1_conv2"].conv[0].weight  # type: ignore
    assert torch.equal(middle[:, :, 1:4, 1:4], small) and middle.count_nonzero() == small.count_nonzero()


@pytest.mark.parametrize(
    ("old", "new"), [((3, 1), (5, 2)), ((3, 3), (5, 2)), ((3, 1), (4, 1)), ((5, 1), (3, 1)), ((3, 4), (5, 1))]
)
def test_kernels_that_do_not_lie_within_the_new_ones_are_refused(
    path: Path, old: tuple[int, int], new: tuple[int, int]
) -> None:
    save_weights(kernels(old), path)
    with pytest.raises(UserError, match=r"of another network; layers\.C1_conv2\.conv\.0\.weight is .*, wanted"):
        load_mean_weights(kernels(new), [(kernels(old), path)])


def test_grown_kernels_of_other_channels_are_refused(path: Path) -> None:
    save_weights(kernels((3, 1)), path)
    with pytest.raises(UserError, match="of another network"):
        load_mean_weights(kernels((5, 1), channels=6), [(kernels((3, 1)), path)])
