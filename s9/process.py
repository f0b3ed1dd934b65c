"""How this process uses memory and cores: what the C library and OpenMP are told before torch computes anything."""

import contextlib
import ctypes


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
