"""Forms: what must be found with its type, what must not be, and work that grows with the text and no faster."""

import itertools
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.clean.private.patterns import PATTERNS, digit_windows, find_in_all, find_patterns
from ownchat.clean.private.secrets import FORMATS, entropy, find_secrets
from ownchat.clean.private.spans import CUSTOM, DEFAULT, TYPES, Span, disjoint, joined

ALL = frozenset(TYPES)

# Type, text with the value in « ».
FOUND = """
email|write to «anna.berg+x@mail.example.co.uk».
email|it is «anna dot b at example dot com»
url|see «https://www.linkedin.com/in/anna-berg-1»
url|«https://shop.example/cart?user_id=81&x=1»
username|thanks «@anna_b»!
username|my username is «anna_b77»
ip|from «84.12.33.9» today
ip|«2001:db8::8a2e:370:7334»
ip|device «00:1A:2b:3c:4D:5e»
card|pay with «4111-1111-1111-1111» now
iban|to «DE89 3704 0044 0532 0130 00» please
bank_account|routing number «021000021»
bank_account|my account number is «00123456789»
national_id|SSN «521-44-9382»
national_id|NI number «AB 12 34 56 C»
national_id|mein Ausweis, dni «12345678Z»
national_id|pesel: «44051401359»
national_id|CPF «111.444.777-35»
tax_id|VAT «DE136695976»
tax_id|EIN: «12-3456789»
passport|passport number is «C01X00T47»
passport|Passport No. «123456789»
driving_licence|driver's license number «D245-938-19-203»
phone|call «(212) 555-0187» now
phone|«+49 30 901820»
phone|tel. «020 7946 0958»
phone|phone number: «5551234»
date_of_birth|born on «3 May 1980» in
date_of_birth|DOB: «05/03/1980»
date_of_birth|i was born on the «ninth of june nineteen seventy two» in
date_of_birth|was born in New York on «21 September 1968» and
phone|You can call «73 448 266» now
password|password: «hunter2!»
password|my password is «Blue42horse»
reference|order number «88-1204»
reference|Booking ref: «QX7K2P»
reference|Order #«10442»
reference|(Application no. «36244/06»)
reference|docket «1:19-cv-04321»
reference|it is «a 4 g 4 rt 3»
address|at «221B Baker Street», London
address|in «NW1 6XE»
date|on «12 March 2004» he
date|«2024-03-01»
""".strip().splitlines()

NOT_FOUND = """
I waited 3 days and paid $1,200.50 for 12 items.
The password is not working and the pin was wrong.
Version 1.2.3 of 2019 fixes 404 errors; see section 4.1.2.
My order number was never sent to me.
She passed on 16 of 20 tests in 1999-2003.
Localhost is 127.0.0.1 and the mask 255.255.255.0.
a@b and @ and user@localhost
The total is 1 234 567 for 10 000 000 people.
It took 10 h 30 m, at 3 to 4 pm, for 2 x 4 x 6 of them.
Meet me at the dot com office.
Betty needs 100 - 50 - 30 - 15 = $5 more, and 6000-2000 = 4000.
Is flight dl123 due? The letter of 20.11.1945 is lost.
Kernel linux-2.6.8.1 and 8.8.8.8 are everybody's.
See https://docs.example.com/guide/install?version=2
""".strip().splitlines()


@pytest.mark.parametrize("case", FOUND)
def test_found(case):
    type, marked = case.split("|", 1)
    start, end = marked.index("«"), marked.index("»") - 1
    text = marked.replace("«", "").replace("»", "")
    spans = [span for span in find_patterns(text, ALL) if span.type == type]
    assert (start, end) in [(span.start, span.end) for span in spans], spans


@pytest.mark.parametrize("text", NOT_FOUND)
def test_not_found(text):
    assert list(find_patterns(text, frozenset(DEFAULT))) == []


def test_only_wanted_types():
    text = "anna@example.com, 4111 1111 1111 1111"
    assert {span.type for span in find_patterns(text, frozenset(["card"]))} == {"card"}


CASES = [case.split("|", 1)[1].replace("«", "").replace("»", "") for case in FOUND] + NOT_FOUND


def test_many_texts_at_once_give_what_one_at_a_time_gives():
    together = find_in_all(CASES, lambda text: find_patterns(text, ALL))
    assert [set(spans) for spans in together] == [set(find_patterns(text, ALL)) for text in CASES]
    key = "-----BEGIN PRIVATE KEY-----\nabc"  # no end: it must not swallow the next text
    assert [
        len(spans) for spans in find_in_all([key, "hello"], lambda text: [Span(*one) for one in find_secrets(text)])
    ] == [1, 0]


def test_telling_words_lead_to_the_same_finds_as_a_search_everywhere():
    for text in CASES:
        searched = set()
        for pattern in PATTERNS:
            for match in pattern.expression.finditer(text):
                group = min(pattern.expression.groups, 1)
                if match[group] and (pattern.is_valid is None or pattern.is_valid(match[group])):
                    searched.add((*match.span(group), pattern.type))
        assert searched == {(span.start, span.end, span.type) for span in find_patterns(text, ALL)}


@settings(max_examples=50, deadline=None)
@given(st.text(string.printable + "é٣²京", max_size=300))
def test_windows_cover_every_digit_and_do_not_overlap(text):
    windows = list(digit_windows(text))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(windows))
    for match in re.finditer(r"\d", text):
        assert any(start <= match.start() < end for start, end in windows)


HARD = ["a", "1", "-", "1 ", "- ", "1.", "a@", "A1", "(1", "@", "a.", "/", ":", "no ", "password ", "=", "eyJ", "+1 ",
        "+", "www.", '"', "\n", "é", "京", "born on ", "call ", "a 1 "]  # fmt: skip


@pytest.mark.parametrize("unit", HARD)
def test_one_unit_over_and_over_is_linear(unit):
    """The number of finds at most grows with the text, and ten times the text does not take a hundred times as long."""
    import time

    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        best = 1e9
        for _ in range(2):
            start = time.process_time()
            list(find_patterns(text, ALL))
            list(find_secrets(text))
            best = min(best, time.process_time() - start)
        return best

    assert seconds(60_000) < 40 * max(seconds(6_000), 0.003)  # a square would be 100


# ------------------------------------------------------------------------------------------------------------ secrets

EXAMPLES = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9, "sk_live_" + "a1B2c3D4" * 3, "AIza" + "Sy1_abcDE" * 3 + "12345678",
    "xoxb-" + "123456789012-abcdefABCDEF", "glpat-" + "abcDEF123456_-abcd12", "hf_" + "abCD12" * 6, "npm_" + "a1B2" * 9,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
]  # fmt: skip


@pytest.mark.parametrize("key", EXAMPLES)
def test_key_formats(key):
    found = list(find_secrets(f"token {key}, thanks"))
    assert (6, 6 + len(key)) in [one[:2] for one in found] and {one[2] for one in found} == {"secret"}


def test_blocks_urls_and_named_values():
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----"
    assert [one[:2] for one in find_secrets(f"x {block} y")] == [(2, 2 + len(block))]
    assert [one[:3] for one in find_secrets("https://bob:s3cret!@db.example.com/x")] == [(12, 19, "password")]
    assert [one[4] for one in find_secrets('api_key = "9f8e7d6c5b4a39281706f5e4"')] == ["named secret"]
    assert not list(find_secrets("the secret is aaaaaaaaaaaaaaaaaaaaaaaa11 and the token is internationalization"))
    assert entropy("0123456789abcdef") == 4.0


def test_formats_have_their_letters():
    assert len(FORMATS) >= 40
    for name, letters, expression in FORMATS:
        plain = expression.pattern.replace("\\", "")
        assert letters in plain or name in ("stripe key", "stripe test key", "digitalocean token"), name


# -------------------------------------------------------------------------------------------------------------- spans

SPANS = st.builds(
    lambda start, length, type, score: Span(start, start + length, type, score, "x"),
    st.integers(0, 30), st.integers(1, 15), st.sampled_from(["person", "card"]), st.sampled_from([0.5, 0.9]),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(SPANS, max_size=8), st.lists(SPANS, max_size=8))
def test_spans_become_disjoint_and_cover_what_was_covered(first, second):
    text = "ab cd, ef gh. " * 4
    result = disjoint(text, [first, second])
    assert all(a.end <= b.start for a, b in itertools.pairwise(result))
    covered = {i for span in first + second for i in range(span.start, span.end) if text[i].isalnum()}
    assert covered == {i for span in result for i in range(span.start, span.end) if text[i].isalnum()}
    merged = joined(text, result)
    assert covered <= {i for span in merged for i in range(span.start, span.end)}


def test_types():
    assert len(set(TYPES)) == len(TYPES) and CUSTOM not in TYPES
    assert set(TYPES) - set(DEFAULT) == {"organisation", "place", "date"}
    assert {pattern.type for pattern in PATTERNS} <= set(TYPES)
