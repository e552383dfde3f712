"""Questions about documents: from a server that speaks OpenAI's protocol, and from a model in this process."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ownchat.data.ledger import Entry
from ownchat.data.records import SCHEMA, record
from ownchat.errors import UserError
from ownchat.generate.synthesize import ask_local, ask_url, prompt, synthesize


def document(number: int, sections: int = 2) -> dict:
    text = "".join(
        f"# Pump {number}{section}\n\nPump {number}{section} stops at {number}{section} bar. "
        + f"It is oiled with the red can of model {number}{section}. " * 8 + "\n\n"
        for section in range(1, sections + 1)
    )  # fmt: skip
    return record("document", file="manual.pdf", format="pdf", line=number, text=text, offset=100)


DOCUMENTS = [document(1), document(2), document(3)]


def answers(content: str) -> str:
    """What a careful model would say about a passage, and one thing that a careless one would."""
    passage = content.split('"""')[1]
    number = re.search(r"Pump (\d+) stops", passage)[1]
    good = {"question": f"When does pump {number} stop?", "answer": f"Pump {number} stops at {number} bar.",
            "quote": f"Pump {number} stops at {number} bar."}  # fmt: skip
    bad = {**good, "question": f"Is pump {number} dangerous?", "answer": f"Pump {number} explodes at 999 bar."}
    return json.dumps([good, bad])


class Server(ThreadingHTTPServer):
    """Answers chat completions from the request; ``plan`` holds the status of the next answers (200 when empty)."""

    def __init__(self) -> None:
        self.plan: list[int] = []
        self.requests: list[dict] = []
        self.keys: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Authorization"])
        status = self.server.plan.pop(0) if self.server.plan else 200
        if status == 200:
            self.server.requests.append(body)
            said = {"role": "assistant", "content": answers(body["messages"][0]["content"])}
            reply = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                     "choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}  # fmt: skip
        elif status == 299:
            status, reply = 200, {"hello": "this is another kind of server"}
        else:
            words = "This model's maximum context length is 10 tokens" if status == 400 else "no"
            reply = {"error": {"message": words, "type": "x", "code": None}}
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def split(items) -> tuple[list[dict], list[Entry]]:
    items = list(items)
    return [x for x in items if not isinstance(x, Entry)], [x for x in items if isinstance(x, Entry)]


def test_grounded_questions_become_records(server):
    chat = record("conversation", file="a", format="csv", line=1, messages=[])
    records, entries = split(synthesize([chat, *DOCUMENTS], ask_url(server.url, "m"), 2))
    assert len(records) == 6 and set(records[0]) == set(SCHEMA.names)
    first = records[0]
    assert [turn["content"] for turn in first["messages"]] == ["When does pump 11 stop?", "Pump 11 stops at 11 bar."]
    assert (first["synthetic"], first["tags"], first["group"]) == (True, ["synthetic", "grounded"], DOCUMENTS[0]["id"])
    assert first["source"] == {"file": "manual.pdf", "format": "synthetic", "line": 1, "offset": 100}
    assert first["text"].startswith("# Pump 11\n\nPump 11 stops")
    assert records[1]["source"]["offset"] > 100
    assert len({row["id"] for row in records}) == 6
    assert {entry.rule for entry in entries} == {"not grounded: number not in passage"} and len(entries) == 6
    assert entries[0].parents == (DOCUMENTS[0]["id"],) and "manual.pdf, line 1, passage 1: 999" in entries[0].detail
    assert len({entry.id for entry in entries}) == 6
    assert server.keys[0] == "Bearer none" and server.requests[0]["model"] == "m"
    assert len(server.requests) == 6


def test_order_does_not_depend_on_how_many_are_asked_at_once(server):
    one = list(synthesize(DOCUMENTS, ask_url(server.url, "m"), 2))
    assert list(synthesize(DOCUMENTS, ask_url(server.url, "m"), 2, at_once=4)) == one


def test_questions_are_asked_once_only(server):
    records, entries = split(synthesize([DOCUMENTS[0], DOCUMENTS[0]], ask_url(server.url, "m"), 2))
    assert len(records) == 2
    assert sum(entry.rule == "not grounded: question asked before" for entry in entries) == 2


def test_what_was_paid_for_is_kept(server, tmp_path):
    cache = tmp_path / "replies" / "cache.jsonl"
    whole = list(synthesize(DOCUMENTS, ask_url(server.url, "m"), 2))
    server.requests.clear()
    server.plan = [200, 200, 401]
    with pytest.raises(UserError, match="refuses the key") as error:
        list(synthesize(DOCUMENTS, ask_url(server.url, "m", retries=0), 2, cache=cache))
    assert "what was answered is kept" in error.value.fix
    assert len(server.requests) == 2
    with open(cache, "a") as file:
        file.write('{"key": "half a li')
    assert list(synthesize(DOCUMENTS, ask_url(server.url, "m"), 2, cache=cache)) == whole
    assert len(server.requests) == 6, "two came from the cache"
    assert list(synthesize(DOCUMENTS, ask_url(server.url, "m"), 2, cache=cache)) == whole
    assert len(server.requests) == 6, "and now all"
    list(synthesize(DOCUMENTS, ask_url(server.url, "n"), 2, cache=cache, model="n"))
    assert len(server.requests) == 12, "another model is asked"
    assert oct(cache.stat().st_mode)[-3:] == "600"


def test_leaving_early_keeps_what_is_under_way(server, tmp_path):
    cache = tmp_path / "cache.jsonl"
    items = synthesize(DOCUMENTS, ask_url(server.url, "m"), 2, cache=cache)
    next(items)
    items.close()
    assert len(cache.read_text().splitlines()) == len(server.requests) > 0


@pytest.mark.parametrize(
    "status, words",
    [
        (401, "refuses the key"),
        (404, "does not know the model"),
        (429, "429"),
        (500, "error 500"),
        (299, "not an OpenAI"),
    ],
)
def test_errors_of_the_server_are_clear(server, status, words):
    server.plan = [status]
    with pytest.raises(UserError, match=words) as error:
        list(synthesize(DOCUMENTS, ask_url(server.url, "m", retries=0), 2))
    assert error.value.where == server.url and error.value.fix
    assert "Pump" not in str(error.value)


def test_busy_servers_are_asked_again(server):
    server.plan = [500, 429, 503]
    assert len(split(synthesize(DOCUMENTS, ask_url(server.url, "m", retries=4), 2))[0]) == 6


def test_passages_too_long_for_the_model_are_told(server):
    server.plan = [400]
    records, entries = split(synthesize(DOCUMENTS, ask_url(server.url, "m"), 2))
    assert len(records) == 5
    assert [entry.rule for entry in entries].count("not grounded: passage too long for the model") == 1


def test_nobody_at_the_address():
    with pytest.raises(UserError, match="cannot be reached"):
        list(synthesize(DOCUMENTS, ask_url("http://127.0.0.1:9/v1", "m", retries=0), 2))
    with pytest.raises(UserError, match="no URL"):
        ask_url("localhost:8000", "m")


@pytest.mark.parametrize(
    "reply, rules",
    [
        ("Sorry, I cannot.", ["no question in the reply"]),
        ("[]", []),
        ("```json\n[]\n```", []),
        (json.dumps([{"question": "x", "answer": "y", "quote": "z"}] * 5),
         ["question too short or too long"] * 4 + ["more questions than asked for"]),
    ],
)  # fmt: skip
def test_every_candidate_has_a_fate(reply, rules):
    records, entries = split(synthesize([document(1, 1)], lambda _: reply, 2))
    assert not records and [entry.rule.partition(": ")[2] for entry in entries] == rules


def test_a_model_in_this_process(tiny_model):
    """A random model writes nonsense: everything is rejected, and every passage has its row."""
    from ownchat.generate.hf import chat_engine

    engine = chat_engine(tiny_model)
    ask = ask_local(engine, max_tokens=8)
    assert ask([{"role": "user", "content": "Hi?"}]) is not None
    records, entries = split(synthesize(DOCUMENTS, ask, 1))  # its context is 512 tokens
    assert not records and [entry.rule for entry in entries] == ["not grounded: passage too long for the model"] * 6
    records, entries = split(synthesize(DOCUMENTS, lambda messages: ask([{"role": "user", "content": "Hi?"}]), 1))
    assert not records and [entry.rule for entry in entries] == ["not grounded: no question in the reply"] * 6


def test_the_prompt_names_the_section():
    from ownchat.generate.grounding import passages

    (passage,) = passages(document(1, 1)["text"])
    (message,) = prompt(passage, 1)
    assert "section: Pump 11" in message["content"] and "question with its answer" in message["content"]
    assert passage.text in message["content"]
