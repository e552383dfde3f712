"""llama.cpp on an exported file, in this process: what it renders, how it splits text, what it answers.

Through xllamacpp, which runs llama.cpp's own server. That opens a port on the loopback device whether one wants it or
not, so it gets a key that nobody else knows, and all questions go that way.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from ownchat.errors import ModelError

QUIET = -1  # verbosity; 0 is errors
SECONDS = 600.0  # longest wait for one answer


@dataclass(frozen=True)
class Continuation:
    """Greedy tokens, the end token included where one came, and their natural-log probabilities.

    None: llama.cpp keeps no log-probability of a token that leaves a character unfinished.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    ended: bool
    tokens_per_second: float = 0.0


class LlamaCpp:
    """A GGUF file in llama.cpp, with its own defaults (attention, cache in float16) but one answer at a time.

    ``pieces``: the bytes of each token (:meth:`~ownchat.generate.exports.vocabulary.Vocabulary.pieces`). ``adapter``: a
    GGUF file beside it. Use it in a ``with`` block. Raises :class:`~ownchat.errors.ModelError` for a file that
    llama.cpp cannot load.
    """

    def __init__(
        self, path: Path, pieces: Sequence[bytes], *, context: int, threads: int, adapter: Path | None = None
    ) -> None:
        import xllamacpp

        self._pieces = pieces
        self._key = secrets.token_urlsafe(24)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = context, 1
        params.port = 0
        params.api_keys = [self._key]
        params.cors_origins = "localhost"
        params.verbosity = QUIET
        params.warmup = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        if adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelError("llama.cpp cannot load it", where=str(path), fix="please report it") from error
        self._address = self._server.listening_address
        self._open = build_opener(ProxyHandler({})).open  # a proxy of the environment has no business here

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unload the file."""
        self._server = None

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The prompt that its own template engine makes of messages, opened for the answer.

        Raises :class:`~ownchat.errors.ModelError` for a template that it cannot read.
        """
        return str(self._ask("/apply-template", messages=list(messages), add_generation_prompt=True)["prompt"])

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """Ids of a text as chat gives it to the model; ``control``: its control tokens are such, else text."""
        return list(self._ask("/tokenize", content=text, add_special=True, parse_special=control)["tokens"])

    def answer(self, ids: Sequence[int], max_tokens: int) -> Continuation:
        """The greedy continuation of ``ids``."""
        found = self._ask(
            "/completion", prompt=list(ids), n_predict=max_tokens, n_probs=1, temperature=0.0, samplers=["temperature"],
            repeat_penalty=1.0, cache_prompt=False, return_tokens=True, seed=0,
        )  # fmt: skip
        steps, written = iter(found["completion_probabilities"]), b""
        logprobs: list[float | None] = []
        for id in found["tokens"]:
            written += self._pieces[id]
            step = next(steps, None) if is_whole(written) else None
            if step is not None and step["id"] != id:
                raise ModelError(f"llama.cpp tells the probability of token {step['id']} in place of {id}")
            logprobs.append(None if step is None else step["logprob"])
        return Continuation(
            tuple(found["tokens"]),
            tuple(logprobs),
            ended=found["stop_type"] == "eos",
            tokens_per_second=found["timings"]["predicted_per_second"],
        )

    def _ask(self, path: str, **question: Any) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = Request(self._address + path, json.dumps(question).encode(), headers)
        try:
            with self._open(request, timeout=SECONDS) as response:
                return dict(json.load(response))
        except HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            raise ModelError(f"llama.cpp answered {error.code} to {path}: {text[:300]}") from error


def is_whole(text: bytes) -> bool:
    """Whether UTF-8 text does not end within a character, as llama.cpp's server looks at it.

    >>> is_whole("né".encode()), is_whole("né".encode()[:-1]), is_whole(bytes([0x99]))
    (True, False, True)
    """
    for back, byte in enumerate(text[:-5:-1], 1):
        length = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 0
        if back < length:
            return False
    return True
