"""What ``ownchat train`` says of each stage, in a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ownchat.artifacts import Report


def tokenized(counts: dict[str, int]) -> str:
    """What the phases have to learn from."""
    parts = []
    if counts.get("pretrain_train_tokens"):
        parts.append(f"{counts['pretrain_train_tokens']:,} tokens of text to read")
    tokens, trained = (counts[f"train_{of}"] + counts.get(f"prefer_train_{of}", 0) for of in ("tokens", "trained"))
    if tokens or not parts:
        share = f"{trained / max(1, tokens):.0%} of them trained (the replies)"
        parts.append(f"{tokens:,} tokens {'of conversations' if parts else 'to train on'}, {share}")
    if counts.get("prefer_train"):
        parts.append(counted(counts["prefer_train"], "preference"))
    return ", ".join(parts)


def trained(phase: str, facts: dict[str, Any]) -> str:
    """What a phase did, in a line."""
    text = f"{facts['steps']} steps, {facts['tokens_per_second']:,.0f} tokens/s, "
    if phase == "pretrain" and "bits_per_byte" in facts["best"]:
        bits = (facts[when]["bits_per_byte"] for when in ("before", "best"))
        return f"pre-training: {text}bits per byte {' -> '.join(f'{value:.3f}' for value in bits)}"
    text += f"validation loss {facts['base_loss']:.3f} -> {facts['best_loss']:.3f}"
    if phase != "prefer":
        return text
    if "accuracy" in facts["best"]:
        text += f", the better reply preferred in {facts['best']['accuracy']:.0%} of pairs"
    return f"{facts['objective'].upper()}: {text}"


def lost(report: Report, units: Sequence[str]) -> str:
    """What did not come through, by rule: nothing is lost in silence."""
    rules = report.details["rules"]
    parts = [
        f"{rule} {count:,}"
        for unit in units
        for fate in ("dropped", "unreadable")
        for rule, count in rules.get(f"{unit} {fate}", {}).items()
    ]
    return f"; not used: {', '.join(parts)}" if parts else "; nothing dropped"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
