"""What is looked at while training: the loss of the valid split, or of an even sample of it, and sample texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ownchat.errors import Interrupted
from ownchat.generate.detokenize import decode
from ownchat.generate.end_tokens import end_token_ids
from ownchat.generate.engine import Sampling
from ownchat.generate.samples import continuations
from ownchat.model.block import Document
from ownchat.monitor.events import JsonLines
from ownchat.monitor.progress import say
from ownchat.tokenizer.render import document_end
from ownchat.tokenizer.store import Item, TokenStore
from ownchat.train.distributed import World
from ownchat.train.loop import SAMPLES
from ownchat.train.objectives import documents_of
from ownchat.train.schedule import Plan

MAX_SHARE = 0.25  # of the tokens trained between two validations: more would cost more than it tells
MIN_TOKENS = 10_000  # differences between checkpoints are paired, and need no more
PRETRAINING_MIN_TOKENS = 4_096  # there are more validations, and all of their tokens count
OPENING_TOKENS = 12  # of a text that a sample goes on with
LONGEST_PROMPT = 128  # tokens of a conversation before its first reply
SAMPLE_TOKENS = 60
SAMPLES_SHARE = 0.04  # of the time since training began
SAMPLED = Sampling(temperature=0.8, seed=0)


def validation_budget(train_tokens: float, plan: Plan) -> float:
    """Tokens that one validation may score."""
    least = PRETRAINING_MIN_TOKENS if plan.validations else MIN_TOKENS
    return max(least, MAX_SHARE * train_tokens * plan.validate_every / plan.steps_per_epoch)


def validation_items(valid: TokenStore, budget: float) -> list[Item]:
    """The same items at every validation, so that their losses can be compared."""
    every = max(1, round(valid.num_tokens / budget))
    return [valid.item(number) for number in range(0, len(valid.item_lengths), every)]


def validation_documents(valid: TokenStore, budget: float) -> list[Document]:
    """The documents of :func:`validation_items`."""
    return documents_of(validation_items(valid, budget))


def text_bytes(tokenizer: Any, items: Sequence[Item]) -> int:
    """UTF-8 bytes of what the trained tokens of items stand for; control tokens have none.

    A character that two windows share is off by a byte or two.
    """
    trained = (ids[1:][weights[1:] > 0].tolist() for ids, weights in documents_of(items))
    return sum(len(decode(tokenizer, ids).encode()) for ids in trained)


def sample_prompts(texts: TokenStore, conversations: TokenStore | None) -> list[list[int]]:
    """Up to three prompts of the valid split, spread over it: openings of documents, and of a conversation everything
    before its first reply. The same ones at every validation."""
    index = texts.index()
    openings = [
        number
        for number, length in enumerate(texts.lengths.tolist())
        if index[number]["kind"] == "document" and index[number]["piece"] == 0 and length > 2 * OPENING_TOKENS
    ]
    asked = []
    for number in range(0 if conversations is None else len(conversations)):
        ids, weights = conversations[number]  # type: ignore[index] # there is none in an empty range
        prompt = ids[: int(np.flatnonzero(weights)[0])].tolist()
        if 0 < len(prompt) <= LONGEST_PROMPT:
            asked.append(prompt)
    chats = _spread(asked, 1 if openings else 3)
    return [texts[number][0][:OPENING_TOKENS].tolist() for number in _spread(openings, 3 - len(chats))] + chats


def _spread(values: list[Any], most: int) -> list[Any]:
    return [values[int(place)] for place in np.linspace(0, len(values) - 1, min(most, len(values)))]


class Samples:
    """Texts that a model writes at its validations, in ``samples.jsonl`` of its phase.

    The first and the last validation always have them (``in_a_hurry``: the last), those between as long as all of them
    together take no more than :data:`SAMPLES_SHARE` of the time. What goes wrong here ends no training.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompts: list[list[int]], directory: Path, world: World, *, in_a_hurry: bool
    ) -> None:
        self._in_a_hurry = in_a_hurry  # its minutes are counted: an untrained model's words are worth none
        self._model, self._tokenizer, self._world = model, tokenizer, world
        context = getattr(model.config, "max_position_embeddings", None) or SAMPLE_TOKENS + LONGEST_PROMPT
        self._prompts = [prompt for prompt in prompts if len(prompt) < context]
        self._room = min(SAMPLE_TOKENS, context - max(map(len, self._prompts), default=0))
        self._file = JsonLines(directory / SAMPLES) if world.first else None
        self._ends = {*end_token_ids(tokenizer, model), document_end(tokenizer)}
        self._began, self._spent = time.monotonic(), 0.0

    def write(self, step: int, last: bool) -> None:
        """Let the model write, if it is time to; every process of a company has to call this."""
        began = time.monotonic()
        due = (step == 0 and not self._in_a_hurry) or last or self._spent < SAMPLES_SHARE * (began - self._began)
        if not self._prompts or not self._world.from_first(lambda: due):
            return
        try:
            made = continuations(
                self._model, self._prompts, max_tokens=self._room, sampling=SAMPLED, end_ids=self._ends,
                every_pass=not self._world.alone,
            )  # fmt: skip
            texts = [
                {"prompt": decode(self._tokenizer, prompt), "text": decode(self._tokenizer, ids)}
                for prompt, ids in zip(self._prompts, made, strict=True)
            ]
            if self._file is not None:
                self._file.write(step=step, samples=texts)
        except Interrupted:
            raise
        except Exception as error:
            if not self._world.alone:  # the others wait for this process in the middle of a pass
                raise
            say(f"no sample texts at step {step}: {(str(error).splitlines() or [type(error).__name__])[0]}")
        if not self._world.alone:
            self._model.reshard()
        self._spent += time.monotonic() - began
