"""The engine for CPUs: llama.cpp's server in this process (xllamacpp); answers of several threads share a batch.

It gets ids, so our template is the only one, and it gives ids back: text, stop texts and end tokens are dealt with
here, as in :mod:`ownchat.generate.hf`. Nothing of a client's request reaches it but values that were looked at.

That server also opens a port on the loopback device, whether one wants it or not. It gets a key that nobody knows, and
no page of the web may read it.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Condition, Event, Thread
from typing import Any, Literal

from ownchat.errors import ModelError, UserError
from ownchat.generate.detokenize import UNFINISHED, Detokenizer, StopFilter, decode
from ownchat.generate.engine import BASE, Delta, FinishReason, Request, Usage
from ownchat.generate.exports.llamacpp import is_whole
from ownchat.generate.late_scores import scored
from ownchat.generate.limits import check_bias, check_score, room
from ownchat.generate.unfinished import unfinished_ids
from ownchat.tokenizer.render import prompt_ids

BATCH_TOKENS = 256  # of prompts in one pass: how long other answers stand still, and a cancel waits
LOOK_SECONDS = 0.02  # between two looks at cancel while nothing comes
QUIET = -1  # verbosity; 0 is errors
LARGEST_SEED = 2**31 - 1
FORCED = 1e6  # added to a logit so that this token is taken whatever the model thinks


class LlamaCppEngine:
    """An :class:`~ownchat.generate.engine.Engine` on a GGUF file and LoRA adapters beside it.

    ``adapters``: name to GGUF file; a request names one of them, or ``"base"``; without a name it is the first.
    ``pieces`` gives the bytes of each token.
    ``context``: tokens of one answer, its prompt included. Up to ``slots`` answers are written at the same time, more
    wait. ``threads`` are those of the whole engine; with as many as there are cores a busy machine makes it several
    times slower, since its threads spin while they wait for each other.

    A ``seed`` repeats an answer on an engine that answers nothing else meanwhile; answers that share a batch differ
    from lone ones in the last digits. ``presence_penalty`` counts what stands in the prompt, too. Bytes of an answer
    that are no text, and a character that its end cuts, have no ids in it, only U+FFFD in its text.

    Raises :class:`~ownchat.errors.ModelError` for a file that llama.cpp cannot load.
    """

    backend: Literal["llamacpp"] = "llamacpp"
    can_schema = True

    def __init__(
        self,
        path: Path,
        tokenizer: Any,
        *,
        end_ids: Collection[int],
        vocabulary: int,
        pieces: Callable[[], Sequence[bytes]],
        context: int,
        adapters: Mapping[str, Path] | None = None,
        threads: int = 1,
        slots: int = 1,
        num_bytes: int = 0,
    ) -> None:
        import xllamacpp

        self.tokenizer, self.context, self.num_bytes = tokenizer, context, num_bytes
        self.end_ids, self._vocabulary = frozenset(end_ids), vocabulary
        self.adapters = tuple(adapters or {})
        self.slots, self.threads = slots, threads
        self._read_pieces = pieces
        self._tokens: tuple[Sequence[bytes], Mapping[bytes, int]] | None = None
        self._added = {str(token): id for id, token in tokenizer.added_tokens_decoder.items()}
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = slots * _padded(context), slots
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.kv_unified = False  # each answer has its whole context, whatever the others do
        params.cache_ram_mib = 0  # else up to 8 GB of old prompts are kept
        params.n_ctx_checkpoints = 0
        params.ctx_shift = False
        params.warmup = False
        params.verbosity = QUIET
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.port = 0
        params.n_threads_http = 1
        params.api_keys = [secrets.token_urlsafe(32)]
        params.cors_origins = "localhost"
        params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(file), 1.0) for file in (adapters or {}).values()]
        try:
            self._server: Any = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                "llama.cpp cannot load it", where=str(path), fix="remove the file, it is made again; or use --engine hf"
            ) from error
        self.address: str = self._server.listening_address
        self._state = Condition()
        self._running = 0
        self._closing = Event()
        # Its loop starts after the constructor; ended before that, it would never end. An answer tells that it runs.
        with self._pieces(self._forced([min(self.end_ids)], 1, None), Event()) as told:
            for _ in told:
                pass

    # ------------------------------------------------------------------------------------------------ one answer

    def stream(self, request: Request, cancel: Event | None = None) -> Iterator[Delta]:
        """The answer, one delta a token, or two or three tokens where a character takes that many.

        Raises :class:`~ownchat.errors.UserError` at once for a prompt that is empty or longer than the context, and for
        a schema that would not be kept whole.
        """
        if request.schema is not None:
            from ownchat.generate.schema import check_schema

            check_schema(request.schema)
        prompt = list(request.ids if request.ids is not None else prompt_ids(self.tokenizer, request.messages or ()))
        limit = min(request.max_tokens, self._room(prompt))
        asked = self._question(request, prompt, limit)
        cancel = cancel if cancel is not None else Event()

        def logprob(before: Sequence[int], id: int, wait: bool) -> float | None:
            return self._logprob(before, id, request.adapter, cancel, wait=wait)

        return scored(self._answer(request, asked, limit, cancel), prompt, logprob)

    def _answer(
        self, request: Request, asked: dict[str, Any], limit: int, cancel: Event
    ) -> Generator[Delta]:  # fmt: skip
        stops = request.sampling.stop
        ends = self.end_ids | {self._added[stop] for stop in stops if stop in self._added}
        detokenizer, stop = Detokenizer(self.tokenizer), StopFilter(stops)
        count, tail = 0, ""
        reason: FinishReason | None = None
        with self._pieces(asked, cancel) as pieces:
            for piece in pieces:
                found = piece.get("__verbose", {})
                if piece["choices"][0].get("finish_reason") is not None:  # the last one: text and ids came before
                    if int(found["tokens_predicted"]) > count:  # it ends within a character
                        tail = stop.push(detokenizer.finish() + UNFINISHED)
                    count = max(count, int(found["tokens_predicted"]))
                    reason = "length" if found["stop_type"] == "limit" else "stop"
                    break
                if "prompt_progress" in found or not found.get("tokens"):
                    continue  # how far it is with the prompt
                said, new = piece["choices"][0]["text"], int(found["tokens_predicted"]) - count
                count += new
                ids = self._ids(found, said, new)
                logprobs, top = self._logprobs(request, found)
                if ids[-1] in ends:
                    text, reason = "", "stop"
                elif len(ids) < new:  # bytes that are no text: nobody tells their tokens
                    text = stop.push(detokenizer.finish() + said)
                else:
                    text = "".join(stop.push(detokenizer.push(id)) for id in ids)
                if reason is None:
                    reason = "stop" if stop.stopped else "length" if count >= limit else None
                is_added = bool(ids) and ids[-1] in ends and ids[-1] not in self.end_ids
                yield from self._delta(
                    text, ids, logprobs, top, reason, count, len(asked["prompt"]), detokenizer, stop, is_added
                )
                if reason is not None:
                    return
        if reason is None:  # cancelled, or the engine is closing
            reason = "cancelled"
        yield from self._delta(tail, (), (), (), reason, count, len(asked["prompt"]), detokenizer, stop)

    @staticmethod
    def _delta(
        text: str, ids: Sequence[int], logprobs: Sequence[float], top: Sequence[Any], reason: FinishReason | None,
        count: int, num_prompt: int, detokenizer: Detokenizer, stop: StopFilter, is_added: bool = False,
    ) -> Iterator[Delta]:  # fmt: skip
        """One delta; the last has what was withheld. ``is_added``: it ends with a special token that is a stop text."""
        if reason is not None and not stop.stopped:
            text += stop.push(detokenizer.finish())
            if stop.stopped:  # the last characters, withheld until now, completed a stop text
                reason = "stop" if reason != "cancelled" else reason
            text += stop.finish()
        usage = Usage(num_prompt, count) if reason is not None else None
        yield Delta(text, tuple(ids), tuple(logprobs), reason, usage, tuple(top), stop.stopped or is_added)

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens: special tokens left out, nothing else changed."""
        return decode(self.tokenizer, ids)

    def _ids(self, found: dict[str, Any], text: str, new: int) -> list[int]:
        """The new tokens of a piece; the server names only the last of those that make one character."""
        last = int(found["tokens"][-1])
        if new <= 1:
            return [last]
        pieces, ids = self._bytes()
        return [*unfinished_ids(text, last, new - 1, tokenizer=self.tokenizer, pieces=pieces, ids=ids), last]

    # ------------------------------------------------------------------------------------------- probabilities

    def score(self, ids: Sequence[int], mask: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """Natural-log probabilities of the tokens whose mask is 1, in order: one token a pass, as slow as writing them.

        Raises :class:`~ownchat.errors.UserError` as :meth:`ownchat.generate.hf.HfEngine.score` does.
        """
        check_score(ids, mask, context=self.context)
        if ids:
            self._room(ids[-1:])  # are they tokens at all?
        wanted = [place for place, one in enumerate(mask) if one]
        never, values = Event(), list[float]()
        for place in wanted:
            if (value := self._logprob(ids[:place], ids[place], adapter, never)) is None:
                raise ModelError("the engine is closing", where="score")
            values.append(value)
        return values

    def _logprob(
        self, prompt: Sequence[int], id: int, adapter: str | None, cancel: Event, *, wait: bool = True
    ) -> float | None:
        """Of the token ``id`` after ``prompt``: it is forced, and its own probability is that before the force.

        None when it is not wanted any more, and without ``wait`` where no slot is free.

        The server keeps none of a token that leaves a character unfinished: there an end token is forced, and the
        wanted one looked up among the likeliest, at last among all.
        """
        whole = is_whole(self._bytes()[0][id])
        for number in (1,) if whole else (1000, self._vocabulary):
            forced = id if whole else min(self.end_ids)
            asked = self._forced(prompt, 1, adapter) | {"n_probs": number, "logit_bias": [[forced, FORCED]]}
            with self._pieces(asked, cancel, wait=wait) as pieces:
                found = [row for piece in pieces for row in piece["__verbose"].get("completion_probabilities", [])]
            rows = found if whole else [row for step in found for row in step["top_logprobs"]]
            if (value := next((float(row["logprob"]) for row in rows if row["id"] == id), None)) is not None:
                return value
        if not wait or cancel.is_set() or self._closing.is_set():
            return None
        raise ModelError("llama.cpp does not tell the probability of a token", where="score")

    @staticmethod
    def _logprobs(request: Request, found: dict[str, Any]) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
        """Log-probability of the last new token and the likeliest in its place, where they were asked for."""
        if not (request.logprobs or request.top_logprobs):
            return [], []
        step = found["completion_probabilities"][0]
        likeliest = tuple((int(row["id"]), float(row["logprob"])) for row in step["top_logprobs"])
        return [float(step["logprob"])], [likeliest[: request.top_logprobs]] if request.top_logprobs else []

    def _bytes(self) -> tuple[Sequence[bytes], Mapping[bytes, int]]:
        """The bytes of each token, and the token of some bytes."""
        if self._tokens is None:
            pieces = list(self._read_pieces())
            self._tokens = pieces, {piece: id for id, piece in reversed(list(enumerate(pieces))) if piece}
        return self._tokens

    def close(self) -> None:
        """End the answers that are being written and let go of the model; the engine cannot answer after this."""
        self._closing.set()
        with self._state:
            self._state.wait_for(lambda: self._running == 0)
            self._server = None

    # ------------------------------------------------------------------------------------------------ inside

    @contextmanager
    def _pieces(
        self, asked: dict[str, Any], cancel: Event, *, wait: bool = True
    ) -> Iterator[Iterator[dict[str, Any]]]:  # fmt: skip
        """What the server says to a question, as it comes, until ``cancel``; after the block it is told to stop.

        The question waits here for a free slot, where it can still be taken back.
        """
        left = Event()
        came: SimpleQueue[Any] = SimpleQueue()  # pieces, an error, or None at the end

        def receive(piece: dict[str, Any]) -> bool:
            came.put(piece)
            return left.is_set() or self._closing.is_set()

        def ask() -> None:
            try:
                self._server.handle_completions(asked, receive)
                came.put(None)
            except BaseException as error:  # raised again in the caller's thread
                came.put(error)
            finally:
                with self._state:
                    self._running -= 1
                    self._state.notify_all()

        def pieces() -> Iterator[dict[str, Any]]:
            while not cancel.is_set() and not self._closing.is_set():
                try:
                    piece = came.get(timeout=LOOK_SECONDS)
                except Empty:
                    continue
                if piece is None:
                    return
                yield self._checked(piece)

        if not self._slot(cancel, wait):
            yield iter(())
            return
        Thread(target=ask, name="llama.cpp", daemon=True).start()
        try:
            yield pieces()
        finally:
            left.set()

    def _slot(self, cancel: Event, wait: bool) -> bool:
        """Take a free slot, or wait for one; false when the answer is not wanted any more, or there is none."""
        with self._state:
            while wait and self._running >= self.slots and not cancel.is_set() and not self._closing.is_set():
                self._state.wait(LOOK_SECONDS)
            if self._running >= self.slots or cancel.is_set() or self._closing.is_set():
                return False
            self._running += 1
            return True

    @staticmethod
    def _checked(piece: Any) -> dict[str, Any]:
        """A piece of an answer; an error of the server is raised in words that hold nothing of the prompt."""
        if isinstance(piece, BaseException):
            raise ModelError("llama.cpp failed", fix="ask again; its log may say more") from piece
        error = piece.get("error")
        if error is None:
            return dict(piece)
        if error.get("code") == 400:
            raise UserError(f"llama.cpp refuses it: {str(error.get('message'))[:200]}", where="request")
        raise ModelError(f"llama.cpp failed: {str(error.get('message'))[:200]}", fix="ask again")

    def _question(self, request: Request, prompt: Sequence[int], limit: int) -> dict[str, Any]:
        """The request in llama.cpp's words: every value is set, so that none of its defaults counts."""
        sampling = request.sampling
        check_bias(sampling, self._vocabulary)
        bias = {int(id): float(value) for id, value in sampling.logit_bias.items()}
        if sampling.frequency_penalty:  # it counts the prompt, too, which ours does not: given back beforehand
            for id, times in Counter(prompt).items():
                bias[id] = bias.get(id, 0.0) + sampling.frequency_penalty * times
        seed = secrets.randbelow(LARGEST_SEED) if sampling.seed is None else sampling.seed % LARGEST_SEED
        chain = ["penalties", "temperature", "top_k", "top_p", "min_p"]
        asked = self._forced(prompt, limit, request.adapter) | {
            "stream": True,
            "return_progress": True,
            "cache_prompt": sampling.seed is None,
            "seed": seed,
            "samplers": chain[:2] if sampling.greedy else chain,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": len(prompt) + limit,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "logit_bias": [[id, value] for id, value in bias.items()],
            "n_probs": max(1, request.top_logprobs) if request.logprobs or request.top_logprobs else 0,
        }
        if request.schema is not None:
            asked["json_schema"] = json.loads(json.dumps(request.schema))
        return asked

    def _forced(self, prompt: Sequence[int], limit: int, adapter: str | None) -> dict[str, Any]:
        """What all questions have: greedy, and a scale for every adapter, since one without is applied."""
        wanted = self._wanted(adapter)
        return {
            "prompt": list(prompt),
            "n_predict": limit,
            "stream": False,
            "verbose": True,  # ids and counts beside the text
            "return_tokens": True,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "cache_prompt": True,
            "lora": [{"id": n, "scale": float(name == wanted)} for n, name in enumerate(self.adapters)],
        }

    def _wanted(self, adapter: str | None) -> str:
        if adapter is None:
            return self.adapters[0] if self.adapters else BASE
        if adapter == BASE and not self.adapters:
            raise UserError("no adapter is loaded, so there is none to switch off", where="request")
        if adapter != BASE and adapter not in self.adapters:
            raise UserError(f'there is no adapter "{adapter}"', where="request", fix=f'use "{BASE}" or leave it out')
        return adapter

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that fit after ``prompt``."""
        return room(prompt, vocabulary=self._vocabulary, context=self.context)


def _padded(context: int) -> int:
    """llama.cpp wants blocks of 256, and one place more than it fills."""
    return (context // 256 + 1) * 256
