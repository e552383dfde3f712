"""What counts as out of memory, what is left of it, and scores that stay the same when it runs out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ownchat.model.control_groups import limited_groups
from ownchat.model.out_of_memory import Guard, is_out_of_memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs limits that Linux has")


def test_what_counts() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60)
    assert is_out_of_memory(refused.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 58)
    assert is_out_of_memory(of_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"))
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(other.value)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:    8000000 kB\nCached:  7000000 kB\n"


def test_pages_of_files_are_not_held_against_a_container(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": "2000000000\n",
        "sys/fs/cgroup/a/memory.current": "1990000000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 400\nfile 1500\ninactive_file 1000000000\nactive_file 400000000\n",
    }
    guard = Guard(root=machine(tmp_path, files))
    assert guard.available() == 2_000_000_000 - 1_990_000_000 + 1_400_000_000
    assert guard.reserve == 128 << 20 and not guard.short()
    (tmp_path / "sys/fs/cgroup/a/memory.stat").write_text("anon 1990000000\ninactive_file 0\nactive_file 0\n")
    assert guard.available() == 10_000_000


def test_version_1_and_machines_without_limits(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1234\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000000000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "2900000000\n",
        "sys/fs/cgroup/memory/memory.stat": "cache 1\ntotal_inactive_file 500000000\ntotal_active_file 100000000\n",
    }
    assert Guard(root=machine(tmp_path / "v1", files)).available() == 700_000_000
    files["sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"
    root = machine(tmp_path / "free", files)
    assert limited_groups(root) == [] and Guard(root=root).available() == 8_000_000 * 1024
    nothing = Guard(root=tmp_path / "elsewhere")
    assert nothing.available() is None and not nothing.short()


WATCHED = """
import torch
from ownchat.model.out_of_memory import Guard
from ownchat.train import memory

memory.keep_freed_pages()
print(Guard(reserve=0).short())
guard = Guard(reserve=1 << 60)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20

block = [torch.ones(1 << 20) for _ in range(100)]
block = None
before = resident()
print(guard.short(), before - resident() > 300)
block = [torch.ones(1 << 20) for _ in range(100)]
print(guard.short(), guard.short())
"""


@linux
def test_the_guard_speaks_when_blocks_hold_the_memory() -> None:
    """Real pages: plenty left; a block's freed pages are kept, and given back; they are in use, which is said once."""
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "True True", "True False"]


SCORED = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from transformers import LlamaConfig, LlamaForCausalLM
from ownchat.errors import RunError
from ownchat.model.load import load_model
from ownchat.model.score import score_documents

torch.manual_seed(0)
shape = dict(hidden_size=32, intermediate_size=16384, num_hidden_layers=1, num_attention_heads=2)
LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).save_pretrained(sys.argv[1])
generator = np.random.default_rng(0)
rows = [(generator.integers(1, 64, n), np.ones(n)) for n in generator.integers(20, 60, 60)]
model = load_model(Path(sys.argv[1]), packed=True)
wanted = score_documents(model, rows)

def limit(megabytes):
    now = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), -1))

said, done = [], []
limit(90)
got = score_documents(model, rows, on_halved=lambda *told: said.append(told), progress=done.append)
assert all(np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(wanted, got, strict=True))
assert sum(done) == 60 and [old for old, _, _ in said][0] == 2048 and said[-1][1] >= 256, said
assert all("allocate" in why for _, _, why in said), said
try:
    score_documents(model, [(np.ones(4000, int), np.ones(4000))])
except RunError as error:
    print(error)
"""


@linux
def test_scores_stay_the_same_when_memory_runs_out(tmp_path: Path) -> None:
    """The allocator really refuses: the process may take 90 MB more, a block of 2,048 tokens needs 300."""
    command = [sys.executable, "-c", SCORED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a document of 4,000 tokens does not fit" in done.stdout
