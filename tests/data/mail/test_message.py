"""Headers, charsets, MIME parts: as the standards say, and as programs that broke them wrote."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.mail.headers import addresses, decode_words, fields, parameters, seconds, text_of
from ownchat.data.mail.message import parse, unflow

HEAD = b"From: Jane Roe <Jane@Example.org>\r\nTo: bob@example.org\r\nMessage-ID: <1@example.org>\r\n"


@pytest.mark.parametrize(
    "written, read",
    [
        ("=?iso-8859-1?Q?Gr=FC=DFe?=", "Grüße"),
        ("=?utf-8?B?R3LDvMOfZQ?=", "Grüße"),  # its padding is missing
        ("=?UTF-8?Q?a_b?=\t=?UTF-8?Q?_c?=", "a b c"),
        ("=?utf-8?b?4oI=?= =?utf-8?b?rA==?=", "€"),  # a character cut between two words
        ("=?utf-8*en?Q?x?=", "x"),
        ("=?nonsense?Q?=FC?=", "ü"),
        ("=?utf-8?Q?open", "=?utf-8?Q?open"),
        ("50 =?= 50", "50 =?= 50"),
    ],
)
def test_encoded_words(written, read):
    assert decode_words(written) == read


def test_folded_and_repeated_fields():
    assert fields(b"Subject: a\n\tb\nX-Subject: no\nsubject: second\nReferences: <1>\n <2>") == {
        "subject": "a b",
        "references": "<1> <2>",
    }


def test_parameters_in_pieces():
    kind, given = parameters('application/pdf; name*0*=utf-8\'\'%C3%BC; name*1="b.pdf"; x="a\\"b"')
    assert (kind, given) == ("application/pdf", {"x": 'a"b', "name": "üb.pdf"})


@pytest.mark.parametrize(
    "field, found",
    [
        ("undisclosed-recipients:;", []),
        ("jane@example.org", [("", "jane@example.org")]),
        ('"jane@example.org" <jane@example.org>', [("", "jane@example.org")]),
        ("=?utf-8?Q?J=C3=B6rg?= <j@example.org>, b@example.org", [("Jörg", "j@example.org"), ("", "b@example.org")]),
        ("Jane <jane@example.org", [("", "jane@example.org")]),
    ],
)
def test_addresses(field, found):
    assert addresses(field) == found


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 20202 99:99", "Thu, 1 Jan 9999 00:00:00 +0000"])
def test_what_is_no_date_is_none(date):
    assert seconds(date) is None


@pytest.mark.parametrize(
    "content, charset, text",
    [
        ("Grüße".encode(), "us-ascii", "Grüße"),
        ("Grüße".encode("cp1252"), "us-ascii", "Grüße"),
        ("“x”".encode("cp1252"), "iso-8859-1", "“x”"),
        ("日本".encode("iso2022_jp"), "ISO-2022-JP", "日本"),
        ("中文".encode("gb18030"), "gb2312", "中文"),
        ("Привет, мир".encode("koi8_r"), "koi8-r", "Привет, мир"),
        (b"a\0b", "utf-8", "ab"),
        (b"\\ud800", "unicode_escape", "\\ud800"),  # a codec of Python, no charset of mail
        ("Grüße, Grüße und Grüße".encode()[:-2], "utf-8", "Grüße, Grüße und Grü�"),
    ],
)
def test_charsets_that_lie(content, charset, text):
    assert text_of(content, charset) == text


def multipart(kind: str, *parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return HEAD + b"Content-Type: multipart/" + kind.encode() + b'; boundary="b"\r\n\r\npreamble\r\n' + body + end


PLAIN = (
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSch=C3=B6n =\r\ngut"
)
HTML = b"Content-Type: text/html\r\n\r\n<p>Sch&ouml;n <b>gut</b></p>"
PDF = b'Content-Type: application/pdf; name="a.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\n' + b"QUJD" * 400


def test_the_plain_alternative_is_taken_and_attachments_are_listed():
    mail = parse(multipart("mixed", PLAIN, PDF))
    assert (mail.sender, mail.name, mail.recipients) == ("jane@example.org", "Jane Roe", ["bob@example.org"])
    assert mail.text == "Schön gut"
    assert mail.attachments == ["a.pdf (application/pdf, 1 kB)"]
    assert parse(multipart("alternative", PLAIN, HTML)).text == "Schön gut"
    assert parse(multipart("alternative", HTML)).text == "Schön gut"


def test_an_excuse_in_plain_text_gives_way_to_html():
    excuse = b"Content-Type: text/plain\r\n\r\nYour program cannot show HTML."
    assert parse(multipart("alternative", excuse, HTML)).text == "Schön gut"


def test_a_boundary_that_is_never_closed():
    assert parse(multipart("mixed", PLAIN, end=b"")).text == "Schön gut"


def test_a_boundary_that_does_not_occur_leaves_the_text():
    assert parse(HEAD + b"Content-Type: multipart/mixed; boundary=zz\r\n\r\nonly text").text == "only text"


def test_forwarded_mails_and_winmail_are_listed():
    tnef = b'Content-Type: application/ms-tnef; name="winmail.dat"\r\n\r\nx'
    mail = parse(multipart("mixed", PLAIN, tnef, b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ninner"))
    assert mail.attachments == [
        "winmail.dat (application/ms-tnef, 1 bytes)",
        "message/rfc822 (message/rfc822, 19 bytes)",
    ]
    assert mail.text == "Schön gut"


def test_base64_text_with_holes():
    coded = base64.b64encode("Grüße aus dem Süden".encode()).replace(b"c", b"c \r\n!")
    mail = parse(HEAD + b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n" + coded)
    assert mail.text == "Grüße aus dem Süden"


def test_uuencoded_files_are_listed():
    mail = parse(HEAD + b"\nhere it is\n\nbegin 644 a.txt\n#0V%T\n`\nend\n\nbye")
    assert mail.text == "here it is\n\n\n\nbye"
    assert mail.attachments == ["a.txt (uuencoded, 20 bytes)"]


@pytest.mark.parametrize(
    "head, rule",
    [
        (b"Auto-Submitted: auto-replied\n", "auto-reply"),
        (b"Auto-Submitted: no\n", ""),
        (b"Subject: Automatische Antwort: Frage\n", "auto-reply"),
        (b"Subject: Out of Office: back on Monday\n", "auto-reply"),
        (b"Subject: Undeliverable: Hi\n", "bounce"),
        (b"X-Failed-Recipients: x@example.org\n", "bounce"),
        (b"X-Spam-Flag: YES\n", "spam"),
        (b"X-Gmail-Labels: Inbox,Spam\n", "spam"),
        (b"X-Gmail-Labels: =?UTF-8?Q?Drafts?=,Drafts\n", "draft"),
        (b"X-Mozilla-Status: 0009\n", "deleted"),
        (b"X-Mozilla-Status: 0001\n", ""),
        (b"Content-Type: text/calendar; method=REQUEST\n", "calendar"),
        (b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\n", "encrypted"),
    ],
)
def test_mails_that_nobody_wrote_to_be_answered(head, rule):
    assert parse(HEAD.replace(b"\r", b"") + head + b"\ntext").refused == rule


def test_reports_are_refused():
    raw = multipart("report; report-type=delivery-status", PLAIN)
    assert parse(raw).refused == "bounce"
    assert parse(raw.replace(b"delivery-status", b"disposition-notification")).refused == "auto-reply"


def test_flowed_text_keeps_signature_and_depth():
    assert unflow("> a \n> b\n>> c \n> d\n-- \nJane") == "> a b\n>> c\n> d\n-- \nJane"
    assert unflow("ein \nWort", delete_space=True) == "einWort"


def test_from_lines_are_unquoted_in_an_mbox_only():
    raw = HEAD + b"\n>From here\n>>From there\n"
    assert parse(raw, unquote_from=True).text == "From here\n>From there"
    assert parse(raw).text == ">From here\n>>From there"


def test_a_mail_without_anything():
    assert parse(b"").text == ""
    assert parse(b"\n\n\n").refused == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 255), st.integers(0, 2000))
def test_damage_never_raises(place, value, length):
    raw = bytearray(multipart("mixed", PLAIN, HTML, PDF[:300]))
    raw[place % len(raw)] = value
    mail = parse(bytes(raw[: max(1, length)]))
    assert "\0" not in mail.text
    mail.text.encode()


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf"]), max_size=60))
def test_text_survives_every_transfer_encoding(text):
    head = HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
    coded = base64.encodebytes(text.encode())
    assert parse(head + b"base64\r\n\r\n" + coded).text == text.strip()
    assert parse(head + b"8bit\r\n\r\n" + text.encode()).text == text.strip()
