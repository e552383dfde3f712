"""The search for a prompt, on answerers whose best prompt is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from ownchat.data.records import message, record
from ownchat.errors import ConfigError, DataError, UserError
from ownchat.evaluate.instructions import from_data, read_proposal, rules, system_of, tone_of
from ownchat.evaluate.optimise import divide, optimise, schedule
from ownchat.generate.answering import Answered
from ownchat.generate.engine import Message
from ownchat.generate.prompts import Prompt

THINGS = ["card", "pin", "transfer", "fee", "refund", "limit"]


def row(number: int, question: str, answer: str, group: str | None = None, system: str | None = None) -> dict:
    turns = [message("user", question), message("assistant", answer)]
    if system is not None:
        turns.insert(0, message("system", system))
    return record("conversation", file="f", format="csv", line=number, messages=turns, group=group, language="en")


def labelled(count: int = 60) -> list[dict]:
    return [row(n, f"Question {n} about my {THINGS[n % 6]}", f"{THINGS[n % 6]}_label") for n in range(count)]


def said(text: str) -> Answered:
    return Answered(text, 0.1, 10, 2)


def test_labels_are_found_within_the_budget() -> None:
    """A model that answers with a label only if it was told the labels, or if an example shows the right one."""
    asked = 0

    def answer(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        nonlocal asked
        asked += len(prompts)
        return [said(one(messages)) for messages in prompts]

    def one(messages: Sequence[Message]) -> str:
        thing = messages[-1]["content"].split()[-1]
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        shown = [turn["content"] for turn in messages[:-1] if turn["role"] == "assistant"]
        if f"{thing}_label" in system or f"{thing}_label" in shown:
            return f"{thing}_label"
        return f"It is about your {thing}, I think."

    found = optimise(answer, labelled(), metric="accuracy", budget=150, start=Prompt("You are kind."))
    assert found.best is not None and found.best.value == 100
    assert found.start is not None and found.start.value == 0 and found.gain is not None and found.gain.low > 0
    assert found.asked == asked <= 150 and found.failed == 0
    assert found.prompt.system is not None and "card_label" in found.prompt.system
    assert found.prompt.examples == () and found.prompt.retrieve == 0, "of equally good ones the simpler"
    assert found.tried[0].what == "the start" and found.tried[0].rows == found.rows
    assert found.rows == max(one.rows for one in found.tried), "the start went all the way, though it is the worst"
    assert {one.rows for one in found.tried} != {found.rows}, "the worse ones answered fewer questions"


def test_examples_are_found_where_no_instruction_helps() -> None:
    """A model that copies the answer of an example about the same thing."""

    def answer(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        return [said(one(messages)) for messages in prompts]

    def one(messages: Sequence[Message]) -> str:
        thing = messages[-1]["content"].split()[-1]
        for question, reply in pairwise(messages):
            if question["role"] == "user" and question["content"].endswith(thing):
                return str(reply["content"])
        return "no idea"

    rows = [
        row(n, f"Number {n}: my {THINGS[n % 6]}", f"Your {THINGS[n % 6]} is fine, dear customer.") for n in range(60)
    ]
    found = optimise(answer, rows, metric="chrf", budget=200, start=Prompt("Help."))
    assert found.prompt.retrieve > 0 and found.prompt.examples == ()
    assert found.best is not None and found.best.value > 99
    assert found.asked <= 200


def test_the_same_seed_is_the_same_search() -> None:
    def answer(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        return [said(str(len(str(messages)) % 7)) for messages in prompts]

    first, again, other = (
        optimise(answer, labelled(), metric="chrf", budget=100, start=Prompt("S"), seed=seed) for seed in (1, 1, 2)
    )
    assert first == again and first != other
    shuffled = optimise(answer, labelled()[::-1], metric="chrf", budget=100, start=Prompt("S"), seed=1)
    assert shuffled == first, "the order of the records does not matter"


def test_only_questions_of_train_are_asked_and_none_serves_as_its_own_example() -> None:
    train = labelled(40)
    known = {item["messages"][0]["content"] for item in train}
    asked, shown = set(), set()

    def answer(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        for messages in prompts:
            asked.add(messages[-1]["content"])
            shown.update(turn["content"] for turn in messages[:-1] if turn["role"] == "user")
        return [said("x") for _ in prompts]

    optimise(answer, train, metric="accuracy", budget=200, start=Prompt("S"))
    assert asked <= known and shown <= known and shown
    assert not asked & shown


def test_a_proposer_writes_instructions() -> None:
    """Its first answers are of no use, and are counted; one of the later ones is what the model needs."""
    replies = iter(
        ["", "x" * 9999, "Answer with the magic {{word}}.", "```\nSay nothing at all.\n```"] + ["meh meh meh"] * 9
    )
    asked: list[str] = []

    def propose(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        asked.extend(messages[-1]["content"] for messages in prompts)
        return [said(next(replies)) for _ in prompts]

    def answer(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        good = [messages[0]["content"] == "Answer with the magic {{word}}." for messages in prompts]
        return [
            said(f"{messages[-1]['content'].split()[-1]}_label" if yes else "no")
            for messages, yes in zip(prompts, good, strict=True)
        ]

    found = optimise(answer, labelled(), metric="accuracy", budget=200, start=Prompt("S"), propose=propose)
    assert "written by the proposer" in [one.what for one in found.tried if one.prompt == found.prompt]
    assert found.prompt.system == "Answer with the magic {{ '{{' }}word}}.", "a model's text is no template"
    assert found.failed == 2 and found.asked <= 200
    assert len(asked) == 6 and "_label" in asked[0] and "magic {{word}}" in asked[-1], "the best so far is rewritten"


def test_answers_that_fail_are_counted_and_score_nothing() -> None:
    def answer(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        return [
            said("card_label") if len(messages) == 2 else Answered("", 0.0, 0, 0, "9,999 tokens do not fit")
            for messages in prompts
        ]

    found = optimise(answer, labelled(), metric="accuracy", budget=150, start=Prompt("S"))
    with_examples = [one for one in found.tried if one.prompt.retrieve or one.prompt.examples]
    assert with_examples and all(one.failed == one.rows and one.score == 0 for one in with_examples)
    assert found.failed == sum(one.failed for one in found.tried)
    assert not found.prompt.examples and not found.prompt.retrieve


def test_a_model_that_is_down_ends_the_search() -> None:
    calls = 0

    def answer(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        nonlocal calls
        calls += 1
        return [Answered("", 0.0, 0, 0, "the server cannot be reached") for _ in prompts]

    with pytest.raises(UserError, match="the server cannot be reached") as error:
        optimise(answer, labelled(), metric="accuracy", budget=200, start=Prompt("S"))
    assert calls == 1 and error.value.fix


def test_too_little_to_search_on() -> None:
    def never(prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        raise AssertionError("nothing may be asked")

    with pytest.raises(DataError, match="3 conversations") as error:
        optimise(never, labelled(3), metric="chrf", budget=200, start=Prompt("S"))
    assert "8" in error.value.fix
    with pytest.raises(ConfigError, match="3 answers are too few"):
        optimise(never, labelled(), metric="chrf", budget=3, start=Prompt("S"))


def test_the_least_is_enough_to_run() -> None:
    found = optimise(
        lambda prompts: [said("x")] * len(prompts), labelled(8), metric="chrf", budget=24, start=Prompt("S")
    )
    assert found.asked <= 24 and found.rows >= 1 and found.prompt == Prompt("S"), "nothing is better: the start"


def test_groups_stand_on_one_side() -> None:
    import random

    items = [row(n, f"q {n}", f"a {n}", group=f"customer {n % 10}") for n in range(60)]
    development, rest = divide(items, 200, random.Random(0))
    assert not {item["group"] for item in development} & {item["group"] for item in rest}
    assert len(development) == 30 and len(rest) == 30
    one_group = [row(n, f"q {n}", f"a {n}", group="all") for n in range(20)]
    development, rest = divide(one_group, 200, random.Random(0))
    assert len(development) == 10 and len(rest) == 10
    assert not {item["id"] for item in development} & {item["id"] for item in rest}


@pytest.mark.parametrize("candidates", [1, 2, 3, 5, 9, 14])
@pytest.mark.parametrize("budget", [1, 9, 40, 200, 5_000])
@pytest.mark.parametrize("rows", [4, 30, 500])
def test_schedules_stay_in_the_budget(candidates: int, budget: int, rows: int) -> None:
    plan = schedule(candidates, budget, rows)
    if not plan:
        assert budget < 3 * candidates
        return
    cost = before = 0
    alive, upto = candidates, 0
    for number, upto in plan:
        assert number <= alive and before < upto <= rows
        cost, alive, before = cost + number * (upto - before), number, upto
    assert cost <= budget
    assert upto == rows or budget - cost < alive or alive > 3, "what is left would not buy one more row for all"


# --------------------------------------------------------------------------------------------------- instructions


def test_rules_follow_from_the_data() -> None:
    rows = [row(n, f"q {n}", f"Your order number {n} is on its way to you now.") for n in range(20)]
    found = rules(rows, "chrf")
    assert "Answer in English." in found and "one sentence" in found and "10 words" in found
    labels = rules(labelled(), "accuracy")
    assert all(f"\n- {thing}_label" in labels for thing in THINGS) and "exactly one" in labels
    assert tone_of(labelled(), "accuracy") == "" and "on its way" in tone_of(rows, "chrf")
    many = [row(n, "q", f"{'long label ' * 5}{n}") for n in range(500)]
    assert len(rules(many, "accuracy")) < 6_200, "not so many labels that no context holds them"


def test_the_system_text_of_the_data_is_tried() -> None:
    rows = [row(n, f"q {n}", f"a {n}.", system="Be {{kind}}.") for n in range(10)]
    assert system_of(rows) == "Be {{kind}}." and system_of(labelled()) is None
    texts = from_data(rows, "chrf", Prompt(None))
    assert texts[0].system == "Be {{ '{{' }}kind}}."
    assert len({text.system for text in texts}) == len(texts)


def test_what_a_proposer_says_is_cleaned() -> None:
    assert read_proposal("<instructions>\nAnswer briefly.\n</instructions>") == "Answer briefly."
    assert read_proposal("```text\nAnswer briefly.\n```") == "Answer briefly."
    assert read_proposal("ok") is None and read_proposal("x" * 5_000) is None
