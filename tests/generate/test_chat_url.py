"""The terminal chat with a model behind a URL, alone and beside a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from openai_server import OpenAIServer

from ownchat.config import GenerateConfig
from ownchat.errors import UserError
from ownchat.generate.chat import ChatSession, Screen, Voice, chat
from ownchat.generate.openai import OpenAIEngine

SHORT = GenerateConfig(max_tokens=12)


def test_a_conversation_with_a_model_behind_a_url(
    server: OpenAIServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    lines.write_text("where is it\nand now\n")
    with open(lines) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        chat(None, model=f"{server.url}#large", settings=SHORT, system="Be brief.")
    assert capsys.readouterr().out == "WHERE IS IT\nAND NOW\n"
    roles = [turn["role"] for turn in server.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"] and server.requests[1]["max_tokens"] == 12
    assert server.requests[1]["messages"][2]["content"] == "WHERE IS IT"


def test_an_answer_without_counts_says_where_it_was_cut(
    server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.counts_tokens = False
    chat(None, model=server.url, settings=GenerateConfig(max_tokens=2), prompt="one two three four")
    assert server.requests[0]["model"] == "small", "the first of its list"
    assert "cut at 2 tokens" in capsys.readouterr().err


def test_a_run_beside_a_model_behind_a_url(
    make_run: Callable[..., Path], server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    chat(run, settings=SHORT, prompt="hello")
    alone = capsys.readouterr().out
    chat(run, model=f"{server.url}#large", settings=SHORT, prompt="hello", compare=True)
    assert capsys.readouterr().out == f"large:\nHELLO\ntuned:\n{alone}"


def test_which_model_is_meant_must_be_clear(server: OpenAIServer, tiny_model: Path) -> None:
    for path, model in ((None, None), (tiny_model, server.url)):
        with pytest.raises(UserError, match="one model"):
            chat(path, model=model, prompt="hello")
    with pytest.raises(UserError, match="nothing to compare"):
        chat(None, model=server.url, compare=True, prompt="hello")
    with pytest.raises(UserError, match="no URL"):
        chat(None, model="localhost:1", prompt="hello")


def test_errors_of_the_server_reach_the_person(server: OpenAIServer) -> None:
    server.plan = [404]
    with pytest.raises(UserError, match='does not know the model "huge"'):
        chat(None, model=f"{server.url}#huge", prompt="hello")


def test_an_answer_that_breaks_off_is_forgotten(server: OpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    engine = OpenAIEngine(server.url, "large")
    session = ChatSession(
        [Voice("answer", engine)], SHORT, Screen(interactive=False), count_tokens=lambda messages: 0, context=None
    )
    server.plan = ["drop"]
    with pytest.raises(UserError, match="broke off"):
        session.handle("one two")
    assert capsys.readouterr().out == "ONE\n" and session.histories == [[]]
    session.handle("three four")
    assert capsys.readouterr().out == "THREE FOUR\n" and len(session.histories[0]) == 2
