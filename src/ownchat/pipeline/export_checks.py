"""What an export is compared with, and the tolerances: the model in memory, on prompts of the run's own test split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import torch

from ownchat.errors import ModelError
from ownchat.generate import export as plain_files
from ownchat.generate.exports import parity
from ownchat.generate.exports.llamacpp import LlamaCpp
from ownchat.generate.exports.parity import Parity, Tolerance
from ownchat.generate.exports.vllm import VllmOffline, vllm_python
from ownchat.generate.exports.vocabulary import read_vocabulary
from ownchat.generate.exports.weights import Weights
from ownchat.generate.hf import load_adapter
from ownchat.model.load import load_model, load_tokenizer
from ownchat.tokenizer.render import prompt_ids

if TYPE_CHECKING:
    from ownchat.pipeline.export import Source

# Nats. Of f16 it is the promise, of q8_0 twice what was measured; of four bits it is where answers are others
# (docs/export.md).
TOLERANCES = {
    "f16": Tolerance(largest=0.05, mean=0.005),
    "q8_0": Tolerance(largest=0.8, mean=0.1),
    "q4_1": Tolerance(largest=4.0, mean=0.4),
    "q4_k_m": Tolerance(largest=4.0, mean=0.4),
}
FLOAT32 = Tolerance(largest=0.01, mean=0.001)
ADAPTER = 1e-3  # base and adapter one after the other beside both added up, in nats


def gguf(source: Source, file: Path, kind: str, prompts: int, adapter: Path | None = None) -> Parity:
    """Run a GGUF file in llama.cpp, with an ``adapter`` that stands beside it, and compare it with the model.

    Where the tokenizer composes characters (NFC), which llama.cpp does not, both get text that is composed.
    """
    directory = source.located.model
    tokenizer, model = load_tokenizer(directory), load_model(directory)
    weights = Weights(directory)
    pieces = read_vocabulary(directory, weights.rows).pieces()
    conversations, texts = sample(source, tokenizer, weights.context, prompts)
    longest = max(len(prompt_ids(tokenizer, messages)) for messages in conversations)
    context = -(-(longest + parity.MAX_TOKENS + 1) // 256) * 256
    if parity.composes(tokenizer):
        conversations = [[{**m, "content": normalize("NFC", m["content"])} for m in turns] for turns in conversations]
        texts = [normalize("NFC", text) for text in texts]
    with LlamaCpp(file, pieces, context=context, threads=_threads(), adapter=adapter) as engine:
        return parity.compare(
            engine, model, tokenizer, conversations, TOLERANCES[kind], texts=texts, what=f"{kind} in llama.cpp"
        )


def vllm(source: Source, folder: Path, prompts: int, say: Any) -> tuple[str, float | None]:
    """Run a directory in vLLM beside the model where vLLM is installed, else in plain transformers."""
    python = vllm_python()
    if python is None:
        say("vLLM is not installed here: compared with plain transformers, which reads the same files")
        return plain(source, folder, prompts), None
    directory = source.located.model
    tokenizer, model = load_tokenizer(directory), load_model(directory)
    conversations, _ = sample(source, tokenizer, _context(model), prompts)
    ids = [prompt_ids(tokenizer, messages) for messages in conversations]
    context = max(len(prompt) for prompt in ids) + parity.MAX_TOKENS + 1
    runner = VllmOffline(folder, python, conversations, ids, context=min(context, _context(model)),
                         max_tokens=parity.MAX_TOKENS)  # fmt: skip
    found = parity.compare(runner, model, tokenizer, conversations, FLOAT32, what="vLLM")
    return found.line(), found.largest


def plain(source: Source, folder: Path, prompts: int) -> str:
    """Open a directory with plain transformers: its logits are the model's."""
    directory = source.located.model
    tokenizer, model = load_tokenizer(directory), load_model(directory)
    conversations, _ = sample(source, tokenizer, _context(model), prompts)
    worst = max(
        plain_files.check_result(folder, model, prompt_ids(tokenizer, messages)) for messages in conversations[:2]
    )
    return f"opened with plain transformers: logits differ by {worst:.1g} at most"


def adapter(source: Source, folder: Path, prompts: int) -> str:
    """Base and exported adapter beside the merged model of the run.

    Raises :class:`~ownchat.errors.ModelError` where they are not the same model.
    """
    located = source.located
    tokenizer, merged = load_tokenizer(located.model), load_model(located.model)
    tuned = load_adapter(load_model(base_of(source)), folder)
    conversations, _ = sample(source, tokenizer, _context(merged), prompts)
    worst = 0.0
    for messages in conversations:
        ids = torch.tensor([prompt_ids(tokenizer, messages)], device=merged.device)
        with torch.inference_mode():
            one, other = (model(input_ids=ids).logits.float().log_softmax(-1) for model in (merged, tuned))
        top = one.topk(10).indices  # of tokens that may come; others are far down, and sums of many digits
        worst = max(worst, float((one.gather(-1, top) - other.gather(-1, top)).abs().max()))
    if not worst <= ADAPTER:
        raise ModelError(f"base and adapter differ from the run's model by {worst:.2g}", where=str(folder))
    return f"beside its base it differs from the run's model by {worst:.1g} nats at most ({len(conversations)} prompts)"


def base_of(source: Source) -> Path:
    """The directory of the base that an adapter stands beside."""
    base = source.located.base
    if base is None or not base.is_dir():
        raise ModelError("the base it was trained on is not there any more", where=str(base))
    return base


def sample(source: Source, tokenizer: Any, context: int, prompts: int) -> tuple[list[parity.Messages], list[str]]:
    """Conversations to compare on, up to ``prompts``, and texts to split into tokens.

    Of the run's test and valid splits; of a run of documents, the beginnings of those as questions.
    """
    from ownchat.pipeline.export import LONGEST_PROMPT, QUESTIONS, TEXTS

    limit = min(LONGEST_PROMPT, context - parity.MAX_TOKENS - 1)

    def is_short(messages: parity.Messages) -> bool:
        return len(prompt_ids(tokenizer, messages)) <= limit

    records = source.conversations
    found = parity.conversations_of(records, is_short)
    documents = [record["text"] for record in records if record["kind"] == "document" and record["text"]]
    asked: Sequence[str] = QUESTIONS if not documents else [text[:200] for text in documents]
    if not found:
        system = [{"role": "system", "content": source.located.system}] if source.located.system else []
        found = [messages for text in asked if is_short(messages := [*system, {"role": "user", "content": text}])]
    if not found:
        raise ModelError(f"no prompt fits into its context of {context:,} tokens", where=source.name)
    texts = [text[:1000] for text in documents[:prompts]]
    texts += [message["content"] for messages in found[:prompts] for message in messages]
    return found[: max(1, prompts)], [*TEXTS, *filter(None, texts)]


def _context(model: Any) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 10**9))


def _threads() -> int:
    """All cores but one: llama.cpp's threads wait in loops, and with all cores a busy machine crawls."""
    return max(1, len(os.sched_getaffinity(0)) - 1)
