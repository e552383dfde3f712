"""What is asked of a model and what comes of it, whatever the protocol: the words that routes and engines share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ownchat.config import GenerateConfig
from ownchat.generate.engine import Message, Sampling
from ownchat.serve.tools import Call

DEFAULT_MAX_TOKENS = 1024  # where a request names no limit: a small model may repeat itself for ever
MOST_TOKENS_COUNTED = 8192  # of an answer, before the model's context is known
CHARACTERS_PER_TOKEN = 3


@dataclass(frozen=True)
class Given:
    """The part of sampling that a request names; ``None``: as the model's owner has set it."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None

    def sampling(self, config: GenerateConfig) -> Sampling:
        """With the owner's settings where nothing is named. ``top_p`` 0 takes the likeliest token, as OpenAI's does."""
        base = Sampling.of(config)
        named = {
            name: value
            for name in ("temperature", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
                         "stop")
            if (value := getattr(self, name)) is not None
        }  # fmt: skip
        if self.top_p is not None:
            named |= {"temperature": 0.0} if self.top_p == 0 else {"top_p": self.top_p}
        if self.logit_bias:
            named["logit_bias"] = {int(id): bias for id, bias in self.logit_bias.items()}
        if self.seed is not None:
            named["seed"] = self.seed % 2**63  # OpenAI's may be negative
        return replace(base, **named)


@dataclass(frozen=True)
class Ask:
    """What is wanted: an answer to ``messages``, or the continuation of each of ``prompts``, ``n`` times.

    ``tool_choice``: ``none``, ``auto``, ``required``, or the one function that is to be called as ``named``.
    """

    model: str
    given: Given
    messages: tuple[Message, ...] | None = None
    prompts: tuple[str | tuple[int, ...], ...] = ()
    max_tokens: int | None = None
    n: int = 1
    schema: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Literal["none", "auto", "required", "named"] = "auto"
    tool_name: str | None = None
    parallel: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    echo: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def estimate(self) -> int:
        """Tokens of prompts and answers at most, roughly: known before any model is loaded."""
        texts = [str(message) for message in self.messages or ()] + [str(tool) for tool in self.tools]
        prompt = sum(map(len, texts)) // CHARACTERS_PER_TOKEN
        for one in self.prompts:
            prompt += len(one) // CHARACTERS_PER_TOKEN if isinstance(one, str) else len(one)
        answer = DEFAULT_MAX_TOKENS if self.max_tokens is None else min(self.max_tokens, MOST_TOKENS_COUNTED)
        return prompt + answer * self.n * max(1, len(self.prompts))

    @property
    def is_forced(self) -> bool:
        """Whether the answer has to be a call."""
        return bool(self.tools) and self.tool_choice in ("required", "named")

    @property
    def uses_tools(self) -> bool:
        """Whether the model is told of tools."""
        return bool(self.tools) and self.tool_choice != "none"


@dataclass(frozen=True)
class Begun:
    """The model is loaded and has taken the request. ``prompt_tokens`` of all prompts together; of a model elsewhere
    an estimate, until its server tells what it counted. ``system``: the name of the system text that was put before
    the messages, since they had none."""

    fingerprint: str
    disclosure: str | None
    sampling: Sampling
    prompt_tokens: int
    warning: str | None = None
    system: str | None = None


@dataclass(frozen=True)
class Piece:
    """What came of answer ``index``. ``finish_reason`` stands in its last piece only."""

    index: int
    text: str = ""
    calls: tuple[Call, ...] = ()
    logprobs: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None


class Progress:
    """What an engine has done so far, told from its thread: also where nothing is given out yet, as in a forced call.

    ``tokens``: of each answer, by its index. ``prompt_tokens``: those that the server of a model elsewhere counted.
    """

    def __init__(self) -> None:
        self.tokens: dict[int, int] = {}
        self.prompt_tokens: int | None = None
        self._last = (time.monotonic(), True)

    def prompt(self) -> None:
        """A prompt, or a part of one, is being read."""
        self._last = (time.monotonic(), True)

    def token(self) -> None:
        """A token came."""
        self._last = (time.monotonic(), False)

    def deadline(self, *, first_token_seconds: float, idle_seconds: float) -> float:
        """Until when the engine may be silent, by ``time.monotonic()``: longer while it reads a prompt."""
        at, is_prompt = self._last
        return at + (first_token_seconds if is_prompt else idle_seconds)
