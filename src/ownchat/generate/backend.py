"""Which engine answers for a model of this machine, and opening it: llama.cpp on a CPU, transformers elsewhere.

``auto`` takes llama.cpp where the model can be written as GGUF and the machine has no GPU: several times faster, and
answers of several threads share a batch. Where it cannot, the reason is told and transformers answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from ownchat.errors import ModelError, UserError
from ownchat.generate.end_tokens import end_token_ids
from ownchat.generate.engine import LocalEngine
from ownchat.generate.locate import Located
from ownchat.monitor.progress import say

Backend = Literal["auto", "hf", "llamacpp"]

TUNED = "tuned"  # the adapter of a run, where there is one only
CONTEXT_TOKENS = 8192  # of one answer in llama.cpp unless told: memory for all of it is taken when a model is opened
BUFFER_BYTES = 64 << 20  # that llama.cpp computes in, about


class NoRoom(ModelError):
    """``room`` refuses the memory: not for this engine, so ``auto`` takes no other one for it."""


@dataclass(frozen=True)
class Parts:
    """What an engine is opened with: a model directory, LoRA adapters for it by name, and where its tokenizer is.

    ``optional``: adapters that are left out where they do not fit. ``merged``: the same with its only adapter added to
    the weights, which transformers takes instead where it is given.
    """

    model: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)
    tokenizer: Path | None = None
    optional: frozenset[str] = frozenset()
    merged: Path | None = None


def parts_of(located: Located, *, name: str = TUNED) -> Parts:
    """Base and adapter where training kept the adapter and the base is still there, else the model as it lies there."""
    base = located.base
    if located.adapter is not None and base is not None and (base / "config.json").is_file():
        return Parts(base, {name: located.adapter}, tokenizer=located.model)
    return Parts(located.model)


def open_engine(
    parts: Parts,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
    slots: int = 1,
    context: int | None = None,
    dtype: str = "float32",
    room: Callable[[int], object] | None = None,
) -> LocalEngine:
    """An engine for a model of this machine; the answers of up to ``slots`` threads are written at the same time.

    ``threads``: None takes :func:`free_threads`. ``context``: tokens of one answer with its prompt; None: the model's,
    in llama.cpp at most :data:`CONTEXT_TOKENS`. ``dtype`` is that of transformers. ``room(bytes)`` is called before
    the model is loaded and may raise :class:`NoRoom`. Raises :class:`~ownchat.errors.ModelError` for a model or an
    adapter that cannot be used.
    """
    if backend not in ("auto", "hf", "llamacpp"):
        raise UserError(f'there is no engine "{backend}"', where="--engine", fix="choose auto, hf or llamacpp")
    threads = free_threads() if threads is None else threads
    if backend == "llamacpp" or (backend == "auto" and not _has_gpu()):
        try:
            return _open_llamacpp(parts, threads=threads, slots=slots, context=context, room=room)
        except NoRoom:
            raise
        except UserError as error:
            if backend == "llamacpp" or _is_about_adapters(error, parts):
                raise
            say(f"{parts.model.name} is answered for by transformers: {error.what}")
    return _open_hf(parts, threads=threads, dtype=dtype, room=room)


def free_threads() -> int:
    """Cores to compute on: all of them, or all but one on a machine that is busy already.

    Threads of llama.cpp wait for each other spinning: with one more than there are free cores it is several times
    slower, with one less only a little.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, cores - 1) if os.getloadavg()[0] > cores / 4 else cores


# ---------------------------------------------------------------------------------------------------------- inside


def _open_llamacpp(
    parts: Parts, *, threads: int, slots: int, context: int | None, room: Callable[[int], object] | None
) -> LocalEngine:
    from ownchat.generate.exports.vocabulary import read_vocabulary
    from ownchat.generate.gguf_cache import adapter_file, model_file
    from ownchat.generate.llamacpp import LlamaCppEngine
    from ownchat.tokenizer.stage import load_tokenizer

    has_tokenizer = (parts.model / "tokenizer.json").is_file()
    vocabulary_of = parts.model if has_tokenizer or parts.tokenizer is None else parts.tokenizer
    path = model_file(parts.model, vocabulary_of)
    adapters: dict[str, Path] = {}
    for name, directory in parts.adapters.items():
        try:
            adapters[name] = adapter_file(directory, parts.model)
        except ModelError as error:
            if name not in parts.optional:
                raise
            say(f"left out: {error.what}")
    config = _stored(parts.model / "config.json")
    longest = int(config.get("max_position_embeddings") or config.get("n_positions") or CONTEXT_TOKENS)
    context = min(longest, CONTEXT_TOKENS if context is None else context)
    num_bytes = sum(file.stat().st_size for file in (path, *adapters.values()))
    num_bytes += slots * context * _cache_bytes(config) + BUFFER_BYTES
    if room is not None:
        room(num_bytes)
    tokenizer = load_tokenizer(parts.tokenizer or parts.model)
    vocabulary = int(config["vocab_size"])
    return LlamaCppEngine(
        path, tokenizer, adapters=adapters, context=context, threads=threads, slots=slots, num_bytes=num_bytes,
        vocabulary=vocabulary, end_ids=end_ids_of(parts, tokenizer),
        pieces=lambda: read_vocabulary(vocabulary_of, vocabulary).pieces(),
    )  # fmt: skip


def _open_hf(parts: Parts, *, threads: int, dtype: str, room: Callable[[int], object] | None) -> LocalEngine:
    from transformers.utils import logging

    from ownchat.generate.gguf_cache import check_adapter
    from ownchat.generate.hf import chat_engine

    logging.disable_progress_bar()  # loading takes a second
    adapters: dict[str, Path] = {}
    for name, directory in parts.adapters.items():
        try:
            check_adapter(directory, parts.model)
            adapters[name] = directory
        except ModelError as error:
            if name not in parts.optional:
                raise
            say(f"left out: {error.what}")
    if room is not None:
        size = 4 if dtype == "float32" else 2
        stored = 4 if _stored(parts.model / "config.json").get("dtype", "float32") == "float32" else 2
        room(sum(file.stat().st_size for file in parts.model.glob("*.safetensors")) * size // stored)
    if parts.merged is not None:
        return chat_engine(parts.merged, threads=threads, dtype=dtype)
    return chat_engine(parts.model, tokenizer=parts.tokenizer, threads=threads, dtype=dtype, adapters=adapters)


def _has_gpu() -> bool:
    """Whether transformers would compute on a GPU; torch is asked only where there may be one."""
    if not any(Path(place).exists() for place in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return False
    from ownchat.model.load import best_device

    return best_device() == "cuda"


def _is_about_adapters(error: UserError, parts: Parts) -> bool:
    """An adapter that does not fit fits no engine; one that llama.cpp has no place for may fit transformers."""
    return "of another base" in error.what and any(str(path) == error.where for path in parts.adapters.values())


def _cache_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of keys and values that one token takes, in float16."""
    layers = config.get("num_hidden_layers") or config.get("n_layer") or 1
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    width = config.get("hidden_size") or config.get("n_embd") or 1
    size = config.get("head_dim") or width // heads
    return int(2 * layers * (config.get("num_key_value_heads") or heads) * size * 2)


def end_ids_of(parts: Parts, tokenizer: Any) -> list[int]:
    """End tokens from the files of the model; it is not loaded for that."""
    generation = _stored(parts.model / "generation_config.json").get("eos_token_id")
    own = _stored(parts.model / "config.json").get("eos_token_id")
    model = SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=generation),
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(eos_token_id=own)),
    )
    ends = end_token_ids(tokenizer, model)
    if not ends:
        raise ModelError("no token ends an answer: it would never stop", where=str(parts.model))
    return ends


def _stored(path: Path) -> dict[str, Any]:
    """A JSON file of a model directory; nothing where it is missing."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError("damaged: not JSON", where=str(path), fix="copy or fetch the model again") from error
