"""The process's memory: how much it took at most, keeping freed pages for the next step, giving them back after."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_pages() -> bool:
    """Tell glibc's allocator to keep what is freed instead of returning it to the kernel; true if it listened.

    Every training step allocates and frees the same hundreds of megabytes. By default glibc maps and unmaps each
    large tensor, and the page faults take up to a third of a CPU training step. Other C libraries: no change.
    """
    return _set(mmap_max=0, trim_threshold=-1, top_pad=64 << 20)


def return_freed_pages() -> bool:
    """Undo :func:`keep_freed_pages` and give what is free back to the kernel: what comes next needs other shapes."""
    gc.collect()  # models hold themselves in circles
    if not _set(mmap_max=1 << 16, trim_threshold=128 << 10, top_pad=128 << 10):
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _set(*, mmap_max: int, trim_threshold: int, top_pad: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = ((_M_MMAP_MAX, mmap_max), (_M_TRIM_THRESHOLD, trim_threshold), (_M_TOP_PAD, top_pad))
    accepted = [mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)


def reset_peak() -> None:
    """Start counting the peak anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """Most resident memory since :func:`reset_peak` (elsewhere: since the process began), or on the GPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
