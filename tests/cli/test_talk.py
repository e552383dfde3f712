"""``ownchat chat --with PROMPT``: a prompt before a conversation with a run, and with a model elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import OpenAIServer
from typer.testing import CliRunner, Result

from ownchat.cli import app
from ownchat.data.records import ShardWriter, message, record, to_batch
from ownchat.generate import prompts
from ownchat.generate.prompts import Prompt

ROWS = [("Is the pump loud?", "No."), ("Where is my parcel?", "On its way."), ("Is the roof red?", "It is grey.")]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shown = (("Who are you?", "The desk of {{company}}."),)
    own = Prompt("You answer for {{company}}.", shown, 1, {"company": "Acme"}, {"max_tokens": 5, "temperature": 0.5})
    prompts.save(own, "desk")
    return tmp_path / "home"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    made = OpenAIServer()
    yield made
    made.close()


@pytest.fixture
def run(home: Path, tiny_model: Path) -> Path:
    """A run that was trained with a system text, and the rows of its train split."""
    run = home / "runs" / "faq"
    model = shutil.copytree(tiny_model, run / "5-train" / "model")
    (model / "ownchat.json").write_text(json.dumps({"system": "Of the training.", "base": str(tiny_model)}))
    with ShardWriter(run / "2-clean" / "train") as writer:
        for number, (question, answer) in enumerate(ROWS, 1):
            turns = [message("user", question), message("assistant", answer)]
            row = record("conversation", file="faq.csv", format="csv", line=number, messages=turns)
            writer.write(to_batch([row]))
    for stage in ("2-clean", "5-train"):
        (run / stage / "manifest.json").write_text("{}")
    (run / "config.yaml").write_text("generate:\n  temperature: 0.25\n")
    return run


def chat(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["chat", *map(str, arguments)])


def test_a_model_behind_a_url_gets_the_prompt(server: OpenAIServer) -> None:
    done = chat("--model", f"{server.url}#large", "--with", "desk", "--prompt", "is it open", "--max-tokens", 3)
    assert done.exit_code == 0 and done.stdout == "IS IT OPEN\n", done.output
    (request,) = server.requests
    assert [turn["content"] for turn in request["messages"]] == [
        "You answer for Acme.", "Who are you?", "The desk of Acme.", "is it open",
    ]  # fmt: skip
    assert request["temperature"] == 0.5 and request["max_tokens"] == 3, "a flag goes over the prompt"
    assert "1 example that the prompt looks up: left out" in done.stderr
    assert chat("--model", server.url, "--with", "desk@1", "--var", "company=Us", "--prompt", "a").exit_code == 0
    assert server.requests[1]["messages"][0]["content"] == "You answer for Us."


def test_examples_are_looked_up_for_each_question(run: Path, server: OpenAIServer) -> None:
    command = ["chat", "faq", "--compare", "--model", f"{server.url}#large", "--with", "desk"]
    done = CliRunner().invoke(app, command, input="the parcel?\nand the pump?\n")
    assert done.exit_code == 0 and "left out" not in done.stderr, done.output
    first, second = ([turn["content"] for turn in request["messages"]] for request in server.requests)
    assert first[1:] == ["Who are you?", "The desk of Acme.", *ROWS[1], "the parcel?"]
    assert second[3:] == [*ROWS[0], "the parcel?", "THE PARCEL?", "and the pump?"], "examples are no history"


def test_a_run_is_asked_with_it(run: Path) -> None:
    prompts.save(Prompt(None, (("a", "b"),)), "shown")
    answers = {name: chat("faq", "--prompt", "Hello", "--max-tokens", 8, "--seed", 3, "--engine", "hf", *given).stdout
               for name, given in {
                   "own": [], "desk": ["--with", "desk"], "shown": ["--with", "shown"],
                   "same": ["--system", "You answer for Acme.", "--temperature", 0.5],
               }.items()}  # fmt: skip
    assert all(answers.values()) and len(set(answers.values())) == 4, answers


def test_mistakes_are_one_message(server: OpenAIServer) -> None:
    prompts.save(Prompt("For {{whom}}."), "open")
    for arguments, said in (
        (["--with", "desc"], 'there is no prompt "desc"'),
        (["--with", "desk@9"], 'no version "9"'),
        (["--with", "open"], "no value for whom"),
        (["--with", "desk", "--var", "city=X"], 'no variable "city"'),
        (["--with", "desk", "--system", "Be brief."], "both give a system message"),
        (["--var", "a=b"], "--with PROMPT"),
    ):
        done = chat("--model", server.url, "--prompt", "a", *arguments)
        assert said in str(done.exception), (arguments, done.output, done.exception)
    assert not server.requests
