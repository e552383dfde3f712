"""The held-out loss of what each side has trained: one scorer for all, plain transformers in float32.

Nats per trained token (the replies and their end tokens; of documents every token), one row at a time, so that no
side's packing, padding or rounding has a part in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from clock import Task, read_rows, read_task
from transformers import AutoConfig, AutoModelForCausalLM


def load(base: str, trained: str | None) -> Any:
    """The base, a whole directory, an adapter's directory, or LitGPT's weights (``model.pth``)."""
    directory = Path(trained) if trained else Path(base)
    if (directory / "adapter_config.json").is_file():
        from peft import PeftModel

        model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
        return PeftModel.from_pretrained(model, str(directory)).merge_and_unload()
    if (directory / "model.pth").is_file():
        weights = torch.load(directory / "model.pth", weights_only=True, mmap=True)
        config = AutoConfig.from_pretrained(base)
        # LitGPT trains embedding and head apart: they are two matrices from its first step on
        config.tie_word_embeddings = False
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        return model
    return AutoModelForCausalLM.from_pretrained(str(directory), dtype="float32")


@torch.no_grad()
def held_out_loss(model: Any, rows: list[dict[str, Any]]) -> float:
    model.eval()
    total, count = 0.0, 0
    for row in rows:
        logits = model(torch.tensor([row["ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


def main() -> None:
    task: Task = read_task()
    loss = held_out_loss(load(task["base"], task["trained"]), read_rows(task, "test"))
    Path(task["result"]).write_text(f'{{"held_out_loss": {loss:.4f}}}', encoding="utf-8")


if __name__ == "__main__":
    main()
