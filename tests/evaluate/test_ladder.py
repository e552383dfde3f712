"""The ladder on answers by rule: what is chosen on train rows, what is compared with what, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from ownchat.data.records import Record, message, record
from ownchat.errors import ModelError
from ownchat.evaluate.answer_scores import difference, score
from ownchat.evaluate.answers import questions
from ownchat.evaluate.ladder import (
    AS_IS,
    PLAIN,
    PromptSearch,
    Row,
    Rung,
    best_prompt,
    measured,
    metric_of,
    paired,
    rows_of,
)  # fmt: skip
from ownchat.evaluate.ladder_advice import advise
from ownchat.generate.answering import Answered
from ownchat.generate.prompts import Prompt

TOPICS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]


def conversation(number: int, *, system: str | None = None, split: str = "train") -> Record:
    topic = TOPICS[number % len(TOPICS)]
    turns = [message("system", system)] if system else []
    turns.append(message("user", f"What about {topic} {number}?"))
    turns.append(message("assistant", f"{topic.title()}s are fine here."))
    group = f"{split}{number}"
    return record("conversation", file=f"{split}.csv", format="csv", line=number, messages=turns, group=group)


TRAIN = [conversation(number) for number in range(60)]
TEST = rows_of(questions([conversation(number, split="test") for number in range(40)]))


def answered(text: str) -> Answered:
    return Answered(text, 0.5, 10, 3)


class Parrot:
    """Answers as the last example did; without one it says nothing of use. Remembers what it was asked."""

    def __init__(self, rule: Callable[[list[dict]], str] | None = None) -> None:
        self.seen: list[list[dict]] = []
        self.rule = rule

    def __call__(self, prompts: Sequence[Sequence[dict]]) -> list[Answered]:
        self.seen += [list(prompt) for prompt in prompts]
        return [answered(self.rule(list(prompt)) if self.rule else self.said(list(prompt))) for prompt in prompts]

    @staticmethod
    def said(prompt: list[dict]) -> str:
        before = [turn["content"] for turn in prompt if turn["role"] == "assistant"]
        return before[-1] if before else "I do not know."


# ---------------------------------------------------------------------------------------------- choosing prompts


def test_prompts_are_chosen_on_train_rows_that_give_no_examples() -> None:
    model = Parrot()
    search = PromptSearch(model, TRAIN, "chrf")
    chosen_on = {row.messages[-1]["content"] for row in search.choosing}
    assert search.can_choose and len(chosen_on) == 16
    plain = search.on_train(PLAIN)
    prompt, value, what = search.examples(PLAIN)
    assert prompt.retrieve in (1, 2, 4, 8) and value is not None and plain is not None and value > plain + 30
    assert "example" in what
    asked = {turns[-1]["content"] for turns in model.seen}
    assert asked == chosen_on, "only these were asked"
    shown = {turn["content"] for turns in model.seen for turn in turns[:-1] if turn["role"] == "user"}
    assert shown and not shown & chosen_on, "no question stands among its own examples"
    assert not any("test" in str(turns) for turns in model.seen)


def test_held_out_rows_get_the_likest_examples_of_the_whole_train_split() -> None:
    model = Parrot()
    search = PromptSearch(model, TRAIN, "chrf")
    answers = search.held_out(Prompt("", retrieve=2), TEST)
    assert [one.text for one in answers] == [row.reference for row in TEST], "the likest example stands last"
    assert all(len(turns) == 5 for turns in model.seen) and search.fewer == 0


def test_a_full_context_gets_fewer_examples_and_says_for_how_many() -> None:
    model = Parrot()
    search = PromptSearch(model, TRAIN, "chrf", fits=lambda turns: len(turns) <= 5)
    search.held_out(Prompt("", retrieve=4), TEST)
    assert {len(turns) for turns in model.seen} == {5} and search.fewer == len(TEST)
    fewer, model.seen = model.seen, []
    PromptSearch(model, TRAIN, "chrf").held_out(Prompt("", retrieve=2), TEST)
    assert fewer == model.seen, "the least like go first"
    search.held_out(Prompt("", retrieve=1), TEST)
    assert search.fewer == 0


def test_the_best_system_text_is_found_and_the_plain_prompt_has_none() -> None:
    def rule(turns: list[dict]) -> str:
        system = turns[0]["content"] if turns[0]["role"] == "system" else ""
        topic = turns[-1]["content"].split()[2]
        return f"{topic.title()}s are fine here." if "You sell" in system else "Well, hello there!"

    train = [conversation(number, system=f"You sell {TOPICS[number % 3]}s.") for number in range(60)]
    search = PromptSearch(Parrot(rule), train, "chrf")
    prompt, value, what = search.system()
    assert prompt == AS_IS and value == pytest.approx(100.0) and what == "the system text of the data"
    plain = Parrot(rule)
    PromptSearch(plain, train, "chrf").on_train(PLAIN)
    assert all(turn["role"] != "system" for turns in plain.seen for turn in turns)


def test_one_system_text_of_the_data_is_in_the_prompt_that_is_chosen() -> None:
    def rule(turns: list[dict]) -> str:
        known = turns[0]["content"].strip() == "You sell {things}."
        return f"{turns[-1]['content'].split()[2].title()}s are fine here." if known else "Well, hello there!"

    train = [conversation(number, system="You sell {things}.") for number in range(60)]
    prompt, value, what = PromptSearch(Parrot(rule), train, "chrf").system()
    assert (prompt, value) == (Prompt("You sell {things}."), pytest.approx(100.0))
    assert what == "the system text of the data"


def test_a_template_that_refuses_system_texts_leaves_the_rest() -> None:
    def refuses(prompts: Sequence[Sequence[dict]]) -> list[Answered]:
        if any(turns[0]["role"] == "system" for turns in prompts):
            raise ModelError("no system role here")
        return [answered("x") for _ in prompts]

    search = PromptSearch(refuses, TRAIN, "chrf")
    assert search.system() == (PLAIN, None, "no system role here")
    assert search.on_train(PLAIN) is not None


def test_texts_that_do_not_fit_are_not_called_refused() -> None:
    def short(prompts: Sequence[Sequence[dict]]) -> list[Answered]:
        return [Answered("", 0, 0, 0, "do not fit") if len(turns) > 1 else answered("x") for turns in prompts]

    assert PromptSearch(short, TRAIN, "chrf").system() == (PLAIN, None, "do not fit")


def test_too_few_rows_to_choose_on() -> None:
    assert not PromptSearch(Parrot(), TRAIN[:9], "chrf").can_choose
    assert not PromptSearch(Parrot(), [], "chrf").can_choose
    assert PromptSearch(Parrot(), TRAIN[:12], "chrf").can_choose


def test_labels_are_scored_by_accuracy() -> None:
    labels = [record("conversation", file="a", format="csv", line=number, group=str(number), messages=[
        message("user", f"question {number}"), message("assistant", ["card lost", "card late"][number % 2]),
    ]) for number in range(60)]  # fmt: skip
    assert metric_of(labels) == "accuracy" and metric_of(TRAIN) == "chrf"
    assert len(PromptSearch(Parrot(), labels, "accuracy").choosing) == 20


# ------------------------------------------------------------------------------------------------------- figures


def rung(name: str, right: Sequence[bool], kind: str = "prompt", **more: object) -> Rung:
    """Exactly right answers where ``right``, else wrong ones."""
    texts = [row.reference if good else "no" for row, good in zip(ROWS, right, strict=True)]
    return Rung(name, kind, tuple(map(answered, texts)), **more)  # type: ignore[arg-type]


ROWS = [Row(({"role": "user", "content": f"question {n}"},), f"reply {n}", f"g{n}") for n in range(40)]
HALF = [number % 2 == 0 for number in range(40)]
MOST = [number % 10 != 0 for number in range(40)]
ALL = [True] * 40


def test_figures_are_those_of_the_scores() -> None:
    plain, few, lora = rung("plain prompt", HALF), rung("4 examples", MOST, chosen=50.0), rung("LoRA", ALL, "trained")
    found = measured([plain, few, lora], ROWS, "exact", draws=300)
    references, groups = [row.reference for row in ROWS], [row.group for row in ROWS]
    for each, source in zip(found, (plain, few, lora), strict=True):
        expected = score("exact", [one.text for one in source.answers], references, groups, draws=300)
        assert (each["score"], each["low"], each["high"]) == (expected.value, expected.low, expected.high)
        assert each["seconds_per_answer"] == 0.5 and each["completion_tokens"] == 3 and each["failed"] == 0
    assert [each["best_prompt"] for each in found] == [False, True, False]
    assert found[0]["difference"] is None and found[1]["against_prompt"] is None
    gain = difference("exact", *([one.text for one in r.answers] for r in (few, lora)), references, groups, draws=300)
    assert found[2]["against_prompt"] == {"value": gain.value, "low": gain.low, "high": gain.high}
    assert found[2]["difference"]["value"] == 50.0 and found[2]["against_prompt"]["value"] == 10.0


def test_rows_without_an_answer_are_counted_and_left_out_on_both_sides() -> None:
    plain = rung("plain prompt", HALF)
    broken = tuple(Answered("", 9.0, 0, 0, "down") if at < 20 else one for at, one in enumerate(plain.answers))
    server = replace(rung("m", ALL, "server"), answers=broken)
    down = replace(server, name="n", answers=tuple(Answered("", 0, 0, 0, "down") for _ in ROWS), note="down")
    never = Rung("all weights", "trained", None, "not trained")
    found = measured([plain, server, down, never], ROWS, "exact", draws=200)
    assert (found[1]["answered"], found[1]["failed"], found[1]["score"]) == (20, 20, 50.0)
    assert found[1]["seconds_per_answer"] == 0.5, "of what was answered"
    assert found[1]["difference"]["value"] == 0.0
    for each in found[2:]:
        assert each["score"] is each["difference"] is each["seconds_per_answer"] is None
    assert (found[2]["failed"], found[3]["failed"], found[3]["note"]) == (40, 0, "not trained")
    assert paired(plain, never, ROWS, "exact") is paired(plain, down, ROWS, "exact") is None


def test_the_best_prompt_is_the_one_of_the_train_rows_not_of_the_test_rows() -> None:
    worse_here = rung("system prompt", HALF, chosen=60.0)
    plain = rung("plain prompt", MOST, chosen=40.0)
    rungs = [plain, worse_here, rung("LoRA", ALL, "trained"), rung("m", ALL, "server")]
    assert best_prompt(rungs) is worse_here
    assert best_prompt([rung("plain prompt", HALF)]).name == "plain prompt"
    assert best_prompt([rung("LoRA", ALL, "trained")]) is None


# -------------------------------------------------------------------------------------------------------- advice


def test_train_when_it_beats_the_best_prompt() -> None:
    plain, few = rung("plain prompt", [False] * 40, chosen=1.0), rung("4 examples", HALF, chosen=50.0)
    said = advise([plain, few, rung("LoRA", ALL, "trained")], ROWS, "exact")
    assert said.train and said.rung == "LoRA"
    assert said.text.startswith("train: LoRA beats the best prompt by 50.0 points of exact matches [")


def test_a_prompt_that_is_as_good_takes_less() -> None:
    few = rung("4 examples", ALL, chosen=90.0, prompt=Prompt("", retrieve=4))
    rungs = [rung("plain prompt", HALF, chosen=50.0), few, rung("LoRA", ALL, "trained")]
    said = advise(rungs, ROWS, "exact")
    assert not said.train and said.rung == "4 examples"
    assert said.text.startswith("a prompt with four examples is as good: do not train (LoRA: ")
    worse = [*rungs[:2], rung("LoRA", HALF, "trained")]
    assert "is better than LoRA" in advise(worse, ROWS, "exact").text
    assert advise([rung("plain prompt", ALL), rung("LoRA", ALL, "trained")], ROWS, "exact").text.startswith(
        "the plain prompt is as good: do not train"
    )


def test_wide_intervals_are_not_called_as_good() -> None:
    almost = [number % 10 != 0 for number in range(40)]
    other = [number % 10 != 1 for number in range(38)] + [True, True]
    said = advise([rung("plain prompt", almost, chosen=1.0), rung("LoRA", other, "trained")], ROWS, "exact")
    assert said.rung is None and "40 questions cannot tell the plain prompt from LoRA" in said.text


def test_more_than_lora_only_where_it_pays() -> None:
    prompts = [rung("plain prompt", [False] * 40, chosen=1.0)]
    said = advise([*prompts, rung("LoRA", HALF, "trained"), rung("all weights", ALL, "trained")], ROWS, "exact")
    assert said.train and said.rung == "all weights" and "and LoRA by 50.0" in said.text
    said = advise([*prompts, rung("LoRA", ALL, "trained"), rung("all weights", ALL, "trained")], ROWS, "exact")
    assert said.rung == "LoRA"
    said = advise([*prompts, rung("LoRA", HALF, "trained"), rung("big", ALL, "server")], ROWS, "exact")
    assert said.rung == "big" and not said.train and "what was trained here by 50.0" in said.text


def test_few_rows_say_that_they_are_few() -> None:
    rungs = [
        replace(each, answers=each.answers[:3]) for each in (rung("plain prompt", HALF), rung("LoRA", ALL, "trained"))
    ]
    said = advise(rungs, ROWS[:3], "exact")
    assert said.rung is None and "too few to tell: 3 questions of 3 groups" in said.text
    one_group = [replace(row, group="all") for row in ROWS]
    assert "of 1 group " in advise([rung("plain prompt", HALF), rung("LoRA", ALL, "trained")], one_group, "exact").text
    never = Rung("LoRA", "trained", None, "not trained")
    assert "nothing to compare" in advise([rung("plain prompt", HALF), never], ROWS, "exact").text


def only(rung: Rung, answered: int) -> Rung:
    """The rung with an answer to the first rows only."""
    answers = tuple(one if at < answered else Answered("", 0, 0, 0, "429") for at, one in enumerate(rung.answers or ()))
    return replace(rung, answers=answers)


@pytest.mark.parametrize("count", [1, 9, 19])
def test_a_rung_that_answered_few_rows_is_left_out_and_named(count: int) -> None:
    rungs = [rung("plain prompt", [False] * 40, chosen=1.0), rung("LoRA", HALF, "trained")]
    server = only(rung("big", ALL, "server"), count)
    said = advise([*rungs, server], ROWS, "exact")
    assert said.rung == "LoRA" and said.text.endswith(f"left out, too few rows were answered: big ({count} of 40)")
    assert advise([*rungs, only(server, 0)], ROWS, "exact") == advise(rungs, ROWS, "exact")
    assert advise([*rungs, only(rung("big", ALL, "server"), 20)], ROWS, "exact").rung == "big"
    said = advise([rungs[0], server], ROWS, "exact")
    assert said.rung is None and "fewer than two rungs answered enough rows" in said.text


def test_rungs_that_answered_other_rows_are_not_called_as_good() -> None:
    plain, lora = rung("plain prompt", ALL, chosen=1.0), rung("LoRA", ALL, "trained")
    late = tuple(one if at >= 20 else Answered("", 0, 0, 0, "long") for at, one in enumerate(lora.answers or ()))
    said = advise([only(plain, 20), replace(lora, answers=late)], ROWS, "exact")
    assert said.rung is None and "too few of the same rows" in said.text


def test_beats_is_said_of_an_interval_above_zero_alone() -> None:
    plain = rung("plain prompt", [at < 20 for at in range(40)], chosen=1.0)
    lora = rung("LoRA", [at >= 17 for at in range(40)], "trained")  # 3 better, by a wide interval
    server = rung("big", [at < 20 or at >= 34 for at in range(40)], "server")  # 6 better, on other rows
    assert paired(plain, server, ROWS, "exact").low > 0
    assert paired(plain, lora, ROWS, "exact").low < 0 and paired(lora, server, ROWS, "exact").low < 0
    said = advise([plain, lora, server], ROWS, "exact")
    assert said.rung is None and "40 questions cannot tell the plain prompt from LoRA" in said.text


def test_a_tie_with_the_best_is_not_said_of_another_that_is_better() -> None:
    plain = rung("plain prompt", [at < 20 for at in range(40)], chosen=1.0)
    lora = rung("LoRA", [at < 26 for at in range(40)], "trained")
    server = rung("big", [at >= 11 for at in range(40)], "server")
    assert paired(plain, server, ROWS, "exact").low < 0 < paired(plain, lora, ROWS, "exact").low
    assert paired(lora, server, ROWS, "exact").value > 0, "the best one is the server"
    said = advise([plain, lora, server], ROWS, "exact")
    assert said.rung == "LoRA" and said.text.startswith("train: LoRA beats the best prompt by 15.0")
