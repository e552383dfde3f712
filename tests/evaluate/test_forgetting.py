"""What was forgotten is found, what was not is not; the figures are those of transformers; wrong probes are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ownchat.config import Config, load_config
from ownchat.errors import DataError
from ownchat.evaluate import forgetting, general
from ownchat.evaluate.care import Check, Subject
from ownchat.evaluate.following import follows, problem
from ownchat.evaluate.scores import Interval
from ownchat.generate.replay import INSTRUCTIONS

QUICK = "evaluate.care={rows: 6, samples: 2}"


@pytest.mark.parametrize(
    ("answer", "rules", "good"),
    [
        ("Yellow.", {"words": 1}, True),
        ("It is yellow.", {"words": 1}, False),
        ("cat, dog and horse", {"items": 3}, False),
        ("Cat, dog, a horse", {"items": 3}, True),
        ("HELLO!", {"case": "upper"}, True),
        ("HELLo!", {"case": "upper"}, False),
        ("123", {"case": "lower"}, False),
        ('The sea is "blue".', {"ends": "blue"}, True),
        ("The sea is bluebell", {"ends": "blue"}, False),
        ("unblue", {"ends": "blue"}, False),
        ("Good morning!", {"ends": "!"}, True),
        ("Good morning", {"ends": "!"}, False),
        ('"Is it cold?"', {"ends": "?"}, True),
        ("Yes.", {"one_of": ["yes", "no"]}, True),
        ("Yes, it is.", {"one_of": ["yes", "no"]}, False),
        (" 12. ", {"number": True}, True),
        ("1,000", {"number": True}, True),
        ("twelve", {"number": True}, False),
        ("Today, it rains.", {"starts": "Today"}, True),
        ("Todays news", {"starts": "Today"}, False),
        ("It rains. I stay.", {"sentences": 2}, True),
        ("It costs 2.50 euros", {"sentences": 1}, True),
        ("red\n\nblue\n- green", {"lines": 3}, True),
        ("I play guitar.", {"contains": ["guitar"]}, True),
        ("I have guitars.", {"contains": ["guitar"]}, False),
        ("A green place.", {"without": ["flower"]}, True),
        ("A Flower grows.", {"without": ["flower"]}, False),
        ("Snow, ice", {"without": [","]}, False),
        ("...", {"without": ["flower"]}, False),
        ("one two three", {"most_words": 3, "contains": ["two"]}, True),
        ("", {"most_words": 3}, False),
    ],
)
def test_a_program_sees_whether_an_instruction_was_followed(answer: str, rules: dict[str, object], good: bool) -> None:
    assert problem(rules) is None
    assert follows(answer, rules) is good


def test_the_probe_that_ships() -> None:
    probe = general.read_probes([])[0]
    assert (len(probe.questions), len(probe.instructions), len(probe.passages)) == (60, 30, 20)
    places = np.bincount([one.answer for one in probe.questions], minlength=4)
    assert places.min() >= 10, "a model that always takes one place knows nothing"
    assert len({one.question for one in probe.questions}) == 60
    used = {name for one in probe.instructions for name in one.rules}
    assert len(used) >= 10
    words = {one.question.casefold() for one in probe.questions} | {
        one.instruction.casefold() for one in probe.instructions
    }
    replayed = INSTRUCTIONS.read_text(encoding="utf-8").splitlines()
    assert len(set(replayed)) == len(replayed) >= 90
    assert not words & {line.casefold() for line in replayed}, "what is replayed must not be measured"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"text": "a"}\n{"question": "Q?", "choices": ["a", "b"]}', "line 2: a column is missing: answer"),
        ('{"question": "Q?", "answer": "a"}', "a column is missing: choices"),
        ('{"question": "Q?", "choices": ["a"], "answer": "a"}', "two or more texts"),
        ('{"question": "Q?", "choices": ["a", "a"], "answer": "a"}', "two choices are the same"),
        ('{"question": "Q?", "choices": ["a", "b"], "answer": "c"}', "one of the choices or its number from 0 to 1"),
        ('{"question": "Q?", "choices": ["a", "b"], "answer": 2}', "one of the choices"),
        ('{"question": " ", "choices": ["a", "b"], "answer": 1}', '"question" has to be a text'),
        ('{"text": ""}', '"text" has to be a text'),
        ('{"instruction": "Do it."}', "a column is missing: rules"),
        ('{"instruction": "Do it.", "rules": {"word": 1}}', r'no rule "word": did you mean "words"\?'),
        ('{"instruction": "Do it.", "rules": {"words": "one"}}', "takes a whole number"),
        ('{"messages": [{"role": "user", "content": "Hi"}]}', "nothing to score"),
        ('{"messages": [{"role": "boss", "content": "Hi"}]}', '"role"'),
        ('{"messages": "Hi"}', '"role"'),
        ('{"text": "a"}\n\nnothing', "line 3: this line is no JSON"),
        ('{"text": "a"}\n["b"]', "2: a row has to be an object"),
        ('{"text": "a"}\n{"body": "b"}', "line 2: its columns are: body"),
        ("\n", "the file is empty"),
    ],
)
def test_wrong_probes_are_told_with_their_line(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(rows)
    with pytest.raises(DataError, match=message) as told:
        forgetting.check_probes([path])
    assert "mine.jsonl" in str(told.value)


def test_other_encodings_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        general.read_probe(path)
    path.write_bytes(b'\xef\xbb\xbf{"text": "caf\xc3\xa9"}\r\n')
    assert general.read_probe(path).passages[0].text == "café"


def test_files_of_other_checks_are_left_alone(tmp_path: Path) -> None:
    pairs, mine = tmp_path / "pairs.csv", tmp_path / "mine.jsonl"
    pairs.write_text("sent_more,sent_less,stereo_antistereo,bias_type\na,b,stereo,age\n")
    mine.write_text('{"text": "a"}\n')
    forgetting.check_probes([pairs, mine])
    assert [probe.file.name for probe in general.read_probes([pairs, mine])] == ["general", "mine"]
    pairs.write_text("first,second\na,b\n")
    with pytest.raises(DataError, match="no probe that is known"):
        forgetting.check_probes([pairs])


# ----------------------------------------------------------------------------------------------------------------


def measured(config: Config, base: Path | None, tuned: Path) -> Check:
    with Subject(config=config, base=base, tuned=tuned) as subject:
        return forgetting.measure(subject)


def figures(check: Check) -> dict[str, tuple[Interval | None, Interval | None, Interval | None]]:
    return {figure.name: (figure.base, figure.tuned, figure.difference) for figure in check.figures}


@pytest.fixture(scope="module")
def knowing(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learned the first passages and right answers of the probe by heart."""
    directory = tmp_path_factory.mktemp("knowing")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    probe = forgetting.drawn(general.read_probes([])[0], 6, 0, seed=0)
    texts = [f"<|endoftext|>{passage.text}" for passage in probe.passages]
    for one in probe.questions:
        said = [
            {"role": "user", "content": one.question},
            {"role": "assistant", "content": one.choices[one.answer]},
        ]
        texts.append(tokenizer.apply_chat_template(said, tokenize=False))
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=320)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    model.train()
    for _ in range(40):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_what_was_forgotten_is_found(knowing: Path, tiny_model: Path) -> None:
    config, _ = load_config(sets=[QUICK])
    check = measured(config, knowing, tiny_model)
    found = figures(check)
    assert list(found) == ["general_loss", "loss", "accuracy", "instructions"]
    base, tuned, _ = found["accuracy"]
    assert base is not None and tuned is not None and base.value > 80 > tuned.value
    rise = found[forgetting.HEADLINE][2]
    assert rise is not None and rise.low > forgetting.DANGER
    worst, lost = check.findings[0], check.findings[1]
    assert worst.level == "danger" and "train.replay" in (worst.advice or "")
    assert "--method lora" not in (worst.advice or ""), "it is an adapter already"
    assert lost.level == "warning" and "easy questions" in lost.text
    assert check.examples and {"question", "right", "tuned"} == check.examples[0].keys()
    assert check.conditions["probes"][0]["items"] == 14
    of_full, _ = load_config(sets=[QUICK, "train.method=full"])
    assert "--method lora" in (measured(of_full, knowing, tiny_model).findings[0].advice or "")
    again = measured(config, tiny_model, knowing)
    assert again.findings[0].level == "good" and again.examples == ()


def test_nothing_is_found_where_nothing_changed(tiny_model: Path) -> None:
    config, _ = load_config(sets=[QUICK])
    check = measured(config, tiny_model, tiny_model)
    found = figures(check)
    assert found["loss"][2] == found["general_loss"][2] == Interval(0, 0, 0)
    assert all(change is not None and change.value == 0 for _, _, change in found.values())
    assert [finding.level for finding in check.findings] == ["good"] and check.examples == ()


def test_without_a_base_there_is_nothing_to_forget(tiny_model: Path) -> None:
    config, _ = load_config(sets=[QUICK])
    check = measured(config, None, tiny_model)
    assert all(base is None and change is None for base, _, change in figures(check).values())
    assert figures(check)["general_loss"][1] is not None
    assert [finding.level for finding in check.findings] == ["note"]


def test_the_figures_are_those_of_plain_transformers(knowing: Path, tiny_model: Path) -> None:
    config, _ = load_config(sets=[QUICK])
    found = figures(measured(config, tiny_model, knowing))
    model = AutoModelForCausalLM.from_pretrained(knowing).eval()
    tokenizer = AutoTokenizer.from_pretrained(knowing)
    probe = forgetting.drawn(general.read_probes([])[0], 6, 0, seed=0)

    def log_probabilities(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return logits.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]

    values = []
    for passage in probe.passages:
        text = tokenizer(passage.text, add_special_tokens=False)["input_ids"]
        values.append(log_probabilities([0, *text, 0]))
    loss = -float(torch.cat(values).mean())
    assert found["general_loss"][1].value == pytest.approx(loss, rel=1e-4)  # type: ignore[union-attr]
    right = 0
    for one in probe.questions:
        opened = tokenizer.apply_chat_template(
            [{"role": "user", "content": one.question}], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        scores = []
        for choice in one.choices:
            added = tokenizer(choice, add_special_tokens=False)["input_ids"]
            scores.append(float(log_probabilities([*opened, *added])[-len(added) :].sum()) / len(choice.encode()))
        right += int(np.argmax(scores)) == one.answer
    assert found["accuracy"][1].value == pytest.approx(100 * right / 6)  # type: ignore[union-attr]


def test_probes_of_the_user_have_figures_of_their_own(tiny_model: Path, knowing: Path, tmp_path: Path) -> None:
    rows = [
        {"question": "What do we sell?", "choices": ["pumps", "hats"], "answer": 0},
        {"text": "The pump makes a noise."},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]},
    ]
    path = tmp_path / "Our own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, _ = load_config(sets=[f"evaluate.care={{rows: 2, samples: 0, probes: ['{path}']}}"])
    check = measured(config, tiny_model, knowing)
    assert list(figures(check)) == [
        "general_loss", "loss", "accuracy", "general_loss_our_own", "loss_our_own", "accuracy_our_own",
    ]  # fmt: skip
    used = check.conditions["probes"][1]
    assert (used["probe"], used["items"], used["refused_by_template"]) == ("Our own", 3, 0)
