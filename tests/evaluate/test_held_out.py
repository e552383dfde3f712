from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from ownchat.artifacts import MANIFEST, write_json
from ownchat.config import Config, EvaluateConfig
from ownchat.data.ledger import Ledger
from ownchat.data.records import Record, ShardWriter, batched, message, record
from ownchat.errors import DataError
from ownchat.evaluate import held_out
from ownchat.evaluate.care import CHECKS
from ownchat.evaluate.held_out import circling_answers, measure, questions, reply_bytes, run, scorable, windows
from ownchat.evaluate.summary import summary

PAIRS = [
    ("Where is my parcel?", "It left our warehouse today."),
    ("Can I return it?", "Yes, within thirty days."),
    ("Was kostet der Versand?", "Fünf Euro, nach Österreich zehn."),
    ("The pump is loud.", "Close the valve, wait, and open it again."),
    ("Can I pay later?", "Yes, by invoice."),
    ("Do you open on Sunday?", "No, we are closed."),
]
NO_CARE = {"checks": []}  # seconds in each run
FEW = EvaluateConfig(answers=4, answer_tokens=12, draws=100, care=NO_CARE)


def conversation(at: int, *messages: tuple[str, str], group: str | None = None) -> Record:
    rows = [message(role, content) for role, content in messages]
    return record("conversation", file="faq.csv", format="csv", line=at + 1, messages=rows, group=group)


def conversations(system: str | None = None) -> list[Record]:
    start = [("system", system)] if system else []
    return [
        conversation(at, *start, ("user", question), ("assistant", answer), group=f"customer-{at // 2}")
        for at, (question, answer) in enumerate(PAIRS)
    ]


def document(at: int, text: str) -> Record:
    return record("document", file="essay.md", format="markdown", line=at, text=text)


@pytest.fixture(scope="session")
def tuned_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after 40 steps on the pairs: no good model, but a better one for these replies."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = tmp_path_factory.mktemp("tuned")
    shutil.copytree(tiny_model, directory, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for step in range(40):
        messages = conversations()[step % len(PAIRS)]["messages"]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def stages(tmp_path: Path, tiny_model: Path, tuned_model: Path) -> dict[str, Path]:
    """A run directory as the stages before leave it, with a ledger and the training's figures."""
    run_directory = tmp_path / "runs" / "shop"
    clean, train = run_directory / "2-clean", run_directory / "5-train"
    with ShardWriter(clean / "test") as writer:
        for batch in batched(conversations("You are the shop's assistant.")):
            writer.write(batch)
    with Ledger(clean) as ledger:
        ledger.enter("row", 7)
        for item in conversations():
            ledger.fate("row", item["id"], "kept", "test")
        ledger.fate("row", "x", "dropped", "exact_duplicate")
    write_json(clean / MANIFEST, {"key": "clean", "config": {}, "report": {"details": {}, "seconds": 1.0}})
    shutil.copytree(tuned_model, train / "model")
    details = {
        "tokens_per_second": 812.5,
        "seconds": 4.0,
        "peak_memory_bytes": 10**9,
        "best_step": 40,
        "method": "full",
    }
    write_json(train / MANIFEST, {"key": "train", "config": {}, "report": {"details": details, "seconds": 4.0}})
    lines = [{"step": 0, "validation_loss": 5.7}, {"step": 20, "loss": 3.0}, {"step": 40, "validation_loss": 2.0}]
    (train / "sft").mkdir()
    (train / "sft" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"test": clean, "base": tiny_model, "train": train, "output": run_directory / "6-report"}


def test_stage_writes_the_report_that_is_a_contract(stages):
    output = stages.pop("output")
    config = Config(evaluate=FEW.model_copy(update={"care": {"rows": 4, "samples": 2}}))
    report = run(config, stages, output)
    contents = json.loads((output / "report.json").read_text())

    assert set(contents) == {
        "name", "held_out", "training", "ledger", "ledger_rules", "answers", "conditions", "model",
        "pretraining", "gates", "recommendation", "cost", "private_data", "care",
    }  # fmt: skip
    for side in ("base", "tuned", "difference"):
        assert list(contents["held_out"][side]) == [
            "loss", "perplexity", "bits_per_byte", "token_accuracy", "chrf", "rouge_l", "exact",
        ]  # fmt: skip
        for estimate in contents["held_out"][side].values():
            assert set(estimate) == {"value", "low", "high"}
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert set(contents["held_out"]) == {
        "base", "tuned", "difference", "improvement", "base_prompt", "base_prompt_losses", "records", "tokens",
        "groups", "answers", "notes", "preferences", "preferences_only", "from_nothing", "answers_only",
        "labels", "judge", "embedding", "slices", "extremes", "answer_groups",
    }  # fmt: skip
    assert [check["name"] for check in contents["care"]["checks"]] == list(CHECKS)
    assert "tokens are gone" in contents["care"]["checks"][0]["skipped"]  # this run has none
    assert contents["name"] == "shop"
    assert contents["held_out"]["records"] == 6 and contents["held_out"]["groups"] == 3
    assert 2 <= contents["held_out"]["answer_groups"] <= 3
    assert contents["held_out"]["improvement"]["low"] > 0
    assert contents["training"]["tokens_per_second"] == 812.5
    assert contents["training"]["peak_memory_bytes"] == 10**9
    assert contents["ledger"]["2-clean"]["row"] == {
        "in": 7, "kept": 6, "dropped": 1, "unreadable": 0, "split": 0, "merged": 0,
    }  # fmt: skip
    assert len(contents["answers"]) == 4
    assert set(contents["answers"][0]) == {"id", "question", "reference", "base", "tuned"}
    assert contents["model"] == str((stages["train"] / "model").resolve())
    assert report.counts == {"records": 6, "tokens": contents["held_out"]["tokens"], "answers": 4}

    page = (output / "report.html").read_text()
    assert "Held-out loss fell" in page and "Validation loss minus the loss of the base" in page
    assert "exact duplicate 1" in page
    assert "Held-out loss fell" in summary(held_out.load_report(output))

    before = (output / "report.json").stat().st_mtime_ns
    assert run(config, stages, output) == report  # complete for these inputs: not run again
    assert (output / "report.json").stat().st_mtime_ns == before
    run(Config(evaluate=EvaluateConfig(answers=2, answer_tokens=4, draws=100, care=NO_CARE)), stages, output)
    assert len(json.loads((output / "report.json").read_text())["answers"]) == 2


def direct_loss(model_directory: Path, items: list[Record]) -> tuple[float, int]:
    """Nats and tokens of the replies with plain transformers, one conversation at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    total, count = 0.0, 0
    for item in items:
        head = tokenizer.apply_chat_template(item["messages"][:-1], tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(head, add_special_tokens=False).input_ids
        reply = tokenizer(item["messages"][-1]["content"] + "<|im_end|>", add_special_tokens=False).input_ids
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt + reply])).logits[0].double().log_softmax(-1)
        for at, id in enumerate(reply, start=len(prompt)):
            total -= float(logprobs[at - 1, id])
            count += 1
    return total, count


def test_loss_equals_plain_transformers_and_bits_per_byte_follow(tiny_model, tuned_model):
    items = conversations()
    result = measure(tiny_model, tuned_model, items, EvaluateConfig(answers=0, draws=100))
    for directory, side in ((tiny_model, result.comparison.base), (tuned_model, result.comparison.tuned)):
        nats, tokens = direct_loss(directory, items)
        num_bytes = sum(len(answer.encode()) for _, answer in PAIRS)
        assert result.tokens == tokens
        assert side.loss.value == pytest.approx(nats / tokens, rel=1e-5)
        assert side.perplexity.value == pytest.approx(math.exp(nats / tokens), rel=1e-5)
        assert side.bits_per_byte.value == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
        assert side.chrf is None
    assert result.base_prompt == "default"
    assert result.notes == ("chrF is missing: evaluate.answers is 0.",)


def test_base_is_scored_under_the_better_of_two_prompts_on_the_same_tokens(tiny_model, tuned_model):
    with_system = conversations("Zeilen, Zahlen, 東京!")
    result = measure(tiny_model, tuned_model, with_system, EvaluateConfig(answers=0, draws=100))
    expected = {}
    for prompt, items in (("default", conversations()), ("system", with_system)):
        nats, tokens = direct_loss(tiny_model, items)
        expected[prompt] = nats / tokens
        assert tokens == result.tokens
    assert result.base_prompt_losses == pytest.approx(expected, rel=1e-5)
    better = min(expected, key=expected.get)
    assert result.base_prompt == better
    assert result.comparison.base.loss.value == pytest.approx(expected[better], rel=1e-5)
    tuned_nats, tokens = direct_loss(tuned_model, with_system)  # the tuned model always reads the data's own prompt
    assert result.comparison.tuned.loss.value == pytest.approx(tuned_nats / tokens, rel=1e-5)


def test_same_model_twice_differs_by_nothing_and_answers_alike(tiny_model):
    result = measure(tiny_model, tiny_model, conversations(), FEW)
    assert result.comparison.improvement.value == result.comparison.improvement.high == 0
    assert all(answer.base == answer.tuned for answer in result.answers)
    assert len(result.answers) == 4


def test_answers_are_greedy_and_end_at_the_end_token(tiny_model, tuned_model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = measure(tiny_model, tuned_model, conversations(), FEW)
    model = AutoModelForCausalLM.from_pretrained(tuned_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tuned_model)
    for answer in result.answers:
        assert (answer.question, answer.reference) in PAIRS
        head = tokenizer.apply_chat_template(
            [{"role": "user", "content": answer.question}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(head, return_tensors="pt", add_special_tokens=False).input_ids
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert answer.tuned == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_documents_have_losses_and_no_chrf(tiny_model, tuned_model):
    texts = ["Close the valve and wait. " * 4, "Grüße aus Köln."]
    items = [document(at, text) for at, text in enumerate(texts)]
    result = measure(tiny_model, tuned_model, items, FEW)
    assert result.comparison.base.loss.value > 0
    assert reply_bytes(items[1]) == len("Grüße aus Köln.".encode())
    assert result.comparison.base.chrf is None and result.answers == ()
    assert "documents" in result.notes[0]


def test_a_document_longer_than_the_context_is_scored_whole(tiny_model):
    long = " ".join(question + " " + answer for question, answer in PAIRS) * 20  # the context is 512 tokens
    result = measure(tiny_model, tiny_model, [document(0, long)], FEW)
    assert result.tokens > 1000
    assert math.isfinite(result.comparison.base.loss.value)


def test_a_question_longer_than_the_context_is_passed_over_and_said(tiny_model):
    long = conversation(90, ("user", "Where is my parcel? " * 300), ("assistant", "Here."))
    result = measure(tiny_model, tiny_model, [*conversations(), long], EvaluateConfig(answers=7, draws=100))
    assert len(result.answers) == 6 and result.records == 7
    assert result.notes == (
        "1 records are longer than 512 tokens: they are scored in pieces that overlap.",
        "1 questions were passed over: they are longer than the model's context.",
    )


def test_nothing_to_score_is_one_clear_message(tiny_model):
    silent = conversation(0, ("user", "Hello?"))
    with pytest.raises(DataError, match="no record of the test split can be scored"):
        measure(tiny_model, tiny_model, [silent], FEW)


def test_records_without_a_reply_are_counted():
    silent = conversation(0, ("user", "Hello?"))
    judged = record("preference", file="p.jsonl", format="jsonl", line=1, desirable=True)
    items, notes = scorable([silent, judged, *conversations()])
    assert len(items) == 6
    assert notes == [
        "1 judged replies of the test split are not scored.",
        "1 records of the test split have no reply to score.",
    ]


def test_questions_are_in_the_order_of_ids_and_end_in_a_reply():
    no_reply = conversation(20, ("user", "a"), ("assistant", "b"), ("user", "c"))
    nobody_asked = conversation(21, ("system", "s"), ("assistant", "b"))
    untrained = conversation(22, ("user", "a"), ("assistant", "b"))
    untrained["messages"][-1]["weight"] = 0
    several = conversation(23, ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    items = [several, no_reply, nobody_asked, untrained, *conversations()]
    chosen = questions(items)
    assert [item["id"] for item in chosen] == sorted(item["id"] for item in [several, *conversations()])
    assert questions(list(reversed(items))) == chosen


@pytest.mark.parametrize(("length", "limit"), [(1, 8), (8, 8), (9, 8), (100, 8), (57, 5)])
def test_windows_hold_every_trained_token_once(length, limit):
    rng = np.random.default_rng(length)
    ids, weights = list(range(length)), rng.integers(0, 2, length).tolist()
    pieces = windows((ids, weights), limit)
    assert all(len(piece) <= limit for piece, _ in pieces)
    scored = [id for piece in pieces for id, weight in zip(*piece, strict=True) if weight]
    assert scored == [id for id, weight in zip(ids, weights, strict=True) if weight]
    assert not any(weights_[0] for _, weights_ in pieces[1:])  # the first token of a piece has nothing before it


def test_same_scores_when_memory_runs_out(
    tiny_model: Path, tuned_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch's own error, as a GPU raises it, in every block of more than 100 tokens; said once for each halving."""
    import torch

    from ownchat.model import score
    from ownchat.model.block import Block

    records, few = conversations(), EvaluateConfig(answers=0, draws=100)
    wanted = measure(tiny_model, tuned_model, records, few)
    real, sizes = score.log_probabilities_and_hits, []

    def small_memory(model: object, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(block.num_tokens)
        if block.num_tokens > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, block)

    monkeypatch.setattr(score, "log_probabilities_and_hits", small_memory)
    got = measure(tiny_model, tuned_model, records, few)
    for part in ("base", "tuned"):
        assert getattr(got.comparison, part).loss.value == pytest.approx(getattr(wanted.comparison, part).loss.value)
    too_large = [size for size in sizes if size > 100]
    said = capsys.readouterr().err.count("out of memory while scoring")
    assert said == len(too_large) > 0, "the second model begins with what the first one had room for"
    assert max(at for at, size in enumerate(sizes) if size > 100) < len(sizes) // 2


def test_token_accuracy_is_that_of_plain_transformers(tiny_model: Path, tuned_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = measure(tiny_model, tuned_model, conversations(), EvaluateConfig(answers=0, draws=100))
    tokenizer = AutoTokenizer.from_pretrained(tuned_model)
    for directory, side in ((tiny_model, result.comparison.base), (tuned_model, result.comparison.tuned)):
        model, hits = AutoModelForCausalLM.from_pretrained(directory).eval(), 0
        for item in conversations():
            head = tokenizer.apply_chat_template(item["messages"][:-1], tokenize=False, add_generation_prompt=True)
            prompt = tokenizer(head, add_special_tokens=False).input_ids
            reply = tokenizer(item["messages"][-1]["content"] + "<|im_end|>", add_special_tokens=False).input_ids
            with torch.no_grad():
                first = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1].argmax(-1)
            hits += int((first == torch.tensor(reply)).sum())
        assert side.token_accuracy is not None
        assert side.token_accuracy.value == pytest.approx(100 * hits / result.tokens)
    assert result.comparison.difference.token_accuracy.value > 10


def test_hits_come_with_the_same_log_probabilities(tiny_model: Path) -> None:
    """Where the head is one matrix, in chunks, and where the model makes its own logits."""
    from ownchat.model.load import load_model
    from ownchat.model.score import score_documents

    rng = np.random.default_rng(0)
    rows = [(rng.integers(3, 300, size), rng.integers(0, 2, size)) for size in (400, 5, 60, 1, 130)]
    model = load_model(tiny_model, dtype="float32", packed=True)
    for plain in (True, False):
        model.plain_head = plain
        likeliest: list[np.ndarray] = []
        with_hits = score_documents(model, rows, likeliest=likeliest)
        without = score_documents(model, rows)
        assert all(np.array_equal(one, other) for one, other in zip(with_hits, without, strict=True))
        assert [len(hits) for hits in likeliest] == [len(values) for values in without]
        assert all(hits.dtype == bool for hits in likeliest)


def labelled(at: int) -> Record:
    return conversation(at, ("user", f"{PAIRS[at % 6][0]} ({at})"), ("assistant", ("delivery", "money")[at % 2]))


def test_labels_of_the_train_split_make_a_small_test_split_classification(stages: dict[str, Path]) -> None:
    output, clean = stages.pop("output"), stages["test"]
    for split, rows in (("train", range(3, 30)), ("test", range(3))):
        shutil.rmtree(clean / split, ignore_errors=True)
        with ShardWriter(clean / split) as writer:
            for batch in batched(map(labelled, rows)):
                writer.write(batch)
    run(Config(evaluate=FEW), stages, output)
    found = json.loads((output / "report.json").read_text())["held_out"]
    assert found["records"] == 3, "three rows: all is defined, and wide"
    assert set(found["labels"]) == {"names", "base", "tuned", "difference"}
    table = np.array(found["labels"]["tuned"]["confusion"])
    assert table.shape == (len(found["labels"]["names"]), len(found["labels"]["names"]) + 1) and table.sum() == 3
    accuracy = found["labels"]["tuned"]["accuracy"]
    assert accuracy["high"] - accuracy["low"] > 50
    assert len(found["extremes"]["best"]) == 2 and len(found["extremes"]["worst"]) == 1


def test_answers_of_nothing_but_white_space_score_nothing_and_are_said(tiny_model: Path, tmp_path: Path) -> None:
    """A model whose first choice is always a special token, which has no text."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny_model, tmp_path / "silent")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "silent")
    weights = model.get_input_embeddings().weight.data
    weights[:] = 0  # every logit is 0, and of equal ones the first is the padding
    model.save_pretrained(tmp_path / "silent")
    result = measure(tiny_model, tmp_path / "silent", conversations(), FEW)
    assert [answer.tuned for answer in result.answers] == [""] * 4
    assert "The tuned model gave no answer to 4 of 4 questions; no answer scores 0." in result.notes
    tuned = result.comparison.tuned
    assert tuned.chrf.value == tuned.rouge_l.value == tuned.exact.value == 0
    assert tuned.loss.value == pytest.approx(math.log(weights.shape[0]))
    assert tuned.token_accuracy.value == 0, "of equal ones the first counts, and that is not trained"


def test_slices_and_extremes_are_of_the_same_records(tiny_model: Path, tuned_model: Path) -> None:
    items = conversations()
    for at, item in enumerate(items):
        item["source"]["file"] = f"{'ab'[at % 2]}.csv"
    result = measure(tiny_model, tuned_model, items, EvaluateConfig(answers=6, answer_tokens=8, draws=100))
    sources = [part for part in result.slices if part.by == "source"]
    assert {part.name: part.records for part in sources} == {"a.csv": 3, "b.csv": 3}
    assert all(part.improvement.value > 0 for part in sources)
    shown = [*result.extremes.best, *result.extremes.worst]
    assert sorted(one.id for one in shown) == sorted(item["id"] for item in items)
    losses = dict(zip(result.scores.ids, np.array(result.scores.nll) / np.array(result.scores.tokens), strict=True))
    assert all(one.tuned_loss == pytest.approx(losses[one.id]) for one in shown)


def test_a_report_whose_judge_was_down_is_made_anew(stages: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from ownchat.evaluate import judge

    monkeypatch.setattr(judge, "RETRIES", 0)
    output = stages.pop("output")
    config = Config(evaluate=FEW.model_copy(update={"judge": {"url": "http://127.0.0.1:9/v1", "model": "m"}}))
    first = run(config, stages, output)
    assert first.details["held_out"]["judge"]["failed"] == 4 and "extremes" not in first.details["held_out"]
    assert run(config, stages, output).seconds != first.seconds
    assert "cannot be reached" in " ".join(held_out.load_report(output)["held_out"]["notes"])


def test_public_benchmarks_of_the_same_model_stay(stages: dict[str, Path]) -> None:
    from ownchat.evaluate.benchmarks import Benchmarks, save

    output = stages.pop("output")
    run(Config(evaluate=FEW), stages, output)
    path = save(Benchmarks("0.4", {"tuned": "/a/model"}, ()), output)
    before = path.read_text()
    run(Config(evaluate=FEW.model_copy(update={"draws": 200})), stages, output)
    assert path.read_text() == before
    write_json(stages["train"] / MANIFEST, json.loads((stages["train"] / MANIFEST).read_text()) | {"key": "another"})
    run(Config(evaluate=FEW), stages, output)
    assert not path.exists()


def test_the_ladder_of_the_same_model_stays_and_its_answers_always(stages: dict[str, Path], ladder: dict) -> None:
    from ownchat.artifacts import fingerprint
    from ownchat.pipeline.ladder import ANSWERS, NAME, PROMPT

    output = stages.pop("output")
    run(Config(evaluate=FEW), stages, output)
    ladder |= {"of_training": fingerprint(stages["train"])}
    (output / NAME).write_text(json.dumps(ladder))
    (output / PROMPT).write_text("system: Be brief.\n")
    (output / ANSWERS).write_text('{"key": "k"}\n')
    (output / "left.txt").write_text("of another time")
    run(Config(evaluate=FEW.model_copy(update={"draws": 200})), stages, output)
    assert json.loads((output / NAME).read_text()) == ladder and (output / PROMPT).is_file()
    assert "Against the best prompt" in (output / "report.html").read_text()
    assert (output / ANSWERS).read_text() == '{"key": "k"}\n' and not (output / "left.txt").exists()
    write_json(stages["train"] / MANIFEST, json.loads((stages["train"] / MANIFEST).read_text()) | {"key": "another"})
    run(Config(evaluate=FEW), stages, output)
    assert not (output / NAME).exists() and not (output / PROMPT).exists()
    assert (output / ANSWERS).read_text() == '{"key": "k"}\n'


def test_an_untrained_base_has_no_answers_to_be_better_than(tiny_model: Path, tuned_model: Path) -> None:
    names = ["yes", "no"]
    items = [conversation(at, ("user", f"Is {at} even?"), ("assistant", names[at % 2])) for at in range(6)]
    found = measure(tiny_model, tuned_model, items, FEW, from_nothing=True, names=names)
    compared = found.comparison
    for metric in ("chrf", "rouge_l", "exact"):
        assert getattr(compared.base, metric) is None and getattr(compared.difference, metric) is None
        assert getattr(compared.tuned, metric) is not None
    assert compared.difference.loss is not None
    with_base = measure(tiny_model, tuned_model, items, FEW, names=names)
    assert with_base.comparison.tuned == compared.tuned
    assert found.labels.base.accuracy is None and found.labels.difference.accuracy is None
    assert found.labels.tuned == with_base.labels.tuned and found.labels.base.confusion is None
    assert all(one.chrf_change is None for one in [*found.extremes.best, *found.extremes.worst])


def test_where_every_question_is_too_long_that_is_what_is_said(tiny_model: Path) -> None:
    items = [conversation(0, ("user", "word " * 3000), ("assistant", "Yes."))]
    (passed_over, missing) = [note for note in measure(tiny_model, tiny_model, items, FEW).notes if "piece" not in note]
    assert "1 questions were passed over" in passed_over and missing == "chrF is missing: no question was short enough."


def test_only_a_server_that_could_not_be_used_makes_a_report_anew() -> None:
    silent = {"judged": 0, "unusable": False}
    assert not held_out._unheard({"judge": silent, "embedding": {"base": None, "unusable": False}})
    assert held_out._unheard({"judge": None, "embedding": {"base": None, "unusable": True}})
    assert held_out._unheard({"judge": silent | {"unusable": True}}) and not held_out._unheard({})


def test_answers_that_go_in_circles_are_said() -> None:
    circle, answer = (
        "i have no complaints . " * 8,
        "The second of two trains leaves at noon, and it stops nowhere. " * 1,
    )
    said = circling_answers([circle, circle, answer], [answer, answer, circle])
    assert len(said) == 1 and said[0].startswith("2 of 3 answers (of the base: 1) go in circles")
    assert circling_answers([circle], [])[0].startswith("1 of 1 answers go in circles")
    assert (
        not circling_answers([circle] * 3, [circle] * 3)
        and not circling_answers([answer] * 3, [])
        and not circling_answers([], [])
    )
