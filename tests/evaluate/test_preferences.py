"""Pairs of the test split: the figures are what plain transformers gives, and they reach the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ownchat.config import EvaluateConfig
from ownchat.data.records import Record, message, record
from ownchat.evaluate import wording
from ownchat.evaluate.held_out import measure
from ownchat.evaluate.preferences import as_conversation, compare_pairs, pair_documents

FEW = EvaluateConfig(answers=1, answer_tokens=4, draws=100)
PAIRS = [
    ("Where is my parcel?", "It left our warehouse today.", "No idea, it is gone for good I think."),
    ("Can I return it?", "Yes, within thirty days.", "No."),
    ("The pump is loud.", "Close the valve and open it again.", "Then buy another one, or live with it."),
]


def pair(at: int) -> Record:
    question, chosen, rejected = PAIRS[at]
    return record(
        "preference", file="p.jsonl", format="jsonl", line=at + 1, group=f"customer-{at}",
        messages=[message("user", "Hello"), message("assistant", "Good day."), message("user", question)],
        chosen=[message("assistant", chosen)], rejected=[message("assistant", rejected)],
    )  # fmt: skip


def judged(desirable: bool) -> Record:
    messages = [message("user", "Open?"), message("assistant", "From nine to five.")]
    return record("preference", file="v.jsonl", format="jsonl", line=9, messages=messages, desirable=desirable)


def nats(directory: Path, documents: list[tuple[list[int], list[int]]]) -> np.ndarray:
    """By plain transformers: the log-probability of each reply."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    found = []
    for ids, weights in documents:
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        each = scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        found.append(float(each[torch.tensor(weights[1:]) == 1].sum()))
    return np.array(found)


@pytest.fixture(scope="module")
def moved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than the tiny one."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    directory = tmp_path_factory.mktemp("moved")
    shutil.copytree(tiny_model, directory, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(directory)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    model.save_pretrained(directory)
    return directory


def test_figures_are_those_of_plain_transformers(tiny_model: Path, moved: Path) -> None:
    from ownchat.tokenizer.stage import load_tokenizer

    records = [pair(0), pair(1), pair(2), judged(True), judged(False)]
    result = measure(tiny_model, moved, records, FEW)
    found = result.preferences
    assert found is not None and found.pairs == 3
    items, documents = pair_documents(load_tokenizer(moved), records)
    assert items == records[:3]
    base, tuned = nats(tiny_model, documents), nats(moved, documents)
    lengths = np.array([sum(weights) for _, weights in documents])
    for scores, interval in ((base, found.base), (tuned, found.tuned)):
        likelier = (scores / lengths)[0::2] > (scores / lengths)[1::2]
        assert interval is not None and interval.value == pytest.approx(likelier.mean())
    gains = tuned - base
    margins = gains[0::2] - gains[1::2]
    assert found.margin is not None and found.margin.value == pytest.approx(margins.mean(), rel=1e-4)
    assert found.rewarded is not None and found.rewarded.value == pytest.approx((margins > 0).mean())
    assert found.margin.low <= found.margin.value <= found.margin.high
    assert result.records == 4, "with preferences alone, the replies that were wanted are scored"
    assert any("preferences only" in note for note in result.notes)


def test_the_wanted_reply_is_scored_alone() -> None:
    made = as_conversation(pair(0))
    assert made is not None and made["kind"] == "conversation"
    assert [turn["weight"] for turn in made["messages"]] == [0, 0, 0, None]
    assert made["messages"][-1]["content"] == PAIRS[0][1]
    assert as_conversation(judged(False)) is None
    assert as_conversation(judged(True))["messages"][-1]["content"] == "From nine to five."  # type: ignore[index]


def test_one_group_has_no_interval_and_a_sentence() -> None:
    replies = [([1, 2], [0, 1])] * 2
    found = compare_pairs([{"group": "a"}], replies, np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    lines = wording.preferences({"preferences": asdict(found)})
    assert "1 preference pair of the test split" in lines[0] and "100 % of them" in lines[0]
    assert "50 % of them" in lines[1], "nothing was learned: half a pair"
    assert wording.preferences({"preferences": None}) == wording.preferences({}) == []
