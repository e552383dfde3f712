"""What is cut from a mail in many languages, and what is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.mail.body import clean, clean_quote
from ownchat.data.mail.html import html_text

OUTLOOK = """\
{from_}: Erika Muster <erika@example.org>
{sent}: Montag, 3. Februar 2025 10:15
{to}: Service <service@example.com>
{subject}: Ersatzteil
"""


@pytest.mark.parametrize(
    "attribution",
    [
        "On Mon, Feb 3, 2025 at 10:15 AM Erika Muster <erika@example.org> wrote:",
        "On Mon, Feb 3, 2025 at 10:15 AM Erika Muster\n<erika@example.org> wrote:",
        "Am Mo., 3. Feb. 2025 um 10:15 Uhr schrieb Erika Muster <\nerika@example.org>:",
        "Le lun. 3 févr. 2025 à 10:15, Erika Muster <erika@example.org> a écrit :",
        "El lun, 3 feb 2025 a las 10:15, Erika Muster (<erika@example.org>) escribió:",
        "Il giorno lun 3 feb 2025 alle ore 10:15 Erika Muster <erika@example.org> ha scritto:",
        "Em seg., 3 de fev. de 2025 às 10:15, Erika Muster <erika@example.org> escreveu:",
        "Op ma 3 feb 2025 om 10:15 schreef Erika Muster <erika@example.org>:",
        "Den mån 3 feb. 2025 kl 10:15 skrev Erika Muster <erika@example.org>:",
        "2025年2月3日(月) 10:15 Erika Muster <erika@example.org>:",
        "Erika Muster <erika@example.org> writes:",
    ],
)
def test_attributions(attribution):
    marked = clean(f"Gern.\n\n{attribution}\n\n> Geht das?\n> Danke\n")
    assert (marked.text, clean_quote(marked.quoted)) == ("Gern.", "Geht das?\nDanke")
    assert marked.quoted_address == "erika@example.org"


@pytest.mark.parametrize(
    "keys",
    [
        ("From", "Sent", "To", "Subject"),
        ("Von", "Gesendet", "An", "Betreff"),
        ("De", "Envoyé", "À", "Objet"),
        ("De", "Enviado el", "Para", "Asunto"),
        ("Da", "Inviato", "A", "Oggetto"),
        ("Van", "Verzonden", "Aan", "Onderwerp"),
        ("Från", "Skickat", "Till", "Ämne"),
        ("发件人", "发送时间", "收件人", "主题"),
        ("От", "Отправлено", "Кому", "Тема"),
    ],
)
@pytest.mark.parametrize("border", ["", "_" * 32 + "\n", "-----Original Message-----\n"])
def test_outlooks_header_block(keys, border):
    block = OUTLOOK.format(**dict(zip(("from_", "sent", "to", "subject"), keys, strict=True)))
    body = clean(f"Gern.\n\n{border}{block}\nGeht das?\n\n{block}\nolder")
    assert (body.text, clean_quote(body.quoted)) == ("Gern.", "Geht das?")
    assert (body.quoted_name, body.quoted_address) == ("Erika Muster", "erika@example.org")
    assert list(body.cuts) == ["quote cut"]


@pytest.mark.parametrize(
    "text",
    [
        "From my point of view: all is well.\nTo: be or not to be.",
        "On Monday we met. He wrote:\nthis is my own text",
        "Subject: physics\nHe said it twice.",
        "a > b\nand b > c",
        "one line\nA> that looks quoted\nin the midst of a text",
        "SQL> select 1;\nSQL> select 2;",
        "--\nnot a signature, for it opens",
        "We talked about confidential e-mail. Nobody minds.",
        "Step one\n\n---\n\nStep two",
    ],
)
def test_what_only_looks_like_it_stays(text):
    body = clean(text)
    assert (body.text, body.cuts) == (text, {})


def test_answers_between_the_lines_stay():
    body = clean("> first?\nyes\n> second?\nno\n")
    assert (body.text, clean_quote(body.quoted)) == ("yes\nno", "first?\n\nsecond?")


@pytest.mark.parametrize(
    "end, rule",
    [
        ("-- \nJane\nEngineer", "signature cut"),
        ("Sent from my iPhone", "signature cut"),
        ("Von meinem iPhone gesendet", "signature cut"),
        ("Envoyé de mon iPhone", "signature cut"),
        ("Get Outlook for iOS<https://aka.ms/o0ukef>", "signature cut"),
        ("Virus-free. www.avast.com", "disclaimer cut"),
        ("This e-mail and any attachments are confidential and intended solely for you.", "disclaimer cut"),
        ("Diese E-Mail enthält vertrauliche Informationen.", "disclaimer cut"),
        ("_______________________________________________\nX mailing list\nx@example.org", "disclaimer cut"),
        ("To unsubscribe, write to x@example.org", "disclaimer cut"),
        ("-----BEGIN PGP SIGNATURE-----\nabc\n-----END PGP SIGNATURE-----", "signature cut"),
    ],
)
def test_ends_that_are_cut(end, rule):
    body = clean(f"Yes, we are open.\n\nJane\n\n{end}\n")
    assert (body.text, list(body.cuts)) == ("Yes, we are open.\n\nJane", [rule])


def test_the_address_under_a_closing_goes_the_name_stays():
    body = clean("Ja.\n\nMit freundlichen Grüßen\nMax Muster\nVertrieb\nTel. +49 30 1234567\n")
    assert body.text == "Ja.\n\nMit freundlichen Grüßen\nMax Muster"
    assert clean("Ja.\n\nViele Grüße\nMax\n\nPS: Kommst du?").text == "Ja.\n\nViele Grüße\nMax\n\nPS: Kommst du?"


def test_what_was_passed_on_is_no_question():
    body = clean(
        "FYI\n\n---------- Forwarded message ----------\nFrom: X <x@example.org>\nDate: now\nSubject: s\n\nlong"
    )
    assert (body.text, body.quoted, list(body.cuts)) == ("FYI", "", ["forwarded text cut"])


def test_pgp():
    assert clean("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA1\n\nHello").text == "Hello"
    assert clean("-----BEGIN PGP MESSAGE-----\nabc\n-----END PGP MESSAGE-----").encrypted


GMAIL = (
    '<div dir="ltr">Yes, <b>it</b> is.</div><div class="gmail_quote"><div class="gmail_attr">On Mon, Feb 3, 2025 at '
    '10:15 AM Jane &lt;<a href="mailto:j@example.org">j@example.org</a>&gt; wrote:<br></div><blockquote '
    'class="gmail_quote">Is it open?<blockquote>older</blockquote></blockquote></div>'
)
APPLE = (
    '<div>Yes, it is.<br><blockquote type="cite"><div>On 3 Feb 2025, at 10:15, Jane &lt;j@example.org&gt; wrote:</div>'
    "<br><div>Is it open?</div></blockquote></div>"
)
OUTLOOK_WEB = (
    '<div>Yes, it is.</div><hr><div id="divRplyFwdMsg"><b>From:</b> Jane &lt;j@example.org&gt;<br><b>Sent:</b> Monday'
    "<br><b>To:</b> Bob<br><b>Subject:</b> Hours</div><div>Is it open?</div>"
)


@pytest.mark.parametrize("html", [GMAIL, APPLE, OUTLOOK_WEB])
def test_quotes_in_html(html):
    body = clean(html_text(html))
    assert (body.text, clean_quote(body.quoted)) == ("Yes, it is.", "Is it open?")
    assert body.quoted_address == "j@example.org"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "word",
                "> q",
                ">> r",
                "",
                "--",
                "On 3 Feb 2025 10:15 A wrote:",
                "From: a",
                "Sent: b",
                "Subject: c",
                "___________",
                "Best regards",
                "Tel. 030 1234567",
                "x",
            ]
        ),
        max_size=30,
    )
)
def test_own_words_are_never_lost(lines):
    """Each line is own text, or counted as cut."""
    text = "\n".join(lines)
    body = clean(text)
    kept = sum(map(len, body.text.split()))
    assert kept + sum(body.cuts.values()) >= sum(map(len, text.split()))
    assert all(line in text for line in body.text.split("\n"))


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("Print it.\n\nViele Grüße\n\nAnna Roe\n\nAcme GmbH | Geschäftsführer: Max Muster | HRB 12345",
         "Print it.\n\nViele Grüße\n\nAnna Roe"),
        ("変更は可能ですか？\n\n------------------------\n山田太郎\nTel: 03-1234-5678", "変更は可能ですか？"),
    ],
)  # fmt: skip
def test_addresses_of_firms_and_under_rules(text, own):
    assert clean(text).text == own


def test_what_stands_under_a_rule_may_be_text():
    text = "The numbers:\n\n------\nOne of them is 03-1234-5678.\nCall www.example.org when it is taken."
    assert clean(text).text == text


def test_an_answer_between_the_lines_tells_what_it_answers():
    text = "On Mon, 3 Feb 2025, Jane wrote:\n> Hello\n>\n> How long?\n\nTen weeks.\n\n> How much?\n\nTwo euros."
    assert clean(text).answered == "How long?\n\nHow much?"
    assert clean("On Mon, 3 Feb 2025, Jane wrote:\n> How long?\n\nTen weeks.").answered == ""
