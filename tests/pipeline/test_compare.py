"""Comparing runs: settings that differ, curves, and a paired interval that says whether one is better."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ownchat import artifacts
from ownchat.config import load_config
from ownchat.errors import RunError, UserError
from ownchat.evaluate.paired import NAME as SCORES
from ownchat.evaluate.paired import RecordScores, paired, record_scores
from ownchat.pipeline import compare as comparing
from ownchat.pipeline import run as whole
from ownchat.pipeline.compare_page import default_place, render_comparison

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
COMMON = ["train.batch_tokens=400", "model.dtype=float32", "train.threads=1", "evaluate.answers=0",
          "evaluate.care={checks: []}"]  # fmt: skip


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: good and bad by their rate, other (of other data), begun (not trained)."""
    root = tmp_path_factory.mktemp("compared")
    rows = [f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(8) for thing in THINGS]
    (root / "faq.csv").write_text("question,answer\n" + "".join(rows))
    (root / "other.csv").write_text("question,answer\n" + "".join(row.replace("fine", "new") for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNCHAT_HOME", str(root / "home"))
        base = f"model.base={tiny_model}"
        for name, file, more in (
            ("good", "faq", ["train.epochs=6", "train.learning_rate=0.01"]),
            ("bad", "faq", ["train.epochs=1", "train.learning_rate=1e-5"]),
            ("other", "other", ["train.epochs=1"]),
        ):
            config, origins = load_config(sets=[*COMMON, base, *more])
            whole.train(root / f"{file}.csv", name=name, config=config, origins=origins, say=lambda line: None)
        config, origins = load_config(sets=[*COMMON, base])
        whole.import_and_clean(
            root / "faq.csv", name="begun", config=config, origins=origins, clean=True, say=lambda line: None
        )  # fmt: skip
    return root / "home"


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(home))


def test_what_differs_and_who_is_better() -> None:
    found = comparing.compare(["bad", "good"])
    assert found.differing["train.epochs"] == [1.0, 6.0] and found.differing["train.learning_rate"] == [1e-5, 0.01]
    assert "train.batch_tokens" not in found.differing
    result = found.paired["good"]
    assert isinstance(result, dict) and result["verdict"] == "better" and result["measure"] == "loss"
    assert result["difference"]["high"] < 0
    bad, good = found.runs
    assert result["first"]["value"] == pytest.approx(bad.held_out["tuned"]["loss"]["value"])
    assert result["second"]["value"] == pytest.approx(good.held_out["tuned"]["loss"]["value"])
    reverse = comparing.compare(["good", "bad"]).paired["bad"]
    assert isinstance(reverse, dict) and reverse["verdict"] == "worse"
    assert reverse["difference"]["value"] == pytest.approx(-result["difference"]["value"])


def test_the_table_has_what_was_promised() -> None:
    text = "\n".join(comparing.lines(comparing.compare(["bad", "good", "other"])))
    for word in (
        "train.learning_rate", "records (train, valid, test)", "tokens to train on", "tokens/s", "peak memory",
        "Validation loss", "curve", "Held-out loss", "good is better than bad", "paired bootstrap", "█",
    ):  # fmt: skip
        assert word in text, f"{word}\n{text}"
    assert "bad and other share no test record" in text


def test_a_run_that_is_not_finished_is_shown_as_far_as_it_is() -> None:
    found = comparing.compare(["good", "begun"])
    assert found.paired == {"begun": "begun is not evaluated: not trained"}
    assert found.runs[1].records == found.runs[0].records and found.runs[1].curve == []
    assert "not trained" in "\n".join(comparing.lines(found))


def test_a_report_without_scores_says_what_to_do(home: Path) -> None:
    shutil.copytree(home / "runs" / "good", home / "runs" / "older")
    (home / "runs" / "older" / "6-report" / SCORES).unlink()
    found = comparing.compare(["good", "older"])
    assert "ownchat evaluate older" in str(found.paired["older"])
    shutil.rmtree(home / "runs" / "older")


def test_mistakes() -> None:
    with pytest.raises(RunError, match="no such run") as unknown:
        comparing.compare(["good", "goood"])
    assert 'did you mean "good"' in str(unknown.value)
    for names in (["good"], ["good", "good"]):
        with pytest.raises(UserError, match="two runs or more"):
            comparing.compare(names)
    (artifacts.home() / "runs" / "empty").mkdir(exist_ok=True)
    with pytest.raises(RunError, match="not a run of ownchat"):
        comparing.compare(["good", "empty"])


def test_the_command_and_its_json(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ownchat", "compare", "bad", "good", "--html", str(home / "it.html"), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found["paired"]["good"]["verdict"] == "better" and [run["name"] for run in found["runs"]] == ["bad", "good"]
    assert any("good is better than bad" in line for line in lines)
    assert found["recommendation"]["command"] == "ownchat chat good" and "Use good." in lines
    page = (home / "it.html").read_text(encoding="utf-8")
    assert lines[-1] == f"Page: {home / 'it.html'}" and "good is better than bad" in page
    alone = [sys.executable, "-m", "ownchat", "compare", "bad"]
    missing = subprocess.run(alone, capture_output=True, text=True)
    assert missing.returncode == 2 and "two runs or more" in missing.stderr


def test_the_page_has_the_same_figures_and_loads_nothing() -> None:
    found = comparing.compare(["bad", "good", "other"])
    text = render_comparison(found)
    assert text == render_comparison(found)
    assert not re.search(r"https?:|//|@import|url\((?!#)|<script|<img|<link", text)
    result = found.paired["good"]
    assert isinstance(result, dict)
    for value in (result["first"]["value"], result["second"]["value"]):
        assert f">{value:.3f}<" in text
    for words in ("good is better than bad", "train.learning_rate", "bad and other share no test record", "Use good."):
        assert words in text, words
    assert default_place(found) == artifacts.home() / "compare" / "bad--good--other.html"


def test_names_on_the_page_are_escaped_and_nothing_is_needed(home: Path) -> None:
    found = comparing.compare(["good", "begun"])
    evil = replace(found.runs[0], name="<script>x</script>", training={}, curve=[], cost=None)
    text = render_comparison(replace(found, runs=(evil, found.runs[1])))
    assert "<script" not in text and "&lt;script&gt;" in text and "cannot be compared yet" in text


def test_advice_prefers_what_is_better_and_promoted() -> None:
    found = comparing.compare(["bad", "good"])
    unmet = replace(found.runs[1], promoted=False)
    advice = comparing.recommend((found.runs[0], unmet), found.paired)
    assert "does not meet its requirements" in advice["text"] and advice["command"].endswith("--compare")
    reverse = comparing.compare(["good", "bad"])
    assert reverse.recommendation["text"] == "Use good."
    same = {"good": dict(found.paired["good"]) | {"verdict": "no clear difference"}}  # type: ignore[arg-type]
    assert "cannot be told apart" in comparing.recommend(found.runs, same)["text"]


def advise(promoted: list[bool | None], found: list[tuple[str, str, float]]) -> comparing.Comparison:
    """Of runs a, b, ...: whether they are promoted; and of all but the first its verdict, measure and difference; the
    first has a loss of 4 and 1 bit per byte."""
    good = comparing.compare(["bad", "good"])
    names = "abc"[: len(promoted)]
    runs = tuple(
        replace(good.runs[0], name=name, called=name, promoted=met) for name, met in zip(names, promoted, strict=True)
    )
    pairs: dict[str, dict | str] = {}
    for name, (verdict, measure, value) in zip(names[1:], found, strict=True):
        first = {"value": 4.0 if measure == "loss" else 1.0}
        difference = {"value": value, "low": value - 0.05, "high": value + 0.05}
        pairs[name] = dict(good.paired["good"]) | {  # type: ignore[arg-type]
            "verdict": verdict, "measure": measure, "difference": difference, "first": first | {"low": 1.0, "high": 4.0}
        }  # fmt: skip
    return comparing.Comparison(runs, {}, pairs, comparing.recommend(runs, pairs))


def test_advice_compares_parts_where_units_differ() -> None:
    """A loss that falls by 0.4 of 4 is a tenth, bits per byte that fall by 0.3 of 1 are more; each has its scale."""
    found = advise([None] * 3, [("better", "loss", -0.4), ("better", "bits_per_byte", -0.3)])
    assert found.recommendation["run"] == "c"
    page = render_comparison(found)
    assert "c is better than a" in page
    alone = render_comparison(advise([None] * 2, [("better", "loss", -0.4)]))
    drawn = re.findall(r'<td class="wide">(<svg class="whiskers".*?</svg>)', page)
    assert re.findall(r'<td class="wide">(<svg class="whiskers".*?</svg>)', alone)[0] == drawn[0]


def test_advice_looks_at_requirements_before_it_chooses() -> None:
    better, equal = ("better", "loss", -0.4), ("no clear difference", "loss", -0.01)
    found = advise([None, False, None], [better, ("better", "loss", -0.2)])
    assert found.recommendation["text"] == "Use c. b has better figures, but does not meet its requirements."
    assert "c is better than a" in render_comparison(found)
    found = advise([True, False], [better])
    assert found.recommendation["run"] == "a" and found.recommendation["command"] == "ownchat chat a"
    assert "b is better than a, but does not meet its requirements" in render_comparison(found)
    found = advise([False, True], [equal])
    assert found.recommendation["run"] == "b"
    text = advise([False, None], [equal]).recommendation["text"]
    assert text.startswith("a does not meet its requirements, and none of the others is better")


def test_private_words_and_the_home_stay_off_what_is_handed_on() -> None:
    found = comparing.compare(["good", "begun"])
    differing = {"clean.private_deny": [["Zebulon Quirk"], []], "model.base": [f"{Path.home()}/models/a", "starter"]}
    found = replace(found, differing=differing)
    for text in ("\n".join(comparing.lines(found)), render_comparison(found)):
        assert "Zebulon" not in text and "1 entry" in text
        assert "~/models/a" in text and f"{Path.home()}/models" not in text


def test_scores_hold_no_text(home: Path) -> None:
    content = json.loads((home / "runs" / "good" / "6-report" / SCORES).read_text())
    assert set(content) == {"ids", "groups", "tokens", "num_bytes", "nll"}
    assert all(isinstance(group, int) for group in content["groups"])


def scores(nll: np.ndarray, groups: list[str | None], tokens: np.ndarray | None = None) -> RecordScores:
    ids, tokens = [str(n) for n in range(len(nll))], np.full(len(nll), 10.0) if tokens is None else tokens
    return record_scores(ids, groups, tokens, np.full(len(nll), 40.0), nll)


def test_pairing_finds_what_intervals_alone_would_not() -> None:
    """Records differ among themselves far more than the runs do on each of them."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(5, 60, size=200)
    first, second = scores(hard, [None] * 200), scores(hard - rng.uniform(0, 1, size=200), [None] * 200)
    found = paired(first, second)
    assert found is not None and found.verdict == "better"
    assert found.second.low < found.first.value < found.second.high, "each alone could be chance"


def test_of_equal_runs_few_are_called_different() -> None:
    """Of 200 pairs without a difference about one in twenty lies beyond a 95 % interval; groups count as one."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        of_group = np.repeat(rng.normal(size=40), 5)  # five records of a customer resemble each other
        noise = of_group + rng.normal(scale=0.3, size=200)
        groups: list[str | None] = [str(n // 5) for n in range(200)]
        found = paired(scores(np.full(200, 20.0), groups), scores(20.0 + noise, groups), draws=300)
        wrong += found is not None and found.verdict != "no clear difference"
    assert 2 <= wrong <= 24


def test_other_tokens_are_compared_by_bytes() -> None:
    nll = np.linspace(10, 20, 30)
    found = paired(scores(nll, [None] * 30), scores(nll, [None] * 30, np.full(30, 12.0)))
    assert found is not None and found.measure == "bits_per_byte"
    assert found.difference.value == 0 and found.verdict == "no clear difference"
    alone = paired(scores(nll[:1], [None]), scores(nll[:1] - 5, [None]))
    assert alone is not None and alone.verdict == "no clear difference", "one group proves nothing"
