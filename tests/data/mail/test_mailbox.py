"""Mails found in files: every dialect of mbox, single mails, maildir; no false split, and no crash."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownchat.data.files import open_file
from ownchat.data.mail import mailbox
from ownchat.data.mail.mailbox import raw_mails, recognise_mail

ONE = b"From jane@example.org Thu Aug 22 12:36:23 2002\nFrom: jane@example.org\nSubject: one\n\nHello\n\n"
TWO = b"From bob@example.org Thu Aug 22 12:40:00 2002\nFrom: bob@example.org\nSubject: two\n\nHi\n\n"


def mails(path: Path, content: bytes, name: str = "box") -> list[tuple[int, bytes]]:
    path.write_bytes(content)
    return [(raw.line, raw.content) for raw in raw_mails(open_file(path, name))]


def test_mbox_is_split_with_lines(tmp_path):
    assert mails(tmp_path / "a", ONE + TWO) == [(1, ONE), (7, TWO)]
    assert mails(tmp_path / "a", (ONE + TWO).replace(b"\n", b"\r\n")) == [
        (1, ONE.replace(b"\n", b"\r\n")),
        (7, TWO.replace(b"\n", b"\r\n")),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"From here at 12:30 we go on.\nThere are words.",
        b"From jane@example.org Thu Aug 22 12:36:23 2002\nno header follows",
        b">From jane@example.org Thu Aug 22 12:36:23 2002\nSubject: x",
    ],
)
def test_from_inside_a_body_does_not_split(tmp_path, line):
    assert len(mails(tmp_path / "a", ONE + line + b"\n\n" + TWO)) == 2


@pytest.mark.parametrize(
    "line",
    [
        b"From 1758@xxx Thu Aug 22 12:36:23 +0000 2002",
        b"From - Thu Aug 22 12:36:23 2002",
        b"From  Thu Aug 22 12:36:23 2002",
        b"From jane@example.org Thu Aug 22 12:36:23 PDT 2002",
    ],
)
def test_separators_of_many_programs(tmp_path, line):
    other = line + TWO[TWO.index(b"\n") :]
    assert [start for start, _ in mails(tmp_path / "a", other + ONE + other)] == [1, 7, 13]


def test_mails_that_were_put_together_without_an_empty_line(tmp_path):
    assert len(mails(tmp_path / "a", ONE.rstrip(b"\n") + b"\n" + TWO)) == 2


def test_content_length_guards_an_unquoted_from_line(tmp_path):
    body = b"see this mail:\n\n" + TWO
    head = b"From jane@example.org Thu Aug 22 12:36:23 2002\nFrom: j@example.org\nContent-Length: %d\n\n" % len(body)
    assert len(mails(tmp_path / "a", head + body + b"\n" + ONE)) == 2
    wrong = head.replace(b"Content-Length: ", b"Content-Length: 9")
    assert len(mails(tmp_path / "a", wrong + body + b"\n" + ONE)) == 3


def test_blocks_of_reading_do_not_matter(tmp_path, monkeypatch):
    whole = mails(tmp_path / "a", (ONE + TWO) * 20)
    monkeypatch.setattr(mailbox, "CHUNK", 701)
    assert mails(tmp_path / "a", (ONE + TWO) * 20) == whole


def test_the_end_of_a_huge_mail_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(mailbox, "CHUNK", 1000)
    monkeypatch.setattr(mailbox, "LARGEST_MAIL", 5000)
    huge = ONE + b"QUJDQUJDQUJD\n" * 3000 + b"\n"
    (tmp_path / "a").write_bytes(huge + TWO)
    first, second = raw_mails(open_file(tmp_path / "a", "a"))
    assert first.cut and len(first.content) < 10_000 and first.content.startswith(ONE)
    assert (second.line, second.content) == (huge.count(b"\n") + 1, TWO)


@pytest.mark.parametrize(
    "name, refused",
    [
        ("Mail/cur/1700000000.M1P2.host:2,S", ""),
        ("Mail/cur/1700000000.M1P2.host:2,ST", "deleted"),
        ("Mail/cur/1700000000.M1P2.host:2,D", "draft"),
        ("Mail/tmp/1700000000.M1P2.host", "draft"),
        ("Mail/new/1700000000.M1P2.host", ""),
    ],
)
def test_maildir_flags(tmp_path, name, refused):
    (tmp_path / "a").write_bytes(b"From: a@example.org\nDate: x\nSubject: s\n\ntext")
    assert [raw.refused for raw in raw_mails(open_file(tmp_path / "a", name))] == [refused]


@pytest.mark.parametrize(
    "content",
    [
        ONE,
        b"\xef\xbb\xbfReceived: x\nFrom: a@example.org\nSubject: s\n\ntext",
        b"\r\n\r\nReturn-Path: <a@example.org>\r\nFrom: a@example.org\r\nTo: b@example.org\r\n\r\ntext",
        "From: a@example.org\nDate: x\nSubject: s\n\ntext".encode("utf-16"),
    ],
)
def test_mail_is_recognised_without_a_name(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    file = open_file(tmp_path / "a", "a")
    assert recognise_mail(file) > 0.9
    assert b"From: " in next(raw_mails(file)).content


@pytest.mark.parametrize(
    "text",
    [
        "From here on: nothing.\nSubject to change\n",
        "Subject: physics\nTo: whom it may concern\n\nText",
        "a,b\n1,2\n",
        '{"from": "a@example.org"}',
        "[Event: x]\nFrom: y\n",
    ],
)
def test_other_files_are_no_mail(tmp_path, text):
    (tmp_path / "a").write_text(text)
    assert recognise_mail(open_file(tmp_path / "a", "a.txt")) == 0


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([ONE, TWO, b"x\n", b"\n", b"From a\n", b"\xff\n"]), min_size=1, max_size=12))
def test_no_byte_is_lost(tmp_path, parts):
    content = ONE + b"".join(parts)
    assert b"".join(found for _, found in mails(tmp_path / "a", content)) == content
