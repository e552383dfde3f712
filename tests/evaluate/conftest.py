"""A stored report with the figures of a plausible run, and metrics to draw."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


REPORT: dict[str, Any] = {
    "name": "demo",
    "held_out": {
        "base": {
            "loss": interval(3.949, 3.801, 4.102),
            "perplexity": interval(51.9, 44.7, 60.5),
            "bits_per_byte": interval(1.312, 1.262, 1.363),
            "chrf": interval(18.4, 16.6, 20.3),
        },
        "tuned": {
            "loss": interval(2.962, 2.811, 3.118),
            "perplexity": interval(19.3, 16.6, 22.6),
            "bits_per_byte": interval(0.984, 0.934, 1.036),
            "chrf": interval(27.1, 24.4, 29.9),
        },
        "difference": {
            "loss": interval(-0.987, -1.071, -0.904),
            "perplexity": interval(-32.6, -39.2, -27.3),
            "bits_per_byte": interval(-0.328, -0.356, -0.3),
            "chrf": interval(8.7, 6.2, 11.3),
        },
        "improvement": interval(25.0, 22.8, 27.2),
        "base_prompt": "default",
        "base_prompt_losses": {"default": 3.949, "system": 4.021},
        "records": 50,
        "tokens": 2614,
        "groups": 50,
        "answers": 32,
        "notes": [],
    },
    "training": {
        "tokens_per_second": 1874.2,
        "seconds": 192.4,
        "peak_memory_bytes": 1_930_000_000,
        "steps": 87,
        "epochs": 3.0,
        "trained_tokens": 63_120,
        "best_step": 72,
        "best_loss": 2.98,
        "base_loss": 3.93,
        "method": "lora",
        "dtype": "bfloat16",
    },
    "ledger": {
        "1-data": {
            "file": {"in": 2, "kept": 1, "dropped": 0, "unreadable": 1, "split": 0, "merged": 0},
            "row": {"in": 506, "kept": 503, "dropped": 3, "unreadable": 0, "split": 0, "merged": 0},
        },
        "2-clean": {"row": {"in": 503, "kept": 499, "dropped": 4, "unreadable": 0, "split": 0, "merged": 0}},
        "4-tokens": {
            "row": {"in": 449, "kept": 449, "dropped": 0, "unreadable": 0, "split": 0, "merged": 0},
            "token": {"in": 54_311, "kept": 54_311, "dropped": 0, "unreadable": 0, "split": 0, "merged": 0},
        },
    },
    "ledger_rules": {
        "1-data": {
            "file kept": {"csv": 1},
            "file unreadable": {"binary": 1},
            "row dropped": {"empty": 3},
            "row kept": {"csv": 503},
        },
        "2-clean": {
            "row changed": {"encoding": 12},
            "row dropped": {"exact_duplicate": 4},
            "row kept": {"test": 50, "train": 399, "valid": 50},
        },
        "4-tokens": {"row kept": {"whole": 449}, "token kept": {"context": 33_071, "trained": 21_240}},
    },
    "answers": [
        {
            "id": f"{number:024x}",
            "question": question,
            "reference": reference,
            "base": base,
            "tuned": tuned,
        }
        for number, (question, reference, base, tuned) in enumerate(
            [
                (
                    "How long does a full bathroom renovation take?",
                    "A full bathroom renovation usually takes between two and three weeks, depending on the "
                    "condition of the pipes and on the delivery of the materials you choose.",
                    "The length of a full bathroom renovation can vary depending on several factors, including the "
                    "size of the bathroom, the type of renovation, and the complexity of the project. Here are some "
                    "general guidelines:\n\n1. Small bathroom: 2-3 months\n2. Medium bathroom: 3-6 months",
                    "A complete bathroom renovation takes between 2 and 3 weeks, depending on the size and on the "
                    "finishes.",
                ),
                (
                    "Do I need a permit to change my windows?",
                    "In most cases a notice of minor works is enough. If the facade is protected, you need a licence.",
                    "",
                    "For a change of windows a minor works notice is needed. We handle the paperwork for you.",
                ),
                (
                    "What guarantee do you give?",
                    "Every job has a guarantee of two years, and structural work one of ten.",
                    "I'm glad you asked! As an AI assistant, I don't have personal experiences or emotions.",
                    "We give a guarantee of two years on all work.",
                ),
                ("Where are you?", "In the centre.", "I am here.", "In the centre of the town."),
            ]
        )
    ],
    "conditions": {
        "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "cores": 2,
        "system": "Linux x86_64",
        "python": "3.11.2",
        "torch": "2.9.1",
        "transformers": "5.10.0",
        "ownchat": "0.1.0",
        "commit": "0cb4149aa001",
        "date": "2026-01-01 12:00 UTC",
    },
    "model": "/home/ana/.ownchat/runs/demo/5-train/model",
}

SETTINGS = """# The settings of this run; each line says where its value came from.
data:
  map: {}  # default
  system: You answer for a building company.  # given (flag)
model:
  base: starter  # default
  dtype: bfloat16  # derived (measured 2.1 times faster)
train:
  epochs: 3.0  # default
  learning_rate: 0.001  # derived (LoRA)
  minutes: 6.0  # given (config.yaml)
"""


@pytest.fixture
def report() -> dict[str, Any]:
    """A copy that a test may change."""
    return copy.deepcopy(REPORT)


@pytest.fixture
def metrics() -> list[dict[str, Any]]:
    return make_metrics()


def make_metrics() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [{"step": 0, "validation_loss": 3.93, "seconds": 0.0}]
    for step in range(1, 88):
        noise = 0.13 * math.sin(step * 2.7) + 0.08 * math.sin(step * 7.1)
        lines.append({"step": step, "loss": 2.45 + 1.5 * math.exp(-step / 22) + noise, "tokens_per_second": 1874.2})
        if step % 8 == 0:
            valid = 2.93 + 1.0 * math.exp(-step / 15) + max(0, step - 72) * 0.006
            lines.append({"step": step, "validation_loss": valid, "seconds": 2.0 * step})
    return lines


@pytest.fixture
def settings() -> str:
    return SETTINGS
