"""A run that does not meet its requirements is finished, marked everywhere, and not promoted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ownchat.config import load_config
from ownchat.errors import ConfigError, RunError, UserError
from ownchat.evaluate.report import rewrite
from ownchat.pipeline import export as exporting
from ownchat.pipeline import run as whole
from ownchat.pipeline import runs

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
SETTINGS = [
    "train.batch_tokens=400", "model.dtype=float32", "train.threads=1", "train.epochs=1", "evaluate.answers=2",
    "evaluate.answer_tokens=8", "evaluate.require=[chrf at least 99, loss at most 50]",
    "evaluate.care={checks: [memorisation], rows: 8, samples: 4}",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    rows = [f"What about {thing} {n}?,The {thing} {n} is fine.\n" for n in range(8) for thing in THINGS]
    (folder / "faq.csv").write_text("question,answer\n" + "".join(rows))
    return folder


@pytest.fixture(autouse=True)
def at_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(root / "home"))


def program(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ownchat", *arguments], capture_output=True, text=True, input=stdin)


@pytest.fixture(scope="module")
def done(root: Path, tiny_model: Path) -> subprocess.CompletedProcess[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNCHAT_HOME", str(root / "home"))
        sets = [part for text in [*SETTINGS, f"model.base={tiny_model}"] for part in ("--set", text)]
        return program("train", str(root / "faq.csv"), *sets, "--json")


def test_training_ends_with_code_one_after_the_report(done, root):
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["gates"]["passed"] is False
    assert [check["passed"] for check in report["gates"]["checks"]] == [False, True]
    assert "Requirements not met" in done.stdout and "chrf at least 99" in done.stdout
    written = json.loads((root / "home" / "runs" / "faq" / "6-report" / "report.json").read_text())
    assert written == report and written["recommendation"]["command"].startswith("ownchat ")
    assert written["cost"]["by_stage"].keys() >= {"1-data", "2-clean", "4-tokens", "5-train", "6-report"}
    assert written["private_data"] is not None
    (check,) = written["care"]["checks"]
    assert check["name"] == "memorisation" and check["skipped"] is None and "Is it safe to show?" in done.stdout
    assert "Not promoted" in (root / "home" / "runs" / "faq" / "6-report" / "report.html").read_text()


def test_again_there_is_nothing_to_do_and_still_it_is_not_good_enough(done, root, tiny_model):
    sets = [part for text in [*SETTINGS, f"model.base={tiny_model}"] for part in ("--set", text)]
    again = program("train", str(root / "faq.csv"), *sets)
    assert again.returncode == 1 and "nothing to do" in again.stdout


def test_it_is_marked_where_it_is_listed_and_used(done, root):
    run = root / "home" / "runs" / "faq"
    found = runs.describe(run)
    assert found.promoted is False and "not promoted: 1 requirement not met" in found.result
    talk = program("chat", "faq", "--prompt", "hello", "--max-tokens", "2")
    assert talk.returncode == 0 and 'faq is not promoted: "chrf at least 99" is not met' in talk.stderr
    assert "promoted" not in talk.stdout


def test_it_is_exported_with_force_only(done):
    with pytest.raises(RunError, match="not promoted") as refused:
        exporting.export("faq", "gguf", kind="f16")
    assert "--force" in refused.value.fix
    with pytest.raises(UserError) as further:  # past that, another mistake is met
        exporting.export("faq", "gguf", kind="nothing", force=True)
    assert "promoted" not in str(further.value)
    assert program("export", "faq").returncode == 2


def test_measured_again_with_other_requirements_they_are_those_of_the_run(done, root):
    run = root / "home" / "runs" / "faq"
    before = load_config(run / "config.yaml")[0]
    again = program("evaluate", "faq", "--set", "evaluate.require=[chrf at least 98]", "--set", "evaluate.answers=3")
    assert again.returncode == 1, again.stdout + again.stderr
    text = (run / "config.yaml").read_text()
    assert "  require: [chrf at least 98]  # given (--set)" in text and "  answers: 3  # given (--set)" in text
    after = load_config(run / "config.yaml")[0]
    assert after.model_copy(update={"evaluate": before.evaluate}) == before
    assert "chrf at least 98" in parse_rows(run)["evaluate.require"]
    assert program("evaluate", "faq").returncode == 1 and runs.not_promoted(run) is not None
    assert (run / "config.yaml").read_text() == text


def parse_rows(run: Path) -> dict[str, str]:
    """The settings on the page."""
    page = (run / "6-report" / "report.html").read_text()
    rows = re.findall(r"<tr>\s*<t[hd][^>]*>(?:<code>)?([a-z]+\.[a-z_]+)(?:</code>)?</t[hd]>(.*?)</tr>", page, re.S)
    return {key: re.sub("<[^>]*>", " ", value) for key, value in rows}


def test_measured_again_with_requirements_that_it_meets(done, root):
    scores = root / "home" / "runs" / "faq" / "6-report" / "scores.json"
    before = scores.stat().st_mtime_ns
    again = program("evaluate", "faq", "--set", "evaluate.require=[loss at most 50]")
    assert again.returncode == 0 and "Requirements: 1 met" in again.stdout, again.stdout + again.stderr
    assert runs.not_promoted(root / "home" / "runs" / "faq") is None
    assert scores.stat().st_mtime_ns == before  # other requirements need no other measurement


def test_once_the_ladder_ran_the_page_has_it_and_the_advice_follows(done, root):
    run = root / "home" / "runs" / "faq"
    ladder = {
        "metric": "chrf", "rows": 8, "advice": "a prompt with two examples is as good: do not train", "train": False,
        "use": "two examples", "command": "ownchat prompt new faq --file p.yaml",
        "rungs": [{"name": "two examples", "kind": "prompt", "score": 20.0, "low": 15.0, "high": 26.0, "cost": None,
                   "seconds_per_answer": 0.5, "difference": None, "failed": 0}],
    }  # fmt: skip
    (run / "6-report" / "ladder.json").write_text(json.dumps(ladder))
    found = rewrite(run)
    page = (run / "6-report" / "report.html").read_text()
    assert "Against the best prompt" in page and "two examples" in page and ladder["advice"] in page
    assert found["recommendation"]["command"] == ladder["command"]
    assert found == json.loads((run / "6-report" / "report.json").read_text())
    (run / "6-report" / "ladder.json").unlink()
    assert "Against the best prompt" not in (rewrite(run), (run / "6-report" / "report.html").read_text())[1]


def test_what_cannot_be_understood_is_told_before_anything_is_done(root):
    config, origins = load_config(sets=["evaluate.require=[loss beter]"])
    with pytest.raises(ConfigError, match="no condition"):
        whole.train(root / "faq.csv", name="never", config=config, origins=origins)
    assert not (root / "home" / "runs" / "never").exists()
