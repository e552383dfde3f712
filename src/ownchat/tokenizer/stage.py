"""Stage 3-tokenizer: the tokenizer that the run uses, learned from its text or taken over."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.errors import ModelError
from ownchat.monitor.progress import progress, say
from ownchat.tokenizer.learn import LEAST, all_cores, learn
from ownchat.tokenizer.render import PLAIN_TEMPLATE
from ownchat.tokenizer.texts import Amount, amount_of, texts

MOST_BYTES = 2**30  # of text that a tokenizer is learned from: an even sample of more says the same, and fits
LOOK_BYTES = 500_000  # that say how many bytes a token has
CONTEXTS = ((10**7, 512), (10**9, 1024), (math.inf, 2048))  # tokens to train on, below which a context is taken
HELD_SHARE = 0.95  # of the conversations, which are to fit
TOKENS_PER_TURN = 5  # that the template adds
SEED = 0


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory; one without a chat template gets :data:`~ownchat.tokenizer.render.PLAIN_TEMPLATE`.

    Raises :class:`~ownchat.errors.ModelError` when there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"no tokenizer can be loaded: {str(error).splitlines()[0]}",
            where=str(directory),
            fix="the directory must hold tokenizer.json and tokenizer_config.json",
        ) from error
    if not tokenizer.chat_template:
        if tokenizer.eos_token is None:
            raise ModelError("no chat template and no end-of-text token", where=str(directory))
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def run_tokenizer(config: Config, inputs: dict[str, Path], output: Path) -> Report:
    """Stage 3-tokenizer. ``inputs``: ``base``, a directory with a tokenizer, which is copied, template included; or
    ``clean`` (2-clean), from whose train split one is learned. Where a tokenizer is taken over, the context is that of
    the ``model`` it is for; of a model from nothing, for which there are ``base`` and ``clean``, the text decides.
    """
    if "base" not in inputs:
        return _run_learning(config, inputs["clean"], output)
    files = {file.name: file for file in inputs["base"].glob("*token*")} | {
        file.name: file for file in inputs["base"].glob("*.jinja")
    }
    model = inputs.get("model", inputs["base"])
    if (model / "config.json").is_file():
        files["config.json"] = model / "config.json"
    if "clean" in inputs:
        files["clean"] = inputs["clean"]
    key = artifacts.stage_key(config, ("tokenizer",), files)
    if report := artifacts.completed(output, key):
        return report
    start = artifacts.start_afresh(output)
    tokenizer = load_tokenizer(inputs["base"])
    own = tokenizer.model_max_length if model == inputs["base"] else math.inf
    tokenizer.model_max_length = int(min(own, context_tokens(model)))
    details = {"vocab_size": len(tokenizer), "chat_template": tokenizer.chat_template}
    if "clean" in inputs:
        train = inputs["clean"] / "train"
        amount = amount_of(train)
        sample = list(_sample(texts(train), share_of(LOOK_BYTES, amount.num_bytes)))
        context, why = context_of(amount, bytes_per_token(tokenizer, sample), config.tokenizer.max_tokens)
        tokenizer.model_max_length = min(tokenizer.model_max_length, context)
        details |= {"context": tokenizer.model_max_length, "why_context": why}
    tokenizer.save_pretrained(output)
    report = Report("tokenizer", output, {"vocab": len(tokenizer)}, details, time.monotonic() - start)
    return artifacts.commit(key, config, ("tokenizer",), report)


def _run_learning(config: Config, clean: Path, output: Path) -> Report:
    key = artifacts.stage_key(config, ("tokenizer",), {"clean": clean})
    if report := artifacts.completed(output, key):
        return report
    start, train, settings = artifacts.start_afresh(output), clean / "train", config.tokenizer
    amount = amount_of(train)
    share = share_of(MOST_BYTES, amount.num_bytes)
    if share < 1:
        say(f"tokenizer: learned from an even sample of {MOST_BYTES / 1e9:.1f} GB of {amount.num_bytes / 1e9:,.1f} GB")
    looked: list[str] = []
    with progress("tokenizer", amount.num_bytes, "bytes") as advance:
        tokenizer = learn(
            _sample(texts(train, roles=True, advance=advance), share, looked, share_of(LOOK_BYTES, amount.num_bytes)),
            kind=settings.kind,
            vocab=settings.vocab,
            num_bytes=amount.num_bytes,
            output=output,
            context=settings.max_tokens or CONTEXTS[0][1],
        )
    if settings.kind == "bpe" and len(tokenizer) < LEAST and settings.vocab is None:
        say(
            f"tokenizer: {amount.num_bytes:,} bytes of text support no more than {len(tokenizer)} tokens, and {LEAST} "
            "is the least that usually pays: give more (and more various) text, or fine-tune a model (--base starter)"
        )
    per_token = bytes_per_token(tokenizer, looked)
    context, why = context_of(amount, per_token, settings.max_tokens)
    tokenizer.model_max_length = context
    tokenizer.save_pretrained(output)
    counts = {"vocab": len(tokenizer), "bytes": amount.num_bytes, "tokens_about": round(amount.num_bytes / per_token)}
    details = {
        "vocab_size": len(tokenizer),
        "chat_template": tokenizer.chat_template,
        "kind": settings.kind,
        "learned_share": share,
        "context": context,
        "why_context": why,
    }
    report = Report("tokenizer", output, counts, details, time.monotonic() - start)
    return artifacts.commit(key, config, ("tokenizer",), report)


def context_of(amount: Amount, per_token: float, given: int | None) -> tuple[int, str]:
    """The longest sequence that a model from nothing is to take, and why.

    A longer one costs memory and time and teaches only where there is text for it: 512 tokens below 10 million in
    train, 1,024 below a thousand million, else 2,048; and for conversations the power of two that holds 95 % of them,
    2,048 at most.
    """
    if given is not None:
        return given, "given: tokenizer.max_tokens"
    tokens = amount.num_bytes / per_token
    context = next(length for most, length in CONTEXTS if tokens < most)
    why = f"about {tokens:,.0f} tokens to train on"
    if len(amount.conversation_bytes):
        sizes = amount.conversation_bytes / per_token + TOKENS_PER_TURN * amount.conversation_turns
        longest = float(np.quantile(sizes, HELD_SHARE))
        if longest > context:
            context = min(CONTEXTS[-1][1], 2 ** math.ceil(math.log2(longest)))
            why = f"{HELD_SHARE:.0%} of the conversations have at most about {longest:,.0f} tokens"
    return context, why


def bytes_per_token(tokenizer: PreTrainedTokenizerBase, some: Sequence[str]) -> float:
    """UTF-8 bytes for each token of some texts; 1 where there are none."""
    with all_cores():
        encoded = tokenizer(list(some), add_special_tokens=False, verbose=False)["input_ids"] if some else []
    return max(1.0, sum(len(text.encode()) for text in some) / max(1, sum(map(len, encoded))))


def share_of(num_bytes: int, total: int) -> float:
    """What share of ``total`` bytes makes ``num_bytes``, at most all."""
    return min(1.0, num_bytes / max(1, total))


def _sample(source: Iterable[str], share: float, looked: list[str] | None = None, look: float = 0.0) -> Iterator[str]:
    """An even share of the texts, the same each time; ``look``: the (smaller) share that ``looked`` gets as well."""
    chance = np.random.Generator(np.random.PCG64(SEED))
    for text in source:
        draw = chance.random()
        if looked is not None and draw < look:
            looked.append(text)
        if draw < share:
            yield text


def context_tokens(base: Path) -> int:
    """Tokens that the model of a directory can attend to, from its ``config.json``; very many when it does not say."""
    config = artifacts.read_json(base / "config.json") if (base / "config.json").is_file() else {}
    known = [config.get(name) for name in ("max_position_embeddings", "n_positions")]
    return min((value for value in known if isinstance(value, int)), default=10**30)
