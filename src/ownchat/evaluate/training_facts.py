"""What a training took, in the units that people use: the same for the page, the terminal and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownchat.evaluate.wording import MISSING, number


def duration(seconds: float | None) -> str:
    """Time for people.

    >>> duration(41.6), duration(252), duration(3720), duration(None)
    ('42 s', '4 min 12 s', '1 h 2 min', '–')
    """
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def memory(num_bytes: float | None) -> str:
    """Bytes for people, in units of 1,000.

    >>> memory(2_340_000_000), memory(85_000_000), memory(None)
    ('2.3 GB', '85 MB', '–')
    """
    if num_bytes is None:
        return MISSING
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def training_facts(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures of the training that exist, each with its name."""
    method = {"lora": "LoRA adapter", "full": "all weights"}.get(training.get("method", ""), training.get("method"))
    steps = training.get("steps")
    best = training.get("best_step")
    facts = [
        ("Time", duration(training["seconds"])),
        ("Speed", _with(number(training["tokens_per_second"], 0), "tokens/s")),
        ("Peak memory", memory(training["peak_memory_bytes"])),
        ("Method", str(method) if method else MISSING),
        (
            "Steps",
            (f"{steps:,}" if steps is not None else MISSING) + (f" (best: {best:,})" if best is not None else ""),
        ),
        ("Epochs", number(training.get("epochs"), 1)),
        ("Tokens read", number(training.get("tokens", training.get("trained_tokens")), 0)),  # hosted: the latter
    ]
    return [(name, value) for name, value in facts if value != MISSING]


def _with(text: str, unit: str) -> str:
    return text if text == MISSING else f"{text} {unit}"
