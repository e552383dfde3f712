"""Public benchmarks through the API: lm-evaluation-harness counts the same as beside the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Gateway

needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason='lm-evaluation-harness is not installed: pip install "ownchat[benchmarks]"'
)

QUIZ = [
    {"question": "What makes a noise?", "choices": ["the pump", "the address", "the parcel"], "answer": 0},
    {"question": "What has not arrived?", "choices": ["the valve", "the parcel"], "answer": 1},
    {"question": "How long may I wait?", "choices": ["thirty days, free of charge", "no", "ten minutes"], "answer": 2},
    {"question": "Wohin geht der Versand?", "choices": ["nach Österreich", "東京", "🙂"], "answer": 0},
    {"question": "What is it?", "choices": ["a day", "an order", "a warehouse", "a number"], "answer": 3},
    {"question": "Wo 東京?", "choices": ["🙂 Köln", "送料"], "answer": 1},
]
CHOICES = """
task: quiz
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: choices
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["zzz"], max_gen_toks: 12}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QUIZ), encoding="utf-8")
    (folder / "quiz.yaml").write_text(CHOICES.format(rows=rows))
    (folder / "written.yaml").write_text(WRITTEN.format(rows=rows))
    return folder


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[Any]]]:
    """What the harness took of each question, for each time it ran."""
    from ownchat.evaluate import benchmarks

    kept: list[dict[str, list[Any]]] = []
    plain = benchmarks._evaluate

    def watched(*arguments: Any, **options: Any) -> dict[str, Any]:
        result = plain(*arguments, **options)
        kept.append({
            task: [sample["filtered_resps"] for sample in sorted(samples, key=lambda sample: int(sample["doc_id"]))]
            for task, samples in result["samples"].items()
        })  # fmt: skip
        return result

    monkeypatch.setattr(benchmarks, "_evaluate", watched)
    return kept


def test_half_a_character_at_the_end_takes_its_place(serving: Callable[..., Gateway]) -> None:
    """The harness takes the last token for the written one, whatever it is, and those before for the prompt's."""
    gateway = serving(engine="llamacpp")
    services = gateway.services
    with services.pool.lease(services.catalogue.find("starter")) as loaded:
        prompt = loaded.tokenizer.encode("The pump 東京")
        half = loaded.tokenizer.convert_tokens_to_ids("æ")  # the first byte of many characters of three
    asked = {"model": "starter", "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    for bias in ({}, {str(half): 100}):
        answer = gateway.call("POST", "/v1/completions", asked | {"logit_bias": bias})
        assert answer.status == 200, answer.body
        found = answer.json()["choices"][0]["logprobs"]
        assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, len(prompt) + 1)
        assert all(value is not None for value in found["token_logprobs"][1:-1])
        last = found["token_logprobs"][-1]
        assert last is None if bias else last < 0


@needs_harness
@pytest.mark.parametrize(  # llama.cpp has the matrices in float16 and rounds what they are multiplied with
    ("engine", "tolerance"), [("hf", 1e-4), ("llamacpp", 0.05)]
)
def test_scores_through_the_api_are_those_beside_the_model(
    engine: str, tolerance: float, serving: Callable[..., Gateway], tiny_model: Path, tasks: Path,
    answers: list[dict[str, list[Any]]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from ownchat.evaluate.benchmarks import Settings, measure, measure_url

    gateway = serving(engine=engine)
    monkeypatch.setenv("OPENAI_API_KEY", gateway.token)
    settings = Settings(("quiz", "written"), include=tasks)
    there = measure_url(gateway.url, "starter", settings, tokenizer=tiny_model)
    here = measure({"model": tiny_model}, settings)
    assert [figure.task for figure in there.figures] == ["quiz", "quiz", "written"]
    assert [figure.scores for figure in there.figures] == [figure.scores for figure in here.figures]
    served, direct = answers
    for question, (asked, scored) in enumerate(zip(served["quiz"], direct["quiz"], strict=True)):
        assert [value for value, _ in asked] == pytest.approx([value for value, _ in scored], abs=tolerance), question
        assert [likeliest for _, likeliest in asked] == [likeliest for _, likeliest in scored], question
    if engine == "hf":
        assert served["written"] == direct["written"] and any(map(any, served["written"]))
