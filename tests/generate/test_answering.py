"""Answers to many prompts: batched equals one at a time, a server's failures are counted, nothing is asked twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from openai_server import OpenAIServer

from ownchat.generate.answering import Answered, answer_all, batches, remembered
from ownchat.generate.engine import Request, Sampling
from ownchat.generate.hf import HfEngine, chat_engine
from ownchat.generate.openai import OpenAIEngine


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> HfEngine:
    return chat_engine(tiny_model)


def asked(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_a_local_model_answers_in_batches_as_it_does_alone(engine: HfEngine) -> None:
    prompts = asked("hello", "Where is the parcel that I sent to Vienna?", "pump", "Grüße aus Köln")
    seen: list[int] = []
    answers = answer_all(engine, prompts, max_tokens=12, progress=seen.append)
    for prompt, answer in zip(prompts, answers, strict=True):
        deltas = list(engine.stream(Request(messages=prompt, max_tokens=12)))
        assert answer.text == "".join(delta.text for delta in deltas).strip()
        assert (answer.prompt_tokens, answer.completion_tokens) == (
            deltas[-1].usage.prompt_tokens, deltas[-1].usage.completion_tokens,
        )  # fmt: skip
        assert answer.error is None and answer.seconds > 0
    assert sum(seen) == 4


def test_a_prompt_longer_than_the_context_has_no_answer_and_says_so(engine: HfEngine) -> None:
    seen: list[int] = []
    first, second, third = answer_all(engine, asked("hello", "long " * 600, "pump"), max_tokens=8, progress=seen.append)
    assert first.error is third.error is None and first.completion_tokens > 0
    assert second.text == "" and second.completion_tokens == 0 and "do not fit" in str(second.error)
    assert sum(seen) == 3
    sampled = answer_all(engine, asked("long " * 600, "pump"), max_tokens=8, sampling=Sampling(temperature=1, seed=0))
    assert "do not fit" in str(sampled[0].error) and sampled[1].completion_tokens > 0


def test_sampled_answers_are_those_of_the_engine(engine: HfEngine) -> None:
    sampling = Sampling(temperature=2.0, seed=5)
    (answer,) = answer_all(engine, asked("hello"), max_tokens=12, sampling=sampling)
    deltas = engine.stream(Request(messages=asked("hello")[0], max_tokens=12, sampling=sampling))
    assert answer.text == "".join(delta.text for delta in deltas).strip()


def test_a_prompt_that_the_template_refuses_does_not_lose_the_others(
    engine: HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    monkeypatch.setattr(engine.tokenizer, "chat_template", template + engine.tokenizer.chat_template)
    first, second = asked("hello", "pump")
    seen: list[int] = []
    prompts = [first, [{"role": "system", "content": "Be brief."}, *second], second]
    answers = answer_all(engine, prompts, max_tokens=8, progress=seen.append)
    assert answers[0].completion_tokens > 0 and answers[2].completion_tokens > 0 and sum(seen) == 3
    assert "no system role" in str(answers[1].error)
    assert answers[1] == Answered("", 0.0, 0, 0, answers[1].error)


def test_batches_hold_every_row_once_within_the_bound() -> None:
    lengths = {row: 1 + 37 * row % 211 for row in range(100)}
    made = batches(lengths, tokens=600, rows=8)
    assert sorted(row for batch in made for row in batch) == list(range(100))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 600 and len(batch) <= 8 for batch in made)
    assert batches({0: 9_000_000}) == [[0]]


def test_a_server_is_asked_in_parallel_and_the_order_is_that_of_the_prompts(server: OpenAIServer) -> None:
    together: list[int] = []
    waiting = 0

    def slowly(messages: list[dict]) -> str:
        nonlocal waiting
        waiting += 1
        together.append(waiting)
        time.sleep(0.02)
        waiting -= 1
        return " " + messages[-1]["content"].upper() + "\n"

    server.answer = slowly
    answers = answer_all(OpenAIEngine(server.url, "m"), asked(*"abcdefghijkl"), max_tokens=8, at_once=4)
    assert [one.text for one in answers] == list("ABCDEFGHIJKL")
    assert 1 < max(together) <= 4
    assert all(one.prompt_tokens == one.completion_tokens == 1 and one.seconds > 0 for one in answers)


def test_what_a_server_does_not_answer_is_counted_and_not_invented(server: OpenAIServer) -> None:
    server.plan = [200, 413, 200]
    answers = answer_all(OpenAIEngine(server.url, "m"), asked("a", "b", "c"), max_tokens=8, at_once=1)
    assert [one.text for one in answers] == ["A", "", "C"]
    assert [one.error for one in answers] == [None, "the prompt is longer than the model's context", None]
    server.plan = [200, 401]
    answers = answer_all(OpenAIEngine(server.url, "m"), asked("a", "b", "c", "d"), max_tokens=8, at_once=1)
    assert [one.error for one in answers] == [None, *["the server refuses the key"] * 3]
    assert len(server.requests) == 5, "of a server that refuses the key the rest is not asked"


def test_a_server_that_is_not_there(server: OpenAIServer) -> None:
    answers = answer_all(OpenAIEngine("http://127.0.0.1:9/v1", retries=0), asked("a", "b"), max_tokens=8)
    assert answers == [Answered("", 0.0, 0, 0, "the server cannot be reached", unusable=True)] * 2


def test_answers_are_remembered_and_failures_are_not(tmp_path: Path) -> None:
    calls: list[str] = []

    def answer(prompts, arrived):
        calls.extend(prompt[0]["content"] for prompt in prompts)
        down = len(calls) < 4
        texts = [prompt[0]["content"] for prompt in prompts]
        made = [Answered("", 0, 0, 0, "no") if down and text == "b" else Answered(text, 1, 2, 3) for text in texts]
        for row, one in enumerate(made):
            arrived(row, one)
        return made

    file = tmp_path / "kept" / "answers.jsonl"
    ask = remembered(answer, file, "model 1")
    first = ask(asked("a", "b", "a"))
    assert [one.text for one in first] == ["a", "", "a"] and calls == ["a", "b"]
    with open(file, "a") as handle:
        handle.write('{"key": "half a li')
    second = ask(asked("c", "a", "b"))
    assert [one.text for one in second] == ["c", "a", "b"] and calls == ["a", "b", "c", "b"]
    assert second[1] == Answered("a", 1, 2, 3)
    remembered(answer, file, "model 2")(asked("a"))
    assert calls[-1] == "a", "another model is asked"
    assert [one.text for one in ask(asked("a", "b", "c"))] == ["a", "b", "c"] and len(calls) == 5
    assert oct(file.stat().st_mode)[-3:] == "600" and len(file.read_text().splitlines()) == 5


def test_what_was_answered_before_an_interrupt_is_kept(server: OpenAIServer, engine: HfEngine, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    left = [31]

    def stop(count: int) -> None:
        left[0] -= count
        if left[0] == 0:
            raise KeyboardInterrupt

    prompts = asked(*map(str, range(32)))
    behind = OpenAIEngine(server.url, "m")
    ask = remembered(
        lambda todo, arrived: answer_all(behind, todo, max_tokens=8, at_once=1, progress=stop, arrived=arrived),
        file,
        "model 1",
    )
    with pytest.raises(KeyboardInterrupt):
        ask(prompts)
    assert len(file.read_text().splitlines()) == 31
    assert [one.text for one in ask(prompts)] == list(map(str, range(32)))
    assert len(file.read_text().splitlines()) == 32
    here = remembered(lambda todo, arrived: answer_all(engine, todo, max_tokens=2, arrived=arrived), file, "model 2")
    assert here(prompts[:3]) == here(prompts[:3]), "batches of this process are kept, too"
