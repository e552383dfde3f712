"""The reference engine: transformers' models, one key-value cache per answer, and a loop one can read."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ownchat.errors import ModelError, RunError, UserError
from ownchat.generate.answering import BATCH_ROWS, batches
from ownchat.generate.detokenize import Detokenizer, StopFilter, decode
from ownchat.generate.end_tokens import end_token_ids
from ownchat.generate.engine import BASE, Delta, FinishReason, Request, Usage
from ownchat.generate.locate import locate
from ownchat.generate.sampling import choose
from ownchat.model.load import load_model, load_tokenizer
from ownchat.model.out_of_memory import Guard, is_out_of_memory, make_room
from ownchat.monitor.progress import say
from ownchat.tokenizer.render import prompt_ids

CHUNK_TOKENS = 1024  # of a prompt in one forward pass: bounds memory, and how long a cancel can wait
SCORE_TOKENS = 512  # whose logits are held at once in score(): 100 MB with a vocabulary of 49,152


def chat_engine(
    directory: Path | str,
    *,
    adapter: Path | str | None = None,
    tokenizer: Path | str | None = None,
    threads: int | None = None,
    dtype: str = "float32",
) -> HfEngine:
    """An engine for a Hugging Face directory, or for the result of a run.

    With ``adapter``, a PEFT directory, the model is the base under it: requests are answered by the tuned model,
    those with ``adapter="base"`` by the base, from one copy of the weights. ``tokenizer`` is another directory to
    take tokenizer and chat template from. ``threads`` sets torch's number of threads for the whole process. Raises
    :class:`~ownchat.errors.ModelError` for a directory without safe weights.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    directory = locate(directory).model
    model: Any = load_model(directory, dtype=dtype)
    if adapter is not None:
        model = load_adapter(model, Path(adapter))
    return HfEngine(model, load_tokenizer(directory if tokenizer is None else Path(tokenizer)))


def load_adapter(model: PreTrainedModel, directory: Path) -> Any:
    """``model`` with the PEFT adapter of ``directory`` on it; pickled adapters are refused."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (directory / name).is_file():
            raise ModelError(
                f"no {name} here", where=str(directory), fix="give the adapter directory of a run (5-train/adapter)"
            )
    from ownchat.model import lora  # brings PEFT, which a chat with a finished model does not need

    return lora.load_adapter(model, directory).eval()


class HfEngine:
    """An :class:`~ownchat.generate.engine.Engine` on a transformers model in memory.

    Threads may share it: forward passes take turns. The model is used as it is and must be in evaluation mode.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, end_ids: Collection[int] | None = None):
        self.model, self.tokenizer = model, tokenizer
        self.end_ids = frozenset(end_token_ids(tokenizer, model) if end_ids is None else end_ids)
        self.context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._has_adapter = hasattr(model, "disable_adapter")  # PeftModel's; plain models have the plural only
        self._adapter_on = True
        self._turn = Lock()

    # ------------------------------------------------------------------------------------------- one answer

    def stream(self, request: Request, cancel: Event | None = None) -> Iterator[Delta]:
        """The answer, one delta a token. Greedy is ``model.generate(do_sample=False)``, token for token.

        Raises :class:`~ownchat.errors.UserError` at once for a prompt that is empty or longer than the model's
        context, and for what this engine cannot do.
        """
        if request.schema is not None:
            raise UserError("this engine cannot hold an answer to a JSON schema", where="request", fix="leave it out")
        self._check_adapter(request.adapter)
        prompt = list(request.ids if request.ids is not None else prompt_ids(self.tokenizer, request.messages or ()))
        limit = min(request.max_tokens, self._room(prompt))
        return self._answer(request, prompt, limit, cancel if cancel is not None else Event())

    def _answer(self, request: Request, prompt: list[int], limit: int, cancel: Event) -> Iterator[Delta]:
        with self._leaving_adapter_on():
            yield from self._decode(request, prompt, limit, cancel)

    def _decode(self, request: Request, prompt: list[int], limit: int, cancel: Event) -> Iterator[Delta]:
        sampling = request.sampling
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        # A special token has no text, so a stop text that is one has to be met as a token.
        added = {str(token): id for id, token in self.tokenizer.added_tokens_decoder.items()}
        ends = self.end_ids | {added[stop] for stop in sampling.stop if stop in added}
        detokenizer, stop = Detokenizer(self.tokenizer), StopFilter(sampling.stop)
        sequence = torch.empty(len(prompt) + limit, dtype=torch.long, device=self._device)
        sequence[: len(prompt)] = torch.tensor(prompt)
        cache, cached, length = DynamicCache(config=self.model.config), 0, len(prompt)

        while True:
            while cached < length and not cancel.is_set():
                upto = min(cached + CHUNK_TOKENS, length)
                logits = self._forward(sequence[None, cached:upto], cache, cached, request.adapter)[0, -1]
                cached = upto
            if cancel.is_set():
                text = stop.push(detokenizer.finish()) + stop.finish()
                yield Delta(text, (), (), "cancelled", Usage(len(prompt), length - len(prompt)))
                return
            id = choose(logits, sequence[:length], sampling, seed=seed, position=length)
            logprob = float(logits[id].float() - logits.float().logsumexp(-1))
            sequence[length] = id
            length += 1

            reason: FinishReason | None = None
            text = ""
            if id in ends:
                reason = "stop"
            else:
                text = stop.push(detokenizer.push(id))
                reason = "stop" if stop.stopped else "length" if length - len(prompt) == limit else None
            if reason is not None and not stop.stopped:
                text += stop.push(detokenizer.finish())
                if stop.stopped:  # the last characters, withheld until now, completed a stop text
                    reason = "stop"
                text += stop.finish()
            usage = Usage(len(prompt), length - len(prompt)) if reason is not None else None
            yield Delta(text, (id,), (logprob,), reason, usage)
            if reason is not None:
                return

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens: special tokens left out, nothing else changed."""
        return decode(self.tokenizer, ids)

    # ---------------------------------------------------------------------------------------------- batches

    def answer_batch(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        *,
        adapter: str | None = None,
        progress: Callable[[int], object] | None = None,
        batch_size: int = BATCH_ROWS,
    ) -> list[list[int]]:
        """Greedy answers to rendered prompts, in their order; the end token, if one came, is the last token.

        Prompts of similar length go together, at most ``batch_size`` of them, padded on the left; a row that has ended
        leaves its batch. When memory runs out, those that have not ended are answered in halves of the batch.
        ``progress(1)`` is called for each answer that is ready. Raises :class:`~ownchat.errors.UserError` for a
        prompt longer than the model's context, :class:`~ownchat.errors.RunError` where memory is too little for one.
        """
        self._check_adapter(adapter)
        limits = [min(max_tokens, self._room(prompt)) for prompt in prompts]
        answers: list[list[int]] = [[] for _ in prompts]
        waiting = batches(dict(enumerate(map(len, prompts))), rows=batch_size)
        guard = Guard() if self._device.type == "cpu" else None
        while waiting:
            rows = waiting.pop(0)
            left = rows
            if guard is None or len(rows) == 1 or not guard.short():
                left = self._try_rows(rows, prompts, limits, answers, adapter, progress)
                if left and len(rows) == 1:
                    raise RunError(
                        f"out of memory: a prompt of {len(prompts[rows[0]]):,} tokens cannot be answered alone",
                        fix="close other programs, shorten the prompt, or take a smaller model",
                    )
            if left:
                say(f"out of memory while answering: {-(-len(left) // 2)} at a time, they were {len(rows)}")
                make_room()
                waiting[:0] = [part for part in (left[: -(-len(left) // 2)], left[-(-len(left) // 2) :]) if part]
        return answers

    def _try_rows(
        self,
        rows: list[int],
        prompts: Sequence[Sequence[int]],
        limits: list[int],
        answers: list[list[int]],
        adapter: str | None,
        progress: Callable[[int], object] | None,
    ) -> list[int]:
        """Answers one batch; returns the rows that have none because memory ran out. Its tensors are gone then."""
        width = max(len(prompts[row]) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for slot, row in enumerate(rows):
            ids[slot, width - len(prompts[row]) :] = torch.tensor(prompts[row])
            mask[slot, width - len(prompts[row]) :] = 1
        try:
            with self._leaving_adapter_on():
                self._answer_rows(rows, ids.to(self._device), mask.to(self._device), limits, answers, adapter, progress)
            return []
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        left = [row for row in rows if not self._has_ended(answers[row], limits[row])]
        for row in left:
            answers[row].clear()
        return left

    def _has_ended(self, answer: Sequence[int], limit: int) -> bool:
        return len(answer) == limit or (bool(answer) and answer[-1] in self.end_ids)

    def _answer_rows(
        self,
        rows: list[int],
        ids: torch.Tensor,
        mask: torch.Tensor,
        limits: list[int],
        answers: list[list[int]],
        adapter: str | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        cache = DynamicCache(config=self.model.config)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        while True:
            chosen = self._forward(ids, cache, positions, adapter, mask)[:, -1].argmax(-1)
            alive: list[int] = []
            for slot, (row, id) in enumerate(zip(rows, chosen.tolist(), strict=True)):
                answers[row].append(id)
                if not self._has_ended(answers[row], limits[row]):
                    alive.append(slot)
                elif progress is not None:
                    progress(1)
            if not alive:
                return
            if len(alive) < len(rows):
                index = torch.tensor(alive, device=self._device)
                cache.batch_select_indices(index)
                rows = [rows[slot] for slot in alive]
                chosen, mask, positions = chosen[index], mask[index], positions[index]
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)

    # ---------------------------------------------------------------------------------------------- scoring

    def score(self, ids: Sequence[int], mask: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """Natural-log probabilities of the tokens whose mask is 1, in order; logits are held in chunks only.

        Raises :class:`~ownchat.errors.UserError` when the first token is masked (nothing precedes it), when the
        lengths differ, or when the text is longer than the model's context.
        """
        self._check_adapter(adapter)
        if len(ids) != len(mask):
            raise UserError(f"{len(ids)} ids and {len(mask)} mask values", where="score")
        if any(mask[:1]):
            raise UserError("the first token has nothing before it and no probability", where="score")
        if self.context is not None and len(ids) > self.context:
            raise _too_long(len(ids), self.context)
        sequence = torch.tensor(list(ids), dtype=torch.long, device=self._device)
        cache, scores = DynamicCache(config=self.model.config), []
        last = max((position for position, wanted in enumerate(mask) if wanted), default=0)
        for start in range(0, last, SCORE_TOKENS):
            end = min(start + SCORE_TOKENS, last)
            wanted = [position for position in range(start, end) if mask[position + 1]]
            keep = torch.tensor([position - start for position in wanted], dtype=torch.long, device=self._device)
            with self._leaving_adapter_on():
                logits = self._forward(sequence[None, start:end], cache, start, adapter, keep=keep)[0].float()
            targets = sequence[start + 1 : end + 1][keep]
            scores += (logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
        return scores

    def close(self) -> None:
        """Let go of the model; the engine cannot answer after this."""
        with self._turn:
            self._switch(on=True)
            self.model = None

    # ------------------------------------------------------------------------------------------------ inside

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _forward(
        self,
        ids: torch.Tensor,
        cache: DynamicCache,
        positions: int | torch.Tensor,
        adapter: str | None,
        mask: torch.Tensor | None = None,
        keep: int | torch.Tensor = 1,
    ) -> torch.Tensor:
        """Logits [rows, kept, vocabulary] of ``ids`` [rows, n] after what is cached; the head runs on ``keep`` only.

        Inference mode belongs to the thread, so it is never held while a caller has a delta in hand.
        """
        assert not self.model.training, "call eval() first: dropout would change the answers"
        if isinstance(positions, int):
            positions = torch.arange(positions, positions + ids.shape[1], device=ids.device)[None]
        with self._turn, torch.inference_mode():
            self._switch(on=adapter != BASE)
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
        return output.logits

    def _switch(self, *, on: bool) -> None:
        """Adapter on or off: looked at in every pass, since answers may take turns, and changed only when needed.

        PEFT walks through all modules for it, which takes as long as several tokens.
        """
        if on != self._adapter_on:
            layers = self.model.base_model
            (layers.enable_adapter_layers if on else layers.disable_adapter_layers)()
            self._adapter_on = on

    @contextmanager
    def _leaving_adapter_on(self) -> Iterator[None]:
        """Whatever happens in the block: afterwards the model is as its owner knows it."""
        try:
            yield
        finally:
            with self._turn:
                self._switch(on=True)

    def _check_adapter(self, adapter: str | None) -> None:
        if adapter not in (None, BASE):
            raise UserError(f'there is no adapter "{adapter}"', where="request", fix=f'use "{BASE}" or leave it out')
        if adapter == BASE and not self._has_adapter:
            raise UserError("no adapter is loaded, so there is none to switch off", where="request")

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that fit after ``prompt``."""
        if not prompt:
            raise UserError("the prompt is empty", where="request")
        vocabulary = self.model.config.get_text_config().vocab_size
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise UserError(f"ids must lie between 0 and {vocabulary - 1}", where="request")
        if self.context is None:
            return 2**31
        if len(prompt) >= self.context:
            raise _too_long(len(prompt), self.context)
        return self.context - len(prompt)


def _too_long(num_tokens: int, context: int) -> UserError:
    return UserError(
        f"{num_tokens:,} tokens do not fit: the model's context is {context:,} tokens, the answer's included",
        where="prompt",
        fix="shorten the text, or start a new conversation",
    )
