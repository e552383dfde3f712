"""Learned tokenizers: what goes in comes out, the same text gives the same files, and bad input is told plainly."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ownchat.errors import ConfigError, DataError
from ownchat.tokenizer.chatml import CONTROL_TOKENS
from ownchat.tokenizer.learn import LONGEST, RESERVED, SPLIT, Kind, derived_vocab, first_tokens, learn
from ownchat.tokenizer.render import document_end, end_of_turn, prompt_ids, render, render_document
from ownchat.tokenizer.stage import load_tokenizer

SENTENCES = [
    "How do I return an order? You can return it within thirty days, free of charge.",
    "The parcel has not arrived yet. I'm sorry to hear that; let me look at the tracking number 12345.",
    "The pump makes a noise. Please close the valve, wait ten minutes and open it again slowly.",
    "Grüße aus Köln! Was kostet der Versand nach Österreich? 東京 までの 送料 は いくら です か 🙂\r\n\tEnde.",
]
KINDS = list(get_args(Kind))


def learned(directory: Path, kind: Kind = "bpe", vocab: int | None = None) -> PreTrainedTokenizerBase:
    texts = SENTENCES * 12
    size = sum(len(text.encode()) for text in texts)
    return learn(texts, kind=kind, vocab=vocab, num_bytes=size, output=directory, context=512)


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    """One of each kind, as it is when it is loaded again."""
    made = {}
    for kind in KINDS:
        directory = tmp_path_factory.mktemp(kind)
        learned(directory, kind)
        made[kind] = AutoTokenizer.from_pretrained(directory)
    return made


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_comes_back_exactly(all_kinds: dict[str, PreTrainedTokenizerBase], text: str) -> None:
    for kind, tokenizer in all_kinds.items():
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tokenizer.decode(ids) == text, kind
        assert not set(ids) & set(range(len(CONTROL_TOKENS)))


def test_kinds_differ_in_what_their_tokens_are(all_kinds: dict[str, PreTrainedTokenizerBase]) -> None:
    text = "the valve and the Größe 東京"
    pieces = {
        kind: [tokenizer.decode([id]) for id in tokenizer.encode(text, add_special_tokens=False)]
        for kind, tokenizer in all_kinds.items()
    }
    assert len(pieces["byte"]) == len(text.encode())
    assert len(all_kinds["byte"]) == RESERVED
    assert pieces["char"][-2:] == ["東", "京"] and pieces["char"][:3] == ["t", "h", "e"]
    assert {" valve", " and", " the"} <= set(pieces["word"]) and "h" in pieces["word"], (
        "a word that is none of its tokens"
    )
    assert " and" in pieces["bpe"]
    assert len(pieces["bpe"]) < len(pieces["char"])


def test_chatml_is_rendered_with_tools_and_trains_the_replies(tmp_path: Path) -> None:
    tokenizer = learned(tmp_path)
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
    tools = [{"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": {}}}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it <|im_end|> raining?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "Yes."},
    ]
    made = render(tokenizer, messages, tools)
    trained = tokenizer.decode([id for id, weight in zip(made.ids, made.weights, strict=True) if weight])
    assert trained == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>Yes.<|im_end|>'
    )
    whole = tokenizer.decode(made.ids)
    assert whole.startswith("<|im_start|>system\nBe brief.\n\nFunctions that may be called:\n<tools>\n{")
    assert whole.count("<|im_start|>system") == 1
    assert "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n" in whole
    assert made.ids.count(tokenizer.eos_token_id) == len(messages), "what a user writes ends no turn"
    opened = prompt_ids(tokenizer, messages[:2])
    assert tokenizer.decode(opened).endswith("raining?<|im_end|>\n<|im_start|>assistant\n")
    plain = render(tokenizer, [*messages[:2], messages[4]])
    assert plain.ids[: len(opened)] == opened
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_documents_and_control_tokens(tmp_path: Path) -> None:
    tokenizer = learned(tmp_path)
    assert tokenizer.convert_tokens_to_ids([*CONTROL_TOKENS]) == [0, 1, 2, 3]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 2, 3)
    assert document_end(tokenizer) == 0
    made = render_document(tokenizer, "A pump.<|endoftext|>")
    assert made.ids[0] == made.ids[-1] == 0 and 0 not in made.ids[1:-1]
    assert tokenizer.encode("A pump.") == tokenizer.encode("A pump.", add_special_tokens=False), "nothing is put before"
    again = load_tokenizer(tmp_path)
    assert again.model_max_length == 512
    assert again.chat_template == tokenizer.chat_template


def test_same_text_same_files_in_every_process(tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom ownchat.tokenizer.learn import learn\n"
        "texts = json.load(sys.stdin)\n"
        "for kind in ('bpe', 'word'):\n"
        "    learn(texts, kind=kind, num_bytes=9999, output=Path(sys.argv[1]) / kind, context=512)\n"
    )
    files = []
    for name in ("one", "two"):
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        subprocess.run(command, check=True, input=json.dumps(SENTENCES * 12), text=True)
        made = [file for file in (tmp_path / name).rglob("*") if file.is_file()]
        files.append({str(file.relative_to(tmp_path / name)): file.read_bytes() for file in made})
    assert files[0] == files[1] and {"bpe/tokenizer.json", "word/tokenizer.json"} <= files[0].keys()


def test_first_tokens_are_what_learning_fewer_gives(tmp_path: Path) -> None:
    large, small = learned(tmp_path / "large", vocab=400), learned(tmp_path / "small", vocab=320)
    cut = json.loads(first_tokens(large.backend_tokenizer, 320).to_str())["model"]
    assert cut == json.loads(small.backend_tokenizer.to_str())["model"]


def test_digits_stand_in_groups_of_three() -> None:
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    parts = [part for part, _ in split.pre_tokenize_str("It's 1234567 o'clock,  isn't\n\n it?")]
    assert parts == ["It", "'s", " ", "123", "456", "7", " o", "'clock", ",", " ", " isn", "'t", "\n\n", " it", "?"]


def test_vocabulary_follows_the_text() -> None:
    sizes = [derived_vocab(10**power) for power in range(13)]
    assert sizes == sorted(sizes) and (sizes[0], sizes[9], sizes[10]) == (512, 32_768, 65_536)
    assert all(size & (size - 1) == 0 for size in sizes)


def test_words_without_end_teach_no_tokens_without_end(tmp_path: Path) -> None:
    text = "".join(random.Random(0).choices("ACGT", k=300_000)) + 70_000 * " " + "\n" + 70_000 * "-"
    tokenizer = learn([text, "a line of words"] * 2, num_bytes=880_000, vocab=2000, output=tmp_path, context=512)
    assert max(len(token) for token in tokenizer.get_vocab()) <= LONGEST
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_text_of_one_line_gives_what_it_has(tmp_path: Path) -> None:
    tokenizer = learn(["the same line\n"] * 200, num_bytes=2800, output=tmp_path, context=512)
    assert RESERVED < len(tokenizer) < 300, "no more than its few pairs"


def test_a_vocabulary_that_the_text_does_not_support_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.vocab = 50,000 is more than this text supports: \d+ ") as caught:
        learned(tmp_path, vocab=50_000)
    largest = int(caught.value.what.split("supports: ")[1].split()[0].replace(",", ""))
    assert f"choose {largest:,} or fewer" in caught.value.fix
    assert len(learned(tmp_path, vocab=largest)) == largest
    with pytest.raises(ConfigError, match="more than this text supports"):
        learned(tmp_path, vocab=largest + 1)


@pytest.mark.parametrize("kind", ["word", "char"])
def test_words_and_characters_are_counted_too(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(ConfigError, match="more than this text supports: "):
        learned(tmp_path, kind, vocab=9000)
    assert len(learned(tmp_path, kind, vocab=270)) == 270


@pytest.mark.parametrize(
    ("kind", "vocab", "message"),
    [("bpe", 200, "leaves nothing to learn"), ("byte", 512, "a byte tokenizer has 260")],
)
def test_impossible_vocabularies(tmp_path: Path, kind: Kind, vocab: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learned(tmp_path, kind, vocab)


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text to learn a tokenizer from"):
        learn([], num_bytes=0, output=tmp_path, context=512)
