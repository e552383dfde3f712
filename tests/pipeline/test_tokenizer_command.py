"""``ownchat tokenizer`` as people use it, and what it says to input that cannot do."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ownchat.config import load_config
from ownchat.tokenizer.stage import run_tokenizer

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def ownchat(home: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ownchat", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OWNCHAT_HOME": str(home), "HF_HUB_OFFLINE": "1", "PIP_INDEX_URL": "http://127.0.0.1:9/",
                          "PIP_RETRIES": "0", "PIP_EXTRA_INDEX_URL": "", "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def faq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inbox") / "company-faq"
    folder.mkdir()
    rows = "".join(f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(5) for thing in THINGS)
    (folder / "faq.csv").write_text("question,answer\n" + rows)
    return folder


def test_train_then_report(home: Path, faq: Path) -> None:
    done = ownchat(home, "tokenizer", "train", faq, "--vocab", "320", "--json")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["measured"][0]["vocab"] == 320 and found["measured"][0]["name"] == "own"
    assert found["not_exact"] == 0 and found["text_bytes"] > 1000
    assert "--base scratch --set tokenizer.vocab=320" in done.stdout
    assert "GPT-2: cannot be fetched" in done.stdout and "starter: not on this machine" in done.stdout
    assert "come back exactly" in done.stdout and "For fine-tuning a pre-trained model never" in done.stdout
    again = json.loads(ownchat(home, "tokenizer", "report", "company-faq", "--json").stdout.splitlines()[-1])
    assert again == found
    run = home / "runs" / "company-faq"
    config, _ = load_config(values={"model.base": "scratch"}, sets=["tokenizer.vocab=320"])
    before = (run / "3-tokenizer" / "manifest.json").stat().st_mtime_ns
    run_tokenizer(config, {"clean": run / "2-clean"}, run / "3-tokenizer")
    assert (run / "3-tokenizer" / "manifest.json").stat().st_mtime_ns == before, "ownchat train goes on from there"


def test_a_run_without_a_tokenizer(home: Path, faq: Path) -> None:
    ownchat(home, "clean", faq, "--name", "cleaned")
    said = ownchat(home, "tokenizer", "report", "cleaned", code=2).stderr
    assert "this run has no tokenizer yet" in said and "ownchat tokenizer train" in said
    assert "there is no such run" in ownchat(home, "tokenizer", "report", "nothing", code=2).stderr


def test_what_a_vocabulary_can_be(home: Path, faq: Path) -> None:
    said = ownchat(home, "tokenizer", "train", faq, "--vocab", "50000", "--name", "large", code=2).stderr
    assert "tokenizer.vocab = 50,000 is more than this text supports" in said and "or fewer" in said
    said = ownchat(home, "tokenizer", "train", faq, "--kind", "letters", code=2).stderr
    assert "tokenizer.kind" in said and "'bpe', 'word', 'char' or 'byte'" in said
    said = ownchat(home, "tokenizer", "train", faq, "--set", "tokenizer.base=x", code=2).stderr
    assert "a tokenizer is named, so none is learned" in said


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("noise.bin", random.Random(0).randbytes(20_000), "this is a binary file, not text"),
        ("noise.txt", random.Random(0).randbytes(20_000), "this is a binary file, not text"),
        ("empty.txt", b"", "the file is empty"),
        ("one.txt", b"Only this.\n", "fewer rows than three splits need"),
    ],
)
def test_text_that_cannot_do(home: Path, tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    said = ownchat(home, "tokenizer", "train", tmp_path / name, code=2).stderr
    assert told in said and "What to do" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ten.txt", "".join(f"Line {n} is about a {thing}.\n" for n, thing in enumerate(THINGS))),
        ("repeated.txt", "The same line.\n" * 500),
    ],
)
def test_very_little_text_is_told_what_to_do(home: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    done = ownchat(home, "tokenizer", "train", tmp_path / name)
    assert "bytes of text support no more than 2" in done.stderr and "give more (and more various) text" in done.stderr
    assert "come back exactly" in done.stdout
