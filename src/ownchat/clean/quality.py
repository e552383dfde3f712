"""Rules of thumb for crawled pages, with their published thresholds: Gopher, C4 and FineWeb.

They say which documents are no running text: lists, menus, tables, pages that repeat themselves. The rules were made
for pages of 50 to 100,000 words in languages that put spaces between words; what is shorter, longer, or written
without spaces they do not judge. Chat turns nearly all fail them, so that documents alone are looked at by default,
and those only in collections of a hundred or more.

* ``gopher_quality``, ``gopher_repetition``: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights
  from Training Gopher", section A.1.1 and table A1
* ``c4``: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2; cuts lines too
* ``fineweb``: Penedo et al. 2024, "The FineWeb Datasets", section 3.6
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import (
    Cleaned,
    as_mask,
    count_messages,
    drop_rows,
    flat_messages,
    has_kind,
    is_blank,
    is_spoken,
    matches,
    sources,
    with_column,
    with_texts,
)
from ownchat.clean.repetition import gopher_repetition
from ownchat.clean.words import Words, hash_words, split_words
from ownchat.config import QualityRules
from ownchat.data.ledger import Entry

LEAST_WORDS, MOST_WORDS = 50, 100_000  # Gopher's range; outside it the rules do not judge
MANY = 100  # records of a source: fewer were chosen by hand, and a price list among them is meant
MOST_BYTES = 8_000_000  # more than 100,000 words have in any language with spaces
CHUNK_BYTES = 1_000_000  # text measured at once: bounds the memory
STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"]
DEFAULT_RULES: tuple[QualityRules, ...] = ("gopher_quality", "gopher_repetition")

_NO_SPACES = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD = r"[\p{L}\p{M}\p{N}]+(?:['’._@-][\p{L}\p{M}\p{N}]+)*"


def filter_length(batch: pa.RecordBatch, min_words: int = 0, max_words: int | None = None) -> Cleaned:
    """Drop records of fewer or more words, over all their messages; a sign of Chinese or Japanese counts as one."""
    if min_words <= 0 and max_words is None:
        return batch, []
    words = _count_words(_record_texts(batch))
    rules = dict.fromkeys(np.flatnonzero(words < min_words).tolist(), "too short")
    if max_words is not None:
        rules |= dict.fromkeys(np.flatnonzero(words > max_words).tolist(), "too long")
    rules = {row: rule for row, rule in rules.items() if batch.column("kind")[row].as_py() != "preference"}
    return drop_rows(batch, rules, {row: f"{words[row]} words" for row in rules})


def filter_quality(
    batch: pa.RecordBatch,
    families: Sequence[QualityRules] = DEFAULT_RULES,
    scope: str = "documents",
    sizes: Mapping[str, int] | None = None,
    least: int = MANY,
) -> Cleaned:
    """Drop documents that a rule of ``families`` speaks against (``scope="all"``: conversations too).

    Only sources of ``least`` records or more are judged; ``sizes`` says how many each has (none: as in this batch).
    C4 also cuts the lines of documents that are no sentences; what is cut is counted.
    """
    looked_at = has_kind(batch, "document")
    if scope == "all":
        looked_at |= has_kind(batch, "conversation")
    if looked_at.any():
        names = sources(batch)
        sizes = Counter(names) if sizes is None else sizes
        looked_at &= np.array([sizes.get(name, 0) >= least for name in names])
    rows = np.flatnonzero(looked_at)
    if not len(rows) or not families:
        return batch, []
    entries: list[Entry] = []
    texts = _record_texts(batch).take(pa.array(rows))
    english = as_mask(pc.starts_with(pc.utf8_lower(batch.column("language")), "en"))[rows]
    found = judge(texts, families, english)
    rules = {int(row): f"quality: {rule}" for row, rule in zip(rows.tolist(), found, strict=True) if rule}
    if "c4" in families:
        documents = np.flatnonzero(has_kind(batch, "document") & looked_at)
        cut, lines = cut_c4_lines(batch.column("text").take(pa.array(documents)))
        left = {int(row) for row, gone in zip(documents.tolist(), lines.tolist(), strict=True) if gone} - set(rules)
        ids = batch.column("id")
        by_row = dict(zip(documents.tolist(), zip(cut.to_pylist(), lines.tolist(), strict=True), strict=True))
        batch = with_column(batch, "text", with_texts(batch.column("text"), {row: by_row[row][0] for row in left}))
        for row in sorted(left):
            entries.append(Entry("row", ids[row].as_py(), "changed", "quality: c4", detail=f"{by_row[row][1]} lines"))
    batch, dropped = drop_rows(batch, rules)
    return batch, entries + dropped


def judge(texts: pa.Array, families: Sequence[QualityRules], english: np.ndarray | None = None) -> list[str | None]:
    """The first rule that each text breaks, or none. ``english``: whose stop words are counted (all, if not given).

    >>> judge(pa.array(["Buy now! " * 100, "Short."]), ["gopher_repetition"])
    ['top_2_gram', None]
    """
    found: list[str | None] = [None] * len(texts)
    english = np.ones(len(texts), bool) if english is None else english
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    if "c4" in families:
        for index, rule in enumerate(_c4(texts)):
            found[index] = rule
    spaced = sizes <= MOST_BYTES
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        foreign = pc.count_substring_regex(texts, _NO_SPACES).to_numpy(zero_copy_only=False)
        spaced &= foreign * 3 < 0.3 * np.maximum(1, sizes)
    for part in _chunks(np.flatnonzero(spaced & (sizes > 0)), sizes):
        chunk = texts.take(pa.array(part))
        words = split_words(chunk.to_pylist())
        spoken = words.sum(~words.is_mark)
        normal = (spoken >= LEAST_WORDS) & (spoken <= MOST_WORDS)
        for family in families:
            if family == "c4":
                continue
            rules = _JUDGES[family](chunk, words, english[part])
            for place, rule in enumerate(rules):
                if rule and normal[place] and found[part[place]] is None:
                    found[part[place]] = rule
    return found


# -------------------------------------------------------------------------------------------------------------- Gopher


def _gopher_quality(texts: pa.Array, words: Words, english: np.ndarray) -> list[str | None]:
    count = np.maximum(1, words.count())
    spoken = np.maximum(1, words.sum(~words.is_mark))
    length = words.sum(np.where(words.is_mark, 0, words.chars)) / spoken
    hashes = _count(texts, "#") / count
    ellipses = (_count(texts, "...") + _count(texts, "…")) / count
    lines = _lines(texts)
    # To the end of the line: Arrow counts on in the rest, of which the beginning would be a line's beginning.
    bullets = pc.count_substring_regex(texts, r"(?m)^[^\S\n]*[•-][^\n]*").to_numpy(zero_copy_only=False) / lines
    open_ends = pc.count_substring_regex(texts, r"(?m)(?:\.\.\.|…)[ \t\r]*$").to_numpy(zero_copy_only=False) / lines
    with_letter = words.sum(words.has_letter) / count
    stops = np.zeros(len(texts), np.int64)
    for stop in hash_words(STOP_WORDS):
        stops += words.sum(words.hashes == stop) > 0
    return _first_rule(
        len(texts),
        ("gopher_word_length_low", length < 3),
        ("gopher_word_length_high", length > 10),
        ("gopher_hashes", hashes > 0.1),
        ("gopher_ellipses", ellipses > 0.1),
        ("gopher_bullets", bullets > 0.9),
        ("gopher_line_ellipses", open_ends > 0.3),
        ("gopher_alphabetic", with_letter < 0.8),
        ("gopher_stop_words", (stops < 2) & english),
    )


def _repetition(texts: pa.Array, words: Words, english: np.ndarray) -> list[str | None]:
    return gopher_repetition(texts.to_pylist(), words)


# ------------------------------------------------------------------------------------------------------------- FineWeb

# Unicode's Sentence_Terminal signs of the scripts that are met: Latin, Arabic, Indic, Ethiopic, Khmer, Burmese, CJK.
_TERMINAL = r"[.!?։؝؞؟۔܀܁܂।॥၊။።፧፨។៕᠃᠉‼⁇⁈⁉⸮。꓿﹒﹖﹗！．？｡]$"


def _fineweb(texts: pa.Array, words: Words, english: np.ndarray) -> list[str | None]:
    lists = pc.split_pattern(texts, "\n")
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    lines = lists.flatten()
    rows = np.repeat(np.arange(len(texts)), counts)
    filled = matches(lines, r"[^\s\p{Z}]")
    lines, rows = lines.filter(pa.array(filled)), rows[filled]
    number = np.maximum(1, np.bincount(rows, minlength=len(texts)))
    ended = np.bincount(rows, matches(lines, _TERMINAL), len(texts)) / number
    chars = pc.utf8_length(lines).to_numpy(zero_copy_only=False)
    short = np.bincount(rows, chars <= 30, len(texts)) / number
    codes = lines.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    again = np.ones(len(lines), bool)
    again[np.unique(rows * (codes.max(initial=0) + 1) + codes, return_index=True)[1]] = False
    newlines = _count(texts, "\n")
    size = pc.utf8_length(texts).to_numpy(zero_copy_only=False) - newlines
    return _first_rule(
        len(texts),
        ("fineweb_line_ends", ended < 0.12),
        ("fineweb_short_lines", short > 0.67),
        ("fineweb_repeated_lines", np.bincount(rows, chars * again, len(texts)) / np.maximum(1, size) > 0.01),
        ("fineweb_list", newlines / np.maximum(1, words.count()) > 0.3),
    )


# ------------------------------------------------------------------------------------------------------------------ C4

_POLICY = r"(?i)terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies|javascript"
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
# A sentence ends with its line, or within it after a mark that belongs to no abbreviation.
_SENTENCE_END = r"""(?:[^.\s]\.|[!?])["'”’)\]]*[^\S\n]"""
_ABBREVIATION = (
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|Gen|Gov|Sen|Rep|Rev|St|Jr|Sr|Ltd|Inc|Co|Corp|Bros|vs|v|etc|Jan|Feb|Mar|Apr|Jun|Jul|Aug|"
    r"Sept?|Oct|Nov|Dec|[ap]\.?m|e\.?g|i\.?e|[A-Z]|(?:[A-Z]\.)+[A-Z])\.[^\S\n]"
)


def _c4(texts: pa.Array) -> list[str | None]:
    kept, lorem, brace, _ = _c4_lines(texts)
    sentences = _count(kept, "\n") + ~is_blank(kept)
    for pattern, sign in ((_SENTENCE_END, 1), (_ABBREVIATION, -1)):
        sentences += sign * pc.count_substring_regex(kept, pattern).to_numpy(zero_copy_only=False)
    return _first_rule(
        len(texts), ("c4_lorem_ipsum", lorem), ("c4_curly_bracket", brace), ("c4_few_sentences", sentences < 5)
    )


def cut_c4_lines(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Texts without the lines that C4 leaves out, and how many lines each lost.

    Left out: no mark at the end of a sentence, fewer than three words, a word of over 1,000 characters, JavaScript,
    and notices about cookies and terms of use. Wikipedia's citation marks go too.

    >>> cut_c4_lines(pa.array(["Home\\nThis line is a sentence.[1]"]))[0].to_pylist()
    ['This line is a sentence.']
    """
    kept, _, _, lost = _c4_lines(texts)
    return kept, lost


def _c4_lines(texts: pa.Array) -> tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]:
    texts = pc.fill_null(texts, "")
    lists = pc.split_pattern_regex(texts, r"\r\n|[\n\r\x0b\x0c\x{85}\x{2028}\x{2029}]")
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    lines = pc.utf8_trim_whitespace(lists.flatten())
    rows = np.repeat(np.arange(len(texts)), counts)
    kept = ~matches(lines, r"\S{1000}\S")
    kept &= pc.count_substring_regex(lines, r"\S+").to_numpy(zero_copy_only=False) >= 3
    lines = pc.replace_substring_regex(lines, _CITATION, "")
    kept &= matches(lines, r"[.?!\"']$") & ~matches(lines, r"\.\.\.$")
    lorem = kept & matches(lines, r"(?i)lorem ipsum")
    lorem_rows = np.bincount(rows[lorem], minlength=len(texts)) > 0
    brace = kept & as_mask(pc.match_substring(lines, "{"))
    kept &= ~matches(lines, _POLICY)
    brace_rows = np.bincount(rows[brace & kept], minlength=len(texts)) > 0
    lengths = np.bincount(rows[kept], minlength=len(texts))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    left = pc.binary_join(pa.ListArray.from_arrays(offsets, lines.filter(pa.array(kept))), "\n")
    filled = np.bincount(rows[~matches(lists.flatten(), r"^\s*$")], minlength=len(texts))
    return left, lorem_rows, brace_rows, filled - lengths


# ---------------------------------------------------------------------------------------------------------------------


def _first_rule(count: int, *rules: tuple[str, np.ndarray]) -> list[str | None]:
    found: list[str | None] = [None] * count
    for name, broken in reversed(rules):
        for index in np.flatnonzero(broken).tolist():
            found[index] = name
    return found


def _count(texts: pa.Array, substring: str) -> np.ndarray:
    return pc.count_substring(texts, substring).to_numpy(zero_copy_only=False)


def _lines(texts: pa.Array) -> np.ndarray:
    """Lines as ``str.splitlines`` counts them: a newline at the end begins no other."""
    ends = matches(texts, r"\n$")
    return np.maximum(1, _count(texts, "\n") + ~ends)


def _record_texts(batch: pa.RecordBatch) -> pa.Array:
    """The document's text, or all that was said, one message a line."""
    messages = flat_messages(batch)
    contents = pc.if_else(pa.array(is_spoken(messages)), messages.field("content"), "")
    offsets = pa.array(np.concatenate([[0], np.cumsum(count_messages(batch))]), pa.int32())
    said = pc.binary_join(pa.ListArray.from_arrays(offsets, contents), "\n")
    return pc.if_else(pa.array(has_kind(batch, "document")), pc.fill_null(batch.column("text"), ""), said)


def _count_words(texts: pa.Array) -> np.ndarray:
    counts = pc.count_substring_regex(texts, _WORD).to_numpy(zero_copy_only=False).astype(np.int64)
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        runs = pc.count_substring_regex(texts, f"{_NO_SPACES}+").to_numpy(zero_copy_only=False)
        counts += pc.count_substring_regex(texts, _NO_SPACES).to_numpy(zero_copy_only=False) - runs
    return counts


def _chunks(indices: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Indices in parts of about :data:`CHUNK_BYTES` of text."""
    if len(indices):
        part = np.cumsum(sizes[indices]) // CHUNK_BYTES
        borders = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(indices)]
        for start, end in pairwise(borders):
            yield indices[start:end]


_JUDGES = {"gopher_quality": _gopher_quality, "gopher_repetition": _repetition, "fineweb": _fineweb}
