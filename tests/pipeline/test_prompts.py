"""``ownchat prompt`` with a tiny model and with a server, and runs that are trained with a prompt."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ownchat import artifacts
from ownchat.cli import app
from ownchat.config import Config, flatten, load_config, to_yaml, with_derived
from ownchat.errors import ConfigError, RunError, UserError
from ownchat.generate import prompts
from ownchat.generate.openai import OpenAIEngine
from ownchat.generate.prompts import Prompt
from ownchat.pipeline import prompt_search
from ownchat.pipeline import prompts as work
from ownchat.pipeline.ladder_runs import given_settings
from ownchat.pipeline.run import import_and_clean, run_for, train
from ownchat.pipeline.system_prompt import with_prompt

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server that copies the answer of an example about the same thing, if it is shown one."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.status = 200
        self.broken = 0  # requests that are answered with 400
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def model(self) -> str:
        return f"{self.url}#copier"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        *before, question = body["messages"]
        thing = question["content"].split()[2]
        answer = "I cannot say."
        for asked, reply in pairwise(before):
            if asked["role"] == "user" and thing in asked["content"]:
                answer = reply["content"]
        said = {"role": "assistant", "content": answer}
        reply = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                 "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
                 "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}  # fmt: skip
        status = 400 if len(self.server.requests) <= self.server.broken else self.server.status
        content = json.dumps(reply if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inbox") / "faq"
    folder.mkdir()
    draw = random.Random(0)

    def noise(words: int) -> str:  # so that rows about one thing resemble each other and still stand in all splits
        return " ".join("".join(draw.choices("bcdfgklmnprst", k=7)) for _ in range(words))

    rows = "".join(f"What about {thing} {noise(12)}?,The {thing} is fine: {noise(4)}.\n" for thing in THINGS * 12)
    (folder / "faq.csv").write_text("question,answer\n" + rows)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path) -> Path:
    """A home with a run that is cleaned and not trained."""
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNCHAT_HOME", str(path))
        config, origins = load_config(sets=[f"model.base={tiny_model}", "evaluate.answer_tokens=4"])
        import_and_clean(source, name="faq", config=config, origins=origins, clean=True, say=lambda line: None)
    return path


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(home))


def ownchat(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.stdout


def as_json(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


def test_new_list_show_diff(tmp_path: Path) -> None:
    assert "notes@1" in ownchat("prompt", "new", "notes", "--system", "You help {{who}}.", "--var", "who=us")
    (tmp_path / "next.yaml").write_text("system: You help {{who}} kindly.\nvariables: {who: all}\nretrieve: 2\n")
    made = as_json(ownchat("prompt", "new", "notes", "--file", tmp_path / "next.yaml", "--note", "kinder", "--json"))
    assert made["prompt"] == "notes@2" and Path(made["file"]).is_file()
    listed = ownchat("prompt", "list", "--json")
    assert "notes  2 versions  2 examples, You help {{who}} kindly." in listed
    one = next(each for each in as_json(listed) if each["name"] == "notes")
    assert (one["versions"], one["note"]) == ([1, 2], "kinder")
    shown = ownchat("prompt", "show", "notes@1")
    assert "system: You help {{who}}." in shown and "who: us" in shown
    changed = ownchat("prompt", "diff", "notes@1", "notes@2")
    assert "-system: You help {{who}}." in changed and "+retrieve: 2" in changed
    assert "they say the same" in ownchat("prompt", "diff", "notes@2", "notes")
    (tmp_path / "short.yaml").write_text("system: No line break at the end")
    text, last = ownchat("prompt", "show", tmp_path / "short.yaml", "--json").splitlines()
    assert text == "system: No line break at the end" and json.loads(last)["system"] == text[8:]


def test_try_with_the_tiny_model_and_with_a_server(server: Server, tiny_model: Path) -> None:
    ownchat("prompt", "new", "talk", "--system", "You help {{who}}.", "--var", "who=us")
    local = as_json(ownchat("prompt", "try", "talk", "Hello?", "--model", tiny_model, "--var", "who=me", "--json"))
    assert local["messages"][0]["content"] == "You help me." and local["prompt_tokens"] > 0
    before = len(server.requests)
    shown = ownchat("prompt", "try", "talk", "What about pump 9?", "--model", server.model, "--json")
    assert "I cannot say." in shown and server.requests[before]["model"] == "copier"
    assert server.requests[before]["messages"][0] == {"role": "system", "content": "You help us."}
    prompts.save(Prompt("S", retrieve=1, parameters={"temperature": 0.5, "max_tokens": 17}), "near")
    found = work.attempt("near", "What about pump 9?", model=server.model, run="faq")
    assert found.answer.startswith("The pump is fine: ") and found.notes == ()
    assert (server.requests[-1]["temperature"], server.requests[-1]["max_tokens"]) == (0.5, 17)
    assert "--run" in work.attempt("near", "What about pump 9?", model=server.model).notes[0]


def test_compare_on_held_out_rows(server: Server) -> None:
    ownchat("prompt", "new", "versus", "--system", "Answer.")
    prompts.save(Prompt("Answer.", retrieve=1), "versus")
    text = ownchat("prompt", "compare", "versus@1", "versus@2", "--run", "faq", "--model", server.model, "--json")
    found = as_json(text)
    assert found["metric"] == "chrf" and found["rows"] >= 4 and found["failed"] == [0, 0]
    assert found["second"]["value"] > 25 > found["first"]["value"]
    assert found["difference"]["low"] > 0 and "versus@2 is better than versus@1" in text
    assert len(found["samples"]) == 3 and text.count("right: The") == 3
    held_out = {row["messages"][0]["content"] for row in work.records_of("faq", "test")}
    assert {request["messages"][-1]["content"] for request in server.requests} <= held_out
    again = prompt_search.compare(("versus@1", "versus@1"), run="faq", model=server.model)
    assert again.rows >= 10 and again.difference is not None and again.difference.value == 0
    assert "No difference" in again.verdict
    few = prompt_search.compare(("versus@1", "versus@2"), run="faq", model=server.model, rows=1)
    assert few.difference is not None and few.difference.low > 0
    assert "Too few rows to tell versus@1 from versus@2: 1 row of 1 group" in few.verdict


def test_compare_gives_variables_to_the_prompt_that_has_them(server: Server) -> None:
    prompts.save(Prompt("Answer."), "fixed")
    prompts.save(Prompt("Answer {{who}}.", variables={"who": "us"}), "open-to")
    compared = ("prompt", "compare", "fixed", "open-to", "--run", "faq", "--model", server.model, "--rows", 2)
    ownchat(*compared, "--var", "who=me")
    assert [request["messages"][0]["content"] for request in server.requests[::2]] == ["Answer.", "Answer me."]
    with pytest.raises(ConfigError, match='no variable "whom"') as error:
        prompt_search.compare(("fixed", "open-to"), run="faq", variables={"whom": "x"})
    assert error.value.fix == 'did you mean "who"?' and error.value.where == "fixed@1 and open-to@1"


def test_compare_leaves_failed_rows_out_of_the_means(server: Server) -> None:
    server.broken = 3
    prompts.save(Prompt("Answer."), "flaky")
    found = prompt_search.compare(("flaky", "flaky"), run="faq", model=server.model, rows=8)
    assert found.failed[0] == 3 and found.prompt_tokens == (7.0, 7.0)


def test_compare_with_the_base_of_the_run() -> None:
    prompts.save(Prompt("Answer."), "local")
    prompts.save(Prompt("Answer.", retrieve=2), "local")
    found = prompt_search.compare(("local@1", "local@2"), run="faq", rows=3)
    assert found.rows == 3 and found.model.endswith("tiny-model0") and found.prompt_tokens[1] > found.prompt_tokens[0]


def test_optimise_keeps_the_best_as_a_new_version(server: Server) -> None:
    ownchat("prompt", "new", "search", "--system", "Help.")
    text = ownchat("prompt", "optimise", "search", "--run", "faq", "--model", server.model, "--budget", 100, "--json")
    found = as_json(text)
    assert found["prompt"] == "search@2" and found["asked"] <= 100 and found["failed"] == 0
    assert found["best"]["value"] > 25 > found["start"]["value"]
    kept = prompts.load("search@2")
    assert kept.retrieve > 0 and "examples looked up" in kept.note and "chosen" in kept.note
    assert "ownchat prompt compare search@1 search@2 --run faq" in text
    train = {row["messages"][0]["content"] for row in work.records_of("faq", "train")}
    sent = {turn["content"] for request in server.requests for turn in request["messages"] if turn["role"] == "user"}
    assert sent <= train, "nothing of the other splits is asked or shown"


def test_a_file_does_not_become_a_version_of_another_prompt(tmp_path: Path, server: Server) -> None:
    prompts.save(Prompt("Help with money."), "unrelated")
    (tmp_path / "unrelated.yaml").write_text("system: Help.\n")
    with pytest.raises(ConfigError, match='already a prompt "unrelated"') as error:
        prompt_search.optimise(str(tmp_path / "unrelated.yaml"), run="faq", model=server.model)
    assert "prompt new NAME --file" in error.value.fix and not server.requests
    assert prompts.versions("unrelated") == [1]


def test_a_proposer_behind_a_url(server: Server, tiny_model: Path) -> None:
    prompts.save(Prompt("Help."), "proposed")
    found, _, label = prompt_search.optimise("proposed", run="faq", budget=30, proposer=server.model)
    assert label.endswith("tiny-model0") and found.asked <= 30
    assert any("Write the instructions" in request["messages"][0]["content"] for request in server.requests)


# -------------------------------------------------------------------------------------------------------- bad input


def test_mistakes_are_one_message(tmp_path: Path, home: Path) -> None:
    prompts.save(Prompt("Help {{who}}."), "helpful")
    (tmp_path / "broken.yaml").write_text("system: a\n  b: c\n")
    for arguments, words in (
        (["show", "helpfull"], 'did you mean "helpful"?'),
        (["new", "bad", "--file", str(tmp_path / "broken.yaml")], "line 2"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ownchat", "prompt", *arguments], capture_output=True, text=True,
            env=os.environ | {"OWNCHAT_HOME": str(home)},
        )  # fmt: skip
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(ConfigError, match="no value for who"):
        work.attempt("helpful", "Hi", model="faq")
    with pytest.raises(ConfigError, match='no variable "whom"') as error:
        work.attempt("helpful", "Hi", model="faq", variables={"whom": "x"})
    assert 'did you mean "who"?' in error.value.fix
    with pytest.raises(ConfigError, match="no value for who"):
        prompt_search.optimise("helpful", run="faq")
    with pytest.raises(ConfigError, match="system text, or a file"):
        work.new("both")
    with pytest.raises(RunError, match="no such run"):
        prompt_search.compare(("helpful", "helpful"), run="faqs", variables={"who": "x"})
    with pytest.raises(ConfigError, match="who"):
        CliRunner().invoke(app, ["prompt", "try", "helpful", "Hi", "--var", "who"], catch_exceptions=False)


def test_a_prompt_longer_than_the_context(tiny_model: Path) -> None:
    shown = tuple((f"Question {n}?", "A very long answer indeed. " * 20) for n in range(8))
    prompts.save(Prompt("S", shown), "long")
    with pytest.raises(UserError, match="do not fit") as error:
        work.attempt("long", "Hi?", model=str(tiny_model))
    assert "8" in error.value.fix
    with pytest.raises(UserError, match="do not fit"):
        prompt_search.compare(("long", "long"), run="faq")


def test_a_server_that_is_down(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = OpenAIEngine.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "retries", 0)  # each waits longer
    prompts.save(Prompt("S"), "down")
    with pytest.raises(UserError, match="cannot be reached"):
        work.attempt("down", "Hi?", model="http://127.0.0.1:9/v1#m")
    server.status = 401
    with pytest.raises(UserError, match="refuses the key"):
        prompt_search.optimise("down", run="faq", model=server.model)
    assert prompts.versions("down") == [1], "nothing is kept"


def test_three_rows_to_search_on(tmp_path: Path, server: Server) -> None:
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "faq.csv").write_text("question,answer\nWhat is a?,One.\nWhat is b?,Two.\nWhat is c?,Six.\n")
    config, origins = load_config(sets=["model.base=starter"])
    import_and_clean(
        tmp_path / "three", name="three", config=config, origins=origins, clean=True, say=lambda line: None
    )
    prompts.save(Prompt("S"), "few")
    with pytest.raises(UserError, match="too few to try prompts on"):
        prompt_search.optimise("few", run="three", model=server.model)
    assert not server.requests


# ------------------------------------------------------------------------------------------- trained with a prompt


def settings(*sets: str) -> Config:
    return with_prompt(*load_config(sets=sets))[0]


def test_a_prompt_becomes_the_system_text() -> None:
    prompts.save(Prompt("You are {{who}}.", variables={"who": "Acme's assistant"}), "trained")
    found, origins = with_prompt(*load_config(sets=["generate.prompt=trained"]))
    assert found.data.system == "You are Acme's assistant." and found.generate.prompt == "trained@1"
    assert origins["data.system"] == "derived (the prompt trained@1)" and "trained was" in origins["generate.prompt"]
    assert with_prompt(found, origins) == (found, origins)
    prompts.save(Prompt("You are somebody else."), "trained")
    assert with_prompt(found, origins) == (found, origins), "the version is pinned"
    assert settings("generate.prompt=trained").data.system == "You are somebody else."
    assert settings("generate.prompt=trained", "data.system=You are somebody else.").generate.prompt == "trained@2"
    with pytest.raises(ConfigError, match="say different things"):
        settings("generate.prompt=trained", "data.system=Another.")
    with pytest.raises(ConfigError, match="no prompt"):
        settings("generate.prompt=nobody")
    prompts.save(Prompt(None, (("q", "a"),)), "shown")
    with pytest.raises(ConfigError, match="no system text"):
        settings("generate.prompt=shown")
    prompts.save(Prompt("For {{whom}}."), "open")
    with pytest.raises(ConfigError, match="no value for whom"):
        settings("generate.prompt=open")


def test_a_run_is_asked_for_again_with_its_prompt_and_its_lines(tmp_path: Path) -> None:
    prompts.save(Prompt("Be brief.\nSay # {{who}}.", variables={"who": "us"}), "again")
    sets = ["generate.prompt=again", "train.epochs=2.0", 'generate.stop=["\\n\\n"]', "train.learning_rate=0.5"]
    asked, origins = with_prompt(*load_config(sets=sets))
    derived = {"train.batch_tokens": (77, "memory"), "train.block_tokens": (64, "what fits the memory")}
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(*with_derived(asked, origins, derived)))
    found, origins = given_settings(run, **{"train.method": "full", "train.learning_rate": None})
    values = flatten(asked) | {"train.method": "full", "train.learning_rate": None}
    assert flatten(found) == values and origins["train.epochs"].startswith("given")
    assert with_prompt(found, origins) == (found, origins)

    old = "\n".join(line for line in to_yaml(asked, origins).split("\n") if not line.startswith("  system:"))
    lines = "data:\n  system: 'Be brief.\n\n    Say # us.'  # given (flag)\n"
    (run / "config.yaml").write_text(old.replace("data:\n", lines))
    assert given_settings(run)[0].data.system == "Be brief.\nSay # us.", "as it was written before"


@pytest.mark.slow
def test_a_run_is_trained_and_used_with_its_prompt(
    source: Path, tiny_model: Path, tmp_path: Path, speed_of_matrix_products: None
) -> None:
    prompts.save(Prompt("You are {{who}}.", (("q", "a"),), variables={"who": "Acme"}), "own")
    sets = [f"model.base={tiny_model}", "train.batch_tokens=400", "train.epochs=1", "evaluate.answers=0",
            "evaluate.care={checks: []}"]  # fmt: skip
    config, origins = load_config(sets=[*sets, "generate.prompt=own"])
    said: list[str] = []
    done = train(source, name="prompted", config=config, origins=origins, say=said.append)
    assert any("the system text is trained with, not 1 example" in line for line in said)
    assert artifacts.read_json(done.run / "5-train" / "model" / "ownchat.json")["system"] == "You are Acme."
    first = next(iter(work.records_of("prompted", "train")))
    assert first["messages"][0]["content"] == "You are Acme."
    assert prompts.read(done.run / "prompt.yaml").examples == (("q", "a"),)
    written = (done.run / "config.yaml").read_text()
    assert "prompt: own@1" in written and "system: You are Acme.  # derived (the prompt own@1)" in written
    asked = work.attempt("own", "Hi?", model="prompted")
    assert asked.messages[0]["content"] == "You are Acme."

    prompts.save(Prompt("You are changed."), "own")
    stored, origins = load_config(done.run / "config.yaml")
    assert with_prompt(stored, origins) == (stored, origins), "a later version changes nothing in the run"
    pinned, origins = load_config(sets=[*sets, "generate.prompt=own@1"])
    again = train(source, name="prompted", config=pinned, origins=origins, say=said.append)
    assert again.run == done.run and not again.worked
    assert run_for(source, "prompted", settings(*sets, "generate.prompt=own"))[0].name == "prompted-2"


def test_a_persons_name_is_found_in_prompts(home: Path) -> None:
    from ownchat.pipeline.runs import find

    prompts.save(Prompt("S", (('I am Anna\nBerg: it\'s "late"', "Sorry."),)), "named")
    assert [place.stage for place in find("anna berg")] == ["prompts/named/v0001.yaml"]
