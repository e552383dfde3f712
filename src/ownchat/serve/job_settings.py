"""What a job asks for, as arguments of ``ownchat train``, and the numbers that were taken where it left them open.

Nobody expects a fine-tuning API to change or drop examples, so cleaning is off unless ``x_train`` asks for it. Without
a validation file a tenth of the examples is held out for validation and a tenth for the report; all others are learned
as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from ownchat.config import CleanConfig, Config
from ownchat.serve.protocol.fine_tuning import Train

# The rates that ownchat train takes by itself; a multiplier of 1 is one of these (a test compares them).
LEARNING_RATES = {
    ("supervised", "lora"): 2e-3, ("supervised", "full"): 5e-5, ("dpo", "lora"): 5e-5, ("dpo", "full"): 1e-6,
}  # fmt: skip
CHARACTERS_PER_TOKEN = 3.0  # where a model has no tokenizer.json to count with
SMALLEST_SHARE = 1e-5
TEMPLATE_TOKENS = 10  # of an example's roles and turn ends, about

NOT_CLEANED: Mapping[str, Any] = {
    "repair_encoding": False, "system_lines": False, "bot_noise": False, "boilerplate": False, "cut_turns": False,
    "greetings": False, "detect_language": False, "quality_rules": [], "toxicity": "off", "exact_duplicates": False,
    "near_duplicates": False,
}  # fmt: skip


def mean_tokens(model: Path, sample: Sequence[str]) -> float:
    """Tokens of an example, from a few of them; loads a tokenizer and no model."""
    if not sample:
        return 1.0
    path = model / "tokenizer.json"
    if not path.is_file():
        return TEMPLATE_TOKENS + sum(len(text) for text in sample) / len(sample) / CHARACTERS_PER_TOKEN
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    counts = [len(found.ids) for found in tokenizer.encode_batch(list(sample), add_special_tokens=False)]
    return TEMPLATE_TOKENS + sum(counts) / len(counts)


def special_tokens(model: Path) -> list[str]:
    """The control tokens of a model: in texts to learn from they would be somebody else's commands."""
    try:
        content = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
        return [token["content"] for token in content.get("added_tokens", []) if token.get("special")]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def resolved(wanted: Mapping[str, Any], method: str, tokens: float) -> dict[str, Any]:
    """Numbers in place of "auto". ``tokens``: of an example, on average.

    >>> resolved({"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": 0.5}, "supervised", 100.0)
    {'n_epochs': 2, 'batch_size': 20, 'learning_rate_multiplier': 0.5}
    """
    train = Config().train
    usual = {
        "n_epochs": round(train.preference_epochs if method == "dpo" else train.epochs),
        "batch_size": min(256, max(1, round(train.batch_tokens / tokens))),
        "learning_rate_multiplier": 1.0,
        "beta": train.preference_beta,
    }
    return {name: usual[name] if value == "auto" else value for name, value in wanted.items()}


def arguments(
    wanted: Mapping[str, Any], method: str, given: Train, *, base: str, seed: int, tokens: float, threads: int,
    validation: str | None = None,
) -> list[str]:  # fmt: skip
    """What follows ``ownchat train PATH --name NAME``. The same arguments later go on with the same training.

    ``validation``: the file in PATH that nothing is to be learned of.
    """
    prefix = "preference_" if method == "dpo" else ""
    sets: dict[str, Any] = {
        "train.method": given.method, "train.seed": seed, "train.threads": threads, "model.base": base,
        "train.minutes": given.minutes, "train.patience": given.patience,
        "train.validate_every": given.validate_every, "tokenizer.max_tokens": given.max_tokens,
        "model.lora_rank": given.rank,
        "model.lora_alpha": 2 * given.rank if given.alpha is None and given.rank is not None else given.alpha,
    }  # fmt: skip
    if wanted["n_epochs"] != "auto":
        sets[f"train.{prefix}epochs"] = wanted["n_epochs"]
    if wanted["batch_size"] != "auto":
        sets["train.batch_tokens"] = max(1, round(wanted["batch_size"] * tokens))
    if wanted["learning_rate_multiplier"] != "auto":
        rate = LEARNING_RATES[method, given.method] * wanted["learning_rate_multiplier"]
        sets[f"train.{prefix}learning_rate"] = rate
    if wanted.get("beta", "auto") != "auto":
        sets["train.preference_beta"] = wanted["beta"]
    clean = {} if given.clean else dict(NOT_CLEANED)
    private = CleanConfig().private_types if given.private else []
    sets |= {f"clean.{name}": value for name, value in clean.items()} | {"clean.private_types": private}
    if validation is not None:
        sets["data.map"] = {"valid": validation}
        if not given.report:  # nobody sees what is held out for it: all but one are for validation
            sets["clean.test_share"] = SMALLEST_SHARE
    if not given.report:  # the examples that were held out are scored in any case
        sets |= {"evaluate.answers": 0, "evaluate.care": {"checks": []}}
    return [part for key, value in sets.items() if value is not None for part in ("--set", f"{key}={_yaml(value)}")]


def _yaml(value: Any) -> str:
    """JSON is YAML, but for numbers such as 5e-05, which YAML takes for a text."""
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else json.dumps(value)
