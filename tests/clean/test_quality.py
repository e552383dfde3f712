"""The rules' measures beside plain Python, their borders, and what they must leave alone."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean import repetition
from ownchat.clean.quality import cut_c4_lines, filter_length, filter_quality, judge
from ownchat.clean.words import hash_words, ngrams, split_words
from ownchat.data.records import SCHEMA, message, record

PROSE = (
    "The harbour was quiet that morning, and the boats that had come in before dawn lay with their nets drying. "
    "A woman walked along the wall to the lamp at its end. She looked for the sail that she had been told of, "
    "but there was nothing to be seen beyond the bar. By noon the wind had turned. Three children ran down from "
    "the church with bread and a letter; it had a blue stamp, and nobody in the village could read it aloud."
)


def batch_of(*rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)


def document(text, line=1):
    return record("document", file="pages.jsonl", format="jsonl", line=line, text=text)


def test_prose_passes_every_rule():
    assert judge(pa.array([PROSE]), ["gopher_quality", "gopher_repetition", "c4", "fineweb"]) == [None]


@pytest.mark.parametrize(
    "text, family, rule",
    [
        ("a b c d e f g of the " * 20, "gopher_quality", "gopher_word_length_low"),
        (
            "extraordinarily incomprehensible of the straightforwardness " * 30,
            "gopher_quality",
            "gopher_word_length_high",
        ),
        ("# heading of the " * 30, "gopher_quality", "gopher_hashes"),
        ("some words of the... " * 30, "gopher_quality", "gopher_ellipses"),
        ("- one item of the list\n" * 30, "gopher_quality", "gopher_bullets"),
        ("1234 5678 of the 91011 " * 30, "gopher_quality", "gopher_alphabetic"),
        ("several terms without any common little ones " * 10, "gopher_quality", "gopher_stop_words"),
        (PROSE + "\n\n" + PROSE, "gopher_repetition", "duplicate_paragraphs"),
        ("buy it now " + PROSE[:200] + "buy it now " * 20, "gopher_repetition", "top_2_gram"),
        (PROSE + " " + PROSE[:150], "gopher_repetition", "duplicate_5_gram"),
        ("Home\nNews\nAbout\n" * 20, "fineweb", "fineweb_line_ends"),
        ("A short line.\n" * 30, "fineweb", "fineweb_short_lines"),
        ("function of the page { return 1; } is here. " * 10 + "The { end.", "c4", "c4_curly_bracket"),
        ("One sentence is here.", "c4", "c4_few_sentences"),
    ],
)
def test_each_rule_speaks(text, family, rule):
    assert judge(pa.array([text]), [family]) == [rule]


def test_a_ruled_line_is_one_bullet():
    text = "\n".join([f"{PROSE[:90]} {i}" for i in range(5)] + ["-" * 60] * 4)
    assert judge(pa.array([text]), ["gopher_quality"]) == [None]


def test_what_the_rules_were_not_made_for_is_not_judged():
    chinese = "我们在海边走了很久，然后回家吃饭。" * 30
    short, german = "Buy now! Buy now!", "Kurze Wörter ohne englische Füllsel, aber richtige Sätze dazu. " * 1
    families = ["gopher_quality", "gopher_repetition", "fineweb"]
    assert judge(pa.array([short, chinese, german, ""]), families) == [None] * 4
    long = pa.array([" ".join(f"Wort{i} geht heute gern spazieren." for i in range(40))])
    assert judge(long, ["gopher_quality"]) == ["gopher_stop_words"]
    assert judge(long, ["gopher_quality"], np.array([False])) == [None]


def test_documents_of_large_collections_alone():
    junk = [document("Buy now! " * 60, line=i + 1) for i in range(3)]
    assert len(filter_quality(batch_of(*junk))[0]) == 3
    after, entries = filter_quality(batch_of(*junk), least=3)
    assert len(after) == 0 and {(entry.fate, entry.rule) for entry in entries} == {
        ("dropped", "quality: gopher_alphabetic")
    }
    talk = record("conversation", file="f", format="jsonl", line=1, messages=[message("assistant", "Buy now! " * 60)])
    assert len(filter_quality(batch_of(talk), least=1)[0]) == 1
    assert len(filter_quality(batch_of(talk), least=1, scope="all")[0]) == 0


def test_c4_cuts_lines_and_counts_them():
    page = "Home | News\n" + PROSE.replace(". ", ".\n") + "\nThis site uses cookies to be nice.\nRead more..."
    after, entries = filter_quality(batch_of(document(page)), ["c4"], least=1)
    assert after["text"][0].as_py() == PROSE.replace(". ", ".\n")
    assert [(entry.fate, entry.detail) for entry in entries] == [("changed", "3 lines")]
    assert cut_c4_lines(pa.array([None, "Wiki says so here.[12]"]))[0].to_pylist() == ["", "Wiki says so here."]


def test_length():
    messages = [message("user", "one two"), message("assistant", "three")]
    talk = record("conversation", file="f", format="jsonl", line=9, messages=messages)
    batch = batch_of(document("one two three four"), document("我们回家", 2), talk)
    after, entries = filter_length(batch, min_words=4)
    assert len(after) == 2 and [(entry.unit, entry.rule, entry.count) for entry in entries] == [
        ("row", "too short", 1), ("message", "too short", 2),
    ]  # fmt: skip
    assert len(filter_length(batch, max_words=3)[0]) == 1
    assert filter_length(batch)[0].equals(batch)


# ------------------------------------------------------------------------------------- beside plain Python

PIECES = ["a", "the", "cat.", "don't", "\n", "\n\n", "naïve", "…", "“x”", "3.5", "U.S.", "--", "日本"]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join), max_size=6)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_words_add_up_to_the_text(texts):
    words = split_words(texts)
    for row, text in enumerate(texts):
        mine = slice(words.starts[row], words.starts[row + 1])
        assert words.chars[mine].sum() == len(re.sub(r"[\s\x00]", "", text))
        again = split_words([text])
        assert again.hashes.tolist() == words.hashes[mine].tolist()


def test_equal_words_have_equal_hashes():
    words = split_words(["the cat, the", "A cat the"])
    assert (words.hashes == hash_words(["the"])[0]).tolist() == [True, False, False, True, False, False, True]


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.integers(1, 5))
def test_repetition_is_what_counting_finds(texts, size):
    words = split_words(texts)
    tops, _ = repetition._top_ngram(words, size)
    longest = repetition._longest_ngram(words, size)
    covered = repetition._covered_chars(words, size)
    for row in range(len(texts)):
        mine = range(words.starts[row], words.starts[row + 1])
        hashes, chars = [int(words.hashes[i]) for i in mine], [int(words.chars[i]) for i in mine]
        grams = [
            (tuple(hashes[i : i + size]), sum(chars[i : i + size]) + size - 1) for i in range(len(hashes) - size + 1)
        ]
        counts = {}
        for gram in grams:
            counts[gram] = counts.get(gram, 0) + 1
        best = max(counts, key=counts.get, default=None)
        assert tops[row] == (best[1] * counts[best] if best else 0)
        assert longest[row] == max((length for _, length in grams), default=0)
        seen, place, greedy = set(), 0, 0
        while place < len(grams):
            if grams[place][0] in seen:
                greedy += grams[place][1] - size + 1
                place += size
            else:
                seen.add(grams[place][0])
                place += 1
        ends = np.concatenate([[0], np.cumsum(chars)]).astype(int).tolist()
        alone = words.of(np.array([row]))
        assert repetition._duplicate_chars(ngrams(alone, size)[1].tolist(), ends, size) == greedy <= covered[row]


@pytest.mark.parametrize("text", ["x" * 3_000_000, "- " * 700_000, "1 " * 700_000, "\n" * 2_000_000])
def test_megabytes_of_one_thing(text):
    assert judge(pa.array([text]), ["gopher_quality", "gopher_repetition", "c4", "fineweb"])
