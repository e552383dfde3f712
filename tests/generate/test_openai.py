"""The engine behind a URL, on a real server of this machine that answers well, badly, late and not at all."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from openai_server import OpenAIServer

from ownchat.errors import UserError
from ownchat.generate.engine import Delta, Request, Sampling, Usage
from ownchat.generate.openai import NOT_OPENAI, READER, OpenAIEngine, Unusable, is_url, parse_model

HELLO = [{"role": "user", "content": "where is my parcel", "weight": None, "time": None}]


def ask(engine: OpenAIEngine, **more: object) -> list[Delta]:
    return list(engine.stream(Request(messages=HELLO, **more)))  # type: ignore[arg-type]


def test_an_answer_comes_in_pieces_and_is_counted(server: OpenAIServer) -> None:
    deltas = ask(OpenAIEngine(server.url, "large"))
    assert "".join(delta.text for delta in deltas) == "WHERE IS MY PARCEL"
    assert [delta.text for delta in deltas] == ["WHERE", " IS", " MY", " PARCEL", ""]
    assert [delta.finish_reason for delta in deltas] == [None] * 4 + ["stop"]
    assert deltas[-1].usage == Usage(4, 4)
    (sent,) = server.requests
    assert sent["messages"] == [{"role": "user", "content": "where is my parcel"}], "fields of ours stay here"
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("large", 0.0, 256)
    assert sent["stream_options"] == {"include_usage": True}


def test_all_at_once_is_the_same_answer(server: OpenAIServer) -> None:
    engine = OpenAIEngine(server.url, "large")
    assert engine.complete(Request(messages=HELLO)) == Delta(
        "WHERE IS MY PARCEL", finish_reason="stop", usage=Usage(4, 4)
    )
    engine.complete(Request(messages=HELLO), limited=False)
    assert "max_tokens" not in server.requests[1]


def test_sampling_is_sent_where_it_is_not_the_default(server: OpenAIServer) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=40, min_p=0.1, seed=3, stop=("END",))
    schema = {"type": "object"}
    OpenAIEngine(server.url).complete(Request(messages=HELLO, max_tokens=9, sampling=sampling, schema=schema))
    (sent,) = server.requests
    expected = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 3, "stop": ["END"]} | {
        "max_tokens": 9
    }
    assert {name: sent.get(name) for name in expected} == expected
    assert sent["response_format"]["json_schema"]["schema"] == schema and "repetition_penalty" not in sent


def test_a_model_that_is_not_named_is_the_first_of_the_list(server: OpenAIServer) -> None:
    engine = OpenAIEngine(*parse_model(server.url + "/"))
    assert engine.model == "small" and ask(engine) and server.requests[0]["model"] == "small"
    assert OpenAIEngine(f"{server.url}#large").model == "large"
    server.models = []
    with pytest.raises(Unusable, match="lists no model"):
        _ = OpenAIEngine(server.url).model


def test_the_key_comes_from_the_environment_and_is_never_shown(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(OpenAIEngine(server.url, "small"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server.plan = [200, 401]
    engine = OpenAIEngine(server.url, "small")
    ask(engine)
    assert server.keys == ["Bearer none", "Bearer sk-very-secret"]
    with pytest.raises(Unusable, match="refuses the key") as error:
        ask(engine)
    assert "secret" not in str(error.value) and "OPENAI_API_KEY" in error.value.fix


def test_tool_calls_are_sent_as_values(server: OpenAIServer) -> None:
    calls = '[{"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}]'
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "content": "found"}]
    OpenAIEngine(server.url, "small").complete(Request(messages=turns))
    assert server.requests[0]["messages"][1] == {
        "role": "assistant", "content": "",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_busy_servers_are_asked_again(server: OpenAIServer) -> None:
    server.plan = [429, 503, 500]
    assert OpenAIEngine(server.url, "small").complete(Request(messages=HELLO)).text == "WHERE IS MY PARCEL"
    assert len(server.requests) == 4
    server.plan = [429, 429]
    with pytest.raises(UserError, match="429") as error:
        OpenAIEngine(server.url, "small", retries=1).complete(Request(messages=HELLO))
    assert "kept" not in error.value.fix, "the engine keeps nothing"


@pytest.mark.parametrize("what", ["drop", "nonsense", "html"])
def test_broken_answers_are_asked_again(server: OpenAIServer, what: str) -> None:
    server.plan = [what]
    assert OpenAIEngine(server.url, "small").complete(Request(messages=HELLO)).text == "WHERE IS MY PARCEL"
    server.plan = [what] * 9
    with pytest.raises(UserError, match=r"not an OpenAI one|cannot be reached"):
        OpenAIEngine(server.url, "small", retries=0).complete(Request(messages=HELLO))


@pytest.mark.parametrize(
    "status, kind, words",
    [
        (401, Unusable, "refuses the key"),
        (403, Unusable, "refuses the key"),
        (404, Unusable, 'does not know the model "small"'),
        (422, UserError, "error 422: no"),
        (500, UserError, "error 500"),
        ("filtered", UserError, "filter withheld"),
        ("html", UserError, NOT_OPENAI),
    ],
)
def test_errors_say_what_and_where(server: OpenAIServer, status: int | str, kind: type, words: str) -> None:
    server.plan = [status]
    with pytest.raises(kind, match=words) as error:
        OpenAIEngine(server.url, "small", retries=0).complete(Request(messages=HELLO))
    assert error.value.where == server.url and error.value.fix and "parcel" not in str(error.value)


def test_a_server_that_sends_elsewhere_is_not_followed(server: OpenAIServer) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(308)
            self.send_header("Location", f"{server.url}/chat/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        engine = OpenAIEngine(f"http://127.0.0.1:{other.server_port}/v1", "small", retries=0)
        for answer in (engine.complete, lambda request: list(engine.stream(request))):
            with pytest.raises(UserError, match="sends elsewhere, which is not followed"):
                answer(Request(messages=HELLO))
        engine.close()
        other.shutdown()
    assert not server.requests


def test_a_prompt_that_is_too_long_is_told_as_by_every_engine(server: OpenAIServer) -> None:
    server.plan = [413]
    with pytest.raises(UserError, match="longer than the model's context") as error:
        ask(OpenAIEngine(server.url, "small"))
    assert error.value.where == "prompt"


@pytest.mark.parametrize("what, words", [("drop", "broke off"), ("failing", "gave up: out of memory")])
def test_an_answer_that_ends_in_the_middle_is_an_error(server: OpenAIServer, what: str, words: str) -> None:
    server.plan = [what]
    seen = ""
    with pytest.raises(UserError, match=words):
        for delta in OpenAIEngine(server.url, "small").stream(Request(messages=HELLO)):
            seen += delta.text
    assert seen == "WHERE"


@pytest.mark.parametrize(
    "page", [(b"<html>Welcome</html>", "text/html"), (b'["small"]', "application/json"), (b"{", "application/json")]
)
def test_a_page_in_the_place_of_the_models_is_no_server(server: OpenAIServer, page: tuple[bytes, str]) -> None:
    server.page = page
    with pytest.raises(Unusable, match=NOT_OPENAI) as error:
        OpenAIEngine(server.url, retries=0).complete(Request(messages=HELLO))
    assert error.value.where == server.url and not server.requests


def test_an_answer_in_parts_is_their_text(server: OpenAIServer) -> None:
    engine = OpenAIEngine(server.url, "small", retries=0)
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "On its "}, {"type": "text", "text": "way"}]
    server.plan = [{"choices": [{"message": {"role": "assistant", "content": content}}]} for content in (parts, None)]
    assert [engine.complete(Request(messages=HELLO)).text for _ in range(2)] == ["On its way", ""]


@pytest.mark.parametrize("message", ["hi", {"content": 5}, {"content": ["hi"]}, {"content": [{"type": "text"}]}])
def test_an_answer_that_is_no_text_is_an_error_and_not_an_empty_answer(server: OpenAIServer, message: object) -> None:
    server.plan = [{"choices": [{"message": message}]}]
    with pytest.raises(UserError, match=NOT_OPENAI):
        OpenAIEngine(server.url, "small", retries=0).complete(Request(messages=HELLO))


def test_nobody_at_the_address_and_no_address() -> None:
    with pytest.raises(Unusable, match="cannot be reached"):
        ask(OpenAIEngine("http://127.0.0.1:9/v1", "m", retries=0))
    for text in ("localhost:8000", "http://", "http://host:port/v1"):
        with pytest.raises(UserError, match="no URL"):
            OpenAIEngine(text, "m")
    with pytest.raises(UserError, match="password") as error:
        parse_model("https://me:sk-secret@host/v1")
    assert "sk-secret" not in str(error.value)
    assert is_url("https://host/v1") and not is_url("runs/demo")


def test_parameters_that_are_refused_are_sent_in_their_other_form(
    server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuse = {"max_tokens": "Use 'max_completion_tokens' instead.", "temperature": "", "stream_options": ""}
    engine = OpenAIEngine(server.url, "small")
    assert ask(engine, max_tokens=2)[-1] == Delta("", finish_reason="length", usage=Usage(0, 0))
    assert len(server.requests) == 4 and server.requests[-1]["max_completion_tokens"] == 2
    assert not {"temperature", "max_tokens", "stream_options"} & server.requests[-1].keys()
    assert "takes no temperature" in capsys.readouterr().err
    ask(engine)
    assert len(server.requests) == 5, "remembered"
    server.plan = [400]
    with pytest.raises(UserError, match="error 400: no"):
        ask(engine)


def test_tokens_that_are_not_counted_are_not_invented(server: OpenAIServer) -> None:
    server.counts_tokens = False
    engine = OpenAIEngine(server.url, "small")
    assert ask(engine)[-1].usage == Usage(0, 0) == engine.complete(Request(messages=HELLO)).usage


def test_cancel_hangs_up_while_the_server_thinks(server: OpenAIServer) -> None:
    server.plan = ["silent"]
    cancel = threading.Event()
    deltas = OpenAIEngine(server.url, "small").stream(Request(messages=HELLO), cancel)
    assert next(deltas).text == "WHERE"
    threading.Timer(0.1, cancel.set).start()
    assert next(deltas).finish_reason == "cancelled"
    assert next(deltas, None) is None
    assert server.left.wait(30), "the server was told"
    assert not server.release.is_set()


def test_cancel_hangs_up_before_the_answer_begins_and_nothing_is_asked_again(server: OpenAIServer) -> None:
    server.plan = ["mute"]
    cancel = threading.Event()
    deltas = OpenAIEngine(server.url, "small").stream(Request(messages=HELLO), cancel)

    def once_asked() -> None:
        while not server.requests:
            time.sleep(0.01)
        cancel.set()

    threading.Thread(target=once_asked, daemon=True).start()
    assert next(deltas).finish_reason == "cancelled" and next(deltas, None) is None
    readers = [thread for thread in threading.enumerate() if thread.name == READER]
    for thread in readers:
        thread.join(30)
    assert not any(thread.is_alive() for thread in readers)
    assert server.left.wait(30), "the server was told"
    assert len(server.requests) == 1 and not server.release.is_set()


def test_leaving_early_hangs_up_and_the_next_answer_is_whole(server: OpenAIServer) -> None:
    server.plan = ["silent"]
    engine = OpenAIEngine(server.url, "small")
    deltas = engine.stream(Request(messages=HELLO))
    next(deltas)
    deltas.close()  # type: ignore[attr-defined]
    assert server.left.wait(30)
    assert "".join(delta.text for delta in ask(engine)) == "WHERE IS MY PARCEL"


def test_what_a_server_cannot_be_asked_is_refused_at_once(server: OpenAIServer) -> None:
    engine = OpenAIEngine(server.url, "small")
    with pytest.raises(UserError, match="messages, not ids"):
        engine.stream(Request(ids=[1, 2]))
    with pytest.raises(UserError, match="adapters"):
        engine.stream(Request(messages=HELLO, adapter="base"))
    assert not server.requests


def test_scores_come_from_an_echo(server: OpenAIServer) -> None:
    engine = OpenAIEngine(server.url, "small")
    assert engine.score([5, 6, 7, 8], [0, 1, 0, 1]) == [-6.0, -8.0]
    assert server.requests[0]["prompt"] == [5, 6, 7, 8] and server.requests[0]["echo"] is True
    with pytest.raises(UserError, match="first of them 0"):
        engine.score([5, 6], [1, 1])
    for what in (404, "nonsense"):
        server.plan = [what]
        with pytest.raises(UserError, match="does not give the probabilities"):
            OpenAIEngine(server.url, "small", retries=0).score([5, 6], [0, 1])
    server.plan = [401]
    with pytest.raises(Unusable, match="key"):
        engine.score([5, 6], [0, 1])
