"""What a process of s9 tells the C library and OpenMP, measured in the process itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from s9.system import process
from tests.conftest import ROOT

FAULTS = """
import ctypes, resource, sys
import numpy as np
from s9.cli.door import open_door

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages would hide most of them

def faults(_):
    for turn in range(4):  # the first ones grow the heap
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(64 * 2**20, np.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

open_door(faults, "") if sys.argv[1] == "door" else faults(None)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_every_door_keeps_the_memory_that_is_freed() -> None:
    """64 MB that were freed are 16,384 pages: given back to the kernel, they are faulted in again."""
    assert faults("no door") > 10_000
    assert faults("door") < 1_000


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def spins_in_a_new_process(**environment: str) -> str:
    """What OpenMP is told there, once s9 is imported."""
    code = "import os, s9; print(os.environ.get('GOMP_SPINCOUNT', 'nothing'))"
    kept = {key: value for key, value in os.environ.items() if key not in WAITING}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how many threads run")
def test_beside_busy_programs_threads_do_not_spin() -> None:
    cores = os.cpu_count() or 1
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * cores)]
    try:
        assert spins_in_a_new_process() == "0"
        assert spins_in_a_new_process(OMP_WAIT_POLICY="active") == "nothing"
        assert spins_in_a_new_process(GOMP_SPINCOUNT="7") == "7"
    finally:
        for one in busy:
            one.kill()
            one.wait()


@pytest.mark.parametrize(("running", "busy"), [(1, False), (1000, True)])
def test_busy_is_what_runs_beside_this_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, running: int, busy: bool
) -> None:
    (tmp_path / "loadavg").write_text(f"9.99 9.99 9.99 {running}/2000 12345\n")
    monkeypatch.setattr(process, "RUNNING", tmp_path / "loadavg")
    assert process.others_are_busy() == busy


@pytest.mark.parametrize("content", [None, "", "1 2 3", "1 2 3 many/2 5"])
def test_where_nothing_says_what_runs_threads_wait_as_they_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "loadavg").write_text(content)
    monkeypatch.setattr(process, "RUNNING", tmp_path / "loadavg")
    assert not process.others_are_busy()
