"""The machine under a run: devices and precisions that are there, seeds that repeat, facts that can be stored."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from s9 import runtime
from s9.errors import UserError
from s9.process import available_cores

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "tpu"])
def test_a_device_that_is_not_here_is_refused_with_its_key_and_those_that_are(name: str) -> None:
    with pytest.raises(UserError, match=rf"^trainer\.device={name}: .*here: auto, .*cpu$") as caught:
        runtime.pick_device(name)
    assert "\n" not in str(caught.value)


def test_the_devices_that_a_refusal_names_are_accepted() -> None:
    with pytest.raises(UserError) as caught:
        runtime.pick_device("cuda:99")
    named = str(caught.value).partition("here: ")[2].split(", ")
    assert [runtime.pick_device(name).type for name in named[1:]] == [name.partition(":")[0] for name in named[1:]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"^trainer\.device=cuda: not on this machine"):
        runtime.pick_device("cuda")


def test_the_cpu_is_always_there() -> None:
    assert runtime.pick_device("cpu") == CPU


def test_auto_picks_an_accelerator_before_the_cpu() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert runtime.pick_device("auto").type == best


@pytest.mark.parametrize(("real", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_only_where_the_hardware_has_it(
    real: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "has_real_bfloat16", lambda device: real)
    assert runtime.pick_precision("auto", CPU) == dtype


def test_bfloat16_is_given_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_real_bfloat16", lambda device: True)
    assert runtime.pick_precision("bfloat16", CPU) == torch.bfloat16


def test_bfloat16_is_refused_with_its_key_where_the_hardware_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_real_bfloat16", lambda device: False)
    with pytest.raises(UserError, match=r"^trainer\.precision=bfloat16: .*allowed: auto, float32$") as caught:
        runtime.pick_precision("bfloat16", CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("real", [True, False])
def test_float32_is_float32_on_any_hardware(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_real_bfloat16", lambda device: real)
    assert runtime.pick_precision("float32", CPU) == torch.float32


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs the kernel's list of what the processor can do")
def test_this_processor_has_bfloat16_exactly_when_the_kernel_lists_it() -> None:
    listed = "avx512_bf16" in Path("/proc/cpuinfo").read_text().split()
    assert runtime.has_real_bfloat16(CPU) == listed


def draws() -> tuple[float, list[float], list[float]]:
    return random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()


def test_the_same_seed_repeats_the_draws_of_python_numpy_and_torch() -> None:
    runtime.seed_everything(3)
    first = draws()
    runtime.seed_everything(3)
    assert draws() == first


def test_another_seed_draws_otherwise_from_each_of_them() -> None:
    runtime.seed_everything(3)
    first = draws()
    runtime.seed_everything(4)
    assert all(one != other for one, other in zip(draws(), first, strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_smallest_and_the_largest_seed_are_accepted_by_all(seed: int) -> None:
    runtime.seed_everything(seed)
    assert torch.initial_seed() == seed


def git(*arguments: str) -> str:
    root = Path(__file__).parent.parent
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.strip()


def test_the_description_has_the_commit_of_this_repository() -> None:
    commit = git("rev-parse", "HEAD")
    assert runtime.describe_machine(CPU)["commit"] == commit


def test_the_description_says_whether_files_differ_from_the_commit() -> None:
    before = git("status", "--porcelain")
    dirty = runtime.describe_machine(CPU)["dirty"]
    assert dirty in (bool(before), bool(git("status", "--porcelain")))  # someone may be editing just now


def test_the_description_can_be_stored_as_json() -> None:
    described = runtime.describe_machine(CPU)
    assert json.loads(json.dumps(described)) == described


def test_the_description_has_the_version_of_torch_that_runs() -> None:
    assert torch.__version__.startswith(runtime.describe_machine(CPU)["versions"]["torch"])


def test_the_description_names_every_package() -> None:
    assert list(runtime.describe_machine(CPU)["versions"]) == list(runtime.PACKAGES)


def test_the_description_names_the_device() -> None:
    assert runtime.describe_machine(CPU)["device"] == "cpu"


def test_there_are_no_more_cores_to_use_than_the_machine_has() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_the_processor_is_named_with_its_cores() -> None:
    assert runtime.processor_name().endswith(f", {available_cores()} cores")


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime.git_state.cache_clear()
    described = runtime.describe_machine(CPU)
    runtime.git_state.cache_clear()
    assert (described["commit"], described["dirty"]) == (None, None)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """s9 as a wheel would lay it, inside another project's repository that ignores its libraries."""
    root = Path(__file__).parent.parent
    libraries = tmp_path / "libraries"
    shutil.copytree(root / "s9", libraries / "s9", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copytree(root / "conf", libraries / "s9" / "conf")
    info = libraries / "s9-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: s9\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("s9/runtime.py,sha256=abc,1\n")
    (tmp_path / ".gitignore").write_text("libraries\n")
    as_somebody = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q"], ["add", ".gitignore"], ["commit", "-qm", "theirs"]):
        subprocess.run([*as_somebody, *command], cwd=tmp_path, check=True)
    return libraries


def state_of(libraries: Path) -> dict[str, str | bool | None]:
    said = subprocess.run(
        [sys.executable, "-c", "import json; from s9 import runtime; print(json.dumps(runtime.git_state()))"],
        cwd=libraries,
        env=os.environ | {"PYTHONPATH": str(libraries)},
        capture_output=True,
        text=True,
        check=True,
    )
    state: dict[str, str | bool | None] = json.loads(said.stdout)
    return state


def test_installed_inside_another_repository_it_is_the_wheel_that_is_named(installed: Path) -> None:
    record = hashlib.sha256((installed / "s9-0.1.0.dist-info" / "RECORD").read_bytes()).hexdigest()
    assert state_of(installed) == {"commit": None, "dirty": None, "wheel": f"s9 0.1.0, RECORD {record}"}


def test_where_the_other_repository_knows_the_file_its_commit_says_which_it_is(installed: Path) -> None:
    as_somebody = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["add", "-f", "libraries"], ["commit", "-qm", "vendored"]):
        subprocess.run([*as_somebody, *command], cwd=installed.parent, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=installed, capture_output=True, text=True, check=True)
    assert state_of(installed) == {"commit": head.stdout.strip(), "dirty": False}


def test_the_description_says_what_the_processor_can_do() -> None:
    assert runtime.describe_machine(CPU)["capability"] == torch.backends.cpu.get_cpu_capability()


def test_the_arithmetic_is_the_precision_and_the_threads() -> None:
    assert runtime.describe_arithmetic(torch.bfloat16) == {"precision": "bfloat16", "threads": torch.get_num_threads()}
