"""How this process uses memory and cores: what the C library and OpenMP are told before torch computes anything."""

import contextlib
import ctypes
import os

SPINS = "10000"  # turns that a thread spins before it sleeps, while it waits for the others


def share_cores() -> None:
    """Lets OpenMP's threads give up their core soon when they wait, unless the environment says how they wait.

    A step has hundreds of parallel parts, each as slow as its slowest thread. Beside a program that keeps a core busy,
    threads that spin for libgomp's 300,000 turns hold the very core that the one they wait for needs.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


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
