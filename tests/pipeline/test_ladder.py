"""``ownchat ladder`` on real small trainings and a real small server: every rung, what fails, what is asked twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from openai_server import OpenAIServer

from ownchat import artifacts
from ownchat.artifacts import read_json
from ownchat.config import load_config
from ownchat.errors import DataError, RunError, UserError
from ownchat.model import starter
from ownchat.pipeline import cards
from ownchat.pipeline import ladder as climbing
from ownchat.pipeline import run as whole
from ownchat.pipeline.export import source_of
from ownchat.pipeline.ladder_prices import Prices
from ownchat.pipeline.ladder_table import table
from ownchat.pipeline.runs import find

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
QUICK = ["train.batch_tokens=400", "model.dtype=float32", "train.threads=1", "train.epochs=2", "evaluate.answers=6",
         "evaluate.care={checks: []}",
         "evaluate.answer_tokens=12", "evaluate.draws=200"]  # fmt: skip


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, speed_of_matrix_products: None) -> Path:
    """The starter is the tiny model; run ``inbox`` is trained from ``inbox/faq.csv``."""
    root = tmp_path_factory.mktemp("climbed")
    place = root / "home" / "models" / starter.NAME
    shutil.copytree(tiny_model, place)
    (place / artifacts.MANIFEST).write_text('{"package": "a tiny stand-in"}')
    (root / "inbox").mkdir()
    rows = [f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(8) for thing in THINGS]
    (root / "inbox" / "faq.csv").write_text("question,answer\n" + "".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNCHAT_HOME", str(root / "home"))
        config, origins = load_config(sets=[*QUICK, "data.system=Be brief."])
        whole.train(root / "inbox", name="inbox", config=config, origins=origins, say=silent)
    return root / "home"


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(home))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    made = OpenAIServer()
    made.answer = lambda turns: f"The {' '.join(turns[-1]['content'].rstrip('?').split()[2:])} is fine."
    yield made
    made.close()


def test_every_rung_stands_on_the_same_rows(home: Path, server: OpenAIServer) -> None:
    said: list[str] = []
    prices = Prices.read(["2"], ["0.5", f"{server.url}#large=10"], 0.36)
    model = f"{server.url}#large"
    found = climbing.ladder("inbox", models=[model], budget=24, prices=prices, say=said.append)
    run = home / "runs" / "inbox"
    rungs = {rung["name"]: rung for rung in found["rungs"]}
    assert list(rungs)[:2] == ["plain prompt", "system prompt"]
    assert list(rungs)[-5:] == ["optimised prompt", "LoRA", "all weights", "large", "large, 4 examples"]
    assert (found["metric"], found["rows"]) == ("chrf", 6)
    report = read_json(run / "6-report" / "report.json")
    assert rungs["LoRA"]["score"] == report["held_out"]["tuned"]["chrf"]["value"], "as the report has it"
    assert rungs["LoRA"]["run"] == "inbox" and rungs["LoRA"]["training_seconds"] > 0
    assert rungs["all weights"]["score"] is None and "--full" in rungs["all weights"]["note"]
    assert rungs["large"]["score"] == rungs["large, 4 examples"]["score"] == 100.0
    for rung in found["rungs"]:
        if rung["score"] is not None:
            assert rung["low"] <= rung["score"] <= rung["high"] and rung["seconds_per_answer"] > 0
            assert rung["answered"] == 6 and rung["failed"] == 0
    assert rungs["large"]["difference"]["low"] > 0
    words = sum(len(request["messages"][-1]["content"].split()) for request in server.requests[:6])
    replies = 6 * 5  # "The roof 3 is fine."
    assert rungs["large"]["cost"] == pytest.approx((words * 2 + replies * 10) / 1e6 / 6 * 1000)
    assert rungs["plain prompt"]["cost"] == pytest.approx(rungs["plain prompt"]["seconds_per_answer"] / 3600 * 360)
    assert {turn["role"] for request in server.requests[:6] for turn in request["messages"]} == {"user"}
    assert [turn["role"] for turn in server.requests[-1]["messages"]][-9:] == ["user", "assistant"] * 4 + ["user"]
    assert "too few to tell" in found["advice"] and found["use"] is None
    assert read_json(run / "6-report" / "ladder.json") == json.loads(json.dumps(found))
    assert "optimised prompt" in (run / "6-report" / "report.html").read_text()
    assert any("LoRA" in line for line in said)
    text = table(found)
    assert (
        "* the best prompt on rows of the train split" in text
        and "all weights: not trained" in text
        and "cost of" in text
    )
    assert all(len(line) <= 80 for line in text.splitlines() if "ownchat" not in line)

    asked = len(server.requests)
    again = climbing.ladder("inbox", models=[model], budget=24, prices=prices, say=silent)
    assert len(server.requests) == asked, "nothing is asked twice"
    assert again["rungs"] == found["rungs"]


def test_a_server_that_fails_is_a_rung_that_failed(home: Path, server: OpenAIServer) -> None:
    server.plan = [401] * 99
    models = [f"{server.url}#large", "http://127.0.0.1:9/v1#gone"]
    found = climbing.ladder("inbox", rows=4, models=models, budget=0, say=silent)
    names = [rung["name"] for rung in found["rungs"]]
    assert names[-2:] == ["large", "gone"] and "optimised prompt" not in names
    for rung, words in zip(found["rungs"][-2:], ("refuses the key", "cannot be reached"), strict=True):
        assert rung["score"] is None and rung["failed"] == 4 and words in rung["note"]
    assert all(rung["score"] is not None for rung in found["rungs"] if rung["kind"] == "prompt")
    assert "large: the server refuses the key" in table(found)


def test_where_answers_are_kept_people_are_found(home: Path, server: OpenAIServer) -> None:
    server.answer = lambda turns: "Ask Rumpelstilzchen of the second floor."
    climbing.ladder("inbox", rows=2, models=[f"{server.url}#third"], budget=0, say=silent)
    assert {place.stage for place in find("rumpelstilzchen")} == {"6-report/ladder-answers.jsonl"}


def test_the_card_says_what_was_found(home: Path, server: OpenAIServer) -> None:
    run = shutil.copytree(home / "runs" / "inbox", home / "runs" / "carded")
    card, file = run / "6-report" / cards.MODEL_CARD, run / "6-report" / "ladder.json"
    file.unlink(missing_ok=True)
    cards.write(run)
    before = ModelCard.load(card)
    assert "Against the best prompt" not in before.content
    found = climbing.ladder("carded", models=[f"{server.url}#large"], budget=0, say=silent)
    after = ModelCard.load(card)
    assert after.data.to_dict() == before.data.to_dict() and after.data.eval_results
    said = after.text.split("## Against the best prompt\n\n")[1].split("\n## ")[0]
    best = next(rung for rung in found["rungs"] if rung["best_prompt"])
    mine = next(rung for rung in found["rungs"] if rung["run"] == "carded")
    for rung, name in ((best, "the base with its best prompt"), (mine, "this model")):
        (line,) = (line for line in said.splitlines() if line.startswith(f"| {name} ({rung['name']})"))
        assert f" {rung['score']:.1f} ({rung['low']:.1f} to {rung['high']:.1f}) " in line
        assert line.endswith(" – |") is (rung is best)
    assert found["advice"][1:] in said and "the same 6 held-out questions" in said and "large" not in said

    def for_others() -> str:
        return cards.model_card(cards.Facts(source_of("carded")), for_others=True)

    advice = "use large, 4 examples: it beats large by a larger step | and <b>"
    artifacts.write_json(file, found | {"advice": advice})
    cards.write(run)
    assert "Use large, 4 examples: it beats large by a larger step \\| and &lt;b&gt;." in card.read_text()
    assert "Use another model: it beats another model by a larger step" in for_others()
    artifacts.write_json(file, found | {"of_training": "another one"})
    assert "Against the best prompt" not in for_others()

    card.unlink()  # as of a model that a service keeps
    assert climbing.ladder("carded", budget=0, say=silent)["rungs"] == found["rungs"][:-2] and not card.exists()
    shutil.rmtree(run)


@pytest.mark.slow
def test_all_weights_are_trained_where_they_are_asked_for_and_found_afterwards(home: Path) -> None:
    said: list[str] = []
    found = climbing.ladder("inbox", full=True, rows=6, budget=0, say=said.append)
    full = next(rung for rung in found["rungs"] if rung["name"] == "all weights")
    assert full["run"] == "inbox-full" and full["score"] is not None
    config, _ = load_config(home / "runs" / "inbox-full" / "config.yaml")
    assert config.train.method == "full" and config.data.system == "Be brief." and config.train.learning_rate == 5e-5
    assert any("trained, as inbox-full" in line for line in said)
    said.clear()
    again = climbing.ladder("inbox", rows=6, budget=0, say=said.append)
    assert again["rungs"] == found["rungs"] and not any("trained, as" in line for line in said)
    assert artifacts.fingerprint(home / "runs" / "inbox" / "2-clean") == artifacts.fingerprint(
        home / "runs" / "inbox-full" / "2-clean"
    )
    other = climbing.ladder("inbox-full", rows=6, budget=0, say=silent)
    assert [rung["run"] for rung in other["rungs"] if rung["kind"] == "trained"] == ["inbox", "inbox-full"]


@pytest.mark.slow
def test_the_command_trains_a_folder_first_and_ends_with_one_line(home: Path, tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    rows = [f"Is the {thing} {n} open?,The {thing} {n} opens at nine.\n" for n in range(6) for thing in THINGS]
    (tmp_path / "desk" / "faq.csv").write_text("question,answer\n" + "".join(rows))
    command = [sys.executable, "-m", "ownchat", "ladder", "desk", "--rows", "3", "--budget", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found["rows"] == 3 and {"name", "score", "low", "high", "cost"} <= found["rungs"][0].keys()
    assert "desk is trained first" in lines[0] and any(line.startswith("What to do: ") for line in lines)
    assert (home / "runs" / "desk" / "6-report" / "ladder.json").is_file()


def test_mistakes(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        climbing.ladder("inbux", say=silent)
    with pytest.raises(UserError, match="no URL"):
        climbing.ladder("inbox", models=["localhost:8000"], say=silent)
    for price in ("cheap", "-1", "m=", "nan", "m=inf"):
        with pytest.raises(UserError, match="no price"):
            Prices.read([price], ["1"], None)
    with pytest.raises(UserError, match="no price"):
        Prices.read([], [], float("nan"))
    with pytest.raises(UserError, match="one is missing") as error:
        Prices.read(["2"], [], None)
    assert error.value.fix == "add --price-out"
    model = "http://127.0.0.1:9/v1#m"
    with pytest.raises(UserError, match="which is not asked") as error:
        climbing.ladder("inbox", models=[model], prices=Prices.read([f"{model}m=2"], ["3"], None), say=silent)
    assert "did you mean" in error.value.fix
    prices = Prices.read(["http://127.0.0.1:9/v1#other=2"], ["3"], None)
    with pytest.raises(UserError, match="one is missing") as error:
        prices.check([model, "http://127.0.0.1:9/v1#other"])
    assert error.value.where == model and "--price-in" in error.value.fix
    Prices.read(["2"], [f"{model}=3"], None).check([model])
    run = shutil.copytree(home / "runs" / "inbox", home / "runs" / "nothing")
    config, origins = load_config(run / "config.yaml")
    changed = config.model_copy(update={"model": config.model.model_copy(update={"base": "scratch"})})
    artifacts.write_atomic(run / "config.yaml", whole.to_yaml(changed, origins).replace("method: lora", "method: full"))
    with pytest.raises(UserError, match="from nothing"):
        climbing.ladder("nothing", say=silent)
    shutil.rmtree(run)


def test_documents_have_no_questions(home: Path) -> None:
    from ownchat.data.records import ShardWriter, batched, record

    run = shutil.copytree(home / "runs" / "inbox", home / "runs" / "documents")
    shutil.rmtree(run / "2-clean" / "test")
    with ShardWriter(run / "2-clean" / "test") as writer:
        for batch in batched(
            record("document", file="a.txt", format="text", line=n, text="Long ago.") for n in range(3)
        ):  # fmt: skip
            writer.write(batch)
    with pytest.raises(DataError, match="no question to ask"):
        climbing.ladder("documents", say=silent)
    shutil.rmtree(run)


def test_answers_are_as_long_as_labels_can_be(home: Path, server: OpenAIServer) -> None:
    root = home.parent / "desk"
    root.mkdir()
    names = ["lost card", "refund", "address"]
    lines = [f"Case {n} of {THINGS[n % 10]},{names[n % 3]}\n" for n in range(90)]
    (root / "cases.csv").write_text("question,answer\n" + "".join(lines))
    config, origins = load_config(sets=[*QUICK, "train.epochs=1", "evaluate.answer_tokens=64"])
    whole.train(root, name="cases", config=config, origins=origins, say=silent)
    found = climbing.ladder("cases", models=[f"{server.url}#large"], rows=6, budget=0, say=silent)
    longest = max(len(starter_tokens(home, name)) for name in names)
    assert found["metric"] == "accuracy"
    assert {request["max_tokens"] for request in server.requests} == {2 * longest + 8}
    plain = found["rungs"][0]
    assert plain["completion_tokens"] <= 2 * longest + 8 < 64
    report = read_json(home / "runs" / "cases" / "6-report" / "report.json")["held_out"]
    lora = next(rung for rung in found["rungs"] if rung["name"] == "LoRA")
    assert lora["score"] == report["labels"]["tuned"]["accuracy"]["value"], "the same as of longer answers"


def starter_tokens(home: Path, text: str) -> list[int]:
    from ownchat.tokenizer.stage import load_tokenizer

    ids: list[int] = load_tokenizer(home / "models" / starter.NAME).encode(text, add_special_tokens=False)
    return ids
