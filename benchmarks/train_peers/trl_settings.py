"""Settings of TRL: the best that were found, and what ``train.py --search`` tries to find them."""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]  # config: of SFTConfig; environment; tokens; adapter_in_model_type (see with_trl.py)

# glibc keeps freed memory instead of returning it to the kernel: any user can set these, and training is the faster.
KEEP_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": str(64 << 20)}

# Found by trying TRIALS on an AVX512-BF16 processor, LoRA, short rows, real tokens per second of processor time:
# defaults 63, freed pages kept and no checkpointing 90, with them bfloat16 weights under autocast 101, everything in
# bfloat16 113, float32 64, packed 1 x 2,048 in bfloat16 69 (its attention mask is a full 2,048 x 2,048 one).
# Rows of like length together is less padding where lengths differ, as in conversations.
BEST: Settings = {
    "environment": KEEP_PAGES,
    "config": {
        "gradient_checkpointing": False,
        "bf16": False,
        "max_length": 2048,  # no row is cut
        "model_init_kwargs": {"dtype": "bfloat16"},
        "train_sampling_strategy": "group_by_length",
    },
    "adapter_in_model_type": True,
}

# With equal time the loss counts, not the speed alone: what is trained is kept in float32, the adapter learns at the
# rate that TRL's documentation names for LoRA, and only replies are trained, as they are what is scored.
LEARNS: dict[str, Settings] = {
    "lora": {"config": {"bf16": True, "learning_rate": 2e-4}, "adapter_in_model_type": False, "tokens": True},
    "full": {"config": {"bf16": True, "model_init_kwargs": {"dtype": "float32"}}, "tokens": True},
}

LIGER: Settings = {"config": {"use_liger_kernel": True, "gradient_checkpointing": False}}

MIN_GAIN = 1.03  # a setting has to gain more than the noise of a short run

# What --search tries, one after another, on top of what it has kept so far.
TRIALS: dict[str, dict[str, Any]] = {
    "freed pages kept (malloc)": {"environment": KEEP_PAGES},
    "no gradient checkpointing": {"config": {"gradient_checkpointing": False}},
    # the types are alternatives: each says all that it needs
    "float32": {"config": {"bf16": False, "model_init_kwargs": {"dtype": "float32"}}},
    "weights in bfloat16": {"config": {"bf16": True, "model_init_kwargs": {"dtype": "bfloat16"}}},
    "weights in bfloat16, no autocast": {"config": {"bf16": False, "model_init_kwargs": {"dtype": "bfloat16"}}},
    "all of it in bfloat16, adapter too": {
        "config": {"bf16": False, "model_init_kwargs": {"dtype": "bfloat16"}},
        "adapter_in_model_type": True,
    },
    "replies' tokens as labels": {"tokens": True},
    "rows grouped by length": {"config": {"train_sampling_strategy": "group_by_length"}},
    "batch of 16": {"config": {"per_device_train_batch_size": 16}},
    "batch of 4": {"config": {"per_device_train_batch_size": 4}},
    "packed, 2 x 1,024": {"config": {"packing": True, "per_device_train_batch_size": 2}},
    "packed, 1 x 2,048": {"config": {"packing": True, "max_length": 2048, "per_device_train_batch_size": 1}},
    "eager attention": {"config": {"model_init_kwargs": {"attn_implementation": "eager"}}},
    "torch.compile": {"config": {"torch_compile": True}},
}
