"""How this process uses memory and cores: what the C library and OpenMP are told before torch computes anything."""

import contextlib
import ctypes
import os
import time
from pathlib import Path

RUNNING = Path("/proc/loadavg")  # its fourth field: threads that run now, of all there are
LOOKS, BETWEEN_S = 5, 0.004  # at what else runs; a program that is busy runs at each of them


def share_cores() -> None:
    """Lets OpenMP's threads sleep while they wait, where other programs keep cores busy that they would compute on.

    A step has hundreds of parallel parts, each as slow as its slowest thread. By default a thread that waits spins
    for a while; beside a busy program it holds the core that the thread it waits for needs. On idle cores spinning is
    faster. The numbers are the same either way. What the environment says of waiting holds.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() and others_are_busy():
        os.environ["GOMP_SPINCOUNT"] = "0"


def others_are_busy() -> bool:
    """Whether more other threads run, at each of a few looks, than there are cores that this process does not use."""
    for look in range(LOOKS):
        try:
            running = int(RUNNING.read_text().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):  # not Linux
            return False
        if running - 1 <= (os.cpu_count() or 1) - available_cores():
            return False
        if look < LOOKS - 1:
            time.sleep(BETWEEN_S)
    return True


def available_cores() -> int:
    """Cores that this process may use, which in a container or a job are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Lets the C library keep the memory that tensors give back, where it is glibc.

    By default it returns large blocks to the kernel and faults them in again: thousands of pages in every training step
    on a CPU, a tenth of its time.
    """
    trim_threshold, mmap_threshold = -1, -3  # of mallopt in malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(mmap_threshold, 2**30)
        library.mallopt(trim_threshold, 2**31 - 1)


def under_torchrun() -> bool:
    """Whether torchrun has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
