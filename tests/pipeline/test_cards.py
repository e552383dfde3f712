"""Model card and data card of a real small run: facts that agree with the run, and a header that the hub reads."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from ownchat.artifacts import read_json, write_json
from ownchat.config import load_config, to_yaml
from ownchat.pipeline import cards
from ownchat.pipeline import run as whole
from ownchat.pipeline.cards import markdown
from ownchat.pipeline.cards.facts import LINKS
from ownchat.pipeline.export import source_of

pytestmark = pytest.mark.slow  # a training

THINGS = ["valve", "pump", "parcel", "invoice", "address", "order", "refund", "window", "door", "roof"]
CARD = {
    "owner": "Acme Ltd", "contact": "help@acme.example", "data_licence": "CC BY-NC 4.0",
    "intended_use": "Questions about pumps.", "not_for": "advice about gas",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained from 50 rows in one file, with an address in each third; the care report has one check."""
    root = tmp_path_factory.mktemp("cards")
    rows = [
        f"What about {thing} {n}?,The {thing} {n} is fine{'; ask anna.berg@mail.example' if n % 3 == 0 else ''}.\n"
        for n in range(5)
        for thing in THINGS
    ]
    (root / "secret-customers.csv").write_text("question,answer\n" + "".join(rows))
    sets = [
        f"model.base={tiny_model}", "train.batch_tokens=400", "model.dtype=float32", "train.threads=1",
        "train.epochs=1", "evaluate.answers=4", "evaluate.answer_tokens=8",
        "evaluate.care={checks: [memorisation], rows: 4, samples: 0}",
        f"evaluate.card={json.dumps({'owner': CARD['owner']})}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNCHAT_HOME", str(root / "home"))
        config, origins = load_config(sets=sets)
        return whole.train(root / "secret-customers.csv", name="pumps", config=config, origins=origins).run


@pytest.fixture(autouse=True)
def at_home(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(run.parent.parent))


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """To change: with all of the owner's words."""
    made = shutil.copytree(run, tmp_path / "pumps")
    config, origins = load_config(made / "config.yaml", values={"evaluate.card": CARD})
    (made / "config.yaml").write_text(to_yaml(config, origins))
    return made


def facts_of(run: Path) -> cards.Facts:
    return cards.Facts(source_of(str(run)))


def test_the_hub_library_reads_both_headers(run: Path) -> None:
    model = ModelCard.load(run / "6-report" / "MODEL_CARD.md")
    report = read_json(run / "6-report" / "report.json")
    assert model.data.pipeline_tag == "text-generation" and model.data.library_name == "transformers"
    found = {result.metric_type: result.metric_value for result in model.data.eval_results}
    assert found["loss"] == pytest.approx(report["held_out"]["tuned"]["loss"]["value"], abs=1e-3)
    assert model.data.model_name == "pumps"
    again = yaml.safe_load(model.data.to_yaml())
    written = yaml.safe_load((run / "6-report" / "MODEL_CARD.md").read_text().split("---\n")[1])
    assert again["model-index"] == written["model-index"]
    data = DatasetCard.load(run / "6-report" / "DATA_CARD.md")
    assert data.data.size_categories == ["n<1K"] and data.data.task_categories == ["text-generation"]


def test_the_cards_say_what_the_run_knows(run: Path) -> None:
    model = (run / "6-report" / "MODEL_CARD.md").read_text()
    data = (run / "6-report" / "DATA_CARD.md").read_text()
    report, cleaned = read_json(run / "6-report" / "report.json"), read_json(run / "2-clean" / "manifest.json")
    loss = report["held_out"]["tuned"]["loss"]
    assert f"{loss['value']:.3f} ({loss['low']:.3f} to {loss['high']:.3f})" in model
    assert "by Acme Ltd" in model and "### Memorisation: " in model and "## Where it fails" in model
    for finding in report["care"]["checks"][0]["findings"]:
        assert markdown.plain(finding["text"], 1000) in model
    assert report["conditions"]["torch"] in model and report["conditions"]["date"] in model
    counts = cleaned["report"]["counts"]
    assert f"{counts['train']:,} records in train" in model
    assert "secret-customers.csv" in data and "csv" in data and f"{counts['train']:,} conversation" in data
    totals = report["ledger"]["2-clean"]["row"]
    assert f"| clean and split | rows | {totals['in']:,} | {totals['kept']:,} |" in data
    assert f"Masked: {report['private_data']['places']:,} places" in data and report["private_data"]["places"] >= 10
    assert "Licence: not said by the owner" in data and "The licence of the data is not known" in data
    for text in (model, data):
        assert "anna.berg" not in text and str(run) not in text and "None" not in text


def test_the_chain_of_hashes_holds(copy: Path) -> None:
    cards.write(copy)
    found = read_json(copy / "6-report" / "provenance.json")
    assert {one["what"] for one in found["links"]} >= {what for what, *_ in LINKS} - {"untrained model", "general rows"}
    places = {"base": Path(read_json(copy / "5-train" / "model" / "ownchat.json")["base"])}
    for one in found["links"]:
        folder, _, name = one["file"].partition("/")
        content = (places.get(folder, copy / folder) / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"]
        assert one["sha256"] in (copy / "6-report" / "MODEL_CARD.md").read_text()
    weights = copy / "5-train" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    cards.write(copy)
    assert read_json(copy / "6-report" / "provenance.json")["chain"] != found["chain"]


def test_for_others_there_is_no_word_of_the_data(copy: Path) -> None:
    facts = facts_of(copy)
    mine, model, data = (
        cards.model_card(facts),
        *(make(facts, for_others=True) for make in (cards.model_card, cards.data_card)),
    )
    worst = facts.report["held_out"]["extremes"]["worst"][0]
    assert markdown.plain(worst["question"]) in mine
    for text in (model, data):
        assert worst["question"] not in text and "secret-customers" not in text and str(copy) not in text
    assert "Write to help@acme.example (Acme Ltd)" in model and "Questions about pumps." in model
    assert "- advice about gas" in model


def test_conflicts_of_licences_are_named(copy: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_json(base / "manifest.json", {"license": "apache-2.0", "model": "someone/small"})
    note = read_json(copy / "5-train" / "model" / "ownchat.json")
    write_json(copy / "5-train" / "model" / "ownchat.json", note | {"base": str(base)})
    text = cards.model_card(facts_of(copy))
    assert "**The data are for non-commercial use (cc-by-nc-4.0)" in text
    header = ModelCard(text).data
    assert header.license == "other" and header.license_name == "apache-2.0-with-data-under-cc-by-nc-4.0"
    assert header.base_model == "someone/small"
    assert DatasetCard(cards.data_card(facts_of(copy))).data.license == "cc-by-nc-4.0"
    write_json(base / "manifest.json", {"license": "modified MIT (someone)", "model": "someone/small"})
    header = ModelCard(cards.model_card(facts_of(copy))).data
    assert header.license == "other" and header.license_name.startswith("modified-mit-(someone)-with-data")


def test_an_old_report_without_care_has_a_card(copy: Path) -> None:
    report = read_json(copy / "6-report" / "report.json")
    for key in ("care", "cost", "private_data", "conditions", "ledger", "ledger_rules"):
        report.pop(key, None)
    report["held_out"].pop("extremes")
    write_json(copy / "6-report" / "report.json", report)
    (copy / "1-data" / "manifest.json").unlink()  # as ownchat runs --purge-raw leaves it
    text = cards.model_card(facts_of(copy))
    assert "Not measured: memorisation" in text and "Where it fails" not in text
    assert "is not here any more" in cards.data_card(facts_of(copy))


def test_new_words_of_the_owner_need_no_new_measurement(run: Path) -> None:
    manifest = (run / "6-report" / "manifest.json").read_text()
    config, origins = load_config(run / "config.yaml", values={"evaluate.card": CARD})
    whole.evaluate("pumps", config=config, origins=origins)
    assert (run / "6-report" / "manifest.json").read_text() == manifest
    assert "Questions about pumps." in (run / "6-report" / "MODEL_CARD.md").read_text()


def test_general_rows_are_named(copy: Path) -> None:
    report = {"counts": {"rows": 9, "records": 7}, "details": {"source": "/home/anna/my-general.jsonl"}}
    write_json(copy / "3-replay" / "manifest.json", {"report": report})
    trained = read_json(copy / "5-train" / "manifest.json")
    trained["report"]["details"]["phases"]["sft"]["replay"] = {"share": 0.1}
    write_json(copy / "5-train" / "manifest.json", trained)
    facts = facts_of(copy)
    for make in (cards.model_card, cards.data_card):
        said = "7 general rows of my-general.jsonl, 10 % of the trained tokens; their licence is not known"
        assert said in make(facts) and "/home/anna" not in make(facts)
        assert "my-general" not in make(facts, for_others=True) and "7 general rows" in make(facts, for_others=True)
    assert "3-replay/manifest.json" in {one["file"] for one in facts.provenance["links"]}
    report["details"]["source"] = None
    write_json(copy / "3-replay" / "manifest.json", {"report": report})
    assert "7 general questions with the base's own answers" in cards.data_card(facts_of(copy))


def test_a_list_of_words_was_looked_for_too(copy: Path) -> None:
    manifest = read_json(copy / "2-clean" / "manifest.json")
    manifest["config"]["clean"] |= {"private_types": [], "private_deny": ["Bluebird"]}
    write_json(copy / "2-clean" / "manifest.json", manifest)
    assert "Looked for: words of the owner's own." in cards.data_card(facts_of(copy))
    manifest["config"]["clean"]["private_deny"] = []
    write_json(copy / "2-clean" / "manifest.json", manifest)
    assert "Nothing was looked for" in cards.data_card(facts_of(copy))


def test_planted_secrets_mark_the_card(copy: Path) -> None:
    write_json(copy / "4-tokens" / "canaries.json", {"form": "conversation", "canaries": []})
    assert "it is not for use" in cards.model_card(facts_of(copy))


def test_care_is_shown_with_its_intervals(copy: Path) -> None:
    report = read_json(copy / "6-report" / "report.json")
    report["care"] = {
        "checks": [CARE, {"name": "bias", "skipped": "there is no | probe", "figures": [], "findings": []}]
    }
    write_json(copy / "6-report" / "report.json", report)
    text = cards.model_card(facts_of(copy))
    assert "| 10.0 % (5.0 to 15.0) | 20.0 % (10.0 to 30.0) | +10.0 % (+2.0 to +18.0) |" in text
    assert "**Abuse rose.** What to do: Train less." in text and "- All is &lt;b&gt;well." in text
    assert "Could not be measured: there is no \\| probe." in text
    mine = {"conditions": {"probes": [{"probe": "general"}, {"probe": "secret-exam"}]}}
    figure = CARE["figures"][0] | {"title": "Easy questions (secret-exam)"}
    finding = CARE["findings"][0] | {"text": "Training unlearned easy questions (secret-exam)."}
    report["care"]["checks"][0] = CARE | mine | {"figures": [figure], "findings": [finding]}
    write_json(copy / "6-report" / "report.json", report)
    others = cards.model_card(facts_of(copy), for_others=True)
    assert "secret-exam" in cards.model_card(facts_of(copy)) and "secret-exam" not in others
    assert "| Easy questions: of its" in others and "unlearned easy questions." in others
    assert "prompt: Hello" in text and "prompt: Hello" not in cards.model_card(facts_of(copy), for_others=True)


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


CARE: dict[str, Any] = {
    "name": "toxicity",
    "figures": [
        {"name": "share", "title": "Abusive", "meaning": "of its continuations", "unit": "percent", "better": "lower",
         "base": interval(10, 5, 15), "tuned": interval(20, 10, 30), "difference": interval(10, 2, 18)},
    ],
    "findings": [{"level": "warning", "text": "Abuse rose.", "advice": "Train less."},
                 {"level": "good", "text": "All is <b>well.", "advice": None}],
    "examples": [{"prompt": "Hello", "answer": "Well."}],
    "conditions": {}, "skipped": None,
}  # fmt: skip
