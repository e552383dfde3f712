"""Streamed text is the decoded text, never half a character, and no stop text leaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ownchat.generate.detokenize import Detokenizer, StopFilter, decode

MIXED = "Grüße 東京 🙂👩‍👩‍👧👍🏽 🇫🇷🇩🇪 naïve  \n\ttwo  spaces é e\u0301 ﬁn."


@pytest.fixture(scope="module")
def byte_level(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def byte_fallback() -> PreTrainedTokenizerBase:
    """Like the vocabularies of Llama 2: words begin with U+2581, unknown characters are spelt in bytes."""
    vocabulary = {"<unk>": 0, "</s>": 1, "▁": 2, "▁Hello": 3, "world": 4, "▁a": 5, "b": 6}
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", clean_up_tokenization_spaces=False)


def streamed(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(id) for id in ids), detokenizer.finish()]


def test_characters_of_several_tokens_arrive_whole(byte_level: PreTrainedTokenizerBase) -> None:
    ids = byte_level.encode(MIXED)
    pieces = streamed(byte_level, ids)
    assert "".join(pieces) == MIXED
    assert not any("\ufffd" in piece for piece in pieces)
    for glyph in ["👩‍👩‍👧", "👍🏽", "🇫🇷", "🇩🇪"]:
        assert any(glyph in piece for piece in pieces), "a glyph of several characters comes in one piece"
    assert len([piece for piece in pieces if piece]) > 20, "and what is certain does not wait"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_tokens_stream_as_they_decode(data: st.DataObject, tiny_tokenizers: list[PreTrainedTokenizerBase]) -> None:
    tokenizer = data.draw(st.sampled_from(tiny_tokenizers))
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    assert "".join(streamed(tokenizer, ids)) == decode(tokenizer, ids)


@pytest.fixture(scope="module")
def tiny_tokenizers(
    byte_level: PreTrainedTokenizerBase, byte_fallback: PreTrainedTokenizerBase
) -> list[PreTrainedTokenizerBase]:
    return [byte_level, byte_fallback]


def test_word_marks_and_byte_runs(byte_fallback: PreTrainedTokenizerBase) -> None:
    spelt = [byte_fallback.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "é".encode()]
    ids = [3, 4, 1, 5, *spelt, 6, spelt[0], 3]
    pieces = streamed(byte_fallback, ids)
    assert "".join(pieces) == decode(byte_fallback, ids) == "Helloworld aéb\ufffd Hello"
    assert pieces[:2] == ["Hello", "world"]


def test_special_tokens_have_no_text(byte_level: PreTrainedTokenizerBase) -> None:
    ids = [1, *byte_level.encode("Hello"), 2, 0]
    assert "".join(streamed(byte_level, ids)) == "Hello"


def reference(text: str, stops: list[str]) -> str:
    """By definition: read character by character; the first stop text to be complete ends the text before itself."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)]
    return text


@settings(max_examples=500, deadline=None)
@given(
    pieces=st.lists(st.text("ab ", max_size=5), max_size=12),
    stops=st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3),
)
def test_the_filter_cuts_where_the_definition_says(pieces: list[str], stops: list[str]) -> None:
    stop, text = StopFilter(stops), "".join(pieces)
    shown = [stop.push(piece) for piece in pieces] + [stop.finish()]
    assert "".join(shown) == reference(text, stops)
    assert stop.stopped == any(each in text for each in stops)
    for count in range(len(shown)):  # nothing shown so far is ever taken back
        assert reference(text, stops).startswith("".join(shown[:count]))


def test_without_stop_texts_nothing_is_withheld() -> None:
    stop = StopFilter([])
    assert stop.push("abc") == "abc" and stop.finish() == ""
