"""What an engine is: requests go in, pieces of an answer come out. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Literal, Protocol

from ownchat.config import GenerateConfig
from ownchat.errors import UserError

FinishReason = Literal["stop", "length", "cancelled", "content_filter"]
Message = dict[str, Any]  # {"role": "user", "content": "..."}

BASE = "base"  # the value of Request.adapter that answers with the adapter switched off


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the logits; the defaults are greedy.

    The steps and their order are those of transformers: repetition penalty, temperature, top-k, top-p, min-p. Before
    them ``logit_bias`` is added by token id; after the repetition penalty ``frequency_penalty`` (times a token's uses
    in the answer so far) and ``presence_penalty`` (of a token that was used at all) are taken off, as OpenAI does.
    ``seed`` makes an answer repeatable; ``None`` takes a new seed for every request. The answer ends before the
    first of the texts in ``stop``. Raises :class:`~ownchat.errors.UserError` for a value out of range.

    >>> Sampling(temperature=0.7, top_p=0.9, seed=1).greedy
    False
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        in_range = {
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": self.repetition_penalty > 0,
            "frequency_penalty": -2 <= self.frequency_penalty <= 2,
            "presence_penalty": -2 <= self.presence_penalty <= 2,
            "logit_bias": all(-100 <= bias <= 100 for bias in self.logit_bias.values()),
            "seed": self.seed is None or self.seed >= 0,
        }
        for name, good in in_range.items():
            if not good:
                raise UserError(f"{name} = {getattr(self, name)} is out of range", where="sampling")
        if isinstance(self.stop, str) or "" in self.stop:
            raise UserError("stop must be a list of texts, none of them empty", where="sampling")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    @classmethod
    def of(cls, config: GenerateConfig) -> Sampling:
        """The sampling part of the configuration's ``generate`` section."""
        return cls(
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
            seed=config.seed,
            stop=tuple(config.stop),
        )


@dataclass(frozen=True)
class Request:
    """One answer that is wanted: to a rendered prompt (``ids``), or to ``messages`` that the engine renders.

    ``max_tokens`` counts the end token. ``schema`` is a JSON schema that the answer must follow; an engine that
    cannot keep it refuses. ``adapter``: ``None`` is the model as it is, with the first adapter that the engine was
    opened with, if any; ``"base"`` the model without one; another name one of its adapters. ``logprobs`` false: nobody
    needs log-probabilities, and an engine that pays for them leaves them out. ``top_logprobs``: alternatives wanted
    with each token, which asks for log-probabilities, too. Raises :class:`~ownchat.errors.UserError` unless exactly one
    of ``ids`` and ``messages`` is given.
    """

    ids: Sequence[int] | None = None
    messages: Sequence[Message] | None = None
    max_tokens: int = 256
    sampling: Sampling = Sampling()
    schema: Mapping[str, Any] | None = None
    adapter: str | None = None
    logprobs: bool = True
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if (self.ids is None) == (self.messages is None):
            raise UserError("a request has either ids or messages", where="request")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens = {self.max_tokens} is out of range", where="request", fix="ask for 1 or more")


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer; the end token counts."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Delta:
    """What came since the delta before.

    The texts of all deltas, joined, are the answer. A text may be empty: half a character and the beginning of
    what may become a stop text are withheld. ``ids`` are the new tokens (the end token is one, though it has no
    text) and ``logprobs`` their natural-log probabilities under the model, before temperature and filters.
    ``top`` has, for each of ``ids``, the ``Request.top_logprobs`` likeliest tokens and their log-probabilities.
    ``finish_reason`` and ``usage`` stand in the last delta only: ``stop`` (end token or stop text), ``length``
    (``max_tokens`` or the model's context is full), ``cancelled``, or ``content_filter`` (see ``generate.policy``).
    ``stopped``: a stop text ended it, or may have: the model would have gone on, and it may end within a word.
    """

    text: str
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    stopped: bool = False


class Engine(Protocol):
    """What every back end offers."""

    def stream(self, request: Request, cancel: Event | None = None) -> Iterator[Delta]:
        """The answer piece by piece; ends within one token after ``cancel`` is set.

        Raises :class:`~ownchat.errors.UserError` at once for a request that cannot be answered.
        """
        ...

    def score(self, ids: Sequence[int], mask: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """Natural-log probabilities of the tokens whose mask is 1, each given all tokens before it."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


class LocalEngine(Engine, Protocol):
    """An engine that has its model in this process: it gets ids.

    ``adapters``: names that a request may give; ``num_bytes``: about what it holds in memory; ``can_schema``: whether
    it can hold an answer to a JSON schema.
    """

    @property
    def backend(self) -> str: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def context(self) -> int | None: ...
    @property
    def adapters(self) -> tuple[str, ...]: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def can_schema(self) -> bool: ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens: special tokens left out, nothing else changed."""
        ...
