"""The gate of an export: does the file, run in the program it is for, answer as the model in memory does?

Three things have to hold for each prompt. The rendered prompt is the same text, byte for byte, and the same tokens.
Each token that the program takes, greedily, has the same log-probability from the model given the same tokens before
it (teacher forcing), within the tolerance of the type. And it is the model's own choice, or so nearly that the two lie
closer together than that tolerance: so the greedy texts are equal up to the first near-tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ownchat.errors import ModelError
from ownchat.generate.exports.llamacpp import Continuation
from ownchat.monitor.progress import progress
from ownchat.tokenizer.render import prompt_ids

Messages = Sequence[dict[str, Any]]
MAX_TOKENS = 48  # of each answer that is compared


@dataclass(frozen=True)
class Tolerance:
    """In nats of log-probability: of one token at most, and on average over all of them."""

    largest: float
    mean: float


@dataclass
class Parity:
    """What was compared and how far apart it was, in nats. ``near_ties``: other choices, within the tolerance."""

    prompts: int = 0
    tokens: int = 0
    largest: float = 0.0
    mean: float = 0.0
    near_ties: int = 0
    equal_texts: int = 0
    tokens_per_second: float = 0.0

    def line(self) -> str:
        """For people."""
        asked = f"{self.prompts} prompt" + ("" if self.prompts == 1 else "s")
        text = f"{asked}, {self.tokens:,} tokens: log-probabilities differ by {self.largest:.4f} at most, "
        text += f"{self.mean:.5f} on average; {self.equal_texts} of {self.prompts} greedy answers are equal"
        return text + (f", the others up to a near-tie ({self.near_ties} in all)" if self.near_ties else "")


class Runner(Protocol):
    """A program that runs an exported model."""

    def render(self, messages: Messages) -> str: ...

    def tokenize(self, text: str, *, control: bool) -> list[int]: ...

    def answer(self, ids: Sequence[int], max_tokens: int) -> Continuation: ...


def compare(
    runner: Runner,
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Messages],
    tolerance: Tolerance,
    *,
    texts: Sequence[str] = (),
    what: str = "",
) -> Parity:
    """Compare ``runner`` with ``model`` (transformers, float32) on conversations that end before an answer.

    ``texts`` are split into tokens by both besides. A conversation in whose text control tokens are quoted is compared
    by its tokens only: we encode them as text (nobody but the template ends a turn), other programs may not. Raises
    :class:`~ownchat.errors.ModelError` for the first thing that is not equal enough, with both values.
    """
    found, differences = Parity(), []
    for text in texts:
        _same_tokens(runner.tokenize(text, control=False), _plain_ids(tokenizer, text), text, tokenizer)
    speeds = []
    with progress(f"compare {what}".strip(), len(conversations), "prompts") as advance:
        for messages in conversations:
            prompt = prompt_ids(tokenizer, messages)
            _same_prompt(runner, tokenizer, messages, prompt)
            answer = runner.answer(prompt, _room(model, prompt))
            if not answer.ids:
                raise ModelError("the exported file gives no answer at all", where=what)
            ours, choices, margins = _ours(model, prompt, answer.ids)
            logprobs = torch.tensor([torch.nan if value is None else value for value in answer.logprobs])
            known = torch.tensor([value is not None for value in answer.logprobs])
            gaps = (ours - logprobs).abs()[known]
            other = choices != torch.tensor(answer.ids)
            if bool(other.any()) and float(margins.max()) > tolerance.largest:
                place = int(margins.argmax())
                theirs, own = (tokenizer.decode([int(id)]) for id in (answer.ids[place], choices[place]))
                raise ModelError(
                    f"token {place + 1} of an answer is {theirs!r} and the model's own is {own!r}, likelier by "
                    f"{float(margins[place]):.3f}",
                    where=what, fix=_FIX,
                )  # fmt: skip
            differences.append(gaps)
            speeds.append(answer.tokens_per_second)
            found.prompts += 1
            found.near_ties += int(other.sum())
            found.equal_texts += not bool(other.any())
            advance()
    every = torch.cat(differences)
    found.tokens, found.largest, found.mean = len(every), float(every.max()), float(every.mean())
    found.tokens_per_second = sorted(speeds)[len(speeds) // 2]
    if not (found.largest <= tolerance.largest and found.mean <= tolerance.mean):  # NaN is past it, too
        raise ModelError(
            f"log-probabilities differ by {found.largest:.3f} at most and {found.mean:.4f} on average over "
            f"{found.tokens:,} tokens; {tolerance.largest} and {tolerance.mean} are allowed",
            where=what, fix=_FIX,
        )  # fmt: skip
    return found


_FIX = "nothing was kept; try another --type, and please report it if f16 fails"


def _same_prompt(runner: Runner, tokenizer: Any, messages: Messages, prompt: Sequence[int]) -> None:
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    if tokenizer.encode(text, add_special_tokens=False) != list(prompt):
        return  # control tokens are quoted in it
    theirs = runner.render(messages)
    if theirs != text:
        place = next((n for n, pair in enumerate(zip(text, theirs, strict=False)) if pair[0] != pair[1]), len(text))
        raise ModelError(
            f"the chat prompt is rendered differently from character {place + 1} on: {theirs[place:place + 40]!r} in "
            f"place of {text[place:place + 40]!r}",
            where="chat_template",
            fix="simplify the template in tokenizer's chat_template.jinja",
        )  # fmt: skip
    _same_tokens(runner.tokenize(text, control=True), prompt, text, tokenizer)


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def _same_tokens(theirs: Sequence[int], ours: Sequence[int], text: str, tokenizer: Any) -> None:
    if list(theirs) == list(ours):
        return
    place = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
    raise ModelError(
        f"{text[:40]!r} is split into other tokens: at token {place + 1} "
        f"{tokenizer.convert_ids_to_tokens(list(theirs[place:place + 3]))} in place of "
        f"{tokenizer.convert_ids_to_tokens(list(ours[place:place + 3]))}",
        where="tokenizer.json",
        fix="export it --to vllm, which uses the tokenizer as it is",
    )  # fmt: skip


def _room(model: Any, prompt: Sequence[int]) -> int:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return MAX_TOKENS if context is None else max(1, min(MAX_TOKENS, context - len(prompt)))


def _ours(
    model: Any, prompt: Sequence[int], ids: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Of the model for the tokens ``ids`` after ``prompt``: their log-probabilities, its own choices, and by how much
    it prefers those [tokens each]."""
    sequence = torch.tensor([[*prompt, *ids]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=sequence[:, :-1], logits_to_keep=len(ids)).logits[0].float()
    logprobs = logits.log_softmax(-1).cpu()
    taken = logprobs.gather(-1, torch.tensor(list(ids))[:, None])[:, 0]
    best = logprobs.max(-1)
    return taken, best.indices, best.values - taken


def composes(tokenizer: Any) -> bool:
    """Whether a tokenizer puts text into Unicode's composed form (NFC) first, as Qwen's do; llama.cpp never does."""
    from tokenizers.normalizers import NFC

    return isinstance(tokenizer.backend_tokenizer.normalizer, NFC)


def conversations_of(records: Sequence[dict[str, Any]], is_short: Callable[[Messages], bool]) -> list[Messages]:
    """What comes before the first answer of each conversation, where ``is_short`` says that it fits."""
    found: list[Messages] = []
    for record in records:
        messages = [{"role": m["role"], "content": m["content"] or ""} for m in record["messages"] or ()]
        first = next((n for n, message in enumerate(messages) if message["role"] == "assistant"), 0)
        if first and messages[first - 1]["role"] == "user" and is_short(messages[:first]):
            found.append(messages[:first])
    return found
