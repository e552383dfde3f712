"""Shingles, sketches, and what counts as a near duplicate: against naive ones."""

import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.near import Compared, find_near, is_copy, is_loose_copy, is_related, likeness, similarity
from ownchat.clean.shingles import (
    SHINGLE,
    Folded,
    character_runs,
    count_words,
    fold,
    gather,
    ngrams,
    shingles,
    split_words,
    text_keys,
    without_runs,
    word_hashes,
)
from ownchat.clean.signatures import sides
from ownchat.clean.sketches import Sketches, SketchWriter, learn_forms
from ownchat.data.records import SCHEMA, message, record

TEXTS = st.lists(st.text(st.sampled_from("aB 7.é東京\u0e01ßﬁ\n\u00a0🙂"), max_size=14), max_size=6)
WORDS = ["".join(random.Random(i).choices("aeioulmnrst", k=2 + i % 7)) for i in range(2000)]


def text_of(folded: Folded, index: int) -> str:
    return "".join(map(chr, folded.text(index)))


def naive(text: str) -> str:
    lower = (c.lower() if len(c.lower()) == 1 else c for c in unicodedata.normalize("NFKC", text))
    return " ".join("".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in lower).split())


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_folding_shingles_and_words_are_the_naive_ones(texts):
    folded = fold(pa.array(texts, pa.string()))
    assert [text_of(folded, i) for i in range(len(texts))] == list(map(naive, texts))
    hashes, starts = shingles(folded)
    words, firsts = word_hashes(folded)
    _, places = ngrams(words, firsts, 2)
    for i in range(len(texts)):
        text = text_of(folded, i)
        padded = f" {text} ".ljust(SHINGLE)
        expected = [padded[k : k + SHINGLE] for k in range(len(padded) - SHINGLE + 1)] if text else []
        mine = hashes[starts[i] : starts[i + 1]].tolist()
        assert [mine.index(one) for one in mine] == [expected.index(one) for one in expected]
        assert character_runs(text, SHINGLE) == set(expected)
        split = re.sub("([東京\u0e01])", r" \1 ", text).split()
        mine = words[firsts[i] : firsts[i + 1]].tolist()
        assert [mine.index(one) for one in mine] == [split.index(one) for one in split]
        assert split_words(text) == split
        assert places[i + 1] - places[i] == max(0, len(split) - 1)
    assert count_words(folded).tolist() == [len(split_words(text_of(folded, i))) for i in range(len(texts))]
    keys = text_keys(folded).tolist()
    assert [keys.index(key) for key in keys] == [
        next(j for j in range(len(texts)) if text_of(folded, j) == text_of(folded, i)) for i in range(len(texts))
    ]


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.randoms())
def test_gathered_texts(texts, chance):
    folded = fold(pa.array(texts, pa.string()))
    order = np.array(chance.sample(range(len(texts)), len(texts)), np.int64)
    owners = np.sort(np.array([chance.randrange(3) for _ in order], np.int64))
    made = gather(folded, order, owners, 3)
    for one in range(3):
        parts = [text_of(folded, int(i)) for i, owner in zip(order, owners, strict=True) if owner == one]
        assert text_of(made, one) == " ".join(part for part in parts if part)


def test_forms_are_taken_out():
    form = "Answer the question with one of the tools that stand in the list below and nothing else please"
    texts = [f"{form} {' '.join(random.Random(i).choices(WORDS, k=8))}" for i in range(40)]
    folded = fold(pa.array(texts))
    left = without_runs(folded, learn_forms([folded]), 13)
    assert [text_of(left, i).split() for i in range(40)] == [text.split()[-8:] for text in texts]


def chat(line: int, *turns: str, kind: str = "conversation", **fields):
    roles = ("user", "assistant") * len(turns)
    messages = [message(role, content) for role, content in zip(roles, turns, strict=False)]
    return record(kind, file="f", format="csv", line=line, messages=messages, **fields)


def search(folder: Path, rows, forms=None):
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    with SketchWriter(folder, forms) as writer:
        for start in range(0, len(rows), 50):
            said = sides(batch.slice(start, 50))
            writer.add(said.asked, said.answered)
    with Sketches([folder]) as sketches:
        return find_near(sketches, np.arange(len(rows)), np.array([row["kind"] != "preference" for row in rows]))


def spoken(chance: random.Random, count: int) -> str:
    return " ".join(chance.choices(WORDS, k=count))


def changed(text: str, chance: random.Random, count: int) -> str:
    words = text.split()
    for place in chance.sample(range(len(words)), count):
        words[place] = chance.choice(WORDS)
    return " ".join(words)


def test_what_the_search_finds_is_what_comparing_all_pairs_finds(tmp_path):
    chance = random.Random(5)
    rows = [chat(0, spoken(chance, 60), spoken(chance, 60)) for _ in range(60)]
    for number in range(90):
        host = chance.choice(rows)
        turns = [changed(turn["content"], chance, number % 7) for turn in host["messages"]]
        rows.append(chat(number, *turns))
    near = search(tmp_path, rows)
    texts = [Compared(*(naive(turn["content"]) for turn in row["messages"])) for row in rows]
    pairs = [(i, j) for i in range(len(rows)) for j in range(i) if is_copy(texts[i], texts[j])]
    assert len(pairs) > 40
    for i, j in pairs:
        assert near.related[i] == near.related[j]
        assert near.kept[i] != i or near.kept[j] != j  # not both stay
    for i in np.flatnonzero(near.kept != np.arange(len(rows))).tolist():
        kept = int(near.kept[i])
        assert near.kept[kept] == kept
        assert len(texts[kept].text) >= len(texts[i].text)
        assert near.similarity[i] == pytest.approx(likeness(texts[i], texts[kept]))
        assert is_loose_copy(texts[i], texts[kept]) or similarity(texts[i], texts[kept]) >= 0.6


def test_short_records_that_nothing_else_is_like_go_by_any_measure(tmp_path):
    """Against all pairs: what is alike by some measure and has no other neighbour; the rest is left as it is."""
    chance = random.Random(8)
    rows = [chat(0, spoken(chance, 6 + n % 9), f"{WORDS[n]} {WORDS[n + 99]}") for n in range(150)]
    for number in range(100):
        question, answer = (turn["content"] for turn in rows[number]["messages"])
        rows.append(chat(number, edited(question, chance, 1 + number % 3), answer))
    near = search(tmp_path, rows)
    texts = [Compared(*(naive(turn["content"]) for turn in row["messages"])) for row in rows]
    alike = {(i, j) for i in range(len(rows)) for j in range(i) if is_loose_copy(texts[i], texts[j])}
    strict = {(i, j) for i, j in alike if is_copy(texts[i], texts[j])}
    assert len(strict) > 5 and len(alike - strict) > 20
    gone = {(max(i, k), min(i, k)) for i, k in enumerate(near.kept.tolist()) if i != k}
    assert gone <= alike and len(gone) >= 0.98 * len(alike)  # the search by 5-character shingles finds nearly all


@pytest.mark.parametrize("least, most", [(2, 5), (5, 14), (60, 90)])
def test_the_same_words_in_another_order_are_related(tmp_path, least, most):
    """Against all pairs by sets of words, among them copies of which runs of characters keep little."""
    chance = random.Random(least)
    texts = [spoken(chance, chance.randint(least, most)).split() for _ in range(120)]
    for words in texts[:80]:
        words = chance.sample(words, len(words))
        for place in range(len(words) // 12):
            words[place] = chance.choice(WORDS)
        texts.append(words)
    near = search(tmp_path, [chat(i, " ".join(words)) for i, words in enumerate(texts)])
    sets = [set(words) for words in texts]
    pairs = [(i, j) for i in range(200) for j in range(i) if len(sets[i] & sets[j]) >= 0.8 * len(sets[i] | sets[j])]
    assert len(pairs) >= 60
    assert all(near.related[i] == near.related[j] for i, j in pairs)
    assert len(np.unique(near.related)) > 100


def test_the_same_words_are_found_in_a_crowd_of_one_subject(tmp_path):
    """Every record shares most of its words with a thousand others, so that all bands are crowded."""
    chance = random.Random(4)
    subject = WORDS[:30]
    texts = [[*subject, *chance.sample(WORDS[30:], 14)] for _ in range(1000)]
    texts = [chance.sample(words, len(words)) for words in texts]
    texts += [chance.sample(words, len(words)) for words in texts[:100]]
    near = search(tmp_path, [chat(i, " ".join(words)) for i, words in enumerate(texts)])
    assert (near.related[:100] == near.related[1000:]).all()
    assert len(np.unique(near.related)) > 950


def edited(text: str, chance: random.Random, count: int) -> str:
    """The text with words exchanged, left out, swapped, or misspelt."""
    words = text.split()
    for _ in range(count):
        place = chance.randrange(len(words) - 1)
        match chance.randrange(4):
            case 0:
                words[place] = chance.choice(WORDS)
            case 1:
                del words[place]
            case 2:
                words[place], words[place + 1] = words[place + 1], words[place]
            case _:
                words[place] = words[place][:-1] + "x"
    return " ".join(words)


MEANS = ("card", "cheque", "transfer", "phone", "cash", "post", "bank", "wire", "salary", "voucher", "giro", "app")


def test_in_a_crowd_one_word_tells_records_apart(tmp_path):
    crowd = [
        chat(i, f"What do I have to do to top up my account by {name} from abroad?") for i, name in enumerate(MEANS)
    ]
    assert search(tmp_path / "crowd", crowd).kept.tolist() == list(range(len(MEANS)))
    assert search(tmp_path / "alone", crowd[:2]).kept.tolist() in ([0, 0], [1, 1])


@pytest.mark.parametrize(
    "slip",
    [
        "What do I have to do too top up my acount by cheque from abroad?",  # words that nobody else uses
        "What do account have to do to top up my account by cheque from abroad?",  # words that never meet elsewhere
    ],
)
def test_slips_make_no_difference_in_a_crowd_either(tmp_path, slip):
    rows = [
        chat(i, f"What do I have to do to top up my account by {name} from abroad?") for i, name in enumerate(MEANS)
    ]
    rows += [chat(i, f"Can we do something about the account {' '.join(WORDS[i : i + 5])}") for i in range(0, 150, 5)]
    near = search(tmp_path, [*rows, chat(99, slip)])
    assert near.kept[len(rows)] == 1 or near.kept[1] == len(rows)
    others = [i for i in range(len(rows)) if i != 1]
    assert near.kept[others].tolist() == others


def test_another_number_is_another_question(tmp_path):
    rows = [
        chat(1, "Where is my order 48213 that you sent on Monday?"),
        chat(2, "Where is my order 77120 that you sent on Monday?"),
    ]
    assert search(tmp_path, rows).kept.tolist() == [0, 1]


def test_the_order_of_records_changes_no_group(tmp_path):
    chance = random.Random(2)
    rows = [chat(0, spoken(chance, 9)) for _ in range(40)]
    rows += [chat(0, edited(row["messages"][0]["content"], chance, 1)) for row in rows]
    order = chance.sample(range(80), 80)
    one, other = search(tmp_path / "a", rows), search(tmp_path / "b", [rows[i] for i in order])
    mine = {frozenset(np.flatnonzero(one.kept == k).tolist()) for k in one.kept.tolist()}
    theirs = {frozenset(order[i] for i in np.flatnonzero(other.kept == k).tolist()) for k in other.kept.tolist()}
    assert mine == theirs and len(mine) < 70


def test_the_longest_of_a_group_stays(tmp_path):
    text = spoken(random.Random(1), 80)
    rows = [chat(1, text, "Yes, of course it does."), chat(2, f"{text} Thanks!", "Yes, of course it does.")]
    rows += [chat(3, text.upper(), "Yes of course: it does.")]
    assert search(tmp_path, rows).kept.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "one, other",
    [
        (("How do I activate my new card?", "activate card"), ("How do I cancel my new card?", "cancel card")),
        (("Is it open on Sunday " + "x y z " * 20, "Yes."), ("Is it open on Sunday " + "x y z " * 20, "No.")),
        (("東京タワーの高さは何メートルですか", "三百三十三"), ("大阪タワーの長さは何キロですか", "百三")),
    ],
)
def test_what_is_no_copy(tmp_path, one, other):
    assert search(tmp_path, [chat(1, *one), chat(2, *other)]).kept.tolist() == [0, 1]


def test_one_passage_and_two_questions_are_no_copies():
    passage = " ".join(WORDS[:200])
    one = Compared(f"{passage} who wrote it", "a man from the north", ("who wrote it", ""))
    other = Compared(f"{passage} when was that", "in the year of the flood", ("when was that", ""))
    assert similarity(one, other) > 0.8 and not is_copy(one, other) and is_related(one, other)


def test_a_prompt_that_all_records_share_makes_no_duplicates(tmp_path):
    prompt = message("system", " ".join(WORDS[:300]))
    rows = [chat(i, f"What is {WORDS[i]}?", f"It is {WORDS[i + 100]}.") for i in range(20)]
    for row in rows:
        row["messages"] = [prompt, *row["messages"]]
    assert search(tmp_path, rows).kept.tolist() == list(range(20))


def test_records_without_text(tmp_path):
    rows = [chat(1, "", ""), chat(2, "...", "!"), chat(3, "a", "b")]
    assert search(tmp_path, rows).kept.tolist() == [0, 1, 2]
