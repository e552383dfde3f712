"""Stage 3-tokenizer where one is learned: from the train split only, with a context that fits the text."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from ownchat.config import load_config
from ownchat.data.records import Record, ShardWriter, batched, message, record
from ownchat.errors import DataError
from ownchat.tokenizer import stage
from ownchat.tokenizer.compare import compare
from ownchat.tokenizer.learn import learn
from ownchat.tokenizer.render import PLAIN_TEMPLATE
from ownchat.tokenizer.stage import context_of, load_tokenizer, run_tokenizer
from ownchat.tokenizer.texts import PIECE, Amount, amount_of, texts

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS") or Path(__file__).parents[3] / "shared" / "datasets")


def document(text: str, line: int = 1) -> Record:
    return record("document", file="a.txt", format="text", line=line, text=text)


def talk(*turns: str, line: int = 1, **fields: Any) -> Record:
    messages = [message(("user", "assistant")[n % 2], text) for n, text in enumerate(turns)]
    return record("conversation", file="a.jsonl", format="jsonl", line=line, messages=messages, **fields)


def written(root: Path, train: Sequence[Record], held_out: Sequence[Record] = ()) -> Path:
    for split, rows in (("train", train), ("valid", held_out), ("test", held_out)):
        (root / split).mkdir(parents=True)
        with ShardWriter(root / split) as writer:
            for batch in batched(rows):
                writer.write(batch)
    return root


def lines(count: int) -> list[str]:
    chance = np.random.Generator(np.random.PCG64(0))
    words = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof", "noise"]
    return [" ".join(chance.choice(words, 8)) + f" number {n}." for n in range(count)]


def test_every_text_is_seen_once_and_in_order(tmp_path: Path) -> None:
    rows = [
        document("A manual."),
        talk("question?", "answer.", line=2, tools='[{"name": "look"}]'),
        record("preference", file="a", format="jsonl", line=3, messages=[message("user", "which?")],
               chosen=[message("assistant", "this")], rejected=[message("assistant", "that")]),
        document("long words " * 20_000, line=4),
    ]  # fmt: skip
    clean = written(tmp_path, rows)
    found = list(texts(clean / "train"))
    assert sorted(text for text in found if len(text) < 100) == sorted(
        ["A manual.", "question?", "answer.", '[{"name": "look"}]', "which?", "this", "that"]
    )
    pieces = [text for text in found if len(text) > 100]
    assert "".join(pieces) == rows[3]["text"] and max(map(len, pieces)) <= PIECE
    amount = amount_of(clean / "train")
    assert amount.num_bytes == sum(len(text.encode()) for text in found)
    assert amount.conversation_bytes.tolist() == [len("question?answer.")]
    assert amount.conversation_turns.tolist() == [2]
    assert "user\nassistant\nuser\n" in list(texts(clean / "train", roles=True))


def test_the_stage_learns_from_train_alone_and_once(tmp_path: Path) -> None:
    clean = written(tmp_path / "2-clean", [document(text, n) for n, text in enumerate(lines(300))],
                    [document("zebras quickly zigzag " * 50)])  # fmt: skip
    config, _ = load_config(sets=["model.base=scratch", "tokenizer.vocab=320"])
    report = run_tokenizer(config, {"clean": clean}, tmp_path / "3-tokenizer")
    assert report.counts["vocab"] == 320 and report.details["kind"] == "bpe"
    tokenizer = load_tokenizer(tmp_path / "3-tokenizer")
    pieces = [tokenizer.decode([id]) for id in tokenizer.encode("the valve zigzag", add_special_tokens=False)]
    assert " valve" in pieces and " zigzag" not in pieces
    assert tokenizer.model_max_length == report.details["context"] == 512
    again = run_tokenizer(config, {"clean": clean}, tmp_path / "3-tokenizer")
    assert again.seconds == report.seconds, "unchanged inputs: the stage was not run again"
    other, _ = load_config(sets=["model.base=scratch", "tokenizer.vocab=320", "tokenizer.max_tokens=64"])
    assert run_tokenizer(other, {"clean": clean}, tmp_path / "3-tokenizer").details["context"] == 64


def test_a_sample_of_much_text_is_even_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = written(tmp_path / "2-clean", [document(text, n) for n, text in enumerate(lines(2000))])
    monkeypatch.setattr(stage, "MOST_BYTES", amount_of(clean / "train").num_bytes // 4)
    config, _ = load_config(sets=["model.base=scratch", "tokenizer.vocab=320"])
    made = []
    for name in ("one", "two"):
        report = run_tokenizer(config, {"clean": clean}, tmp_path / name)
        assert report.details["learned_share"] == pytest.approx(0.25, abs=0.001)
        made.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert made[0] == made[1]
    seen = [n for n, _ in enumerate(stage._sample((str(n) for n in range(10_000)), 0.25))]
    assert 2300 < len(seen) < 2700


@pytest.mark.parametrize(
    ("num_bytes", "talks", "expected"),
    [(10**6, [], 512), (5 * 10**7, [], 1024), (10**10, [], 2048), (10**6, [300] * 99, 512), (10**6, [3000] * 99, 1024),
     (10**6, [90_000] * 99, 2048), (10**6, [300] * 96 + [9000] * 3, 512)],
)  # fmt: skip
def test_the_context_fits_the_text(num_bytes: int, talks: list[int], expected: int) -> None:
    sizes = np.array(talks, np.int64)
    assert context_of(Amount(num_bytes, sizes, np.full(len(sizes), 4)), 4.0, None)[0] == expected
    assert context_of(Amount(num_bytes, sizes, np.full(len(sizes), 4)), 4.0, 96)[0] == 96


def test_a_tokenizer_that_is_taken_over_gets_the_context_of_the_text(tmp_path: Path, tiny_model: Path) -> None:
    clean = written(tmp_path / "2-clean", [talk("a question? " * 40, "an answer. " * 60)] * 9)
    config, _ = load_config(sets=["model.base=scratch"])
    report = run_tokenizer(config, {"base": tiny_model, "clean": clean}, tmp_path / "3-tokenizer")
    assert report.details["context"] == 512, "no more than the other model took"
    assert load_tokenizer(tmp_path / "3-tokenizer").get_vocab() == load_tokenizer(tiny_model).get_vocab()


def test_a_tokenizer_for_another_model_gets_that_models_context(tmp_path: Path, tiny_model: Path) -> None:
    learn(lines(50), kind="byte", num_bytes=1, output=tmp_path / "own", context=64)
    config, _ = load_config(sets=["train.method=full", f"tokenizer.base={tmp_path / 'own'}"])
    run_tokenizer(config, {"base": tmp_path / "own", "model": tiny_model}, tmp_path / "3-tokenizer")
    made = load_tokenizer(tmp_path / "3-tokenizer")
    assert made.model_max_length == 512 and len(made) == 260


def test_a_base_without_a_template_gets_the_plain_one_saved(tmp_path: Path, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    run_tokenizer(load_config()[0], {"base": tmp_path / "base"}, tmp_path / "3-tokenizer")
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template is None
    assert AutoTokenizer.from_pretrained(tmp_path / "3-tokenizer").chat_template == PLAIN_TEMPLATE


def test_no_text_in_train(tmp_path: Path) -> None:
    clean = written(tmp_path / "2-clean", [])
    config, _ = load_config(sets=["model.base=scratch"])
    with pytest.raises(DataError, match="no text to learn a tokenizer from"):
        run_tokenizer(config, {"clean": clean}, tmp_path / "3-tokenizer")


def test_a_text_that_repeats_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = written(tmp_path / "2-clean", [document("one line, again and again\n" * 400)])
    config, _ = load_config(sets=["model.base=scratch"])
    run_tokenizer(config, {"clean": clean}, tmp_path / "3-tokenizer")
    assert "bytes of text support no more than 2" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bpe", "word", "char", "byte"])
def test_thirty_languages_come_back_exactly(tmp_path: Path, kind: str) -> None:
    archive = DATASETS / "nltk_misc" / "udhr.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith("-UTF8"))
        some = names[:: len(names) // 30][:30]
        rows = [document(opened.read(name).decode("utf-8", "replace"), n) for n, name in enumerate(some)]
    clean = written(tmp_path / "2-clean", rows, rows[:1])
    config, _ = load_config(sets=["model.base=scratch", f"tokenizer.kind={kind}"])
    run_tokenizer(config, {"clean": clean}, tmp_path / "3-tokenizer")
    found = compare({"own": tmp_path / "3-tokenizer"}, clean)
    assert len(rows) == 30 and found.not_exact == 0 and found.text_bytes > 200_000
