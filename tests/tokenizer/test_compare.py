"""The tokenizer report's figures, on text where they can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tokenizer.test_learning_stage import document, lines, written

from ownchat import artifacts
from ownchat.errors import ModelError, UserError
from ownchat.tokenizer import gpt2
from ownchat.tokenizer.compare import Measured, compare, recommendation
from ownchat.tokenizer.learn import learn


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    held_out = [document("the valve and the pump", 1)]
    return written(tmp_path / "2-clean", [document(text, n) for n, text in enumerate(lines(300))], held_out)


def own(clean: Path, tmp_path: Path, vocab: int) -> Path:
    learn((row["text"] for row in rows(clean)), num_bytes=1, vocab=vocab, output=tmp_path / "3", context=512)
    return tmp_path / "3"


def rows(clean: Path) -> list[dict[str, str]]:
    from ownchat.data.records import read_records

    return list(read_records(clean / "train"))


def test_figures_are_those_of_the_text(clean: Path, tmp_path: Path) -> None:
    bytes_only = tmp_path / "bytes"
    learn([], kind="byte", num_bytes=1, output=bytes_only, context=512)
    found = compare({"own": own(clean, tmp_path, 320), "bytes": bytes_only}, clean)
    mine, other = found.measured
    assert (mine.vocab, other.vocab, found.learned) == (320, 260, 60)
    assert mine.num_bytes == other.num_bytes == other.num_tokens == 2 * len("the valve and the pump")
    assert other.bytes_per_token == 1 < mine.bytes_per_token
    assert found.rare + found.unused < found.learned and found.unused > 0, "parts of longer tokens stay unused"
    assert found.longest[0] in {" address", " invoice", " window"} or len(found.longest[0]) > 6
    assert found.not_exact == 0 and found.texts == 300 + 2
    assert found.text_bytes == sum(len(row["text"].encode()) for row in rows(clean)) + mine.num_bytes
    assert found.recommendation.startswith("For a model from nothing it is worth it: it saves")


def test_a_tokenizer_that_loses_something_is_found_out(clean: Path, tmp_path: Path) -> None:
    directory = own(clean, tmp_path, 320)
    path = directory / "tokenizer.json"
    broken = json.loads(path.read_text())
    broken["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(broken))
    with_capital = written(tmp_path / "other", [document("A valve.", 1), document("a pump.", 2)], [document("x")])
    found = compare({"own": directory}, with_capital)
    assert found.not_exact == 1 and found.first_not_exact == "'A valve.' came back as 'a valve.'"


def test_recommendations() -> None:
    def measured(name: str, vocab: int, tokens: int, taught: float) -> Measured:
        return Measured(name, vocab, 4000, tokens, taught)

    better, same = measured("own", 8192, 900, 0.9), measured("own", 8192, 1000, 0.9)
    smaller, large = measured("own", 1024, 1300, 0.95), measured("GPT-2", 50_257, 1000, 0.1)
    fitting = measured("starter", 50_000, 1000, 0.8)
    assert "worth it: it saves 10% of the tokens beside GPT-2" in recommendation([better, large])
    assert "worth it: it takes 30% more tokens than GPT-2, but has 1,024 rows" in recommendation([smaller, large])
    assert "is not worth it" in recommendation([same, fitting])
    for some in ([better, large], [same, fitting], [better]):
        assert "For fine-tuning a pre-trained model never" in recommendation(some)


def test_a_directory_without_a_tokenizer(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no tokenizer.json"):
        compare({"own": tmp_path}, clean)


def test_gpt2_splits_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    try:
        directory = gpt2.gpt2_directory()
    except UserError as error:
        pytest.skip(f"cannot be fetched here: {error.what}")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert len(tokenizer) == 50_257 and tokenizer.model_max_length == 1024
    assert tokenizer.encode("Hello world, it's 2019!") == [15496, 995, 11, 340, 338, 13130, 0]
    assert tokenizer.eos_token_id == 50_256
    again = artifacts.read_json(directory / artifacts.MANIFEST)
    assert again["sha256"] == gpt2.SHA256 and gpt2.gpt2_directory() == directory
