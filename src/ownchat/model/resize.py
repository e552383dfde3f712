"""A pre-trained model that takes another tokenizer: its embedding and its head get the rows of the new tokens.

A token that both tokenizers have keeps its row. Another one begins as the mean of the rows of the tokens that its text
was written in before (fast vocabulary transfer, Gee et al. 2022, arXiv:2402.09977), a control token as the mean of all
rows with a little noise, which changes the others' probabilities least (Hewitt 2021, "Initializing new word embeddings
for pretrained language models"). All of them have to be trained.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ownchat import artifacts
from ownchat.artifacts import Report
from ownchat.config import Config
from ownchat.errors import ConfigError
from ownchat.model.load import load_model, load_tokenizer

NOISE = 0.1  # of a column's standard deviation
UNREADABLE = "\ufffd"  # what a part of a character decodes to


def check(config: Config) -> None:
    """Raise :class:`~ownchat.errors.ConfigError` where new rows would stay as they begin."""
    if config.train.method == "lora":
        raise ConfigError(
            "another tokenizer gives the model new rows, and an adapter does not train them",
            where=f"tokenizer.base = {config.tokenizer.base}",
            fix="leave it out, or train all weights: --method full",
        )


def is_needed(base: Path, tokenizer: Path) -> bool:
    """Whether two directories' tokenizers differ in any token or its id."""
    return load_tokenizer(base).get_vocab() != load_tokenizer(tokenizer).get_vocab()


def run_resize(config: Config, inputs: dict[str, Path], output: Path) -> Report:
    """Stage 4-model for a pre-trained ``base`` that takes another ``tokenizer`` (3-tokenizer): a plain directory.

    Raises :class:`~ownchat.errors.ConfigError` with an adapter, see :func:`check`.
    """
    check(config)
    key = f"{artifacts.stage_key(config, ('tokenizer',), inputs)}+{config.train.seed}"
    if report := artifacts.completed(output, key):
        return report
    start = artifacts.start_afresh(output)
    model, tokenizer = load_model(inputs["base"], device="cpu"), load_tokenizer(inputs["tokenizer"])
    counts = fit_vocabulary(model, load_tokenizer(inputs["base"]), tokenizer, seed=config.train.seed)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    counts["parameters"] = sum(weight.numel() for weight in model.parameters())
    return artifacts.commit(key, config, ("tokenizer",), Report("model", output, counts, {}, time.monotonic() - start))


def fit_vocabulary(
    model: Any, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, *, seed: int = 0
) -> dict[str, int]:
    """Give the model one row for each token of ``new``, in place; weights that were tied stay tied.

    Returns how many tokens were ``kept``, began as the mean of their ``pieces``, or are ``new``.
    """
    sources = _sources(old, new, model.get_input_embeddings().num_embeddings)
    chance = torch.Generator().manual_seed(seed)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is embedding.weight
    rows = _rows(embedding.weight.detach(), sources, len(old), chance)
    head_rows = None if tied else _rows(head.weight.detach(), sources, len(old), chance)
    bias = getattr(head, "bias", None)
    biases = None if bias is None else _rows(bias.detach()[:, None], sources, len(old), chance)[:, 0]
    model.resize_token_embeddings(len(new), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(rows)
        if head_rows is not None:
            model.get_output_embeddings().weight.copy_(head_rows)
        if biases is not None:
            model.get_output_embeddings().bias.copy_(biases)
    for settings in (model.config.get_text_config(), model.generation_config):
        settings.bos_token_id, settings.eos_token_id = new.bos_token_id, new.eos_token_id
        settings.pad_token_id = new.pad_token_id
    before = old.get_vocab()
    kept = sum(token in before for token in new.get_vocab())
    pieces = sum(1 for some in sources if some) - kept
    return {"kept": kept, "pieces": pieces, "new": len(sources) - kept - pieces}


def _sources(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, rows: int) -> list[list[int]]:
    """For each new id the old ones whose rows it begins as the mean of; none: nothing is known of it."""
    before = old.get_vocab()
    names = new.convert_ids_to_tokens(list(range(len(new))))
    control = {id for id, token in new.added_tokens_decoder.items() if token.special}
    texts = ["" if id in control else new.decode([id]) for id in range(len(new))]
    readable = [text if UNREADABLE not in text else "" for text in texts]
    encoded = old(readable, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found = [[before[name]] if name in before else ids for name, ids in zip(names, encoded, strict=True)]
    return [[id for id in some if id < rows] for some in found]


def _rows(weight: Tensor, sources: list[list[int]], known: int, chance: torch.Generator) -> Tensor:
    """[new tokens, width] from [old rows, width]; rows beyond the ``known`` tokens are padding."""
    used = weight[:known].float()
    made = used.mean(0) + NOISE * used.std(0) * torch.randn(len(sources), weight.shape[1], generator=chance)
    for id, some in enumerate(sources):
        if some:
            made[id] = weight[some].float().mean(0)
    return made.to(weight.dtype)
