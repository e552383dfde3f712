"""What users are told before the first answer, and the owner's policy in the terminal chat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ownchat.artifacts import write_json
from ownchat.config import Config, GenerateConfig
from ownchat.data.records import ShardWriter, record, to_batch
from ownchat.errors import ConfigError
from ownchat.generate.chat import chat
from ownchat.generate.disclosure import disclosure, run_of
from ownchat.generate.locate import Located, locate
from ownchat.generate.policy import REFUSAL, Policy

CARD = {"owner": "Acme Ltd", "contact": "help@acme.example"}


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    """A finished run with a date and two conversations in its train split."""
    run = make_run()
    (run / "config.yaml").write_text("{}\n")
    write_json(run / "5-train" / "manifest.json", {"key": "k", "finished": "2026-03-05T17:53:55Z"})
    counts = {"train": 2, "valid": 1, "test": 1}
    write_json(run / "2-clean" / "manifest.json", {"key": "k", "report": {"counts": counts, "details": {}}})
    turns = [{"role": "user", "content": "Where is the parcel?"}, {"role": "assistant", "content": "Here."}]
    with ShardWriter(run / "2-clean" / "train") as writer:
        writer.write(to_batch([record("conversation", file="a", format="csv", line=n, messages=turns) for n in (1, 2)]))
    return run


def test_it_is_made_of_facts(run: Path) -> None:
    assert disclosure(locate(run), Policy(), CARD) == (
        "You are talking to an AI model, trained by Acme Ltd on 2 conversations (5 March 2026). It can be wrong. "
        "Report problems to help@acme.example."
    )
    assert disclosure(locate(run), Policy(), {}) == (
        "You are talking to an AI model, trained on 2 conversations (5 March 2026). It can be wrong."
    )
    checkpoint = Located(run / "5-train" / "sft" / "checkpoints" / "step-000088" / "model")
    assert run_of(checkpoint) == run.resolve() and "2 conversations" in (disclosure(checkpoint, Policy(), {}) or "")


def test_what_is_not_known_is_not_said(run: Path, tiny_model: Path) -> None:
    (run / "2-clean" / "manifest.json").write_text("{ half")
    write_json(run / "5-train" / "manifest.json", {"key": "k"})
    assert disclosure(locate(run), Policy(), {}) == "You are talking to an AI model, trained. It can be wrong."
    alone = disclosure(Located(tiny_model), Policy(), CARD)
    assert alone is not None and tiny_model.name in alone and "run by Acme Ltd" in alone and "trained" not in alone
    assert disclosure(None, Policy(), {}) == "You are talking to an AI model. It can be wrong."


def test_the_owner_decides_what_is_said(run: Path) -> None:
    assert disclosure(locate(run), Policy.of({"disclosure": False}), CARD) is None
    told = disclosure(locate(run), Policy.of({"disclosure": "A machine\nanswers\x1b[31m here."}), CARD)
    assert told == "A machine answers[31m here."


def test_planted_secrets_are_told(run: Path) -> None:
    write_json(run / "4-tokens" / "canaries.json", {"form": "conversation", "canaries": []})
    assert "not for use" in (disclosure(locate(run), Policy(), {}) or "")


def test_the_chat_tells_it_beside_a_comparison_and_not_to_a_script(run: Path, capsys: pytest.CaptureFixture) -> None:
    settings = Config(generate={"max_tokens": 4}, evaluate={"card": CARD})
    chat(run, config=settings, compare=True, prompt="hello")
    told = capsys.readouterr()
    assert "You are talking to an AI model, trained by Acme Ltd" in " ".join(told.err.split())
    assert "AI model" not in told.out
    chat(run, config=settings, prompt="hello")
    assert "AI model" not in capsys.readouterr().err


def test_the_chat_withholds_and_says_why(run: Path, capsys: pytest.CaptureFixture) -> None:
    chat(run, settings=GenerateConfig(max_tokens=12, policy={"deny": ["/[^ ]/"]}), prompt="hello")
    told = capsys.readouterr()
    assert told.out == REFUSAL + "\n" and "(withheld: what it says is on the owner's list)" in told.err
    policy = {"out_of_scope": 0.9, "refusal": "Not my subject."}
    chat(run, settings=GenerateConfig(max_tokens=12, policy=policy), prompt="Who won the election?")
    told = capsys.readouterr()
    assert told.out == "Not my subject.\n" and "not about what it was trained on" in " ".join(told.err.split())
    chat(run, settings=GenerateConfig(max_tokens=12, policy=policy), prompt="Where is the parcel?")
    assert "withheld" not in capsys.readouterr().err


def test_a_withheld_answer_is_no_example_to_learn(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownchat.generate.chat import ChatSession, Screen, Voice
    from ownchat.generate.hf import chat_engine
    from ownchat.generate.policy import Filter

    engine = chat_engine(locate(run).model)
    filter = Filter(Policy.of({"deny": ["/[^ ]/"]}))
    settings = GenerateConfig(max_tokens=6)
    session = ChatSession([Voice("answer", engine)], settings, Screen(interactive=False),
                          count_tokens=lambda _: 1, context=None, filter=filter)  # fmt: skip
    session.handle("hello")
    session.handle(f"/save {tmp_path / 'saved.jsonl'}")
    saved = json.loads((tmp_path / "saved.jsonl").read_text())
    assert saved["messages"][-1] == {"role": "assistant", "content": REFUSAL, "weight": 0}
    engine.close()


def test_a_policy_that_cannot_be_meant_is_told_before_loading(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate\.policy\.private"):
        chat(run, settings=GenerateConfig(policy={"private": "maybe"}), prompt="hello")
