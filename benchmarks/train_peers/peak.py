"""The machine's matrix products in bfloat16: the best rate over several shapes, alone in a process."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

SHAPES = [(2048, 576, 1536), (2048, 1536, 576), (2048, 768, 3072), (4096, 1024, 4096), (2048, 4096, 4096)]
GPU_SHAPES = [(8192, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 16384)]
REPEATS = 12


def measure() -> dict[str, object]:
    """TFLOP/s of ``[rows, width] x [width, columns]``, a linear layer's forward product; best repeat of best shape."""
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    best: tuple[float, list[int]] = (0.0, [])
    for rows, width, columns in GPU_SHAPES if gpu else SHAPES:
        x = torch.randn(rows, width, device=device).bfloat16()
        weight = torch.randn(columns, width, device=device).bfloat16()
        out = torch.empty(rows, columns, device=device, dtype=torch.bfloat16)  # no page faults inside the clock
        for _ in range(REPEATS):
            if gpu:
                torch.cuda.synchronize()
            start = time.perf_counter()
            torch.mm(x, weight.T, out=out)
            if gpu:
                torch.cuda.synchronize()
            rate = 2 * rows * width * columns / (time.perf_counter() - start) / 1e12
            best = max(best, (rate, [rows, width, columns]))
    return {"bfloat16_tflops": round(best[0], 3), "shape": best[1], "cuda": gpu, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measure()), encoding="utf-8")
