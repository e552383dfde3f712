"""An answer, whatever the protocol it was asked in: from a validated request to pieces of text and calls.

Everything an engine is asked is built here, from validated values; nothing that a client sent goes further as it came.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any

from ownchat.generate.engine import Delta, Message, Request, Usage
from ownchat.generate.openai import Busy, Failed, Unusable
from ownchat.serve import tools
from ownchat.serve.asking import DEFAULT_MAX_TOKENS, Ask, Begun, Piece, Progress
from ownchat.serve.catalogue import Entry
from ownchat.serve.conduct import Conduct
from ownchat.serve.errors import ApiError
from ownchat.serve.pool import Loaded, NotNow
from ownchat.serve.services import Services
from ownchat.serve.tokens import TokenTexts
from ownchat.serve.tools import Call, CallFinder

ECHO_TOKENS = 32  # of a prompt that are scored between two looks at who waits
LIKELIEST = math.log(0.5)  # a token more likely than all others together is the likeliest


class OwnCancel(Event):
    """Of one answer among several: also set when the whole request is."""

    def __init__(self, whole: Event) -> None:
        super().__init__()
        self._whole = whole

    def is_set(self) -> bool:
        """Whether this answer is to end."""
        return super().is_set() or self._whole.is_set()


def answer(
    services: Services,
    conduct: Conduct,
    entry: Entry,
    ask: Ask,
    progress: Progress,
    cancel: Event,
    *,
    deadline: float | None = None,
) -> Iterator[Begun | Piece]:
    """One :class:`Begun`, then the pieces of each answer, one answer after the other. Blocks: it runs in a thread.

    ``progress`` is told of every token, also of those that are held back. ``deadline``: a ``time.monotonic()`` until
    which a model is waited for.

    Raises :class:`~ownchat.serve.errors.ApiError` and :class:`~ownchat.errors.UserError` for what cannot be answered,
    before anything is given out where it can be known by then.
    """
    with told(), services.pool.lease(entry, cancel, deadline) as loaded:
        yield from _Answerer(services, conduct, loaded, ask, progress, cancel).run()


@contextmanager
def told() -> Iterator[None]:
    """What is not the client's fault, as statuses after which it asks again: no memory now, a server that failed."""
    try:
        yield
    except NotNow as error:
        raise ApiError(
            503, f"{error.what}; try again later", code="server_is_overloaded", headers={"retry-after": "2"}
        ) from error
    except Busy as error:
        raise ApiError(503, f"the server behind this model: {error.what}", code="server_is_overloaded") from error
    except (Unusable, Failed) as error:
        raise ApiError(
            502, f"the server behind this model: {error.what}", "server_error", code="bad_gateway"
        ) from error


class _Answerer:
    def __init__(
        self, services: Services, conduct: Conduct, loaded: Loaded, ask: Ask, progress: Progress, cancel: Event
    ) -> None:  # fmt: skip
        self._metrics, self._conduct, self._loaded, self._ask, self._progress, self._cancel = (
            services.metrics, conduct, loaded, ask, progress, cancel
        )  # fmt: skip
        self._sampling = ask.given.sampling(conduct.generate)
        self._texts = None if loaded.tokenizer is None else TokenTexts(loaded.tokenizer)
        self._last = ask.started
        self._none_yet = True

    def run(self) -> Iterator[Begun | Piece]:
        ask, loaded = self._ask, self._loaded
        self._check()
        refusal = self._conduct.filter.question(ask.messages or ())
        if refusal is not None:
            yield self._begun(0)
            for index in range(ask.n):
                yield Piece(index, refusal, finish_reason="content_filter")
            self._metrics.answered(loaded.entry.id, 0, 0, "content_filter")
            self._conduct.report(self._metrics)
            return
        requests = self._requests()
        counts = [len(request.ids) if request.ids is not None else loaded.count(request.messages or ())
                  for request in requests]  # fmt: skip
        # The first is begun before anything is told: what an engine refuses at once is a refusal, no broken stream.
        own = OwnCancel(self._cancel)
        refusals = self._refusals(requests)
        stream = None if ask.max_tokens == 0 or refusals[0] is not None else loaded.engine.stream(requests[0], own)
        yield self._begun(sum(counts) // ask.n)
        for index, request in enumerate(requests):
            self._progress.prompt()
            refusal = refusals[index // ask.n]
            if refusal is not None:
                yield Piece(index, refusal, finish_reason="content_filter")
                self._metrics.answered(loaded.entry.id, 0, 0, "content_filter")
                self._conduct.report(self._metrics)
                continue
            if ask.echo:
                yield from self._echoed(index, list(request.ids or ()))
            if ask.max_tokens == 0:
                yield Piece(index, finish_reason="length")
                continue
            if index or stream is None:
                own = OwnCancel(self._cancel)
                stream = loaded.engine.stream(request, own)
            yield from self._one(index, counts[index], stream, own)
            if self._cancel.is_set():
                return

    def _refusals(self, requests: list[Request]) -> list[str | None]:
        """Of each bare prompt: what is said in its place where it is out of scope; its text is the question."""
        ask, filter = self._ask, self._conduct.filter
        if ask.messages is not None or ask.max_tokens == 0:  # asked before; nothing is said
            return [None] * len(requests)
        decode = self._loaded.tokenizer.decode
        texts = [
            one if isinstance(one, str) else str(decode(list(one), skip_special_tokens=True)) for one in ask.prompts
        ]
        return [filter.question([{"role": "user", "content": text}]) for text in texts]

    def _check(self) -> None:
        ask, loaded = self._ask, self._loaded
        if self._texts is not None:
            return
        for wanted, name in (
            (ask.logprobs, "logprobs"), (bool(ask.tools), "tools"), (bool(ask.prompts), "prompt"),
            (bool(ask.given.logit_bias), "logit_bias"), (bool(ask.given.frequency_penalty), "frequency_penalty"),
            (bool(ask.given.presence_penalty), "presence_penalty"),
        ):  # fmt: skip
            if wanted:
                raise ApiError(
                    400, f"'{loaded.entry.id}' is behind another server, to which '{name}' is not passed on",
                    param=name, code="unsupported_parameter",
                )  # fmt: skip

    def _begun(self, prompt_tokens: int) -> Begun:
        warning = None
        if self._ask.uses_tools and self._texts is not None and not self._shows_tools():
            warning = "the model's chat template knows no tools; they are described in the system message"
        messages = list(self._ask.messages or ())
        is_given = len(self._with_system(messages)) > len(messages) > 0
        return Begun(
            self._loaded.fingerprint, self._conduct.disclosure, self._sampling, prompt_tokens, warning,
            self._conduct.system if is_given else None,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------------- prompts

    def _requests(self) -> list[Request]:
        """One for each answer, those of one prompt together; with a seed, each has the next."""
        ask, found = self._ask, []
        prompts: list[list[int] | None]
        if ask.messages is None:
            prompts = [self._ids(prompt) for prompt in ask.prompts]
        elif self._texts is None:
            prompts = [None]
        else:
            prompts = [self._rendered(list(ask.messages))]
        schema = tools.forced_schema(ask.tools, ask.tool_name) if ask.is_forced else ask.schema
        if schema is not None and not self._loaded.can_schema:
            raise ApiError(
                400, f"the engine of '{self._loaded.entry.id}' cannot hold an answer to a JSON schema: leave out "
                "response_format (and tool_choice), or start the server with --engine llamacpp",
                param="tool_choice" if ask.is_forced else "response_format", code="unsupported_parameter",
            )  # fmt: skip
        for ids in prompts:
            limit = self._limit(ids)
            for number in range(ask.n):
                seed = self._sampling.seed
                sampling = replace(self._sampling, seed=None if seed is None else (seed + number) % 2**63)
                found.append(Request(
                    ids=ids, messages=self._with_system(list(ask.messages or ())) if ids is None else None,
                    max_tokens=max(limit, 1), sampling=sampling, schema=schema, adapter=self._loaded.adapter,
                    logprobs=ask.logprobs, top_logprobs=ask.top_logprobs,
                ))  # fmt: skip
        return found

    def _rendered(self, messages: list[Message]) -> list[int]:
        ask, loaded = self._ask, self._loaded
        messages = self._with_system(messages)
        offered = list(ask.tools) if ask.uses_tools else []
        if self._shows_tools():
            return loaded.render(messages, offered or None)
        return loaded.render(tools.described(messages, offered))

    def _with_system(self, messages: list[Message]) -> list[Message]:
        """The system prompt that the model was trained with comes first, where the client gives none."""
        if self._loaded.system and not any(message["role"] == "system" for message in messages):
            return [{"role": "system", "content": self._loaded.system}, *messages]
        return messages

    def _shows_tools(self) -> bool:
        template = getattr(self._loaded.tokenizer, "chat_template", None)
        return isinstance(template, str) and tools.knows_tools(template)

    def _ids(self, prompt: str | tuple[int, ...]) -> list[int]:
        """Of a bare prompt; unlike in messages, control tokens in it are control: it is the caller's to render."""
        tokenizer = self._loaded.tokenizer
        if not isinstance(prompt, str):
            if max(prompt) >= len(tokenizer):
                raise ApiError(400, "'prompt': an id is beyond the vocabulary", param="prompt", code="invalid_value")
            return list(prompt)
        ids = tokenizer.encode(prompt, verbose=False)
        if not ids:  # nothing to continue: the end of a text before, where the vocabulary has one
            from ownchat.tokenizer.render import document_end

            return [document_end(tokenizer)]
        return list(ids)

    def _limit(self, ids: list[int] | None) -> int:
        """``max_tokens``, at most what the context has left. Raises 400 where nothing is."""
        ask, context = self._ask, self._loaded.context
        wanted = ask.max_tokens
        if wanted is None:
            wanted = max(DEFAULT_MAX_TOKENS, self._conduct.generate.max_tokens)
        if context is None or ids is None:
            return wanted
        if len(ids) >= context:
            raise ApiError(
                400, f"This model's maximum context length is {context} tokens, but your messages have {len(ids)}: "
                "shorten them", param="prompt" if ask.messages is None else "messages", code="context_length_exceeded",
            )  # fmt: skip
        return min(wanted, context - len(ids))

    def _echoed(self, index: int, ids: list[int]) -> Iterator[Piece]:
        """The prompt itself; with log-probabilities those of its tokens, as evaluation harnesses want them.

        In parts, so that somebody who has left is not worked for. The first token has none: nothing is before it.
        """
        ask, engine, texts = self._ask, self._loaded.engine, self._texts
        prompt = ask.prompts[index // ask.n]
        text = prompt if isinstance(prompt, str) else str(self._loaded.tokenizer.decode(ids))
        if not ask.logprobs or texts is None:
            yield Piece(index, text)
            return
        tokens: list[dict[str, Any]] = [
            texts.one(ids[0], 0.0) | texts.silent(ids[0], text) | {"logprob": None, "top_logprobs": []}
        ]
        for start in range(1, len(ids), ECHO_TOKENS):
            if self._cancel.is_set():
                return
            stop = min(start + ECHO_TOKENS, len(ids))
            mask = [0] * start + [1] * (stop - start)
            self._progress.prompt()
            values = engine.score(ids[:stop], mask, adapter=self._loaded.adapter)
            for place, value in zip(range(start, stop), values, strict=True):
                top = self._likeliest(ids[:place], (ids[place], value))
                shown = texts.one(ids[place], value) | texts.silent(ids[place], text)
                tokens.append(shown | {"top_logprobs": [texts.one(*pair) for pair in top]})
        yield Piece(index, text, logprobs=tuple(tokens))

    def _likeliest(self, before: list[int], own: tuple[int, float]) -> list[tuple[int, float]]:
        """The alternatives at a place of the prompt, and the token that stands there (OpenAI adds it, too)."""
        number = self._ask.top_logprobs
        if number == 0:
            return []
        if number == 1 and own[1] > LIKELIEST:
            return [own]
        request = Request(ids=before, max_tokens=1, adapter=self._loaded.adapter, top_logprobs=number)
        self._progress.prompt()
        found = [pair for delta in self._loaded.engine.stream(request) for tops in delta.top[:1] for pair in tops]
        return found if own[0] in dict(found) else [*found, own]

    # -------------------------------------------------------------------------------------------- one answer

    def _one(self, index: int, prompt_tokens: int, stream: Iterator[Delta], own: Event) -> Iterator[Piece]:
        ask, loaded = self._ask, self._loaded
        finder = None
        if ask.uses_tools and not ask.is_forced:
            finder = CallFinder([tool["function"]["name"] for tool in ask.tools], parallel=ask.parallel)
        whole, seen, over = "", 0, False
        try:
            for delta in self._conduct.filter.filtered(self._timed(index, stream), own):
                seen += len(delta.ids)
                shown = (
                    self._texts.shown(delta, ends=ask.messages is None)
                    if ask.logprobs and self._texts is not None
                    else ()
                )
                found: list[str | Call] = [delta.text]
                if ask.is_forced:  # JSON that is a call once it is whole
                    whole, found = whole + delta.text, []
                elif finder is not None:
                    found = finder.push(delta.text)
                reason: str | None = delta.finish_reason
                if reason == "cancelled" and not self._cancel.is_set():
                    raise ApiError(503, "the model was unloaded while it answered", code="server_is_overloaded")
                if reason is not None:
                    over = True
                    counted = delta.usage or Usage(0, max(seen, self._progress.tokens.get(index, 0)))
                    if ask.echo and ask.logprobs and self._texts is not None:  # who scores leaves out the last one
                        shown = [*shown, *self._texts.unnamed(counted.completion_tokens - seen)]
                    seen = counted.completion_tokens or seen if self._texts is None else max(
                        seen, counted.completion_tokens
                    )  # fmt: skip
                    if self._texts is None and counted.prompt_tokens:
                        self._progress.prompt_tokens = prompt_tokens = counted.prompt_tokens
                    self._progress.tokens[index] = seen
                    found += self._last_calls(whole, reason) if ask.is_forced else finder.finish() if finder else []
                    reason = self._reason(reason, found, finder)
                text = "".join(one for one in found if isinstance(one, str))
                calls = tuple(one for one in found if isinstance(one, Call))
                if text or calls or shown or reason is not None:
                    yield Piece(index, text, calls, tuple(shown), reason)
        finally:
            ended = reason if over and reason is not None else "cancelled"
            self._metrics.answered(loaded.entry.id, prompt_tokens, seen, ended)
            self._conduct.report(self._metrics)

    def _last_calls(self, whole: str, reason: str) -> list[str | Call]:
        """The call, or the text of an answer that became none, as one that the policy held back."""
        if reason == "content_filter":
            return [whole]
        calls = tools.forced_calls(whole, self._ask.tool_name if self._ask.tool_choice == "named" else None)
        return list(calls) if calls else [whole]

    def _reason(self, reason: str, found: list[str | Call], finder: CallFinder | None) -> str:
        """OpenAI's: a call that was not demanded by name is a reason of its own."""
        if reason != "stop":
            return reason
        if finder is not None and finder.num_calls:
            return "tool_calls"
        is_call = any(isinstance(one, Call) for one in found)
        return "tool_calls" if self._ask.is_forced and self._ask.tool_choice == "required" and is_call else reason

    def _timed(self, index: int, stream: Iterator[Delta]) -> Iterator[Delta]:
        """The deltas, with tokens and the times between them counted before any filter holds them back."""
        tokens = self._progress.tokens
        try:
            for delta in stream:
                # another server tells text alone, as a rule one token at a time
                tokens[index] = tokens.get(index, 0) + (len(delta.ids) or bool(delta.text))
                self._progress.token()
                now, model = time.monotonic(), self._loaded.entry.id
                if delta.ids or delta.text:
                    if self._none_yet:
                        self._metrics.first_token(model, now - self._last)
                    else:
                        self._metrics.next_token(model, (now - self._last) / max(1, len(delta.ids)))
                    self._last, self._none_yet = now, False
                yield delta
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
