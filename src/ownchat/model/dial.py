"""One dial: a size, a preset, some minutes, or nothing; everything else of a model from nothing follows, with reasons.

Rates, batches and decay are for Muon whose updates are as large as AdamW's (``match_rms_adamw``, Liu et al. 2025,
arXiv:2502.16982), so that what was published for AdamW holds for both. docs/from-scratch.md explains the rules.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from ownchat.config import Config
from ownchat.errors import ConfigError
from ownchat.model.create import Size
from ownchat.model.presets import Preset, parse_size, preset_name
from ownchat.model.scaling_law import (
    AS_GOOD_AS_NEW,
    MOST_EPOCHS,
    WEIGHTS_PER_TOKEN,
    best_choice,
    effective_tokens,
    flops_for_new,
    optimal_tokens,
)
from ownchat.model.shape import check, given_size, size_of, smallest, words

TRAINING_SHARE = 0.9  # of the minutes; the rest is for validations, samples and checkpoints
AT_LEAST_MINUTES, AT_MOST_HOURS = 10, 8  # when no time is given: what a small corpus still gets, and one evening
GRID = 1.08  # between sizes that are looked at
LEAST_ASPECT = 24  # width for each layer, of those
SLOW_WIDTH = 96  # a matrix of this width takes twice the time of as many products of a wide one (processors)
FEWEST_STEPS = 200
BATCH_TOKENS = (2 << 10, 512 << 10)
LEAST_BATCH = 256  # tokens, of a corpus too small for more
LEARNING_RATES = (1e-4, 1e-2)
TOKENS_PER_WEIGHT = 20  # at least, in the rule for the rate
WEIGHT_DECAY = 0.1  # Brown et al. 2020, and nearly everybody since
MANY_EPOCHS, MOST_DECAY = 8.0, 3.2
DECAY_RATE = 3e-3  # up to which a decay is as asked: a step of a higher rate takes no more away
WARMUP_SHARE, MOST_WARMUP_STEPS = 0.05, 2000
# Of Muon, and the steps for which it follows: docs/pretraining.md. A step of a short training is a large part of it.
MOMENTUM, REMEMBERED_SHARE = (0.8, 0.95), 1 / 118
SFT_SHARE, MOST_SFT_RATE = 0.3, 1e-3  # of the rate of pre-training; SmolLM2-135M: 3e-3, then 1e-3

ARCHITECTURES = {
    "qwen3": "its norms of queries and keys keep training steady",
    "llama": "model.architecture",
    "gpt2": "model.architecture",
}

Speed = Callable[[], float]  # FLOP/s of training here; called only when needed


@dataclass(frozen=True)
class Dial:
    """What was chosen; ``why`` has a reason for every number."""

    size: Size
    pretrain: dict[str, float | int]
    sft: dict[str, float]
    why: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contents of ``dial.json``."""
        size = asdict(self.size) | {
            "parameters": self.size.parameters,
            "embedding_parameters": self.size.embedding_parameters,
        }
        return {"size": size, "pretrain": self.pretrain, "sft": self.sft, "why": self.why}


@dataclass(frozen=True)
class Text:
    """What there is to learn from. ``unique``: tokens of a pass of pre-training; ``later``: of all passes after it."""

    unique: int
    vocab: int
    context: int
    later: int = 0
    fits: float = math.inf  # weights, by the memory that is there


def choose(config: Config, text: Text, flops_per_second: Speed) -> Dial:
    """The model and its pre-training for these settings; raises :class:`~ownchat.errors.ConfigError`.

    >>> settings = Config(model={"base": "scratch", "size": "30M"}, train={"minutes": 60})
    >>> dial = choose(settings, Text(unique=10**8, vocab=16384, context=1024), lambda: 1e12)
    >>> dial.size.layers, dial.size.width, round(dial.pretrain["epochs"], 2)
    (7, 512, 0.13)
    """
    why: dict[str, str] = {}
    speed = cache(flops_per_second)
    size = _size(config, text, speed, why)
    epochs = _epochs(config, text, size, speed, why)
    pretrain = _training(config, size, epochs, round(epochs * text.unique), why)
    rate = min(MOST_SFT_RATE, SFT_SHARE * pretrain["learning_rate"])
    why["sft"] = f"{SFT_SHARE:g} of it, at most {MOST_SFT_RATE:g}, as SmolLM2"
    return Dial(size, pretrain, {"learning_rate": float(f"{rate:.2g}")}, why)


def lines(dial: dict[str, Any], width: int = 69) -> list[str]:
    """``dial.json`` for people: each value with its reason, at most ``width`` columns."""
    size, pretrain = dial["size"], dial["pretrain"]
    shared = "" if size["kv_heads"] == size["heads"] else f", {size['kv_heads']} of keys and values"
    shown = {
        "parameters": f"{words(size['parameters'])} weights, {words(size['embedding_parameters'])} in embeddings",
        "architecture": size["architecture"],
        "layers": f"{size['layers']} layers",
        "width": f"width {size['width']:,}",
        "heads": f"{size['heads']} heads{shared}",
        "inner": f"feed-forward width {size['inner']:,}",
        "context": f"context {size['context']:,} tokens",
        "epochs": f"{pretrain['epochs']:.3g} passes",
        "batch_tokens": f"{pretrain['batch_tokens']:,} tokens a step",
        "learning_rate": f"rate {pretrain['learning_rate']:g}",
        "weight_decay": f"weight decay {pretrain['weight_decay']:g}",
        "momentum": f"momentum {pretrain.get('momentum', MOMENTUM[1]):g} for hidden matrices",
        "warmup_share": f"warm-up {pretrain['warmup_share']:.3g} of the steps",
        "sft": f"rate {dial['sft']['learning_rate']:g} for conversations after it",
    }
    why = dial["why"]  # one of an older release has no momentum
    rows = (f"{value}: {why[name]}" for name, value in shown.items() if name in why)
    return [line for row in rows for line in textwrap.wrap(row, width, subsequent_indent="  ")]


# -------------------------------------------------------------------------------------------------------- size


def _size(config: Config, text: Text, speed: Speed, why: dict[str, str]) -> Size:
    asked = config.model.size
    shape: dict[str, int] = {str(part): value for part, value in config.model.shape.items()}
    rest: dict[str, Any] = {
        "architecture": config.model.architecture, "vocab": text.vocab, "context": text.context,
    }  # fmt: skip
    why["architecture"] = ARCHITECTURES[config.model.architecture]
    why["context"] = "as the tokenizer of this run"
    if asked is None and {"layers", "width"} <= shape.keys():
        size = given_size(**rest, shape=shape)
        why["parameters"] = "they follow from the shape that is given"
    elif asked is None:
        size = _by_law(config, text, rest | {"shape": shape}, speed, why)
    elif isinstance(weights := parse_size(asked), Preset):
        return _published(weights, text, shape, why)
    else:
        size = size_of(weights, **rest, shape=shape)
        why["parameters"] = f"{asked} asked for"
    _explain_shape(size, shape, why)
    return size


def _by_law(config: Config, text: Text, rest: dict[str, Any], speed: Speed, why: dict[str, str]) -> Size:
    """The size of the least predicted loss, for the text and the time."""
    found = _sizes(text, rest)
    if "epochs" in config.train.pretrain and config.train.minutes is None:
        epochs = config.train.pretrain["epochs"]
        why["parameters"] = f"compute-optimal for {epochs:g} passes over {text.unique:,} tokens"
        tokens = effective_tokens(text.unique, epochs)
        return min(found, key=lambda size: abs(math.log(optimal_tokens(size.parameters) / tokens)))
    flops, told = _budget(config, speed, flops_for_new(text.unique))
    candidates = [(size.parameters, min(MOST_EPOCHS, _passes(flops, size, text, config))) for size in found]
    best = best_choice(text.unique, candidates)
    epochs = candidates[best][1]
    if epochs <= 1:
        reason = "more text than time: compute-optimal, nothing is read twice"
    elif epochs <= AS_GOOD_AS_NEW:
        reason = "compute-optimal"
    elif epochs < MOST_EPOCHS or best < len(found) - 1:
        reason = "little text: more is gained by reading it again than by more weights"
    else:
        reason = f"little text: {WEIGHTS_PER_TOKEN:g} weights for each token of it are the limit"
    why["parameters"] = f"least predicted loss for {text.unique:,} unique tokens in {told}; {reason}"
    return found[best]


def _sizes(text: Text, rest: dict[str, Any]) -> list[Size]:
    """What is looked at, from small to large: of usual shape, and no more than half of it embeddings, if there is."""
    given = rest["shape"]
    least = smallest(**{name: value for name, value in rest.items() if name != "shape"})
    most = max(4 * least.parameters, min(WEIGHTS_PER_TOKEN * text.unique, text.fits))
    found: dict[int, Size] = {}
    for power in range(1 + math.floor(math.log(most / least.parameters, GRID) + 1e-9)):
        try:
            size = size_of(round(least.parameters * GRID**power), **rest)
        except ConfigError:  # with parts of the shape given, not every size can be made
            continue
        found[size.parameters] = size
    if not found:
        return [size_of(round(most), **rest)]  # which says what is wrong
    sizes = [found[weights] for weights in sorted(found)]
    usual = [
        size for size in sizes
        if size.embedding_parameters <= size.parameters / 2 and (given or size.width >= LEAST_ASPECT * size.layers)
    ]  # fmt: skip
    sizes = usual or sizes
    limit = max(sizes[0].parameters, min(WEIGHTS_PER_TOKEN * text.unique, text.fits))
    return [size for size in sizes if size.parameters <= limit]


def _budget(config: Config, speed: Speed, wanted: float) -> tuple[float, str]:
    """FLOPs to spend, and in words. ``wanted``: what would be enough, when no time is given."""
    per_second = speed()
    if config.train.minutes is not None:
        plural = "" if config.train.minutes == 1 else "s"
        return TRAINING_SHARE * 60 * config.train.minutes * per_second, f"{config.train.minutes:g} minute{plural}"
    least, most = (TRAINING_SHARE * seconds * per_second for seconds in (60 * AT_LEAST_MINUTES, 3600 * AT_MOST_HOURS))
    flops = min(max(wanted, least), most)
    minutes = flops / (TRAINING_SHARE * 60 * per_second)
    limit = f" (the most without --minutes: {AT_MOST_HOURS} hours)" if flops == most else ""
    return flops, f"about {minutes:,.0f} minutes{limit}"


def _cost(size: Size) -> float:
    """FLOPs for each token, as if all were done at the speed of wide matrices: narrow ones are slower."""
    return size.training_flops_per_token * (1 + SLOW_WIDTH / size.width)


def _passes(flops: float, size: Size, text: Text, config: Config) -> float:
    """How often the text can be read; the fine-tuning that follows shares the minutes."""
    later = _cost(size) * text.later if config.train.minutes is not None else 0.0
    return (flops - min(flops / 2, later)) / _cost(size) / text.unique


def _published(preset: Preset, text: Text, shape: dict[str, int], why: dict[str, str]) -> Size:
    heads = shape.get("heads", preset.heads)
    width = shape.get("width", preset.width)
    size = check(
        Size(
            "gpt2", shape.get("layers", preset.layers), width, heads, shape.get("kv_heads", heads),
            shape.get("inner", 4 * width), text.vocab, text.context,
        )
    )  # fmt: skip
    name = preset_name(preset)
    published = replace(size, vocab=50257, context=preset.context).parameters
    why["architecture"] = f"{name} is a GPT-2 ({preset.source})"
    why["parameters"] = (
        f"{name}, {words(published)} with its own 50,257 tokens; this run's tokenizer has {text.vocab:,}"
    )
    for part in ("layers", "width", "heads", "inner"):
        why[part] = "model.shape" if part in shape else preset.source
    if preset.note and not shape:
        why["heads"] += f"; {preset.note}"
    if text.context != preset.context:
        why["context"] += f"; published: {preset.context:,}"
    return size


def _explain_shape(size: Size, shape: dict[str, int], why: dict[str, str]) -> None:
    aspect = size.width / size.layers
    reasons = {
        "layers": f"{aspect:.0f} of width for each: it matters little",
        "width": "what makes that size",
        "heads": f"of {size.head_width} each",
        "inner": "four widths" if size.architecture == "gpt2" else "8/3 of the width, for its gate is a third matrix",
    }
    why |= {part: "model.shape" if part in shape else reason for part, reason in reasons.items()}


# ---------------------------------------------------------------------------------------------------- training


def _epochs(config: Config, text: Text, size: Size, speed: Speed, why: dict[str, str]) -> float:
    if "epochs" in config.train.pretrain:
        why["epochs"] = "train.pretrain"
        return config.train.pretrain["epochs"]
    unique = text.unique
    wanted = min(AS_GOOD_AS_NEW * unique, max(unique, optimal_tokens(size.parameters)))
    flops, told = _budget(config, speed, flops_for_new(unique) if config.model.size is None else _cost(size) * wanted)
    epochs = _passes(flops, size, text, config)
    why["epochs"] = f"{round(min(epochs, MOST_EPOCHS) * unique):,} tokens in {told}"
    if epochs > MOST_EPOCHS:
        why["epochs"] = (
            f"{round(MOST_EPOCHS * unique):,} tokens; more passes over {unique:,} unique ones teach next to nothing, "
            "though there is time (Muennighoff et al. 2023)"
        )
    return min(epochs, MOST_EPOCHS)


def _training(config: Config, size: Size, epochs: float, tokens: int, why: dict[str, str]) -> dict[str, float | int]:
    """Everything that depends on how long is trained."""
    given = config.train.pretrain
    asked = parse_size(config.model.size) if config.model.size is not None else None
    preset = asked if isinstance(asked, Preset) else None
    most = max(LEAST_BATCH, tokens // FEWEST_STEPS)
    published = preset is not None and preset.batch_tokens is not None and preset.batch_tokens <= most
    if "batch_tokens" in given:
        batch, why["batch_tokens"] = round(given["batch_tokens"]), "train.pretrain"
    elif preset is not None and preset.batch_tokens is not None and published:
        batch, why["batch_tokens"] = preset.batch_tokens, preset.source
    else:
        batch, why["batch_tokens"] = _batch(tokens, most)
    rate, why["learning_rate"] = _learning_rate(size, tokens)
    if "learning_rate" in given:
        rate, why["learning_rate"] = given["learning_rate"], "train.pretrain"
    elif preset is not None and preset.learning_rate is not None and published:
        rate, why["learning_rate"] = preset.learning_rate, preset.source
    decay, why["weight_decay"] = _weight_decay(epochs, size.parameters * epochs / max(1, tokens), rate)
    if "weight_decay" in given:
        decay, why["weight_decay"] = given["weight_decay"], "train.pretrain"
    steps = max(1.0, tokens / batch)
    momentum, why["momentum"] = _momentum(steps)
    if "momentum" in given:
        momentum, why["momentum"] = given["momentum"], "train.pretrain"
    warmup = min(WARMUP_SHARE, MOST_WARMUP_STEPS / steps)
    why["warmup_share"] = f"there are about {steps:,.0f}; at most {MOST_WARMUP_STEPS:,}"
    return {
        "epochs": float(f"{epochs:.4g}"),
        "batch_tokens": batch,
        "learning_rate": rate,
        "weight_decay": decay,
        "momentum": momentum,
        "warmup_share": round(warmup, 5),
    }


def _batch(tokens: int, most: int) -> tuple[int, str]:
    """Tokens of a step: 0.58 D^0.571 (Li et al. 2025, arXiv:2503.04715); it grows with the length of the training."""
    rule = min(max(0.58 * tokens**0.571, BATCH_TOKENS[0]), BATCH_TOKENS[1])
    if rule > most:
        return most, f"few, to make {FEWEST_STEPS} steps of so little text"
    return 1024 * round(rule / 1024), "0.58 tokens^0.571 (Li et al. 2025), 2k to 512k"


def _learning_rate(size: Size, tokens: int) -> tuple[float, str]:
    """1.79 N^-0.713 D^0.307 (Li et al. 2025, arXiv:2503.04715), N without embeddings, D at least 20 N.

    Their trainings were as long, or longer. With Muon shorter ones want no lower rate: 2.6 million weights after
    0.25 million tokens came to 2.65 bits per byte at 0.0025, as the rule has it, and to 2.58 at 0.008.
    """
    hidden = size.parameters - size.embedding_parameters
    rule = 1.79 * hidden**-0.713 * max(tokens, TOKENS_PER_WEIGHT * hidden) ** 0.307
    rate = min(max(rule, LEARNING_RATES[0]), LEARNING_RATES[1])
    bound = "" if rate == rule else f", at {'most' if rate < rule else 'least'} {rate:g}"
    return float(f"{rate:.2g}"), f"1.79 weights^-0.713 tokens^0.307 (Li et al. 2025){bound}"


def _weight_decay(epochs: float, weights_per_token: float, rate: float) -> tuple[float, str]:
    """The usual one up to four passes, from 8 on by the weights for each unique token, between them on the way: what is
    read again must not be learned by heart. Kim et al. 2025 (arXiv:2509.14786) found 0.8 at 0.75 weights, 1.6 at 1.5,
    3.2 at 3 and at 7. A rate above 0.003 makes it less, so that a step takes as much away. Measured at 0.01, bits per
    byte: 3.3 weights, 8 passes: 0.3 comes to 2.600, 1 to 2.528; 20 passes: 2.616, 2.512, 2 as well; 0.84 weights, 9
    passes: 0.3 to 2.284, 0.84 to 2.294; 5 passes: 0.1 and 0.3 to 2.30, 0.84 to 2.35.
    """
    if epochs <= AS_GOOD_AS_NEW:
        return WEIGHT_DECAY, "as GPT-3's"
    whole = max(WEIGHT_DECAY, min(weights_per_token, MOST_DECAY) * min(1.0, DECAY_RATE / rate))
    share = min(1.0, math.log(epochs / AS_GOOD_AS_NEW) / math.log(MANY_EPOCHS / AS_GOOD_AS_NEW))
    decay = WEIGHT_DECAY * (whole / WEIGHT_DECAY) ** share
    return float(f"{decay:.2g}"), f"for {epochs:.0f} passes, {weights_per_token:.2g} weights a token (Kim et al. 2025)"


def _momentum(steps: float) -> tuple[float, str]:
    """What it remembers, 1 / (1 - momentum) steps, is this share of all: in 590 steps of 2,048 tokens 0.8 came to 2.36
    bits per byte where 0.9 came to 2.38 and 0.95 to 2.44 (means of three seeds)."""
    least, most = MOMENTUM
    value = min(max(1 - 1 / max(1.0, REMEMBERED_SHARE * steps), least), most)
    return float(f"{value:.3g}"), f"for about {steps:,.0f} steps, {least:g} to {most:g}"
