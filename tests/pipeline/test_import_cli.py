"""Import as people use it: the tree of a preview, who the assistant is, formats given by hand, written questions."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_cli import home, ownchat  # noqa: F401 - a fixture

from ownchat.data.ledger import lineage
from ownchat.data.records import read_records

CHAT = "".join(
    f"0{day}.05.24, 08:00 - Ben: What about order {day}?\n0{day}.05.24, 08:01 - Anna: Order {day} is on its way.\n"
    f"0{day}.05.24, 08:02 - Ben: Thanks for order {day}.\n"
    for day in range(1, 9)
)
PAGES = [
    f"# The {thing}\n\nThe {thing} of the house weighs {weight} kilograms. It is made of oak and stands in the hall. "
    f"Nobody moves the {thing} without two helpers, since the stairs are narrow and the floor is soft. "
    f"Once a year the {thing} is waxed by hand, which takes a whole day in spring. The wax comes in small tins.\n"
    for thing, weight in [("clock", 40), ("table", 55), ("chest", 70), ("bench", 35)]
]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    (folder / "chats").mkdir(parents=True)
    (folder / "chats" / "WhatsApp Chat with Ben.txt").write_text(CHAT)
    (folder / "faq.csv").write_text("question,answer\nHow long?,Ten weeks\nHow much?,\n")
    (folder / "broken.jsonl").write_text('{"messages": 3}\n{oops\n')
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_preview_is_a_tree(home: Path, inbox: Path, tiny_model: Path) -> None:  # noqa: F811
    shown = ownchat(home, "import", inbox, "--preview", "--set", f"model.base={tiny_model}").stdout
    flat = " ".join(shown.replace("│", " ").split())
    assert re.search(r"WhatsApp Chat with Ben.txt whatsapp \(\d+% sure\) 8 conversations, 24 messages", flat)
    assert 'assistant: "Anna"' in flat
    assert "not used: no answer 1" in flat
    assert "broken.jsonl" in flat
    assert "1 media file left out" in flat
    assert "in all 9 conversations, 26 messages" in flat
    assert "Order 1 is on its way." in flat


def test_preview_for_scripts(home: Path, inbox: Path) -> None:  # noqa: F811
    found = {item["file"]: item for item in json.loads(ownchat(home, "import", inbox, "--preview", "--json").stdout)}
    chat = found["chats/WhatsApp Chat with Ben.txt"]
    assert (chat["format"], chat["conversations"], chat["complete"]) == ("whatsapp", 8, True)
    assert found["faq.csv"]["set_aside"] == {"no answer": 1}
    assert [problem.partition(":")[0] for problem in found["broken.jsonl"]["problems"]] == [
        "not of the file's form", "invalid JSON",
    ]  # fmt: skip


def test_who_the_assistant_is_can_be_said(home: Path, inbox: Path) -> None:  # noqa: F811
    chat = inbox / "chats" / "WhatsApp Chat with Ben.txt"
    done = ownchat(home, "import", chat, "--assistant", "Ben", "--name", "ben")
    rows = list(read_records(home / "runs" / "ben" / "1-data"))
    assert {turn["content"] for row in rows for turn in row["messages"] if turn["role"] == "assistant"} >= {
        "Thanks for order 1."
    }
    assert "Ben" in done.stdout
    wrong = ownchat(home, "import", chat, "--format", "whatsap", "--name", "x", code=2).stderr
    assert 'did you mean "whatsapp"' in wrong
    as_text = json.loads(ownchat(home, "import", chat, "--preview", "--json", "--format", "*.txt=text").stdout)
    assert (as_text[0]["format"], as_text[0]["documents"]) == ("text", 1)


class _Model(BaseHTTPRequestHandler):
    """A small real server in OpenAI's shape: it reads the passage and asks for the weight it finds there."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        thing, weight = re.search(r"The (\w+) of the house weighs (\d+)", asked["messages"][-1]["content"]).groups()
        quote = f"The {thing} of the house weighs {weight} kilograms."
        pairs = [
            {"question": f"How heavy is the {thing} of the house?", "answer": quote, "quote": quote},
            {"question": f"Who made the {thing}?", "answer": "It was made by Anna Berg in 1820.", "quote": quote},
        ]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(pairs)}}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        ).encode()
        self.server.asked += 1  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_questions_about_documents(home: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "manuals"
    folder.mkdir()
    for number, page in enumerate(PAGES):
        (folder / f"{number}.md").write_text(page)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        server.asked = 0  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        options = ["--set", "generate.questions=2", "--set", f"generate.url={url}"]
        refused = ownchat(home, "import", folder, "--name", "m0", *options, code=2).stderr
        assert "generate.model" in refused
        done = ownchat(home, "import", folder, "--name", "manuals", *options, "--set", "generate.model=m").stdout
        assert server.asked == len(PAGES)  # type: ignore[attr-defined]
        server.shutdown()
    assert "4 questions about 4 passages" in done
    assert "4 rejected" in done
    run = home / "runs" / "manuals"
    rows = [row for row in read_records(run / "1-questions") if row["synthetic"]]
    assert len(rows) == 4
    for row in rows:
        assert row["messages"][1]["content"] in row["text"], "the passage stands beside the answer"
        assert {"synthetic", "grounded"} <= set(row["tags"])
    files = {row["id"] for row in lineage(rows[0]["id"], [run / "1-data", run / "1-questions"])}
    assert rows[0]["source"]["file"] in files
