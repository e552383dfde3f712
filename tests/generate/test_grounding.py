"""What stands on a passage, and what does not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.generate.grounding import LEAST_PASSAGE, Candidate, grounded, names, parse, passages

PASSAGE = (
    "Returns are free within 30 days of delivery. Send the parcel to our warehouse in Malmö, or hand it in at "
    "any of our 1,200 shops. Ms Lindqvist's team checks it, and the money is back on your card after five "
    "days. Opened cosmetics cannot be returned, unless they are damaged."
)
QUOTE = "Returns are free within 30 days of delivery."


@pytest.mark.parametrize(
    "question, answer, quote, reason",
    [
        ("How long can I return things for free?", "Within 30 days of delivery.", QUOTE, ""),
        (
            "Until when are returns free?",
            "Returns are free for 30 days after the delivery.",
            "returns are  FREE within 30 days",
            "",
        ),
        (
            "Where do I send a parcel?",
            "To the warehouse in Malmö, or to one of 1200 shops.",
            "Send the parcel to our warehouse in Malmö",
            "",
        ),
        ("Who checks a returned parcel?", "Ms Lindqvist and her team.", "Ms Lindqvist’s team checks it", ""),
        ("How long can I return things?", "Within 60 days of delivery.", QUOTE, "number not in passage: 60"),
        (
            "Can I return after 90 days for free?",
            "Returns are free within 30 days.",
            QUOTE,
            "number not in passage: 90",
        ),
        (
            "Where do I send a parcel?",
            "Send the parcel to Stockholm.",
            "Send the parcel to our warehouse",
            "name not in passage: Stockholm",
        ),
        ("How long can I return things?", "Within 30 days.", "You have 30 days to return.", "quote not in passage"),
        ("How long can I return things?", "Within 30 days.", "", "quote not in passage"),
        ("How long can I return things?", "Within 30 days.", "30", "quote too short"),
        (
            "What about damaged cosmetics?",
            "Customers must photograph damaged items before shipping them.",
            "unless they are damaged",
            "answer not covered by the passage",
        ),
        (
            "Which colours does the kitchen come in?",
            "Returns are free within 30 days.",
            QUOTE,
            "question not about the passage",
        ),
        (
            "What does the passage say about returns?",
            "Returns are free within 30 days.",
            QUOTE,
            "speaks of the passage",
        ),
        ("How long are returns free?", "According to the text above, 30 days.", QUOTE, "speaks of the passage"),
        ("Was steht im Text zu returns?", "Returns are free.", QUOTE, "speaks of the passage"),
        (
            "Returns are free within 30 days of delivery.",
            "Returns are free.",
            QUOTE,
            "question is a copy of the passage",
        ),
        ("Why not?", "Why not.", QUOTE, "question is the answer"),
        ("", "Yes.", QUOTE, "question or answer missing"),
        ("Why?", "Returns are free.", QUOTE, "question too short or too long"),
        ("Why are returns free? " * 30, "Returns are free.", QUOTE, "question too short or too long"),
        ("Why are returns free?", "Returns are free. " * 100, QUOTE, "answer too long"),
    ],
)
def test_grounded(question, answer, quote, reason):
    assert grounded(Candidate(question, answer, quote), PASSAGE).partition(", ")[0] == reason


def test_grounded_in_other_languages():
    passage = "Rücksendungen sind innerhalb von 30 Tagen kostenlos. Die Erstattung dauert fünf Werktage."
    good = Candidate("Wie lange dauert die Erstattung?", "Fünf Werktage.", "Die Erstattung dauert fünf Werktage.")
    assert grounded(good, passage) == ""
    assert grounded(Candidate(good.question, "Zehn Wochen nach dem Kauf.", good.quote), passage)
    passage = "返品は30日以内なら無料です。返金には5日かかります。"
    good = Candidate("返品はいつまで無料ですか", "30日以内なら無料です。", "返品は30日以内なら無料です")
    assert grounded(good, passage) == ""
    assert (
        grounded(Candidate(good.question, "60日以内なら無料です。", good.quote), passage) == "number not in passage: 60"
    )


@pytest.mark.parametrize(
    "reply, count",
    [
        (json.dumps([{"question": "a", "answer": "b", "quote": "c"}] * 2), 2),
        ('```json\n[{"question": "a", "answer": "b", "quote": "c"}]\n```', 1),
        ('{"questions": [{"question": "a", "answer": "b"}, {"Question": "a", "Answer": "b"}]}', 2),
        ('{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}', 2),
        ('Here:\n[{"question": "a {", "answer": "b"}, {"question": "c", "ans', 1),
        ('[{"question": 3, "answer": null}]', 1),
        ("[]", 0),
        ("I cannot help with that. {not json}", 0),
        ("{" * 5000, 0),
        ('{"a":' * 3000, 0),
    ],
)
def test_replies(reply, count):
    assert len(parse(reply)) == count


def test_passages_follow_the_headings():
    text = "# Shop\n\nIntro. " + "Words about the shop. " * 20 + "\n\n## Returns\n\n" + "Send it back. " * 40
    text += "\n\n## Mail\n\n" + "We write letters. " * 300
    found = passages(text, 1000)
    assert [passage.heading for passage in found[:2]] == ["Shop", "Shop > Returns"]
    assert {passage.heading for passage in found[2:]} == {"Shop > Mail"} and len(found) > 6
    assert found[1].text.startswith("## Returns\n\nSend it back.")
    assert all(text[passage.offset :].lstrip().startswith(passage.text[:40]) for passage in found)


@given(
    st.lists(
        st.sampled_from(["# A", "## B", "word " * 30, "Sentence one. " * 40, "x" * 700, "", "- item"]), max_size=25
    )
)
@settings(max_examples=50)
def test_passages_lose_nothing_that_is_long(parts):
    text = "\n\n".join(parts)
    found = passages(text, 600)
    assert all(len(passage.text) <= 2 * 600 for passage in found)
    held = sum(len("".join(passage.text.split())) for passage in found)
    whole = len("".join(text.split()))
    assert held <= whole
    if "# A" not in parts and "## B" not in parts and whole > 10 * LEAST_PASSAGE:
        assert held >= whole - 2 * LEAST_PASSAGE


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=40), st.text(max_size=300))
@settings(max_examples=50)
def test_any_text_is_judged(question, answer, quote, passage):
    assert isinstance(grounded(Candidate(question, answer, quote), passage), str)
    assert isinstance(names(answer), list)
