"""Real tiny things that every folder's tests share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each command that a test starts compiles all modules anew
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes of two threads each are slower than one on two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a job in a shell's background, and children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SENTENCES = [
    "How do I return an order? You can return it within thirty days, free of charge.",
    "The parcel has not arrived yet. I am sorry to hear that; let me look at the tracking number.",
    "Can I change my delivery address? Yes, as long as the parcel has not left our warehouse.",
    "The pump makes a noise. Please close the valve, wait ten minutes and open it again slowly.",
    "Grüße aus Köln! Was kostet der Versand nach Österreich? 東京 までの 送料 は いくら です か 🙂",
    "Thank you for the quick answer. You are welcome, have a nice day!",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def speed_of_matrix_products() -> Iterator[None]:
    """Given, not measured: for short trainings whose settings leave it nothing to decide, half the time."""
    from ownchat.train import decisions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "matmul_tflops", lambda *_, **__: 0.1)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random Llama (2 layers, hidden 64, context 512) with a byte-level BPE of about 300 tokens.

    Special tokens: ``<|endoftext|>`` (0, padding), ``<|im_start|>`` (1), ``<|im_end|>`` (2, end). Read only: copy the
    directory before changing anything in it.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,  # with 0.02 all tokens are about equally likely and greedy answers are one token long
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    directory = tmp_path_factory.mktemp("tiny-model")
    LlamaForCausalLM(config).eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def endless_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_model`` with a long context and an end token that is never the likeliest: it talks until stopped."""
    import torch
    from transformers import AutoModelForCausalLM

    directory = shutil.copytree(tiny_model, tmp_path_factory.mktemp("endless") / "model")
    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        model.get_input_embeddings().weight[2] = 0
    model.config.max_position_embeddings = 100_000
    model.save_pretrained(directory)
    return directory
