"""Mailboxes as conversations: threads, branches, quotes that stand for what is missing, and whole books."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.files import UnreadableFile, open_file
from ownchat.data.ledger import Entry
from ownchat.data.mail.correspondence import read_mail
from ownchat.data.mail.subjects import bare_subject
from ownchat.errors import DataError

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / ".." / "shared" / "datasets"))
CUSTOMER, SHOP = "Erika <erika@example.org>", "Shop <service@shop.example>"


def mail(number, sender, to, text, *, subject="Parts", answers=None, minute=None, head="", time=True):
    minute = number if minute is None else minute
    lines = [f"From: {sender}", f"To: {to}", f"Subject: {subject}", f"Message-ID: <{number}@example.org>"]
    lines += [f"Date: Mon, 03 Feb 2025 10:{minute:02}:00 +0000"] if time else []
    lines += [f"In-Reply-To: <{answers}@example.org>"] if answers else []
    lines += [head] if head else []
    return "\n".join([*lines, "", text, ""])


def understand(folder, *mails, **data):
    files = []
    for number, content in enumerate(mails):
        path = folder / f"{number}.eml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        files.append(open_file(path, path.name))
    reading = read_mail(files, DataConfig(**data))
    rows = list(reading.rows)
    entries = [row for row in rows if isinstance(row, Entry)]
    records = [row for row in rows if not isinstance(row, Entry)]
    balanced(reading, entries)
    return reading, records, entries


def balanced(reading, entries):
    made = sum(entry.makes for entry in entries)
    messages = [entry for entry in entries if entry.unit == "message" and entry.fate not in ("changed", "cut")]
    assert reading.entered["message"] + made == sum(entry.count for entry in messages)


def said(record):
    return [(turn["role"], turn["content"]) for turn in record["messages"]]


def rules(entries):
    return Counter({(entry.fate, entry.rule): entry.count for entry in entries})


ASKED = mail(1, CUSTOMER, SHOP, "Do you have the gasket in stock, and what does it cost with shipping to Austria?")
ANSWERED = mail(
    2, SHOP, CUSTOMER, "Yes, 12 euros.\n\nErika wrote:\n> Do you have\n> the gasket", subject="Re: Parts", answers=1
)


def test_a_question_and_its_answer(tmp_path):
    reading, records, entries = understand(tmp_path, ANSWERED, ASKED)
    question = "Do you have the gasket in stock, and what does it cost with shipping to Austria?"
    assert [said(record) for record in records] == [[("user", question), ("assistant", "Yes, 12 euros.")]]
    assert records[0]["messages"][0]["time"] == "2025-02-03T10:01:00"
    assert rules(entries)["changed", "quote cut"] == 1
    assert "service" in " ".join(reading.notes).lower() or "Shop" in " ".join(reading.notes)


def test_the_quote_is_the_question_where_the_mail_is_missing(tmp_path):
    _, records, entries = understand(tmp_path, ANSWERED)
    assert said(records[0]) == [("user", "Do you have\nthe gasket"), ("assistant", "Yes, 12 euros.")]
    assert records[0]["tags"] == ["quoted"]
    assert rules(entries)["changed", "question taken from the quote"] == 1


def test_a_branch_is_a_conversation_of_its_own(tmp_path):
    again = mail(3, CUSTOMER, SHOP, "And the pump?", answers=2)
    last = mail(4, SHOP, CUSTOMER, "30 euros.", answers=3)
    aside = mail(5, SHOP, CUSTOMER, "It is 13 euros now.\n\n> what does it cost with shipping to Austria?", answers=1)
    _, records, _ = understand(tmp_path, ASKED, ANSWERED, again, last, aside)
    assert [len(record["messages"]) for record in records] == [4, 2]
    assert said(records[1])[0] == ("user", "what does it cost with shipping to Austria?")
    assert said(records[1])[1] == ("assistant", "It is 13 euros now.")


def test_replies_without_references_are_joined_by_subject_and_people(tmp_path):
    reply = mail(2, SHOP, CUSTOMER, "Yes.", subject="AW: [shop] parts")
    other = mail(3, "x@example.net", "y@example.net", "No.", subject="Re: Parts")
    _, records, entries = understand(tmp_path, ASKED, reply, other)
    assert len(records) == 1 and said(records[0])[1] == ("assistant", "Yes.")
    assert rules(entries)["dropped", "nobody asks"] + rules(entries)["dropped", "nobody answers"] == 1


def test_copies_are_merged_and_reused_ids_are_not_copies(tmp_path):
    _, records, entries = understand(tmp_path, ASKED, ANSWERED, ASKED)
    assert len(records) == 1
    assert rules(entries)["merged", "same Message-ID"] == 1
    reused = mail(1, "x@example.net", SHOP, "Something else?")
    _, _, entries = understand(tmp_path, ASKED, ANSWERED, reused)
    assert rules(entries)["merged", "same Message-ID"] == 0


def test_circles_of_references_end(tmp_path):
    one, two = mail(1, CUSTOMER, SHOP, "a?", answers=2), mail(2, SHOP, CUSTOMER, "b", answers=1)
    reading, _, _ = understand(tmp_path, one, two, mail(3, CUSTOMER, SHOP, "c", answers=3))
    assert reading.entered["message"] == 3


def test_automatic_mail_and_empty_mail_have_a_rule(tmp_path):
    away = mail(3, SHOP, CUSTOMER, "I am away", answers=1, head="Auto-Submitted: auto-replied")
    empty = mail(4, SHOP, CUSTOMER, "> only a quote", answers=1)
    _, records, entries = understand(tmp_path, ASKED, ANSWERED, away, empty)
    assert len(records) == 1
    assert {rule for fate, rule in rules(entries) if fate == "dropped"} == {"auto-reply", "nothing of its own"}


def test_newsletters_give_nothing(tmp_path):
    reading, records, entries = understand(
        tmp_path, *(mail(i, f"n{i}@example.net", CUSTOMER, "News!") for i in range(3))
    )
    assert records == []
    assert rules(entries)["dropped", "nobody answers"] == 1  # three entries of one each, by rule
    assert reading.entered["message"] == 3


def test_the_owner_of_a_mailbox_answers(tmp_path):
    mails = []
    for number in range(1, 9, 2):
        friend = f"friend{number}@example.net"
        mails += [mail(number, friend, "me@example.com", "Tea tomorrow?", subject=f"Tea {number}")]
        mails += [mail(number + 1, "Me <me@example.com>", friend, "Gladly.", answers=number)]
    mails.append(mail(50, "me@example.com", "friend1@example.net", "Shall I bring some?", subject="Cake"))
    mails.append(mail(51, "friend1@example.net", "me@example.com", "Yes please.", answers=50))
    reading, records, _ = understand(tmp_path, *mails)
    assert len(records) == 4
    assert all(said(record)[-1] == ("assistant", "Gladly.") for record in records)
    assert "in 10 of 10 mails" in " ".join(reading.notes)
    _, records, _ = understand(tmp_path, *mails, assistant=["friend1@example.net"])
    assert said(records[-1]) == [("user", "Cake\n\nShall I bring some?"), ("assistant", "Yes please.")]


def test_in_a_mailing_list_each_mail_answers_the_one_before(tmp_path):
    head = "List-Id: <list.example.org>"
    people = ["a@example.org", "b@example.org", "c@example.org", "a@example.org"]
    mails = [
        mail(i + 1, who, "list@example.org", f"text {i}?", answers=i or None, head=head) for i, who in enumerate(people)
    ]
    reading, records, _ = understand(tmp_path, *mails)
    assert [turn["role"] for turn in records[0]["messages"]] == ["user", "assistant", "user", "assistant"]
    assert "mailing lists" in " ".join(reading.notes)


def test_customers_are_groups_and_branches_share_theirs(tmp_path):
    mails = []
    for number in range(1, 61, 3):
        who = f"c{number}@example.net"
        mails += [mail(number, who, SHOP, f"Question {number}?", subject=f"s{number}")]
        mails += [mail(number + 1, SHOP, who, f"Answer {number}", answers=number)]
        mails += [mail(number + 2, SHOP, who, f"Once more {number}", answers=number, minute=59)]
    _, records, _ = understand(tmp_path, *mails)
    groups = Counter(record["group"] for record in records)
    assert len(groups) == 20 and set(groups.values()) == {2}
    assert "c1@example.net" in groups


def test_attachments_are_listed_not_read(tmp_path):
    part = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"'
    body = "--b\n\nSee the file, please.\n--b\nContent-Type: application/pdf; name=a.pdf\n\nxx\n--b--"
    _, records, entries = understand(tmp_path, ASKED, mail(2, SHOP, CUSTOMER, body, answers=1, head=part))
    assert said(records[0])[1] == ("assistant", "See the file, please.")
    assert [entry.detail for entry in entries if entry.rule == "attachments listed"] == [
        "1.eml, line 1: a.pdf (application/pdf, 2 bytes)"
    ]


@pytest.mark.parametrize(
    "subject, found",
    [
        ("Re: Re[2]: RE : [x] Tea", ("tea", True)),
        ("WG: Tee", ("tee", False)),
        ("回复: 茶", ("茶", True)),
        ("", ("", False)),
    ],
)
def test_base_subjects(subject, found):
    assert bare_subject(subject) == found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_any_forest_balances_and_any_damage_is_survived(tmp_path, seed):
    chance = random.Random(seed)
    mails = []
    for number in range(1, 13):
        who, other = chance.sample([CUSTOMER, SHOP, "x@example.net"], 2)
        text = chance.choice([f"unique{number} words?", f"unique{number}\n> quoted {number}", "", "> quote"])
        answers, time = chance.choice([None, chance.randint(1, 14)]), chance.random() < 0.8
        subject = chance.choice(["Parts", "Re: Parts"])
        content = mail(chance.randint(1, 12), who, other, text, subject=subject, answers=answers, time=time).encode()
        if chance.random() < 0.2:
            content = content[: chance.randint(1, len(content))]
        if chance.random() < 0.2:
            content = bytearray(content)
            content[chance.randrange(len(content))] = chance.randrange(1, 256)
        mails.append(bytes(content))
    try:
        _, records, _ = understand(tmp_path, *mails)
    except (UnreadableFile, DataError):
        return
    assert all(record["messages"][-1] for record in records)


@pytest.mark.skipif(not (DATASETS / "spamassassin").is_dir(), reason="the datasets are not here (set OWNCHAT_DATASETS)")
def test_real_mail_balances(tmp_path):
    import tarfile

    with tarfile.open(DATASETS / "spamassassin" / "easy-ham-1.tar.xz") as archive:
        members = [member for member in archive if member.isfile()][:300]
        contents = [archive.extractfile(member).read() for member in members]
    _, records, _ = understand(tmp_path, *contents)
    assert len(records) > 40
    assert sum(len(record["messages"]) for record in records) >= 2 * len(records)
    opened = [turn["content"].split("\n")[0] for record in records for turn in record["messages"]]
    assert sum("wrote:" in line for line in opened) < 0.02 * len(opened)


def test_a_question_that_stands_only_in_the_quote_is_not_lost(tmp_path):
    answer = "Am 03.02.2025 schrieb Erika:\n> Is it in stock?\n\nYes.\n\n> And in blue?\n\nNo, sorry."
    asked = mail(1, CUSTOMER, SHOP, "Is it in stock?")
    reading, records, _ = understand(tmp_path, asked, mail(2, SHOP, CUSTOMER, answer, answers=1))
    assert [text for _, text in said(records[0])] == ["Parts\n\nIs it in stock?\n\nAnd in blue?", "Yes.\n\nNo, sorry."]
    assert not any("not taken" in note for note in reading.notes)
