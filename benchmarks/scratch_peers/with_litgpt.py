"""LitGPT's ``pretrain`` on a Llama of the same shape, in bf16-true or mixed; only the schedule follows the clock.

Runs in an environment of its own, which holds neither transformers nor this project.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import Clock, Enough, read_task
from litgpt import pretrain
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule
from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint
from litgpt.utils import save_config
from schedule import batch_of, rate_share
from torch.utils.data import DataLoader

MICRO_BATCH = 4  # its default, or the next smaller that divides the batch


class Windows(DataModule):
    """The benchmark's tokens in blocks of one token more than the context: inputs and targets."""

    def __init__(self, directory: Path, context: int, clock: Clock) -> None:
        super().__init__()
        self.directory, self.context, self.clock, self.batch_size = directory, context, clock, MICRO_BATCH

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None, **_: Any) -> None:
        self.batch_size = batch_size

    def _loader(self, split: str) -> DataLoader:
        tokens = torch.from_numpy(np.load(self.directory / f"{split}.npy")).long()
        count = (len(tokens) - 1) // self.context
        blocks = [tokens[n * self.context : (n + 1) * self.context + 1] for n in range(count)]

        def collate(samples: list[torch.Tensor]) -> torch.Tensor:
            if split == "train":
                self.clock.count(len(samples) * self.context)
            return torch.stack(samples)

        generator = torch.Generator().manual_seed(0)
        return DataLoader(
            blocks, batch_size=self.batch_size, shuffle=split == "train", generator=generator, collate_fn=collate,
            drop_last=True,
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader:
        return self._loader("test")


def main() -> None:
    task = read_task()
    clock, directory, output = Clock(task), Path(task["directory"]), Path(task["output"])
    size, context = task["size"], task["context"]
    config = Config(
        name="scratch", block_size=context, vocab_size=task["vocab"], padded_vocab_size=task["vocab"],
        n_layer=size["layers"], n_embd=size["width"], n_head=size["heads"], n_query_groups=size["kv_heads"],
        head_size=size["width"] // size["heads"], intermediate_size=size["inner"], rotary_percentage=1.0,
        parallel_residual=False, bias=False, norm_class_name="RMSNorm", norm_eps=1e-5,
        mlp_class_name="LLaMAMLP", rope_base=10000,
    )  # fmt: skip
    share, trained = rate_share(clock), {}
    pretrain.get_lr = lambda peak, *_: peak * share()
    plain_fit = pretrain.fit

    def fit(*arguments: Any, **given: Any) -> Any:  # the model is known nowhere else
        trained["model"] = given["state"]["model"]
        return plain_fit(*arguments, **given)

    pretrain.fit = fit
    sequences, micro = batch_of(task, MICRO_BATCH)
    with contextlib.suppress(Enough):
        pretrain.setup(
            "scratch",
            model_config=config,
            out_dir=output / "litgpt",
            precision=task["precision"],
            data=Windows(directory, context, clock),
            train=TrainArgs(
                save_interval=None, log_interval=10**9, global_batch_size=sequences, micro_batch_size=micro,
                max_tokens=10**15, max_norm=1.0, max_seq_length=context, tie_embeddings=True,
            ),
            eval=EvalArgs(interval=10**9, max_iters=1, initial_validation=False, final_validation=False),
            optimizer={
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": task["learning_rate"], "weight_decay": 0.1, "betas": [0.9, 0.95]},
            },
            devices=1,
            logger_name="csv",
            seed=0,
        )  # fmt: skip
    target = output / "model"
    clock.write(
        dtype=task["precision"],
        packages=("litgpt", "lightning"),
        steps=len(clock.ends),
        trained_tokens=sum(clock.tokens),
        model=str(target),
    )
    plain = trained["model"]
    while (inner := next((name for name in ("_forward_module", "_orig_mod") if hasattr(plain, name)), "")) != "":
        plain = getattr(plain, inner)  # a compiled module has no truth value
    target.mkdir(parents=True)
    torch.save({"model": plain.state_dict()}, target / "lit_model.pth")
    save_config(config, target)
    convert_lit_checkpoint(target, target)


if __name__ == "__main__":
    main()
