"""Nats per token of the held-out text: plain transformers in float32, windows that overlap by half, each token once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import read_task
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def load(task: dict[str, Any]) -> Any:
    """A Hugging Face directory, or LitGPT's weights."""
    directory, size = Path(task["trained"]), task["size"]
    if not (directory / "model.pth").is_file():
        return AutoModelForCausalLM.from_pretrained(directory, dtype="float32")
    config = LlamaConfig(
        vocab_size=task["vocab"], hidden_size=size["width"], intermediate_size=size["inner"],
        num_hidden_layers=size["layers"], num_attention_heads=size["heads"], num_key_value_heads=size["kv_heads"],
        head_dim=size["width"] // size["heads"], max_position_embeddings=task["context"], rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    weights = torch.load(directory / "model.pth", weights_only=True)
    missing = model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}, missing
    return model


@torch.no_grad()
def held_out_loss(model: Any, tokens: np.ndarray, context: int) -> float:
    model.eval()
    half, total, count = context // 2, 0.0, 0
    for start in range(0, max(1, len(tokens) - half), half):
        window = torch.from_numpy(tokens[start : start + context]).long()[None]
        losses = torch.nn.functional.cross_entropy(model(window).logits[0, :-1], window[0, 1:], reduction="none")
        fresh = losses if start == 0 else losses[half - 1 :]
        total, count = total + float(fresh.double().sum()), count + len(fresh)
    assert count == len(tokens) - 1, (count, len(tokens))
    return total / count


def main() -> None:
    task = read_task()
    tokens = np.load(Path(task["directory"]) / "test.npy")
    loss = held_out_loss(load(task), tokens, task["context"])
    Path(task["result"]).write_text(f'{{"held_out_loss": {loss:.5f}}}', encoding="utf-8")


if __name__ == "__main__":
    main()
