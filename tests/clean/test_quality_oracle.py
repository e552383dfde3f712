"""Our measures beside datatrove's filters, on real pages: skipped where datatrove is not installed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from ownchat.clean.quality import cut_c4_lines, judge
from ownchat.clean.words import split_words

filters = pytest.importorskip("datatrove.pipeline.filters", reason="datatrove is not installed")
pytest.importorskip("spacy", reason="datatrove counts words with spaCy, which is not installed")

DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[3] / "shared/datasets"))
FAMILIES = {
    "gopher_quality": (lambda: filters.GopherQualityFilter(), 0.97),
    "gopher_repetition": (lambda: filters.GopherRepetitionFilter(), 0.97),
    "c4": (lambda: filters.C4QualityFilter(), 0.95),
    "fineweb": (lambda: filters.FineWebQualityFilter(), 0.97),
}


def pages() -> list[str]:
    """Web pages, and an encyclopedia and plays in pieces: text of every sort of layout."""
    found = DATASETS / "plain_text"
    if not found.is_dir():
        pytest.skip("set OWNCHAT_DATASETS to the folder that holds plain_text")
    texts = [json.loads(line)["text"] for line in (found / "c4_demo.jsonl").open(encoding="utf-8")]
    for name in ("wiki_demo.txt", "tinyshakespeare.txt"):
        whole = (found / name).read_text(encoding="utf-8")[:400_000]
        texts += [whole[start : start + 3_000] for start in range(0, len(whole), 3_000)]
    return texts


@pytest.mark.parametrize("family", FAMILIES)
def test_verdicts_are_datatroves(family):
    from datatrove.data import Document

    make, least = FAMILIES[family]
    texts = pages()
    oracle = make()
    theirs = []
    for text in texts:
        verdict = oracle.filter(Document(text=text, id=""))
        theirs.append(None if verdict is True else verdict[1])
    ours = judge(pa.array(texts), [family])
    words = split_words(texts)
    spoken = words.sum(~words.is_mark)
    # We do not judge pages outside Gopher's 50 to 100,000 words; the length is a rule of its own.
    judged = [index for index in range(len(texts)) if spoken[index] >= 50 or family == "c4"]
    same = sum((ours[index] is None) == (theirs[index] is None) for index in judged)
    differ = [(ours[i], theirs[i]) for i in judged if (ours[i] is None) != (theirs[i] is None)]
    dropped = sum(theirs[index] is not None for index in judged)
    print(f"{family}: {same} of {len(judged)} verdicts equal, {dropped} dropped there; {differ}")
    assert len(judged) > 300 and same / len(judged) >= least


def test_c4_cuts_the_same_lines():
    from datatrove.data import Document

    texts = pages()[:300]
    oracle = filters.C4QualityFilter(min_num_sentences=-1, filter_curly_bracket=False)
    ours, _ = cut_c4_lines(pa.array(texts))
    same = 0
    for text, kept in zip(texts, ours.to_pylist(), strict=True):
        document = Document(text=text, id="")
        same += oracle.filter(document) is not True or document.text == kept
    assert same / len(texts) >= 0.99
