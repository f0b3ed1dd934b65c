"""The machine under a run: facts that can be stored, and which source of s9 it is."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s9.system import runtime
from s9.system.compute import Compute
from s9.system.process import available_cores

CPU = torch.device("cpu")


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
    (info / "RECORD").write_text("s9/system/runtime.py,sha256=abc,1\n")
    (tmp_path / ".gitignore").write_text("libraries\n")
    as_somebody = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q"], ["add", ".gitignore"], ["commit", "-qm", "theirs"]):
        subprocess.run([*as_somebody, *command], cwd=tmp_path, check=True)
    return libraries


def state_of(libraries: Path) -> dict[str, str | bool | None]:
    said = subprocess.run(
        [sys.executable, "-c", "import json; from s9.system import runtime; print(json.dumps(runtime.git_state()))"],
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
    described = runtime.describe_arithmetic(Compute(CPU, torch.bfloat16))
    assert described == {"precision": "bfloat16", "threads": torch.get_num_threads()}
