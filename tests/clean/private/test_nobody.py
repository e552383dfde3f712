"""What the tagger took for private and is nobody's: labels, results, and parts of one thing; passwords beside them."""

import uuid

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.private.finder import Finder
from ownchat.clean.private.nobody import addresses, outside_addresses, settle
from ownchat.clean.private.redaction import Redactor, redact
from ownchat.clean.private.spans import TYPES, Span
from ownchat.clean.private.step import redact_private
from ownchat.clean.private.tagger import default_tagger
from ownchat.data.records import SCHEMA, message, record


def batch_of(row):
    return pa.RecordBatch.from_pylist([row], schema=SCHEMA)


def tagged(text, *values, types=TYPES, type="reference", score=0.7):
    """What stays of spans that a tagger might have set on ``values``."""
    spans = [Span(start := text.index(value), start + len(value), type, score, "tagger") for value in values]
    found = settle(text, sorted(spans), frozenset(types), default_tagger().is_common)
    return [(text[span.start : span.end], span.type) for span in sorted(found)]


@pytest.mark.parametrize(
    "label",
    ["card_arrival", "lost_or_stolen_card", "annual-fee", "Refund_not_showing_up",
     "direct_debit_payment_not_recognised", "top_up_by_cash_or_cheque"],
)  # fmt: skip
def test_a_label_of_common_words_is_nobody(label):
    assert redact(label).text == label
    assert redact(f"It is about {label}.").spans == []
    assert tagged(label, label, type="email") == []


def test_names_and_addresses_are_no_labels():
    assert tagged("anna_kowalski", "anna_kowalski", type="person") and tagged("Mary-Ann", "Mary-Ann", type="person")
    assert redact("write to card_arrival@example.org").text == "write to [EMAIL_1]"


def conversation(question, answer):
    row = record("conversation", file="f", format="x", line=1, messages=[
        message("user", question), message("assistant", answer)])  # fmt: skip
    batch, _ = redact_private(batch_of(row))
    turns = batch.to_pylist()[0]["messages"]
    seen = Redactor().conversation([{"role": one["role"], "content": one["content"]} for one in row["messages"]])
    assert [turn["content"] for turn in turns] == [turn["content"] for turn in seen]
    return [turn["content"] for turn in turns]


@pytest.mark.parametrize(
    "answer", ["card_arrival", "pto_balance", "oos", "w2", "timer", "567", "4821", "$ 18.50", "-7"]
)
def test_an_assistant_s_bare_answer_is_a_label_or_a_result(answer):
    assert conversation("How many are there?", answer)[1] == answer


def test_what_is_sure_in_a_bare_answer_is_masked():
    assert conversation("Hi, I am Anna Kowalski.", "Hello Anna!") == ["Hi, I am [PERSON_1].", "Hello [PERSON_1]!"]
    assert conversation("What was it?", "anna@example.com")[1] == "[EMAIL_1]"
    assert conversation("Which?", "4111 1111 1111 1111")[1] == "[CARD_1]"


def test_an_answer_s_flag_needs_the_assistant():
    finder = Finder()
    finder._tagger = None
    assert finder.find([["a@b.org", "x"]], [[True, False]]) == finder.find([["a@b.org", "x"]])
    with pytest.raises(ValueError, match="zip"):
        finder.find([["a", "b"]], [[True]])


@pytest.mark.parametrize(
    "text",
    ["The answer is 4821.", "The total is 48213.", "3.14159", "2026-11-22T10:32:59Z",
     "at 2026-11-22T10:32:59Z it failed", "backup-2026-11-22", "see 3f786850-e387-4dfd-ab36-d7e6dc881de2 there",
     "2 + 4819 = 4821", "it makes 18213 in all"],
)  # fmt: skip
def test_numbers_that_are_nobody_s(text):
    assert redact(text).text == text


@pytest.mark.parametrize(
    ("text", "value", "stays"),
    [
        ("The answer is 4821.", "4821", False), ("the sum of both is 48213", "48213", False),
        ("see page 4821", "4821", False), ("x = 4821", "4821", False),
        ("the total on my claim 48213", "48213", True), ("as a result my pin is 4821", "4821", True),
        ("answer: it is 1234567", "1234567", True), ("my number 48213", "48213", True),
    ],
)  # fmt: skip
def test_words_before_a_number(text, value, stays):
    assert tagged(text, value, type="national_id") == ([(value, "national_id")] if stays else [])


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("on 2026-11-22T10:32:59Z", ["22T10"], []),
        ("at 10:32:59 o'clock", ["32"], []),
        ("3.14159", ["14159"], []), ("is 1,204,500 a lot", ["500"], []),
        ("No. 36.244/06 there", ["36.244/06"], [("36.244/06", "reference")]),
        ("commit 3f786850-e387-4dfd-ab36-d7e6dc881de2", ["e387", "ab36"], []),
        ("order 3f786850-e387-4dfd-ab36-d7e6dc881de2", ["e387", "ab36"],
         [("3f786850-e387-4dfd-ab36-d7e6dc881de2", "reference")]),
        ("Anna 10:32", ["Anna 10"], [("Anna ", "reference")]),
    ],
)  # fmt: skip
def test_one_thing_is_masked_whole_or_not_at_all(text, values, expected):
    assert tagged(text, *values) == expected


def test_a_date_that_is_asked_for_is_masked_whole():
    assert tagged("on 2026-11-22T10:32:59Z", "2026", type="date") == [("2026-11-22T10:32:59Z", "date")]
    assert tagged("on 2026-11-22T10:32:59Z", "2026", type="date", types=["person"]) == []


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(
        st.uuids().map(str),
        st.uuids().map(lambda one: uuid.UUID(str(one)).hex),
        st.datetimes().map(lambda one: one.isoformat(timespec="seconds") + "Z"),
        st.times().map(lambda one: one.strftime("%H:%M:%S")),
        st.decimals(0, 10**6, places=3).map(str),
    ),
    st.sampled_from(["{}", "see {} here", "id {}", "my order {}, thanks", "{} ok\n"]),
)
def test_nothing_is_masked_in_part(value, frame):
    text = frame.format(value)
    start, end = text.index(value), text.index(value) + len(value)
    for span in redact(text).spans:
        assert span.end <= start or end <= span.start or (span.start <= start and end <= span.end), (text, span)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('DB_PASSWORD = "s3cr3t-Pass"', 'DB_PASSWORD = "[PASSWORD_1]"'),
        ('DB_PASSWORD = "s3cr3t-P@ss"  # prod', 'DB_PASSWORD = "[PASSWORD_1]"  # prod'),
        ('"dbPassword": "correct horse"', '"dbPassword": "[PASSWORD_1]"'),
        ("export DB_PASSWORD=hunter2x", "export DB_PASSWORD=[PASSWORD_1]"),
        ('use "s3cr3t-P@ss"', 'use "[PASSWORD_1]"'),
        ("login: jsmith / Welcome1", "login: [USERNAME_1] / [PASSWORD_1]"),
        ("Password: correct horse battery staple", "Password: [PASSWORD_1]"),
        ("User: x\nPassword: correct horse\nThanks", "User: x\nPassword: [PASSWORD_1]\nThanks"),
    ],
)
def test_passwords_are_masked_whole(text, expected):
    assert redact(text, types=["password", "username"]).text == expected


@pytest.mark.parametrize(
    "text",
    ["password = get_password()", "Password reset: press the button", "login: yes / no", 'password = ""',
     "DB_PASSWORD=$SECRET"],
)  # fmt: skip
def test_no_passwords(text):
    assert redact(text, detectors=["secrets"]).spans == []


@pytest.mark.parametrize(
    "text", ["anna.berg@b.org", "Write to anna.berg@b.org", "see https://x.com/anna.berg", "ask @anna_berg now"]
)
def test_no_name_is_masked_inside_an_address(text):
    assert redact(text, types=["person"]).text == text
    named = redact(f"Anna Kowalski, Anna and anna.kowalski@b.org; {text}", types=["person"]).text
    assert named.startswith("[PERSON_1], [PERSON_1] and anna.kowalski@b.org")


def test_a_url_with_a_name_is_masked_whole_where_urls_are_asked_for():
    text = "https://b.org/Anna-Kowalski/cv.html"
    assert tagged(text, "Kowalski", type="person") == [(text, "url")]
    assert tagged(text, "Kowalski", type="person", score=0.4) == []
    assert tagged("https://b.org/order/48213.", "48213") == [("48213", "reference")]
    assert addresses(f"({text}).") == [(1, 1 + len(text), "url")]
    assert outside_addresses([Span(14, 18, "person", 1, "")], text) == []


def test_new_numbers_come_after_those_that_stand_there():
    assert redact("[PERSON_1] met Anna Kowalski").text == "[PERSON_1] met [PERSON_2]"
    redactor = Redactor()
    texts = redactor.texts(["I am Anna Kowalski", "not [PERSON_3], nor a@b.org"])
    assert [one.text for one in texts] == ["I am [PERSON_4]", "not [PERSON_3], nor [EMAIL_1]"]
    row = record("document", file="f", format="x", line=1, text="[EMAIL_2] or a@b.org")
    assert redact_private(batch_of(row))[0].to_pylist()[0]["text"] == "[EMAIL_2] or [EMAIL_3]"
