"""The peers' batch, and their learning rate by the clock: they do not know how many steps their time will hold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from clock import deadline

WARMUP, LOWEST = 0.05, 0.1  # of the time; of the peak, at the end


def rate_share(clock: Any) -> Callable[[], float]:
    """Linear warm-up, then half a cosine down to a tenth, from the end of the first step (loading and compiling belong
    to it) to the end of the time of ``clock`` (see ``train_peers/clock.py``)."""

    def share() -> float:
        began = clock.ends[0] if clock.ends else time.time()
        done = (time.time() - began) / max(1.0, deadline(clock.task) - began)
        if done < WARMUP:
            return max(done, 1e-3) / WARMUP
        part = (done - WARMUP) / (1 - WARMUP)
        return LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))

    return share


def batch_of(task: dict[str, Any], most: int) -> tuple[int, int]:
    """(sequences in a step, in one forward pass): as many tokens as ownchat takes, in whole sequences."""
    sequences = max(1, round(task["batch_tokens"] / task["context"]))
    return sequences, max(micro for micro in range(1, most + 1) if sequences % micro == 0)
