"""Public benchmarks: what the harness counts is what our engine counts; base and tuned on the same questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ownchat.errors import UserError
from ownchat.evaluate.benchmarks import (
    Benchmarks,
    Figure,
    Settings,
    lines,
    measure,
    measure_url,
    paired,
    read_scores,
    save,
    split_tasks,
    summarize,
)
from ownchat.evaluate.scores import Interval

needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason='lm-evaluation-harness is not installed: pip install "ownchat[benchmarks]"'
)

QUIZ = [
    {"question": "What makes a noise?", "choices": ["the pump", "the address", "the parcel"], "answer": 0},
    {"question": "What has not arrived?", "choices": ["the valve", "the parcel"], "answer": 1},
    {"question": "How long may I wait?", "choices": ["thirty days, free of charge", "no", "ten minutes"], "answer": 2},
    {"question": "Wohin geht der Versand?", "choices": ["nach Österreich", "東京"], "answer": 0},
    {"question": "What is it?", "choices": ["a day", "an order", "a warehouse", "a number"], "answer": 3},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - metric: acc
  - metric: acc_norm
metadata: {{version: 2.0}}
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8}}
metric_list:
  - metric: exact_match
metadata: {{version: 1.0}}
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tasks on local files; what the library of data sets caches stays in it."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "quiz.jsonl"
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QUIZ), encoding="utf-8")
    (folder / "quiz.yaml").write_text(TASK.format(name="my_quiz", rows=rows))
    (folder / "written.yaml").write_text(WRITTEN.format(rows=rows))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("lm_eval") is not None:  # it brings the library of that name; tests have a folder of that name, too
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other weights and the same tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = tmp_path_factory.mktemp("other-model")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(directory)
    return directory


def own_scores(model: Path) -> dict[str, list[float]]:
    """Accuracy by our engine: the likeliest choice, and the likeliest by character, of each question."""
    from ownchat.generate.hf import chat_engine

    engine = chat_engine(model)
    found: dict[str, list[float]] = {"acc": [], "acc_norm": []}
    for row in QUIZ:
        prompt = engine.tokenizer(f"Question: {row['question']}\nAnswer:", add_special_tokens=False)["input_ids"]
        sums = []
        for choice in row["choices"]:
            text = f"Question: {row['question']}\nAnswer: {choice}"
            ids = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
            sums.append(sum(engine.score(ids, [0] * len(prompt) + [1] * (len(ids) - len(prompt)))))
        by_character = [total / len(choice) for total, choice in zip(sums, row["choices"], strict=True)]
        found["acc"].append(float(np.argmax(sums) == row["answer"]))
        found["acc_norm"].append(float(np.argmax(by_character) == row["answer"]))
        found.setdefault("sums", []).extend(sums)
    engine.close()
    return found


@needs_harness
def test_harness_and_engine_count_the_same(tiny_model: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownchat.evaluate import benchmarks

    kept: list[dict[str, Any]] = []
    plain = benchmarks._evaluate

    def watched(*arguments: Any, **options: Any) -> dict[str, Any]:
        kept.append(plain(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr(benchmarks, "_evaluate", watched)
    found = measure({"model": tiny_model}, Settings(("my_quiz",), include=tasks))
    ours = own_scores(tiny_model)
    samples = sorted(kept[0]["samples"]["my_quiz"], key=lambda sample: sample["doc_id"])
    theirs = [float(answer[0]) for sample in samples for answer in sample["filtered_resps"]]
    assert np.allclose(theirs, ours["sums"], atol=1e-4)
    values = {figure.metric: figure.scores["model"] for figure in found.figures}
    for metric in ("acc", "acc_norm"):
        assert values[metric]["value"] == pytest.approx(np.mean(ours[metric]))
        assert values[metric]["stderr"] == pytest.approx(np.std(ours[metric], ddof=1) / np.sqrt(len(QUIZ)))
    assert found.figures[0].questions == len(QUIZ) and found.figures[0].conditions["version"] == 2.0


@needs_harness
def test_base_and_tuned_on_the_same_questions(tiny_model: Path, other_model: Path, tasks: Path) -> None:
    found = measure({"base": tiny_model, "tuned": other_model}, Settings(("my_quiz",), include=tasks, limit=4))
    before, after = own_scores(tiny_model), own_scores(other_model)
    for figure in found.figures:
        expected = np.mean(after[figure.metric][:4]) - np.mean(before[figure.metric][:4])
        assert figure.difference is not None and figure.difference.value == pytest.approx(expected)
        assert figure.questions == 4 and figure.conditions["limit"] == 4 and figure.higher_is_better
    assert "tuned - base" in lines(found)[0] and len(lines(found)) == 1 + len(found.figures)


@needs_harness
def test_written_answers_through_the_chat_template(tiny_model: Path, tasks: Path) -> None:
    found = measure({"model": tiny_model}, Settings(("written",), include=tasks, chat=True, shots=0))
    (figure,) = found.figures
    assert figure.metric == "exact_match" and figure.conditions["chat"] and figure.conditions["shots"] == 0


class Completions(BaseHTTPRequestHandler):
    """/completions with echo and log-probabilities, as vLLM has it, and /chat/completions, from the tiny model."""

    engine: Any
    keys: list[str | None]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.keys.append(self.headers.get("Authorization"))
        if self.path.startswith("/v1/nonsense"):
            reply: dict[str, Any] = {"choices": [{"index": 0, "text": "?", "logprobs": None}]}
        elif self.path == "/v1/chat/completions":
            reply = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "the pump"}}]}
        else:
            prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
            reply = {"choices": [self.scored(index, ids) for index, ids in enumerate(prompts)]}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def scored(self, index: int, ids: list[int]) -> dict[str, Any]:
        logprobs: list[float | None] = [None, *self.engine.score(ids, [0] + [1] * (len(ids) - 1)), -1.0]
        tops = [None if value is None else {"token": value} for value in logprobs]
        named = [f"{at}" for at in range(len(logprobs))]
        logged = {"tokens": named, "token_logprobs": logprobs, "top_logprobs": tops}
        return {"index": index, "text": "", "logprobs": logged}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tiny_model: Path) -> Iterator[tuple[str, list[str | None]]]:
    from ownchat.generate.hf import chat_engine

    keys: list[str | None] = []
    handler = type("Here", (Completions,), {"engine": chat_engine(tiny_model), "keys": keys})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/v1", keys
        listening.shutdown()


@needs_harness
def test_a_model_behind_a_url_scores_as_it_does_here(
    server: tuple[str, list[str | None]], tiny_model: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-only-for-the-server")
    url, keys = server
    settings = Settings(("my_quiz",), include=tasks)
    there = measure_url(url, "tiny", settings, tokenizer=tiny_model)
    here = measure({"model": tiny_model}, settings)
    assert [figure.scores for figure in there.figures] == [figure.scores for figure in here.figures]
    assert set(keys) == {"Bearer sk-only-for-the-server"}
    assert "sk-only" not in json.dumps(there.models)


@needs_harness
def test_chat_completions_write_and_do_not_score(server: tuple[str, list[str | None]], tasks: Path) -> None:
    url, _ = server
    (figure,) = measure_url(url, "tiny", Settings(("written",), include=tasks, chat=True)).figures
    assert figure.scores["model"]["value"] == pytest.approx(1 / len(QUIZ))  # "the pump" is right once
    with pytest.raises(UserError, match="cannot do what a task wants"):
        measure_url(url, "tiny", Settings(("my_quiz",), include=tasks, chat=True))
    with pytest.raises(UserError, match="tokenizer is not known"):
        measure_url(url, "tiny", Settings(("my_quiz",), include=tasks))


@needs_harness
def test_a_server_that_is_down_or_answers_nonsense(
    server: tuple[str, list[str | None]], tiny_model: Path, tasks: Path
) -> None:
    url, _ = server
    settings = Settings(("my_quiz",), include=tasks, limit=1)
    with pytest.raises(UserError, match="did not answer as the harness needs it"):
        measure_url(f"{url}/nonsense", "tiny", settings, tokenizer=tiny_model)
    with pytest.raises(UserError, match="did not answer"):
        measure_url("http://127.0.0.1:9/v1", "tiny", settings, tokenizer=tiny_model)


@needs_harness
def test_what_a_person_can_get_wrong(tiny_model: Path, tasks: Path) -> None:
    with pytest.raises(UserError, match='did you mean "my_quiz"'):
        measure({"model": tiny_model}, Settings(("my_quizz",), include=tasks))
    with pytest.raises(UserError, match="no such folder"):
        measure({"model": tiny_model}, Settings(("my_quiz",), include=tasks / "nowhere"))
    (tasks / "lost.yaml").write_text(TASK.format(name="lost", rows=tasks / "lost.jsonl"))
    with pytest.raises(UserError, match="data cannot be read") as raised:
        measure({"model": tiny_model}, Settings(("lost",), include=tasks))
    assert "--include" in raised.value.fix
    (tasks / "lost.yaml").unlink()


def test_without_the_harness_it_says_how_to_get_it(tiny_model: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.util, sys\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'lm_eval' else find(name, *rest)\n"
        f"sys.argv = ['ownchat', 'benchmark', {str(tiny_model)!r}, '--tasks', 'hellaswag']\n"
        "from ownchat.cli import main\nmain()"
    )
    environment = os.environ | {"OWNCHAT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and 'pip install "ownchat[benchmarks]"' in done.stderr, done.stderr


def result(values: list[float], metric: str = "acc", value: float | None = None) -> dict[str, Any]:
    """What the harness returns, as far as it is read."""
    samples = [{"doc_id": number, "filter": "none", metric: one} for number, one in enumerate(values)]
    mean = float(np.mean(values)) if value is None else value
    return {
        "results": {"quiz": {"alias": "quiz", f"{metric},none": mean, f"{metric}_stderr,none": "N/A"}},
        "samples": {"quiz": samples}, "versions": {"quiz": 1.0}, "n-shot": {"quiz": 0},
        "higher_is_better": {"quiz": {metric: True}}, "n-samples": {"quiz": {"original": 9, "effective": len(values)}},
    }  # fmt: skip


def test_differences_are_paired_by_question() -> None:
    base, tuned = [0.0, 1.0] * 20, [1.0, 1.0] * 20
    both = {"base": result(base), "tuned": result(tuned)}
    (figure,) = summarize({"base": "/b", "tuned": "/t"}, both, Settings(("quiz",)), "0.4").figures
    assert figure.difference is not None and figure.difference.value == pytest.approx(0.5)
    assert 0.3 < figure.difference.low < 0.5 < figure.difference.high < 0.7
    assert figure.scores["tuned"] == {"value": 1.0, "stderr": None}
    assert paired({0: 1.0, 1: 0.0}, {1: 1.0, 2: 1.0}) == Interval(1.0, 1.0, 1.0)  # only what both were asked
    assert paired({0: 1.0}, {1: 1.0}) is None and paired(None, {1: 1.0}) is None


def test_a_metric_of_the_whole_set_has_no_difference_by_question() -> None:
    both = {"base": result([1.0, 2.0], "bleu", 31.0), "tuned": result([2.0, 2.0], "bleu", 33.0)}
    (figure,) = summarize({"base": "/b", "tuned": "/t"}, both, Settings(("quiz",)), "0.4").figures
    assert figure.difference is None and figure.scores["base"]["value"] == 31.0
    assert read_scores(both["base"])["quiz", "bleu", "none"][2] is None


def test_the_table_and_the_file(tmp_path: Path) -> None:
    conditions = {"limit": None, "shots": 0, "chat": False, "version": 1.0}
    score = {"base": {"value": 0.25, "stderr": 0.01}, "tuned": {"value": 0.2, "stderr": None}}
    worse = Figure("arc", "acc", "none", 1200, score, Interval(-0.05, -0.08, -0.02), True, conditions)
    other = Figure("arc", "acc", "strict", 1200, score, Interval(-0.05, -0.08, 0.02), True, conditions)
    found = Benchmarks("0.4", {"base": "/b", "tuned": "/t"}, (worse, other))
    head, first, second = lines(found)
    assert head.split()[:3] == ["task", "metric", "questions"]
    assert "1,200" in first and "0.2500 ± 0.0100" in first and first.endswith("-0.0500 [-0.0800, -0.0200]  worse")
    assert "acc (strict)" in second and second.endswith("no clear difference")
    quiz = Figure("quiz", "acc", "none", 3, score, Interval(-0.05, -0.08, -0.02), True, conditions)
    assert lines(Benchmarks("0.4", found.models, (quiz,)))[1].endswith("-0.0200]  too few questions to tell")
    path = save(found, tmp_path)
    again = Benchmarks("0.4", found.models, (worse,))
    save(again, tmp_path)
    stored = json.loads(path.read_text())
    assert [figure["filter"] for figure in stored["figures"]] == ["strict", "none"]  # replaced, and the other kept
    assert stored["figures"][1]["difference"] == {"value": -0.05, "low": -0.08, "high": -0.02}


def test_names_of_tasks() -> None:
    assert split_tasks(["a,b", " b ,, c"]) == ("a", "b", "c")
