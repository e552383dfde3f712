"""Pages that a training step frees are kept for the next; after training they go back."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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


SHAPES = """
import ownchat
import torch
from ownchat.train import memory

weight = torch.ones(256, 64, dtype=torch.bfloat16)

def products(rows):
    for number in rows:
        torch.nn.functional.linear(torch.ones(number, 64, dtype=torch.bfloat16), weight)

products(range(100, 500))  # as many as are held
before = memory.held_bytes()
products(range(500, 1000))
print((memory.held_bytes() - before) / 500)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.skipif(
    not re.search(r"\b(avx512_bf16|amx_bf16)\b", Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""),
    reason="this processor has no bfloat16 products: training takes float32, and oneDNN other kernels",
)
def test_products_of_other_shapes_do_not_fill_memory() -> None:
    done = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300_000  # bytes for each shape; with the defaults 800,000 where oneDNN makes kernels


STEPS = """
import torch
from ownchat.train import memory

memory.keep_freed_pages()
heap = memory.Heap()

def held_after(seconds):
    tensors = [torch.ones(1 << 20) for _ in range(100)]  # 400 MB
    del tensors
    given_back = heap.after_step(seconds)
    print(int(given_back), memory.held_bytes() // 2**20)

held_after(0.01)
held_after(60.0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator is told what to keep")
def test_pages_are_given_back_after_long_steps_and_kept_between_short_ones() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    (kept, much), (given_back, little) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert not kept and given_back
    assert much > little + 300
