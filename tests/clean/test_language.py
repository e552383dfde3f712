"""Languages are told where there is enough text; what is undecided, or given by the source, stays."""

import pyarrow as pa
import pytest

from ownchat.clean.language import count_languages, detect_language, detect_languages, filter_languages
from ownchat.data.records import SCHEMA, message, record

SENTENCES = {
    "en": "Where is my parcel? It should have been here on Monday.",
    "de": "Wo ist mein Paket? Es sollte am Montag hier sein.",
    "fr": "Où est mon colis ? Il devait arriver lundi dernier.",
    "es": "¿Dónde está mi paquete? Tenía que llegar el lunes.",
    "ru": "Где моя посылка? Она должна была прийти в понедельник.",
    "zh": "我的包裹在哪里？它应该星期一就到了。",
    "ja": "荷物はどこですか。月曜日に届くはずでした。",
}


def chat(text, line=1, **fields):
    messages = [message("system", "Tu es un assistant."), message("user", text), message("assistant", "ok")]
    return record("conversation", file="f", format="jsonl", line=line, messages=messages, **fields)


def batch_of(*rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences(language):
    assert detect_language(SENTENCES[language]) == language


def test_short_and_wordless_texts_are_undecided():
    texts = [
        "ok",
        "",
        None,
        "12345 67890 12345 67890",
        "https://example.org/one/two/three/four/five",
        "[PERSON_1] [URL_1]",
    ]
    assert detect_languages(pa.array(texts)) == [None] * len(texts)
    assert detect_languages(pa.array([], pa.string())) == []


def test_the_keep_list():
    rows = [chat(text, line=i + 1) for i, text in enumerate(SENTENCES.values())] + [chat("ok", line=99)]
    after, entries = filter_languages(batch_of(*rows), ["en", "de-CH"])
    assert after["language"].to_pylist() == ["en", "de", None]
    assert [entry.detail for entry in entries if entry.unit == "row"] == ["fr", "es", "ru", "zh", "ja"]
    assert sum(entry.count for entry in entries if entry.unit == "message") == 15
    assert count_languages([after]) == {"de": 1, "en": 1, "undecided": 1}
    assert len(filter_languages(batch_of(*rows))[0]) == len(rows)


def test_a_code_of_the_source_is_believed():
    rows = [chat(SENTENCES["en"], language="pt-BR"), chat(SENTENCES["en"], line=2, language="English")]
    assert filter_languages(batch_of(*rows))[0]["language"].to_pylist() == ["pt-BR", "en"]


def test_the_middle_decides_when_the_beginning_does_not():
    assert detect_language("Home News FAQ Login " * 8 + (SENTENCES["de"] + " ") * 30) == "de"
