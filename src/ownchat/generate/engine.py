"""What an engine is: requests go in, pieces of an answer come out. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Literal, Protocol

from ownchat.config import GenerateConfig
from ownchat.errors import UserError

FinishReason = Literal["stop", "length", "cancelled"]
Message = dict[str, Any]  # {"role": "user", "content": "..."}

BASE = "base"  # the value of Request.adapter that answers with the adapter switched off


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the logits; the defaults are greedy.

    The steps and their order are those of transformers: repetition penalty, temperature, top-k, top-p, min-p.
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
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        in_range = {
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": self.repetition_penalty > 0,
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
    cannot keep it refuses. ``adapter``: ``None`` is the model as it is, ``"base"`` the model with its adapter
    switched off. Raises :class:`~ownchat.errors.UserError` unless exactly one of ``ids`` and ``messages`` is given.
    """

    ids: Sequence[int] | None = None
    messages: Sequence[Message] | None = None
    max_tokens: int = 256
    sampling: Sampling = Sampling()
    schema: Mapping[str, Any] | None = None
    adapter: str | None = None

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
    ``finish_reason`` and ``usage`` stand in the last delta only: ``stop`` (end token or stop text), ``length``
    (``max_tokens`` or the model's context is full) or ``cancelled``.
    """

    text: str
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


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
