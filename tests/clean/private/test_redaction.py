"""redact and Redactor: what users see, what they may ask for, and what they are told when they err."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ownchat
from ownchat.clean.private.finder import PLACEHOLDER, Finder, cut
from ownchat.clean.private.redaction import Redactor, redact
from ownchat.clean.private.spans import DEFAULT, TYPES
from ownchat.errors import ConfigError

LETTER = """Dear Ms O'Neil,
your claim AB-12345 of 3 May 2020 was sent to 12 Baker Street, London NW1 6XE.
Call +44 20 7946 0958 or write to anna.berg@example.com.
Kind regards,
Peter Jones"""
DECISION = """The case originated in an application (no. 36244/06) lodged with the Court by a national, Mr Jan Kowalski
("the applicant"), on 12 March 2004. The applicant was represented by Ms A. Nowak, a lawyer practising in Warsaw."""


def test_public_name():
    assert ownchat.redact is redact and ownchat.Redactor is Redactor


def test_a_letter():
    result = redact(LETTER)
    for private in ("O'Neil", "AB-12345", "Baker", "NW1", "7946", "anna", "Peter", "Jones"):
        assert private not in result.text
    assert "Kind regards" in result.text and "3 May 2020" in result.text
    assert "3 May 2020" not in redact(LETTER, types=TYPES).text


def test_a_decision():
    text = redact(DECISION, types=TYPES).text
    for private in ("36244", "Kowalski", "12 March", "Nowak", "Warsaw"):
        assert private not in text
    assert "originated in an application" in text and "represented by" in text


def test_lower_case_without_marks():
    result = redact("hi my name is anna berg my email is anna berg 77 gmailcom and my booking id is x 4431")
    assert "anna" not in result.text and "4431" not in result.text and "my name is" in result.text
    assert redact("i am so happy with this product it works great").spans == []


def test_spans_point_into_the_text():
    text = "Žofie 🙂: call Anna Berg, +44 20 7946 0958"
    result = redact(text)
    assert [text[span.start : span.end] for span in result.spans if span.type == "phone"] == ["+44 20 7946 0958"]
    rebuilt, last = "", 0
    for span, placeholder in zip(result.spans, PLACEHOLDER.findall(result.text), strict=True):
        assert 0 <= span.score <= 1 and span.type in TYPES and span.detector
        rebuilt += text[last : span.start] + placeholder
        last = span.end
    assert rebuilt + text[last:] == result.text


TEXTS = st.lists(
    st.sampled_from(
        ["Anna Berg", "my name is", "x", "4111 1111 1111 1111", "a@b.co", "\n", "[PERSON_1]", "é🙂", "12/3/1990",
         ",", "no. 12/99", "\x00", "  "]
    ),
    max_size=14,
).map(" ".join)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.one_of(TEXTS, st.text(max_size=80)))
def test_any_text(text):
    result = redact(text, types=TYPES)
    assert all(0 <= span.start < span.end <= len(text) for span in result.spans)
    assert all(a.end <= b.start for a, b in zip(result.spans, result.spans[1:], strict=False))
    assert redact(text, types=TYPES) == result


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_texts_together_are_found_as_alone(texts):
    finder = Finder(types=TYPES)
    alone = [finder.find([[text]])[0][0] for text in texts]
    together = [one[0] for one in finder.find([[text] for text in texts])]
    assert [[span[:3] for span in spans] for spans in together] == [[span[:3] for span in spans] for spans in alone]


def test_placeholders_are_left_alone():
    once = redact(LETTER).text
    assert redact(once).text == once


# ----------------------------------------------------------------------------------------------------- conversations


def test_numbering_is_kept_over_a_conversation():
    redactor = Redactor()
    first = redactor.conversation(
        [
            {"role": "user", "content": "My name is Anna Berg, anna@example.com"},
            {"role": "assistant", "content": "Thank you, Anna. Is anna@example.com still right? Ask Peter Jones."},
            {"role": "assistant", "content": None, "tool_calls": []},
        ]
    )
    assert first[0]["content"] == "My name is [PERSON_1], [EMAIL_1]"
    assert first[1]["content"].startswith("Thank you, [PERSON_1]. Is [EMAIL_1] still right?")
    assert "[PERSON_2]" in first[1]["content"]
    assert first[2] == {"role": "assistant", "content": None, "tool_calls": []}
    assert redactor.text("Write to anna@example.com or b@example.com").text == "Write to [EMAIL_1] or [EMAIL_2]"
    redactor.forget()
    assert redactor.text("b@example.com").text == "[EMAIL_1]"


def test_two_people_of_one_surname_stay_two():
    redactor = Redactor(types=["person"])
    a, b = redactor.placeholder("person", "Anna Berg"), redactor.placeholder("person", "Peter Berg")
    assert a != b and redactor.placeholder("person", "Mr Peter Berg") == b
    assert redactor.placeholder("person", "Anna") == a and redactor.placeholder("person", "Berg") not in (a, b)


def test_a_name_is_found_again():
    text = "My name is Xenia Kowalczyk. " + "The box was late. " * 3 + "Regards from Kowalczyk"
    assert "Kowalczyk" not in redact(text).text


def test_surrogates_look_real_and_agree():
    redactor = Redactor(surrogates=True)
    made = redactor.conversation(
        [{"content": "My name is Anna Berg, card 4111 1111 1111 1111"}, {"content": "Thank you Anna Berg."}]
    )
    name = made[0]["content"].removeprefix("My name is ").partition(",")[0]
    assert "Anna" not in name and "[" not in made[0]["content"] and name in made[1]["content"]
    assert redactor.text("no@example.org").text == "user1@example.com"


# ------------------------------------------------------------------------------------------------------ what is asked


def test_types_and_threshold():
    text = "My name is Anna Berg, anna@example.com"
    assert redact(text, types=["email"]).text == "My name is Anna Berg, [EMAIL_1]"
    assert redact(text, types=[]).spans == []
    assert all(span.score >= 0.99 for span in redact(LETTER, threshold=0.99).spans)
    assert {span.type for span in redact(LETTER, detectors=["patterns"]).spans} <= set(DEFAULT)


def test_allow_and_deny():
    text = "My name is Anna Berg, project Nightjar, order number 88-1204"
    assert "Anna Berg" in redact(text, allow=["anna berg"]).text
    assert "[CUSTOM_1]" in redact(text, deny=["nightjar"]).text
    assert redact("nightjars", deny=["nightjar"], detectors=[]).spans == []
    assert "88-1204" in redact(text, allow=[r"/88-\d+/"]).text
    assert redact("Anna Nightjar", allow=["Nightjar"], deny=["Nightjar"]).spans[-1].type == "custom"
    assert redact("x1 y", deny=["/(x)(1)/", "/[y]/"]).text == "[CUSTOM_1] [CUSTOM_2]"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"types": ["persn"]}, 'did you mean "person"'), ({"allow": ["/(/"]}, "allow list, entry 1"),
        ({"deny": ["ok", "/a{2,1}/"]}, "deny list, entry 2"), ({"deny": [" "]}, "entry 1 is empty"),
        ({"threshold": 0}, "not between 0 and 1"), ({"detectors": ["tager"]}, 'did you mean "tagger"'),
    ],
)  # fmt: skip
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        redact("x", **wrong)


def test_presidio_is_an_extra():
    try:
        import presidio_analyzer  # noqa: F401
        import spacy  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="Presidio is not installed"):
            redact("x", detectors=["presidio"])
    else:
        assert redact("I am John Smith.", detectors=["presidio"]).spans[0].detector == "presidio PERSON"


@settings(max_examples=30, deadline=None)
@given(st.text("ab \n", max_size=60), st.integers(3, 20))
def test_pieces_make_the_text(text, size):
    pieces = list(cut(text, size))
    assert "".join(piece for _, piece in pieces) == text
    assert all(text[start : start + len(piece)] == piece and len(piece) <= size for start, piece in pieces)


@pytest.mark.parametrize("unit", ["a", "1", "-", ".-", "a ", "\n"])
def test_two_megabytes_of_one_thing(unit):
    assert len(redact((unit * 2_000_000)[:2_000_000]).text) > 0
