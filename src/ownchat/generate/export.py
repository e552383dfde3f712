"""The result as a directory that other tools open: plain Hugging Face files, and the proof that they are equal."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ownchat.errors import ModelError
from ownchat.generate.end_tokens import end_token_ids
from ownchat.generate.hf import load_adapter
from ownchat.model.load import load_model, load_tokenizer

TOLERANCE = 5e-5  # of the largest logit: float32 in another order of operations differs by 4e-6 over 30 layers


def save_result(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    *,
    end_ids: Sequence[int] | None = None,
) -> Path:
    """Write weights (safetensors), tokenizer, chat template and generation configuration into ``directory``.

    ``end_ids`` are the tokens that end an answer; none: the template's end-of-turn token, found by rendering, and
    what the model and the tokenizer name. Where the tokenizer has no padding token, its end token becomes it.
    ``model`` is a plain model, not one that wears an adapter (see :func:`merge_adapter`); neither it nor the
    tokenizer is changed. Raises :class:`~ownchat.errors.ModelError` when no end token is known: such a model would
    never stop talking.
    """
    assert not hasattr(model, "disable_adapter"), "merge the adapter first"
    ends = list(end_token_ids(tokenizer, model) if end_ids is None else end_ids)
    if not ends:
        raise ModelError(
            "neither the chat template nor the tokenizer names an end token",
            where=str(directory),
            fix="set eos_token in the base's tokenizer_config.json",
        )
    if tokenizer.pad_token_id is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(ends[0])
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    generation: Any = copy.deepcopy(model.generation_config)
    generation._from_model_config = False  # else transformers may derive it anew and lose the end tokens
    generation.eos_token_id = ends if len(ends) > 1 else ends[0]
    generation.pad_token_id = tokenizer.pad_token_id
    generation.save_pretrained(directory)
    return directory


def check_result(directory: Path, model: Any, sample_ids: Sequence[int]) -> float:
    """Open ``directory`` with plain transformers; the largest difference of a logit to ``model`` on ``sample_ids``.

    Both run in the type of ``model``'s weights, fp32 after our training. Raises
    :class:`~ownchat.errors.ModelError` above :data:`TOLERANCE`, and when tokenizer, template or end tokens are
    missing or do not fit.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    opened: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=model.dtype)
    opened = opened.to(model.device).eval()
    problem = _problem(tokenizer, opened)
    if problem is None:
        ids = torch.tensor([list(sample_ids)], device=model.device)
        trained: Any = model
        was_training = trained.training
        trained.eval()
        with torch.inference_mode():
            wanted = trained(input_ids=ids).logits
            difference = float((opened(input_ids=ids).logits - wanted).abs().max())
            limit = TOLERANCE * max(1.0, float(wanted.abs().max()))
        trained.train(was_training)
        if difference <= limit:
            return difference
        problem = f"its logits differ from the trained model's by {difference:.2g}"
    raise ModelError(problem, where=str(directory), fix="train again; if it happens twice, please report it")


def _problem(tokenizer: Any, model: Any) -> str | None:
    """What keeps a directory from being used, if anything."""
    embedded = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embedded:
        return f"the tokenizer has {len(tokenizer)} tokens and the model {embedded}"
    if model.generation_config.eos_token_id is None:
        return "generation_config.json has no end token"
    if tokenizer.chat_template is None:
        return "the tokenizer has no chat template"
    return None


def merge_adapter(
    base_directory: Path,
    adapter_directory: Path,
    output: Path,
    tokenizer: Any = None,
    *,
    device: str | None = None,
) -> Path:
    """Add a LoRA adapter to its base's weights in fp32 and save the result as a plain directory.

    ``tokenizer``: the one to save; none: the adapter's where it has one, else the base's. ``device``: where they are
    added; none: the best there is.
    """
    model = load_adapter(load_model(base_directory, dtype="float32", device=device), adapter_directory)
    has_tokenizer = (adapter_directory / "tokenizer_config.json").is_file()
    if tokenizer is None:
        tokenizer = load_tokenizer(adapter_directory if has_tokenizer else base_directory)
    return save_result(model.merge_and_unload(), tokenizer, output)
