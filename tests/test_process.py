"""What a process of s9 tells the C library and OpenMP, measured in the process itself."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

FAULTS = """
import ctypes, resource, sys
import numpy as np
from s9 import command_line

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages would hide most of them

def faults(_):
    for turn in range(4):  # the first ones grow the heap
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(64 * 2**20, np.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

command_line.open_door(faults) if sys.argv[1] == "door" else faults(None)
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
