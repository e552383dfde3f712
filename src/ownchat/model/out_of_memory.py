"""Memory that runs out: how it shows, how much is left, how to make room.

An allocator that refuses raises an error, and the work is done again in smaller blocks. Linux mostly does not refuse:
it promises pages and kills the process that touches too many. So on a CPU the memory that is left is watched between
blocks (:class:`Guard`).
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import time
from pathlib import Path

import torch

from ownchat.model.control_groups import limited_groups, meminfo

# What allocators say in errors that have no type of their own: torch's for CPU, oneDNN, C++, cuBLAS, cuDNN, pinning.
SAYINGS = (
    "can't allocate memory",
    "not enough memory",
    "could not create a memory object",
    "bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)

RESERVE_SHARE, MIN_RESERVE, MAX_RESERVE = 0.05, 128 << 20, 1 << 30  # of the memory there is; bytes; bytes
WORTH = 64 << 20  # bytes that blocks have to hold before smaller ones are worth it
QUIET_SECONDS = 60.0


def is_out_of_memory(error: BaseException) -> bool:
    """Did memory run out, on the CPU or on the GPU?

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in SAYINGS)


def first_line(error: BaseException) -> str:
    """What an error says, without the stack that torch adds to it.

    >>> first_line(RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't\\nframe 1"))
    "DefaultCPUAllocator: can't"
    """
    text = str(error).split("\n", 1)[0] or type(error).__name__
    return text.rsplit("err == 0. ", 1)[-1]


def make_room() -> None:
    """Give back what nobody uses: objects in circles, the GPU's cached blocks, free pages that glibc keeps."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return_free_pages()


def return_free_pages() -> None:
    """Give free pages that glibc keeps back to the kernel."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)  # how much is kept from now on stays as it was set
        except AttributeError:  # another C library
            return


class Guard:
    """Says between blocks when so little memory is left that the kernel may kill the process soon.

    ``reserve``: bytes that should stay free; None: a twentieth of what there is, within bounds. ``root``: where
    ``proc`` and ``sys`` are. Without Linux's files it never says anything.
    """

    def __init__(self, *, reserve: int | None = None, root: Path = Path("/")) -> None:
        self._root, self._meminfo, self._groups = root, root / "proc" / "meminfo", limited_groups(root)
        total = min([meminfo(self._meminfo, "MemTotal") or 0, *(group.limit for group in self._groups)])
        self.reserve = int(min(MAX_RESERVE, max(MIN_RESERVE, total * RESERVE_SHARE))) if reserve is None else reserve
        self._quiet_until, self._told = 0.0, False

    def available(self) -> int | None:
        """Bytes that can still be taken: of the machine, and of every control group the process is in.

        Pages of files that can be dropped count as free: the kernel drops them before it kills.
        """
        free = meminfo(self._meminfo, "MemAvailable")
        if free is None:
            return None
        return min([free, *(group.limit - group.used() for group in self._groups)])

    def short(self) -> bool:
        """Is too little left, and would smaller blocks help?

        Freed pages are kept for the next block (:mod:`ownchat.train.memory`), so what is left between two blocks is
        what was left at the worst moment so far. When that is under the reserve, the kept pages are given back: if
        they were many, smaller blocks help. If they were few, others hold the memory; that is said once, where
        next to nothing is left, and not looked at again for a while.
        """
        before = self.available()
        if before is None or before >= self.reserve or time.monotonic() < self._quiet_until:
            return False
        held = _resident(self._root)
        make_room()
        if held - _resident(self._root) >= WORTH:
            return True
        self._quiet_until = time.monotonic() + QUIET_SECONDS
        told, self._told = self._told, True
        return before < self.reserve // 2 and not told


def _resident(root: Path) -> int:
    """Bytes of this process that are in memory; what it gives back shows here whatever other processes do."""
    try:
        return int((root / "proc" / "self" / "statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0
