"""Pages that a training step frees are kept for the next; after training they go back."""

from __future__ import annotations

import subprocess
import sys

import pytest

HELD = """
import torch
from ownchat.train import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 2**20

assert memory.keep_freed_pages()
tensors = [torch.ones(1 << 20) for _ in range(100)]
some = tensors[::20]
tensors = None
print(resident())
assert memory.return_freed_pages()
print(resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator is told what to keep")
def test_freed_pages_are_kept_and_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    kept, returned = map(int, done.stdout.split())
    assert kept > returned + 300
