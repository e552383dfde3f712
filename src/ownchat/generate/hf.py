"""The reference engine: transformers' models, one key-value cache per answer, and a loop one can read."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

import torch
from transformers import DynamicCache, PreTrainedTokenizerBase

from ownchat.errors import RunError, UserError
from ownchat.generate.adapters import load_adapter as load_adapter
from ownchat.generate.adapters import load_adapters
from ownchat.generate.answering import BATCH_ROWS, batches
from ownchat.generate.detokenize import Detokenizer, StopFilter, decode
from ownchat.generate.end_tokens import end_token_ids
from ownchat.generate.engine import BASE, Delta, FinishReason, Request, Sampling, Usage
from ownchat.generate.limits import check_bias, check_score, room
from ownchat.generate.locate import locate
from ownchat.generate.sampling import choose
from ownchat.model.load import load_model, load_tokenizer
from ownchat.model.out_of_memory import Guard, is_out_of_memory, make_room
from ownchat.monitor.progress import say
from ownchat.tokenizer.render import prompt_ids

CHUNK_TOKENS = 1024  # of a prompt in one forward pass: bounds memory, and how long a cancel can wait
SCORE_TOKENS = 512  # whose logits are held at once in score(): 100 MB with a vocabulary of 49,152
GREEDY = Sampling()


def chat_engine(
    directory: Path | str,
    *,
    adapter: Path | str | None = None,
    tokenizer: Path | str | None = None,
    threads: int | None = None,
    dtype: str = "float32",
    adapters: Mapping[str, Path] | None = None,
) -> HfEngine:
    """An engine for a Hugging Face directory, or for the result of a run.

    With ``adapter``, a PEFT directory, the model is the base under it: requests are answered by the tuned model,
    those with ``adapter="base"`` by the base, from one copy of the weights. ``adapters`` are several of them, by the
    names that requests give. ``tokenizer`` is another directory to take tokenizer and chat template from. ``threads``
    sets torch's number of threads for the whole process. Raises :class:`~ownchat.errors.ModelError` for a directory
    without safe weights.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    directory = locate(directory).model
    model: Any = load_model(directory, dtype=dtype)
    if adapter is not None:
        model = load_adapter(model, Path(adapter))
    names = {"default": "default"} if adapter is not None else {}
    if adapters:
        model, names = load_adapters(model, adapters)
    return HfEngine(model, load_tokenizer(directory if tokenizer is None else Path(tokenizer)), adapters=names)


class HfEngine:
    """An :class:`~ownchat.generate.engine.Engine` on a transformers model in memory.

    Threads may share it: forward passes take turns. The model is used as it is and must be in evaluation mode.
    """

    backend: Literal["hf"] = "hf"
    can_schema = False

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_ids: Collection[int] | None = None,
        adapters: Mapping[str, str] | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._peft_names = dict(adapters or {})
        self.num_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        self.end_ids = frozenset(end_token_ids(tokenizer, model) if end_ids is None else end_ids)
        self.context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._has_adapter = hasattr(model, "disable_adapter")  # PeftModel's; plain models have the plural only
        if self._has_adapter and not self._peft_names:
            self._peft_names = {model.active_adapter: model.active_adapter}
        self.adapters = tuple(self._peft_names)
        self._active: str = self.adapters[0] if self.adapters else BASE
        self._turn = Lock()

    # ------------------------------------------------------------------------------------------- one answer

    def stream(self, request: Request, cancel: Event | None = None) -> Iterator[Delta]:
        """The answer, one delta a token. Greedy is ``model.generate(do_sample=False)``, token for token.

        Raises :class:`~ownchat.errors.UserError` at once for a prompt that is empty or longer than the model's
        context, and for what this engine cannot do.
        """
        if request.schema is not None:
            raise UserError(
                "this engine cannot hold an answer to a JSON schema",
                where="request",
                fix="leave it out, or use the engine llamacpp",
            )
        self._check_adapter(request.adapter)
        check_bias(request.sampling, self._vocabulary)
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
            id = choose(logits, sequence[:length], sampling, seed=seed, position=length, start=len(prompt))
            logprob = float(logits[id].float() - logits.float().logsumexp(-1))
            top = (_likeliest(logits, request.top_logprobs),) if request.top_logprobs else ()
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
            stopped = stop.stopped or (id in ends and id not in self.end_ids)
            yield Delta(text, (id,), (logprob,), reason, usage, top, stopped)
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
        sampling: Sampling = GREEDY,
        progress: Callable[[int], object] | None = None,
        batch_size: int = BATCH_ROWS,
    ) -> list[list[int]]:
        """Answers to rendered prompts, in their order, greedy ones unless told; the end token, if one came, is last.

        With ``sampling`` the answer to prompt n is that of :meth:`stream` with the seed ``sampling.seed + n``, whatever
        prompts it is answered with; texts to stop at are not looked for here.

        Prompts of similar length go together, at most ``batch_size`` of them, padded on the left; a row that has ended
        leaves its batch. When memory runs out, those that have not ended are answered in halves of the batch.
        ``progress(1)`` is called for each answer that is ready. Raises :class:`~ownchat.errors.UserError` for a
        prompt longer than the model's context, :class:`~ownchat.errors.RunError` where memory is too little for one.
        """
        self._check_adapter(adapter)
        if sampling.stop or (sampling.seed is None and not sampling.greedy):
            raise UserError("a batch is sampled with a seed, and without texts to stop at", where="request")
        limits = [min(max_tokens, self._room(prompt)) for prompt in prompts]
        answers: list[list[int]] = [[] for _ in prompts]
        waiting = batches(dict(enumerate(map(len, prompts))), rows=batch_size)
        guard = Guard() if self._device.type == "cpu" else None
        while waiting:
            rows = waiting.pop(0)
            left = rows
            if guard is None or len(rows) == 1 or not guard.short():
                left = self._try_rows(rows, prompts, limits, answers, adapter, sampling, progress)
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
        sampling: Sampling,
        progress: Callable[[int], object] | None,
    ) -> list[int]:
        """Answers one batch; returns the rows that have none because memory ran out. Its tensors are gone then."""
        width = max(len(prompts[row]) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for slot, row in enumerate(rows):
            ids[slot, width - len(prompts[row]) :] = torch.tensor(prompts[row])
            mask[slot, width - len(prompts[row]) :] = 1

        def choose_one(row: int, logits: torch.Tensor) -> int:
            history = torch.tensor([*prompts[row], *answers[row]], device=self._device)
            seed, start = (sampling.seed or 0) + row, len(prompts[row])
            return choose(logits, history, sampling, seed=seed, position=len(history), start=start)

        choice = None if sampling == Sampling(seed=sampling.seed) else choose_one  # None: the likeliest, rows at once
        try:
            with self._leaving_adapter_on():
                ids, mask = ids.to(self._device), mask.to(self._device)
                self._answer_rows(rows, ids, mask, limits, answers, adapter, choice, progress)
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
        choose_one: Callable[[int, torch.Tensor], int] | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        cache = DynamicCache(config=self.model.config)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        while True:
            logits = self._forward(ids, cache, positions, adapter, mask)[:, -1]
            if choose_one is None:
                chosen = logits.argmax(-1)
            else:
                chosen = torch.tensor(list(map(choose_one, rows, logits)), device=self._device)
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
        check_score(ids, mask, context=self.context)
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
            self._switch(None)
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
            self._switch(adapter)
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
        return output.logits

    def _switch(self, adapter: str | None) -> None:
        """The wanted adapter on: looked at in every pass, since answers may take turns, and changed only when needed.

        PEFT walks through all modules for it, which takes as long as several tokens. None: the first.
        """
        wanted = adapter if adapter is not None else self.adapters[0] if self.adapters else BASE
        if wanted == self._active:
            return
        layers = self.model.base_model
        if wanted == BASE:
            layers.disable_adapter_layers()
        else:
            if self._active == BASE:
                layers.enable_adapter_layers()
            if len(self.adapters) > 1:
                self.model.set_adapter(self._peft_names[wanted])
        self._active = wanted

    @contextmanager
    def _leaving_adapter_on(self) -> Iterator[None]:
        """Whatever happens in the block: afterwards the model is as its owner knows it."""
        try:
            yield
        finally:
            with self._turn:
                self._switch(None)

    def _check_adapter(self, adapter: str | None) -> None:
        if adapter not in (None, BASE, *self.adapters):
            raise UserError(f'there is no adapter "{adapter}"', where="request", fix=f'use "{BASE}" or leave it out')
        if adapter == BASE and not self._has_adapter:
            raise UserError("no adapter is loaded, so there is none to switch off", where="request")

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that fit after ``prompt``."""
        return room(prompt, vocabulary=self._vocabulary, context=self.context)

    @property
    def _vocabulary(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)


def _likeliest(logits: torch.Tensor, number: int) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens and their log-probabilities."""
    best = logits.float().log_softmax(-1).topk(min(number, len(logits)))
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
