"""The peers' learning rate by the clock: they do not know how many steps their time will hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

WARMUP, LOWEST = 0.05, 0.1  # of the time; of the peak, at the end


def rate_share(clock: Any) -> Callable[[], float]:
    """Linear warm-up, then half a cosine down to a tenth, over the time of ``clock`` (see ``train_peers/clock.py``)."""

    def share() -> float:
        done = 1 - clock.remaining()
        if done < WARMUP:
            return max(done, 1e-3) / WARMUP
        part = (done - WARMUP) / (1 - WARMUP)
        return LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))

    return share
