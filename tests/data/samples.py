"""One small good file of every format, in its published shape: what the tests of damage start from."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

QUESTIONS = [
    ("Where is my parcel? I ordered it ten days ago.", "It left our house on Monday; you should have it tomorrow."),
    ("Can I change the address of an order?", "Yes, as long as it is not packed. Open the order and choose Address."),
    ("How long can I send things back?", "Thirty days, and we pay for the way back. Grüße aus Köln!"),
    ("Do you also deliver to islands?", "We do, it takes two days more."),
    ("The lid is broken, what now?", "I am sorry! Send us a picture and we send you a new one."),
]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _chat(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _table(header: list[str], rows: list[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


def _zip(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def _chatgpt() -> bytes:
    talks = []
    for number, pair in enumerate(QUESTIONS):
        mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": ["m0"]}}
        for i, (role, text) in enumerate(zip(("user", "assistant"), pair, strict=True)):
            content = {"content_type": "text", "parts": [text]}
            mapping[f"m{i}"] = {
                "id": f"m{i}", "parent": f"m{i - 1}" if i else "root", "children": ["m1"] if i == 0 else [],
                "message": {"id": f"m{i}", "author": {"role": role, "name": None, "metadata": {}},
                            "create_time": 1700000000.5 + i, "content": content, "weight": 1.0, "metadata": {},
                            "recipient": "all", "status": "finished_successfully"},
            }  # fmt: skip
        talks.append({"title": f"t{number}", "create_time": 1700000000.1, "update_time": 1700000009.1,
                      "mapping": mapping, "current_node": "m1", "conversation_id": f"c{number}"})  # fmt: skip
    return _json(talks)


def _claude() -> bytes:
    return _json(
        [
            {"uuid": f"c{n}", "name": "talk", "created_at": "2024-05-01T08:00:00Z",
             "updated_at": "2024-05-01T09:00:00Z", "account": {"uuid": "me"}, "chat_messages": [
                 {"uuid": f"{n}-{sender}", "text": text, "content": [{"type": "text", "text": text}], "sender": sender,
                  "created_at": f"2024-05-01T08:0{i}:00Z", "attachments": [], "files": []}
                 for i, (sender, text) in enumerate(zip(("human", "assistant"), pair, strict=True))]}
            for n, pair in enumerate(QUESTIONS)
        ]
    )  # fmt: skip


def _whatsapp() -> bytes:
    lines = ["01.05.24, 07:59 - Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt."]
    for n, (question, answer) in enumerate(QUESTIONS, 1):
        lines += [f"{n:02}.05.24, 08:00 - Ben: {question}", f"{n:02}.05.24, 08:01 - Anna Shop: {answer}\nBis bald"]
    return ("\n".join([*lines, "09.05.24, 08:05 - Ben: <Medien ausgeschlossen>"]) + "\n").encode()


def _telegram() -> bytes:
    rows = [
        {"id": 2 * n + i, "type": "message", "date": f"2024-05-0{n + 1}T08:0{i}:00",
         "date_unixtime": str(1714550400 + 86400 * n + 60 * i), "from": name, "from_id": f"user{i}", "text": text,
         "text_entities": [{"type": "plain", "text": text}]}
        for n, pair in enumerate(QUESTIONS) for i, (name, text) in enumerate(zip(("Ben", "Anna"), pair, strict=True))
    ]  # fmt: skip
    return _json({"name": "Ben", "type": "personal_chat", "id": 77, "messages": rows})


def _discord() -> bytes:
    rows = [
        {"id": str(2 * n + i), "type": "Default", "timestamp": f"2024-05-0{n + 1}T08:0{i}:00+00:00", "content": text,
         "author": {"id": str(i), "name": name, "nickname": name, "isBot": False}, "attachments": [], "embeds": [],
         "mentions": [], "isPinned": False, "timestampEdited": None, "reactions": []}
        for n, pair in enumerate(QUESTIONS) for i, (name, text) in enumerate(zip(("ben", "anna"), pair, strict=True))
    ]  # fmt: skip
    channel = {"id": "5", "type": "GuildTextChat", "categoryId": "4", "category": "Shop", "name": "help", "topic": None}
    return _json(
        {"guild": {"id": "1", "name": "Shop"}, "channel": channel, "messages": rows, "messageCount": len(rows)}
    )


def _slack() -> bytes:
    users = [{"id": f"U0{i}", "team_id": "T1", "name": name, "deleted": False, "real_name": name,
              "profile": {"display_name": name, "real_name": name}, "is_bot": False}
             for i, name in enumerate(("ben", "anna"))]  # fmt: skip
    members = {"users.json": _json(users), "channels.json": _json([{"id": "C1", "name": "help", "members": ["U00"]}])}
    for n, pair in enumerate(QUESTIONS):
        rows = [{"type": "message", "user": f"U0{i}", "text": text, "ts": f"{1714550400 + 86400 * n + 60 * i}.000100"}
                for i, text in enumerate(pair)]  # fmt: skip
        members[f"help/2024-05-0{n + 1}.json"] = _json(rows)
    return _zip(members)


def _mail(number: int, question: str, answer: str) -> list[str]:
    ask = (
        f"From: Ben Okafor <ben{number}@example.org>\nTo: support@shop.example\nSubject: Question {number}\n"
        f"Date: Wed, {number + 1} May 2024 08:00:00 +0200\nMessage-ID: <q{number}@example.org>\n"
        f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{question}\n\nBen\n"
    )
    quoted = f"On Wed, {number + 1} May 2024 at 08:00, Ben Okafor wrote:\n> {question}\n"
    reply = (
        f"From: Shop Support <support@shop.example>\nTo: ben{number}@example.org\nSubject: Re: Question {number}\n"
        f"Date: Wed, {number + 1} May 2024 09:00:00 +0200\nMessage-ID: <a{number}@shop.example>\n"
        f"In-Reply-To: <q{number}@example.org>\nReferences: <q{number}@example.org>\n"
        f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{answer}\n\n{quoted}\n-- \nShop\n"
    )
    return [ask, reply]


def _mbox() -> bytes:
    mails = [mail for number, pair in enumerate(QUESTIONS) for mail in _mail(number, *pair)]
    return "".join(f"From somebody@example.org Wed May  1 08:00:00 2024\n{mail}\n" for mail in mails).encode()


def _zendesk() -> bytes:
    tickets = [
        {"id": n, "subject": f"Ticket {n}", "description": question, "requester_id": 7, "assignee_id": 9,
         "created_at": "2024-05-01T08:00:00Z", "status": "solved", "tags": [], "comments": [
             {"id": 1, "author_id": 7, "body": question, "public": True, "created_at": "2024-05-01T08:00:00Z"},
             {"id": 2, "author_id": 9, "body": answer, "public": True, "created_at": "2024-05-01T09:00:00Z"}]}
        for n, (question, answer) in enumerate(QUESTIONS)
    ]  # fmt: skip
    users = [{"id": 7, "name": "Ben", "role": "end-user"}, {"id": 9, "name": "Anna", "role": "agent"}]
    return _json({"tickets": tickets, "users": users, "count": len(tickets)})


def _intercom() -> bytes:
    return _json({"conversations": [
        {"type": "conversation", "id": str(n), "created_at": 1714550400,
         "source": {"type": "conversation", "id": "1", "body": f"<p>{question}</p>",
                    "author": {"type": "user", "id": "u1", "name": "Ben"}},
         "conversation_parts": {"type": "conversation_part.list", "conversation_parts": [
             {"type": "conversation_part", "id": "2", "part_type": "comment", "body": f"<p>{answer}</p>",
              "created_at": 1714550460, "author": {"type": "admin", "id": "a1", "name": "Anna"}}], "total_count": 1}}
        for n, (question, answer) in enumerate(QUESTIONS)
    ]})  # fmt: skip


def _html() -> bytes:
    body = "".join(f"<h2>{question}</h2><p>{answer} {answer}</p>" for question, answer in QUESTIONS)
    head = "<!DOCTYPE html><html><head><title>Help</title></head>"
    return f"{head}<body><main><h1>Help</h1>{body}</main></body></html>".encode()


def _docx() -> bytes:
    import docx

    document, made = docx.Document(), io.BytesIO()
    for question, answer in QUESTIONS:
        document.add_heading(question, 1)
        document.add_paragraph(answer)
    document.save(made)
    return made.getvalue()


def _pptx() -> bytes:
    import pptx

    slides, made = pptx.Presentation(), io.BytesIO()
    for question, answer in QUESTIONS:
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = question, answer
    slides.save(made)
    return made.getvalue()


def _xlsx() -> bytes:
    import openpyxl

    book, made = openpyxl.Workbook(), io.BytesIO()
    for row in [("question", "answer"), *QUESTIONS]:
        book.active.append(row)
    book.save(made)
    return made.getvalue()


def _pdf() -> bytes:
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    made = io.BytesIO()
    with PdfPages(made) as pages:
        for number, (question, answer) in enumerate(QUESTIONS, 1):
            figure = Figure(figsize=(6, 8))
            figure.text(0.1, 0.95, "Handbook of the shop", fontsize=8)
            figure.text(0.1, 0.85, question, fontsize=16)
            figure.text(0.1, 0.7, answer, fontsize=10)
            figure.text(0.5, 0.03, str(number), fontsize=8)
            pages.savefig(figure)
    return made.getvalue()


def _epub() -> bytes:
    chapters = {f"OEBPS/c{n}.xhtml": f"<html><body><h1>{q}</h1><p>{a} {a}</p></body></html>".encode()
                for n, (q, a) in enumerate(QUESTIONS)}  # fmt: skip
    items = "".join(
        f'<item id="c{n}" href="c{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    refs = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    container = (
        '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles>'
        "</container>"
    )
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        f"<manifest>{items}</manifest><spine>{refs}</spine></package>"
    )
    return _zip({"mimetype": b"application/epub+zip", "META-INF/container.xml": container.encode(),
                 "OEBPS/book.opf": package.encode(), **chapters})  # fmt: skip


def _columnar(kind: str) -> bytes:
    table = pa.Table.from_pylist([{"messages": _chat(*pair)} for pair in QUESTIONS])
    made = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, made)
    else:
        with pa.ipc.new_file(made, table.schema) as writer:
            writer.write_table(table)
    return made.getvalue()


def _dpo() -> bytes:
    return _lines(
        [{"input": {"messages": [{"role": "user", "content": question}]},
          "preferred_output": [{"role": "assistant", "content": answer}],
          "non_preferred_output": [{"role": "assistant", "content": "No idea."}]} for question, answer in QUESTIONS]
    )  # fmt: skip


def samples() -> dict[str, tuple[str, bytes]]:
    """{format: (file name, content)}."""
    joined = "\n\n".join(f"{question}\n\n{answer}" for question, answer in QUESTIONS)
    yaml = "categories:\n- shop\nconversations:\n" + "".join(f"- - {q}\n  - {a}\n" for q, a in QUESTIONS)
    irc = "".join(f"[08:0{n}] <ben> {q}\n[08:0{n}] <anna> ben: {a}\n" for n, (q, a) in enumerate(QUESTIONS))
    subtitles = "".join(
        f"{2 * n + i + 1}\n00:0{n}:0{i},000 --> 00:0{n}:0{i},900\n{name}: {text}\n\n"
        for n, pair in enumerate(QUESTIONS) for i, (name, text) in enumerate(zip(("BEN", "ANNA"), pair, strict=True))
    )  # fmt: skip
    return {
        "jsonl": ("a.jsonl", _lines([{"messages": _chat(*pair)} for pair in QUESTIONS])),
        "json": ("a.json", _json([{"question": q, "answer": a} for q, a in QUESTIONS])),
        "csv": ("a.csv", _table(["question", "answer"], QUESTIONS)),
        "gzip": ("a.csv.gz", gzip.compress(_table(["question", "answer"], QUESTIONS))),
        "zip": ("a.zip", _zip({"a.csv": _table(["question", "answer"], QUESTIONS)})),
        "chatgpt": ("conversations.json", _chatgpt()),
        "claude": ("conversations.json", _claude()),
        "whatsapp": ("WhatsApp Chat mit Ben.txt", _whatsapp()),
        "telegram": ("result.json", _telegram()),
        "discord": ("help.json", _discord()),
        "slack": ("slack.zip", _slack()),
        "irc": ("channel.log", irc.encode()),
        "transcript": ("call.txt", "".join(f"Customer: {q}\nAgent: {a}\n" for q, a in QUESTIONS).encode()),
        "srt": ("film.srt", subtitles.encode()),
        "mbox": ("inbox.mbox", _mbox()),
        "eml": ("mail.eml", _mail(1, *QUESTIONS[2])[1].encode()),
        "zendesk": ("tickets.json", _zendesk()),
        "intercom": ("conversations.json", _intercom()),
        "reviews": (
            "reviews.csv",
            _table(["product", "rating", "review"], [("lamp", 1 + n % 5, a) for n, (_, a) in enumerate(QUESTIONS)]),
        ),
        "sharegpt": ("a.json", _json([{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
                                      for q, a in QUESTIONS])),
        "alpaca": ("a.json", _json([{"instruction": q, "input": "", "output": a} for q, a in QUESTIONS])),
        "dpo": ("a.jsonl", _dpo()),
        "kto": ("a.jsonl", _lines([{"prompt": q, "completion": a, "label": True} for q, a in QUESTIONS])),
        "chatterbot": ("shop.yml", yaml.encode()),
        "parquet": ("a.parquet", _columnar("parquet")),
        "arrow": ("a.arrow", _columnar("arrow")),
        "html": ("help.html", _html()),
        "markdown": ("help.md", ("# Help\n\n" + joined + "\n").encode()),
        "text": ("help.txt", (joined + "\n").encode()),
        "docx": ("help.docx", _docx()),
        "pptx": ("help.pptx", _pptx()),
        "xlsx": ("help.xlsx", _xlsx()),
        "pdf": ("help.pdf", _pdf()),
        "epub": ("help.epub", _epub()),
    }  # fmt: skip


def write_samples(folder: Path) -> None:
    """Each in a folder of its own."""
    for format, (name, content) in samples().items():
        path = folder / format / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
