"""How this process uses memory and cores: settings of the C library and OpenMP, made before torch computes anything."""

import contextlib
import ctypes
import os
import time
from pathlib import Path

RUNNING = Path("/proc/loadavg")  # fourth field: threads that run now / all threads
LOOKS, BETWEEN_S = 5, 0.004  # looks at the running threads; a busy program runs at each look


def share_cores() -> None:
    """Lets waiting OpenMP threads sleep if other programs keep busy the cores that these threads would compute on.

    A step has hundreds of parallel parts, each as slow as its slowest thread. By default a waiting thread spins for a
    while; next to a busy program, the spinning thread holds the core that the slowest thread needs. On idle cores
    spinning is faster. The results are the same either way. Settings in the environment take precedence.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() and others_are_busy():
        os.environ["GOMP_SPINCOUNT"] = "0"


def others_are_busy() -> bool:
    """Whether, at each of a few looks, more other threads run than there are cores that this process may not use."""
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
    """The number of cores that this process may use; in a container or a job, fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Lets the C library, if it is glibc, keep the memory that tensors free.

    By default glibc returns large blocks to the kernel and faults them in again: thousands of pages in every training
    step on a CPU, a tenth of the step's time.
    """
    trim_threshold, mmap_threshold = -1, -3  # of mallopt in malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(mmap_threshold, 2**30)
        library.mallopt(trim_threshold, 2**31 - 1)


def under_torchrun() -> bool:
    """Whether torchrun has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
