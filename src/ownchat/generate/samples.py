"""What a model that is being trained would write: continuations without a key-value cache, in company as well."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from ownchat.generate.engine import Sampling
from ownchat.generate.sampling import choose
from ownchat.model.block import blocks_for
from ownchat.model.loss import next_logits


@torch.no_grad()
def continuations(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampling: Sampling,
    end_ids: Collection[int] = (),
    every_pass: bool = False,
) -> list[list[int]]:
    """The tokens that follow each prompt, an end token left out.

    All prompts share one forward pass for each token, over everything again: a model that trains on packed documents
    keeps no cache, and few short texts are cheap. Random numbers are those of ``sampling.seed`` and the place, and no
    generator's state is touched. ``every_pass``: make ``max_tokens`` passes in any case, for processes that have to do
    the same.
    """
    assert sampling.seed is not None or sampling.greedy, "the same texts at a resume"
    sequences, ended = [list(prompt) for prompt in prompts], [False] * len(prompts)
    training = model.training
    model.eval()
    for _ in range(max_tokens):
        open_ones = [number for number, over in enumerate(ended) if every_pass or not over]
        if not open_ones:
            break
        # one more token to each, which no other place sees: the logits before it are asked for
        documents = [
            (np.array([*sequences[number], 0]), np.r_[np.zeros(len(sequences[number]), np.uint8), np.uint8(1)])
            for number in open_ones
        ]
        logits = next_logits(model, next(blocks_for(model, [documents])))
        for number, row in zip(open_ones, logits, strict=True):
            history = torch.tensor(sequences[number], device=row.device)
            seed = number + (sampling.seed or 0)
            id = choose(row, history, sampling, seed=seed, position=len(history))
            ended[number] = ended[number] or id in end_ids
            sequences[number].append(id)
    model.train(training)
    made = [sequence[len(prompt) :] for sequence, prompt in zip(sequences, prompts, strict=True)]
    return [ids[: next((n for n, id in enumerate(ids) if id in end_ids), len(ids))] for ids in made]
