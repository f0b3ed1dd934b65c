"""Where and in which precision a network computes: devices and precisions that are there, and what autocast does."""

from pathlib import Path

import pytest
import torch

from s9.system import compute
from s9.system.compute import Compute, has_real_bfloat16, pick_compute, pick_device, pick_precision
from s9.system.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "tpu"])
def test_a_device_that_is_not_here_is_refused_with_its_key_and_those_that_are(name: str) -> None:
    with pytest.raises(UserError, match=rf"^trainer\.device={name}: .*here: auto, .*cpu$") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


def test_the_devices_that_a_refusal_names_are_accepted() -> None:
    with pytest.raises(UserError) as caught:
        pick_device("cuda:99")
    named = str(caught.value).partition("here: ")[2].split(", ")
    assert [pick_device(name).type for name in named[1:]] == [name.partition(":")[0] for name in named[1:]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"^trainer\.device=cuda: not on this machine"):
        pick_device("cuda")


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == CPU


def test_auto_picks_an_accelerator_before_the_cpu() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == best


@pytest.mark.parametrize(("real", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_only_where_the_hardware_has_it(
    real: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "has_real_bfloat16", lambda device: real)
    assert pick_precision("auto", CPU) == dtype


def test_bfloat16_is_given_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "has_real_bfloat16", lambda device: True)
    assert pick_precision("bfloat16", CPU) == torch.bfloat16


def test_bfloat16_is_refused_with_its_key_where_the_hardware_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "has_real_bfloat16", lambda device: False)
    with pytest.raises(UserError, match=r"^trainer\.precision=bfloat16: .*allowed: auto, float32$") as caught:
        pick_precision("bfloat16", CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("real", [True, False])
def test_float32_is_float32_on_any_hardware(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "has_real_bfloat16", lambda device: real)
    assert pick_precision("float32", CPU) == torch.float32


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs the kernel's list of what the processor can do")
def test_this_processor_has_bfloat16_exactly_when_the_kernel_lists_it() -> None:
    listed = "avx512_bf16" in Path("/proc/cpuinfo").read_text().split()
    assert has_real_bfloat16(CPU) == listed


def test_device_and_precision_are_picked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "has_real_bfloat16", lambda device: True)
    assert pick_compute("cpu", "auto") == Compute(CPU, torch.bfloat16)


def test_a_precision_is_refused_by_the_key_that_the_user_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "has_real_bfloat16", lambda device: False)
    with pytest.raises(UserError, match=r"^precision=bfloat16: "):
        pick_compute("cpu", "bfloat16", prefix="")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_matrix_products_are_of_the_precision_and_weights_stay_as_they_are(name: str) -> None:
    layer, chosen = torch.nn.Linear(2, 2), Compute(CPU, getattr(torch, name))
    with chosen.autocast():
        assert layer(torch.zeros(1, 2)).dtype == chosen.precision
    assert (chosen.precision_name, layer.weight.dtype) == (name, torch.float32)
