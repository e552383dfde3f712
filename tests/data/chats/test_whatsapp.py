"""WhatsApp's text: headers of many locales, the order of dates, who owns the phone, what the program writes, damage."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.config import DataConfig
from ownchat.data.chats.whatsapp import recognise_whatsapp, talk_of
from ownchat.data.chats.whatsapp_clock import HEADER, find_order, moment_of, seconds_of
from ownchat.data.chats.whatsapp_phrases import what_was_said
from ownchat.data.files import UnreadableFile
from ownchat.data.talk import Turn

GERMAN = """\
04.03.24, 09:00 - Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt. Niemand außerhalb dieses Chats kann sie lesen.
04.03.24, 09:01 - Jonas Weber: Guten Morgen, habt ihr heute offen?
04.03.24, 09:03 - Laden Mira: Ja, bis 18 Uhr.
Mittags ist zu:
12.03.24 von 12:00 bis 13:00

Bis später
04.03.24, 09:04 - Jonas Weber: <Medien ausgeschlossen>
04.03.24, 09:05 - Jonas Weber: \u200eIMG-20240304-WA0001.jpg (Datei angehängt)
Passt dieses Teil?
04.03.24, 09:09 - Laden Mira: Ja, das passt. <Diese Nachricht wurde bearbeitet.>
15.03.24, 10:00 - Jonas Weber: Diese Nachricht wurde gelöscht.
"""
AMERICAN = """\
\u200e[1/5/24, 9:00:00\u202fAM] Emma Reed: \u200eMessages and calls are end-to-end encrypted.
[1/5/24, 9:00:05\u202fAM] Emma Reed: Hi @\u2068Sam\u2069, is the blue one still there?
[1/5/24, 12:02:11\u202fPM] ~\u202fSam: Yes. \u200e<This message was edited>
\u200e[1/15/24, 12:03:00\u202fAM] Emma Reed: \u200eimage omitted
\u200e[1/15/24, 12:03:10\u202fAM] Emma Reed: list.pdf • \u200e3 pages \u200edocument omitted
\u200e[1/15/24, 12:03:20\u202fAM] Emma Reed: This one? \u200e<attached: 00000012-PHOTO-2024-01-15-00-03-20.jpg>
[1/15/24, 12:04:00\u202fAM] ~\u202fSam: No.
"""
BRAZILIAN = """\
05/01/2024 18:00 - As mensagens e as ligações são protegidas com a criptografia de ponta a ponta.
05/01/2024 18:01 - Ana Lima: Oi, qual o preço?
05/01/2024 18:02 - Loja Sol: Custa 20 reais: à vista.
05/01/2024 18:03 - Loja Sol: <Mídia oculta>
20/01/2024 18:03 - Ana Lima: Mensagem apagada
"""


def times(taken):
    return [turn["time"] for record in taken.records for turn in record["messages"]]


def test_german_android(take):
    taken = take("WhatsApp Chat mit Jonas Weber.txt", GERMAN)
    assert taken.format == "whatsapp"
    assert taken.talks == [[
        ("user", "Guten Morgen, habt ihr heute offen?"),
        ("assistant", "Ja, bis 18 Uhr.\nMittags ist zu:\n12.03.24 von 12:00 bis 13:00\n\nBis später"),
        ("user", "Passt dieses Teil?"),
        ("assistant", "Ja, das passt."),
    ]]  # fmt: skip
    assert taken.rules == {"system line": 1, "media": 1, "deleted message": 1}
    assert taken.changes == {"file left out of a message": 1}
    assert taken.reading.understood == "WhatsApp, dates as day, month, year, 24 hours"
    assert 'assistant: "Laden Mira" (the name of the file: the chat with "Jonas Weber"' in taken.reading.notes[0]
    assert times(taken)[0] == "2024-03-04T09:01:00"
    assert taken.records[0]["source"]["line"] == 2


def test_american_ios(take):
    taken = take("WhatsApp Chat - Emma Reed.zip/_chat.txt", AMERICAN)
    assert taken.talks == [
        [("user", "Hi @Sam, is the blue one still there?"), ("assistant", "Yes.")],
        [("user", "This one?"), ("assistant", "No.")],
    ]
    assert taken.rules == {"system line": 1, "media": 2}
    assert times(taken) == ["2024-01-05T09:00:05", "2024-01-05T12:02:11", "2024-01-15T00:03:20", "2024-01-15T00:04:00"]


def test_brazilian_android(take):
    taken = take("Conversa do WhatsApp com Ana Lima.txt", BRAZILIAN)
    assert taken.talks == [[("user", "Oi, qual o preço?"), ("assistant", "Custa 20 reais: à vista.")]]
    assert taken.rules == {"system line": 1, "media": 1, "deleted message": 1}
    assert times(taken)[0] == "2024-01-05T18:01:00"


@pytest.mark.parametrize(
    "header, expected",
    [
        ("31/12/2023, 18:05 - ", "2023-12-31 18:05:00"),
        ("31/12/23, 6:05 p. m. - ", "2023-12-31 18:05:00"),
        ("31/12/23, 6:05\u202fp.\u00a0m. - ", "2023-12-31 18:05:00"),
        ("31/12/23, 12:05\u202fam - ", "2023-12-31 00:05:00"),
        ("[31/12/2023, 18:05:09] ", "2023-12-31 18:05:09"),
        ("\u200e[31.12.23, 18:05:09] ", "2023-12-31 18:05:09"),
        ("[31/12/23 6:05:09 PM] ", "2023-12-31 18:05:09"),
        ("31.12.23 18:05 - ", "2023-12-31 18:05:00"),
        ("31-12-2023 18:05 - ", "2023-12-31 18:05:00"),
        ("2023-12-31 18:05 - ", "2023-12-31 18:05:00"),
        ("[2023/12/31, 18:05:09] ", "2023-12-31 18:05:09"),
        ("2023/12/31 下午6:05 - ", "2023-12-31 18:05:00"),
        ("31.12.2023 klo 18.05 - ", "2023-12-31 18:05:00"),
        ("31/12/23 18.05 - ", "2023-12-31 18:05:00"),
        ("31/12/2023 à 18:05 - ", "2023-12-31 18:05:00"),
        ("31. 12. 2023. 18:05 - ", "2023-12-31 18:05:00"),
        ("31.12.23, 18:05:09: ", "2023-12-31 18:05:09"),
        ("٣١\u200f/١٢\u200f/٢٠٢٣، ٦:٠٥ م - ", "2023-12-31 18:05:00"),
        ("31/12/2566 18:05 - ", "2023-12-31 18:05:00"),
        ("12/31/23, 6:05 PM - ", "2023-12-31 18:05:00"),
    ],
)
def test_headers(header, expected):
    match = HEADER.match(header + "Ada: hi")
    assert match is not None and match.end() == len(header)
    moment = moment_of(match)
    assert moment is not None
    order, _ = find_order([moment[:3]], slashes=True, padded=True)
    assert datetime.fromtimestamp(seconds_of(moment, order), UTC) == datetime.fromisoformat(expected + "+00:00")


@pytest.mark.parametrize(
    "line",
    ["12.03.24 von 12:00 bis 13:00", "1.2.3 is out", "10:30 - lunch", "[12:30, 31/12/2023] Ada: copied",
     "2023-12-31 18:05:09,123 - root - INFO", "12/31/23, 25:05 - Ada: x", "https://a.org/1/2/3", ""],
)  # fmt: skip
def test_no_headers(line):
    match = HEADER.match(line)
    assert match is None or moment_of(match) is None


@pytest.mark.parametrize(
    "dates, padded, expected",
    [
        ([(13, 2, 24)], True, ("day", True)),
        ([(2, 13, 24)], False, ("month", True)),
        ([(28, 1, 24), (1, 2, 24)], True, ("day", True)),
        ([(1, 2, 24), (2, 2, 24), (3, 2, 24), (1, 3, 24)], True, ("day", True)),  # months first would go back
        ([(1, 2, 24), (1, 5, 24), (2, 1, 24)], False, ("month", True)),
        ([(1, 2, 24)], True, ("day", False)),
        ([(1, 2, 24)], False, ("day", False)),
        ([(7, 10, 22), (7, 11, 22)], False, ("month", False)),  # two days in a row, not two months
        ([(10, 7, 22), (11, 7, 22)], False, ("day", False)),
        ([(24, 1, 2), (24, 1, 3)], True, ("year", True)),
    ],
)
def test_order_of_dates(dates, padded, expected):
    assert find_order(dates, slashes=True, padded=padded) == expected


def test_without_slashes_the_day_comes_first():
    assert find_order([(1, 2, 24)], slashes=False, padded=True) == ("day", True)


def test_an_order_that_no_date_tells_is_said_and_can_be_given(take):
    text = "01/02/24, 10:00 - Ada: Hi?\n01/02/24, 10:01 - Bo: Hi.\n"
    assert "--set data.date_order=month" in take("a.txt", text).reading.understood
    given = take("a.txt", text, date_order="month")
    assert times(given)[0] == "2024-01-02T10:00:00" and "--set" not in given.reading.understood


def test_a_date_inside_a_text_does_not_split_it(items_of):
    text = "".join(f"{day:02}.03.24, 10:0{n} - {who}: text {day}\n" for day in range(1, 9)
                   for n, who in enumerate(("Ada", "Bo")))  # fmt: skip
    text += "08.03.24, 11:00 - Ada: My list:\n02.01.24, 09:00 - dentist\n05.06.24, 09:30 - Bank: bring papers\n"
    text += "[3/9/24, 1:00:00 PM] Ada: pasted\n"
    text += "08.03.24, 11:05 - Bo: Fine\n08.03.24, 11:06 - Cy was added\n08.03.24, 11:07 - Cy: Hello\n"
    items = items_of(lambda file: talk_of(file, DataConfig()), "a.txt", text)
    said = [item.text for item in items if isinstance(item, Turn)]
    assert said[-3:] == [
        "My list:\n02.01.24, 09:00 - dentist\n05.06.24, 09:30 - Bank: bring papers\n[3/9/24, 1:00:00 PM] Ada: pasted",
        "Fine", "Hello",
    ]  # fmt: skip
    assert [item.rule for item in items if not isinstance(item, Turn)] == ["system line"]


@pytest.mark.parametrize(
    "body, rule",
    [
        *((f"<{phrase}>", "media") for phrase in (
            "Media omitted", "Medien ausgeschlossen", "Multimedia omitido", "Médias omis", "Media omessi",
            "Mídia oculta", "Media weggelaten", "pominięto multimedia", "Medya dahil edilmedi", "Без медиафайлов",
            "Media tidak disertakan", "Média vynechány", "Jakieś nowe słowa")),
        *((phrase, "media") for phrase in (
            "image omitted", "Bild weggelassen", "imagen omitida", "image absente", "immagine omessa",
            "imagem ocultada", "afbeelding weggelaten", "görüntü dahil edilmedi", "изображение отсутствует",
            "gambar tidak disertakan",
            "Contact card omitted", "GIF retiré", "sticker non incluso")),
        *((phrase, "deleted message") for phrase in (
            "This message was deleted", "Du hast diese Nachricht gelöscht.", "Eliminaste este mensaje.",
            "Ce message a été supprimé", "Questo messaggio è stato eliminato", "Você apagou esta mensagem",
            "Dit bericht is verwijderd", "Bu mesaj silindi", "Данное сообщение удалено", "Pesan ini telah dihapus")),
        ("<attached: 00000012-PHOTO-2024-01-15-00-03-20.jpg>", "media"),
        ("\u200e<Anhang: 00000012-PHOTO-2024-01-15-00-03-20.jpg>", "media"),
        ("<pièce jointe : 00000012-AUDIO-2024-01-15.opus>", "media"),
        ("PTT-20240304-WA0004.opus (файл добавлен)", "media"),
        ("\u200eReport v2.pdf (neue Wörter)", "media"),
        ("<Medien ausgeschlossen>\nPlan.pdf", "media"),
        ("Location: https://maps.google.com/?q=1.0,2.0", "media"),
        ("POLL:\nWhich day?\nOPTION: Monday (2 votes)\nOPTION: Friday (0 votes)", "poll"),
        ("Missed voice call", "system line"),
        ("null", "system line"),
        ("", "empty"),
        ("\u200e", "empty"),
    ],
)  # fmt: skip
def test_what_whatsapp_writes(body, rule):
    assert what_was_said(body, marked=False).rule == rule


@pytest.mark.parametrize(
    "text",
    ["<3", "<b>bold</b>", "a <tag>", "see (this)", "The image omitted nothing", "I said: image omitted", "x.y (z)",
     "Why was this message deleted?", "<hello>", "notes.txt (old version)", "location: here", "1 < 2 > 0"],
)  # fmt: skip
def test_what_people_write_stays(text):
    assert what_was_said(text, marked=False) == (text, "", False)


@pytest.mark.parametrize(
    "name, owner",
    [
        ("WhatsApp Chat with Ada B..txt", "Bo"), ("Chat de WhatsApp con Ada B..txt", "Bo"),
        ("Discussion WhatsApp avec Bo.txt", "Ada B."), ("WhatsApp-chat met Bo.zip/_chat.txt", "Ada B."),
        ("Ada_B_ ile WhatsApp Sohbeti.txt", "Bo"), ("Ada B..txt", ""), ("WhatsApp Chat with Cy.txt", ""),
    ],
)  # fmt: skip
def test_the_file_name_tells_whose_phone_it_was(opened, name, owner):
    text = "31.01.24, 10:00 - Ada B.: Hi?\n31.01.24, 10:01 - Bo: Hi.\n"
    assert talk_of(opened(name, text), DataConfig()).owner == owner


def test_a_group_of_many_is_a_crowd(opened):
    text = "".join(f"31.01.24, 10:0{n} - {who}: hi\n" for n, who in enumerate(("Ada", "Bo", "Cy", "Di", "Eve", "Flo")))
    assert talk_of(
        opened("a.txt", '31.01.24, 09:00 - Ada changed the subject to "Trip: Rome"\n' + text), DataConfig()
    ).crowd


@pytest.mark.parametrize(
    "text",
    ["", "a: b\nc: d\n", "2023-12-31 18:05 - INFO: started\n2023-12-31 18:06 - ERROR: died\n",
     "Meeting\n31.12.23, 10:00 - Ada: talk\nnotes\nnotes\n", "[10:00] <ada> hi\n[10:01] <bo> hi\n"],
)  # fmt: skip
def test_not_an_export(opened, text):
    assert recognise_whatsapp(opened("a.txt", text or "x")) == 0


def test_text_before_the_first_message(take):
    taken = take("WhatsApp Chat.txt", "exported by me\n" + GERMAN, format={"*": "whatsapp"})
    assert taken.rules["text before the first message"] == 1


def test_said_to_be_whatsapp_but_is_not(opened):
    with pytest.raises(UnreadableFile, match="no messages of WhatsApp"):
        talk_of(opened("a.txt", "hello\n"), DataConfig())


names = st.sampled_from(["Ada", "Bo Lind", "+49 151 0000000", "Zoë 🙂"])
words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=12)
bodies = st.lists(words.filter(lambda text: text.strip() and not text.strip()[0].isdigit()), min_size=1, max_size=3)
LOCALES = {
    "german": ("{t:%d.%m.%y, %H:%M} - ", "<Medien ausgeschlossen>"),
    "american": ("[{t:%m/%d/%y, %I:%M:%S}\u202f{t:%p}] ", "\u200eimage omitted"),
    "brazilian": ("{t:%d/%m/%Y %H:%M} - ", "<Mídia oculta>"),
}


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(LOCALES)), st.lists(st.tuples(names, bodies | st.none(), st.integers(0, 200_000)),
                                                  min_size=2, max_size=12), st.data())  # fmt: skip
def test_every_message_has_one_fate_and_its_words(items_of, holds, locale, messages, data):
    header, omitted = LOCALES[locale]
    now, lines, expected = datetime(2024, 1, 13, tzinfo=UTC).timestamp(), [], []
    for who, body, pause in messages:
        now += pause
        text = omitted if body is None else "\n".join(body)
        lines.append(f"{header.format(t=datetime.fromtimestamp(now, UTC))}{who}: {text}\n")
        seconds = now - now % 60 if locale != "american" else now
        said = "" if body is None else what_was_said(text, marked=locale == "american").text
        expected += [(who, said, seconds)] if said else []
    content = "".join(lines)
    items = items_of(lambda file: talk_of(file, DataConfig()), "WhatsApp Chat.txt", content)
    assert len(items) == len(messages)
    assert [(one.speaker, one.text, one.time) for one in items if isinstance(one, Turn)] == expected
    raw = content.encode()
    holds("WhatsApp Chat.txt", raw[: data.draw(st.integers(0, len(raw)))])
    place = data.draw(st.integers(0, len(raw) - 1))
    holds("WhatsApp Chat.txt", raw[:place] + data.draw(st.binary(min_size=1, max_size=3)) + raw[place + 1 :])


def test_an_office_answers_although_the_file_says_whose_phone_it_is(take):
    text = (
        "1/5/24, 9:04 PM - Jo: My order is late\n1/5/24, 9:06 PM - Acme Support: Let me check\n"
        "1/15/24, 9:08 PM - Jo: Thanks\n1/15/24, 9:09 PM - Acme Support: Bye\n"
    )
    taken = take("WhatsApp Chat with Acme Support.txt", text)
    assert 'assistant: "Acme Support" (by the name' in taken.reading.notes[0]
    assert 'assistant: "Jo"' in take("WhatsApp Chat with Emma Tutor.txt", text.replace("Acme Support", "Emma Tutor")
                                     ).reading.notes[0]  # fmt: skip
