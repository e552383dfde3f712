"""The process's memory: how much it took at most, keeping freed pages for the next step, giving them back after."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

from ownchat.model.out_of_memory import Guard, make_room, return_free_pages

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_pages() -> bool:
    """Tell glibc's allocator to keep what is freed instead of returning it to the kernel; true if it listened.

    Every training step allocates and frees the same hundreds of megabytes. By default glibc maps and unmaps each
    large tensor, and the page faults take up to a third of a CPU training step. Other C libraries: no change.
    """
    return _set(mmap_max=0, trim_threshold=-1, top_pad=64 << 20)


def return_freed_pages() -> bool:
    """Undo :func:`keep_freed_pages` and give what is free back to the kernel: what comes next needs other shapes."""
    accepted = _set(mmap_max=1 << 16, trim_threshold=128 << 10, top_pad=128 << 10)
    make_room()
    return accepted


class Heap:
    """Keeps the heap from growing in a long run.

    Freed pages are kept, and blocks of ever other shapes leave gaps that no tensor fits into: after 15 steps a run held
    a quarter more than after the first. After a step that took long beside what it costs to take pages anew, all free
    ones are given back; after short ones (small models) when more than :data:`GROWTH` times what the largest needed is
    held, and always so on a GPU.
    """

    def __init__(self) -> None:
        make_room()  # loading a model takes more than the model, and leaves gaps
        self._needed, self._measuring, self._rest = 0, True, held_bytes()

    def after_step(self, seconds: float) -> bool:
        """Look, and give back if it is too much or costs little; true if it was. ``seconds``: of the step."""
        import torch

        held = held_bytes()
        if self._measuring:
            self._needed, self._measuring = max(self._needed, held), False
        if not torch.cuda.is_available() and (held - self._rest) / BYTES_A_SECOND < CHEAP * seconds:
            return_free_pages()
        elif held > GROWTH * self._needed:
            make_room()
        else:
            return False
        self._measuring, self._rest = True, held_bytes()
        return True


GROWTH = 1.05
BYTES_A_SECOND = 8e9  # that two threads take anew from the kernel, zeroed
CHEAP = 0.05  # of the step


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


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can have in all, what it holds already included: of the GPU where there is one.

    On a CPU the least of what the machine has left and what the process's control groups allow; very much where the
    system does not say. ``root``: where ``proc`` and ``sys`` are.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    free = Guard(root=root).available()
    return 10**15 if free is None else free + _status("VmRSS", root)


def reset_peak() -> None:
    """Start counting the peak anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def held_bytes() -> int:
    """Resident memory now, or what is allocated on the GPU; 0 where the system does not say."""
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS")


def peak_bytes() -> int:
    """Most resident memory since :func:`reset_peak` (elsewhere: since the process began), or on the GPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if peak := _status("VmHWM"):
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str, root: Path = Path("/")) -> int:
    """A line of ``/proc/self/status`` in bytes; 0 where there is none."""
    try:
        for line in (root / "proc" / "self" / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
