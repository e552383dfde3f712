"""A stored report with the figures of a plausible run, metrics to draw, and a model that answers differently."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
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


def make_full_report() -> dict[str, Any]:
    """With everything that a report can have beside what every one has."""
    report = copy.deepcopy(REPORT)
    held_out = report["held_out"]
    for key, base, tuned, difference in (
        ("token_accuracy", (41.2, 39.0, 43.5), (52.3, 50.1, 54.6), (11.1, 9.2, 13.0)),
        ("rouge_l", (17.9, 15.8, 20.1), (25.4, 22.3, 28.7), (7.5, 4.9, 10.2)),
        ("exact", (0.0, 0.0, 10.7), (3.1, 0.2, 15.7), (3.1, 0.0, 9.4)),
    ):
        for side, values in (("base", base), ("tuned", tuned), ("difference", difference)):
            held_out[side][key] = interval(*values)
    names = ["cancel the order", "refund", "where is my parcel"]
    held_out["labels"] = {
        "names": names,
        "base": {
            "accuracy": interval(40.0, 28.0, 53.0), "macro_f1": interval(31.0, 22.0, 41.0),
            "confusion": [[4, 1, 0, 5], [0, 3, 2, 5], [1, 0, 5, 4]],
        },
        "tuned": {
            "accuracy": interval(90.0, 79.0, 96.0), "macro_f1": interval(89.0, 77.0, 97.0),
            "confusion": [[9, 1, 0, 0], [0, 9, 1, 0], [0, 0, 9, 1]],
        },
        "difference": {"accuracy": interval(50.0, 33.0, 67.0), "macro_f1": interval(58.0, 40.0, 71.0)},
    }  # fmt: skip
    held_out["judge"] = {
        "model": "judge-7b", "pairs": 32, "judged": 30, "failed": 2, "tuned": interval(0.6, 0.44, 0.75),
        "base": interval(0.2, 0.08, 0.36), "ties": interval(0.2, 0.08, 0.36),
        "self_agreement": interval(0.83, 0.66, 0.93),
    }  # fmt: skip
    held_out["embedding"] = {
        "model": "embed-small", "base": interval(0.61, 0.57, 0.65), "tuned": interval(0.74, 0.7, 0.78),
        "difference": interval(0.13, 0.09, 0.17), "failed": 0,
    }  # fmt: skip
    held_out["slices"] = [
        {"by": by, "name": name, "records": records, "groups": groups, "base": interval(base, base - 0.2, base + 0.2),
         "tuned": interval(tuned, tuned - 0.2, tuned + 0.2), "improvement": interval(*improvement)}
        for by, name, records, groups, base, tuned, improvement in (
            ("source", "tickets-2024.csv", 30, 30, 3.8, 2.7, (28.9, 25.0, 33.0)),
            ("source", "a-very-long-name-of-a-file-with-mails-of-the-year-2023-from-the-office.mbox", 17, 12, 4.1, 3.2,
             (22.0, 16.0, 27.0)),
            ("source", "phone.txt", 3, 2, 4.4, 4.5, (-2.3, -9.0, 4.0)),
            ("topic", "permits", 22, 20, 3.9, 2.8, (28.2, 24.0, 32.0)),
            ("topic", "prices", 28, 26, 4.0, 3.1, (22.5, 17.0, 27.0)),
            ("length", "up to 40 tokens", 17, 17, 4.3, 3.5, (18.6, 12.0, 24.0)),
            ("length", "41 to 60 tokens", 17, 17, 4.0, 3.0, (25.0, 20.0, 29.0)),
            ("length", "61 tokens and more", 16, 16, 3.8, 2.7, (28.9, 25.0, 32.0)),
        )
    ]  # fmt: skip
    answers = report["answers"]
    held_out["extremes"] = {
        "best": [{**answer, "base_loss": 4.1, "tuned_loss": 2.0 + at / 10, "chrf_change": 12.5 - at}
                 for at, answer in enumerate(answers)],
        "worst": [{**answer, "base_loss": 3.1, "tuned_loss": 3.3, "chrf_change": None} for answer in answers],
    }  # fmt: skip
    report["gates"] = {
        "passed": False,
        "checks": [
            {"require": "loss better", "passed": True, "why": "better by 0.987 (+0.904 to +1.071)"},
            {"require": "chrf at least 40", "passed": False, "why": "it is 27.1 (24.4 to 29.9)"},
        ],
    }
    report["cost"] = {
        "seconds": 302.1,
        "by_stage": {
            "1-data": 3.1,
            "2-clean": 1.2,
            "3-tokenizer": 0.1,
            "4-tokens": 0.6,
            "5-train": 192.4,
            "6-report": 104.7,
        },
        "watt_hours": 0.64,
        "how": "estimated, not measured: 2 busy hardware threads at 3.5 W each",
    }
    report["private_data"] = {"places": 192, "records": 120, "by_type": {"person": 90, "phone_number": 62, "email": 40}}
    report["recommendation"] = {
        "text": "It was still learning when it ended: train for longer.",
        "command": "ownchat train ~/inbox --name demo --config ~/.ownchat/runs/demo/config.yaml --epochs 4",
        "why": "the validation loss fell from 3.100 to 2.980 at the last validation",
    }
    return report


def care_figure(name: str, unit: str, base: Any, tuned: Any, difference: Any) -> dict[str, Any]:
    three = {"base": base, "tuned": tuned, "difference": difference}
    return {"name": name, "title": name.capitalize(), "meaning": "what it is, in a line", "unit": unit,
            "better": "lower"} | {side: found and interval(*found) for side, found in three.items()}  # fmt: skip


CARE: dict[str, Any] = {
    "checks": [
        {"name": "memorisation", "skipped": None, "seconds": 31.2, "examples": [{"text": "Close the valve, and wait."}],
         "figures": [care_figure("extracted", "percent", (0, 0, 5.7), (6.2, 2.1, 14), (6.2, 1, 11)),
                     care_figure("leaks", "count", None, (2, 2, 2), None)],
         "findings": [{"level": "danger", "text": "Private values in its answers: 2 email.", "advice": "mask more"},
                      {"level": "warning", "text": "20 made-up secrets were planted.", "advice": None}],
         "conditions": {"records": {"trained": 64, "unseen": 50}, "planted": {"canaries": 20, "rows": 131}}},
        {"name": "forgetting", "skipped": None, "seconds": 12.0, "examples": [], "conditions": {"seed": 0},
         "figures": [care_figure("loss", "percent", None, None, (1.2, 0.4, 2.1))],
         "findings": [{"level": "good", "text": "Nothing was forgotten.", "advice": None},
                      {"level": "note", "text": "The probe is short.", "advice": None}]},
        {"name": "toxicity", "skipped": "no answer was written", "seconds": 0.0, "examples": [], "conditions": {},
         "figures": [], "findings": []},
    ],
    "seconds": 43.2,
}  # fmt: skip


@pytest.fixture
def full_report() -> dict[str, Any]:
    return make_full_report() | {"care": copy.deepcopy(CARE)}


LADDER: dict[str, Any] = {
    "metric": "chrf",
    "rows": 32,
    "rungs": [
        {"name": "plain prompt", "kind": "prompt", "score": 18.4, "low": 16.6, "high": 20.3, "cost": None,
         "seconds_per_answer": 1.21, "difference": None, "against_prompt": interval(-4.0, -6.0, -2.0), "failed": 0},
        {"name": "four examples", "kind": "prompt", "score": 22.4, "low": 20.1, "high": 24.9, "cost": None,
         "seconds_per_answer": 2.75, "difference": interval(4.0, 2.0, 6.0), "against_prompt": None, "failed": 0,
         "best_prompt": True},
        {"name": "LoRA", "kind": "trained", "score": 27.1, "low": 24.4, "high": 29.9, "cost": None,
         "seconds_per_answer": 1.12, "difference": interval(8.7, 6.2, 11.3), "against_prompt": interval(4.7, 2.0, 7.5),
         "failed": 0},
        {"name": "full", "kind": "trained", "score": None, "low": None, "high": None, "cost": None,
         "seconds_per_answer": None, "difference": None, "failed": 0, "note": "not trained; --full trains it"},
        {"name": "big-model", "kind": "url", "score": 25.0, "low": 22.0, "high": 28.1, "cost": 1.84,
         "seconds_per_answer": 0.8, "difference": interval(6.6, 3.9, 9.3), "against_prompt": interval(2.6, -0.4, 5.6),
         "failed": 3},
    ],
    "advice": "train: LoRA beats the best prompt by 4.7 points of chrF [2.0, 7.5]",
    "train": True,
    "use": "LoRA",
    "command": "ownchat chat demo",
    "notes": [],
}  # fmt: skip


@pytest.fixture
def ladder() -> dict[str, Any]:
    return copy.deepcopy(LADDER)


@pytest.fixture(scope="session")
def shifted_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_model`` with other weights in its second layer: it answers differently."""
    import torch
    from transformers import AutoModelForCausalLM

    directory = shutil.copytree(tiny_model, tmp_path_factory.mktemp("shifted") / "model")
    model = AutoModelForCausalLM.from_pretrained(directory)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.model.layers[1].parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(directory)
    return directory
