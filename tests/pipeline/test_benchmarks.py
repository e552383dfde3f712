"""Which model a name means, what is refused, and where the figures of a run are kept."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from ownchat import artifacts
from ownchat.errors import UserError
from ownchat.evaluate.benchmarks import of_training
from ownchat.pipeline.benchmarks import benchmark

pytestmark = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason='lm-evaluation-harness is not installed: pip install "ownchat[benchmarks]"'
)

TASK = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: [" red", " green"]
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"Colour {n}?", "answer": n % 2}) + "\n" for n in range(6)))
    (folder / "colours.yaml").write_text(TASK.format(rows=rows))
    return folder


def test_a_run_keeps_its_figures(tiny_model: Path, tasks: Path) -> None:
    run = artifacts.run_directory("inbox")
    model = run / artifacts.TRAIN / "model"
    shutil.copytree(tiny_model, model)
    artifacts.write_json(model / "ownchat.json", {"base": str(tiny_model), "system": None})
    artifacts.write_json(run / artifacts.TRAIN / artifacts.MANIFEST, {"key": "k"})
    (run / "config.yaml").write_text("{}")
    (run / artifacts.REPORT).mkdir()
    found, path = benchmark("inbox", ["colours"], include=tasks, compare=True)
    assert path == run / artifacts.REPORT / "benchmarks.json" and list(found.models) == ["base", "tuned"]
    (stored,) = json.loads(path.read_text())["figures"]
    assert stored["scores"]["base"] == stored["scores"]["tuned"]  # the same weights
    assert stored["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    alone, path = benchmark("inbox", ["colours"], include=tasks, limit=2)
    assert list(alone.models) == ["tuned"] and path is not None
    assert len(json.loads(path.read_text())["figures"]) == 2  # under other conditions: beside the first
    train = run / artifacts.TRAIN
    assert of_training(run / artifacts.REPORT, train) == json.loads(path.read_text())
    artifacts.write_json(train / artifacts.MANIFEST, {"key": "another"})
    assert of_training(run / artifacts.REPORT, train) is None


def test_a_directory_has_no_report_and_no_base(tiny_model: Path, tasks: Path) -> None:
    found, path = benchmark(str(tiny_model), ["colours"], include=tasks)
    assert path is None and list(found.models) == ["model"]
    with pytest.raises(UserError, match="base is not known"):
        benchmark(str(tiny_model), ["colours"], include=tasks, compare=True)


def test_what_does_not_go_together(tiny_model: Path, tasks: Path) -> None:
    with pytest.raises(UserError, match="no task is named"):
        benchmark(str(tiny_model), [" ,"])
    with pytest.raises(UserError, match="leave it out"):
        benchmark(str(tiny_model), ["colours"], include=tasks, tokenizer=tiny_model)
    with pytest.raises(UserError, match="base of a model behind a URL"):
        benchmark("http://127.0.0.1:9/v1#m", ["colours"], compare=True)
    with pytest.raises(UserError, match="cannot be reached"):
        benchmark("http://127.0.0.1:9/v1", ["colours"], include=tasks, tokenizer=tiny_model)
    with pytest.raises(UserError, match="no such model"):
        benchmark("nothing-here", ["colours"], include=tasks)
