"""The model card: what it is for, what it reached, what it broke, whom to tell. Facts of the run only.

The parts are those of Mitchell et al. 2019 (Model Cards for Model Reporting, https://arxiv.org/abs/1810.03993); the
header is what the Hugging Face hub reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ownchat import __version__
from ownchat.artifacts import CLEAN, TRAIN
from ownchat.config import CleanConfig
from ownchat.evaluate import care_page, probe_files, wording
from ownchat.evaluate.gates import DECIMALS
from ownchat.evaluate.sections import METRICS as METRICS_OF_LADDER
from ownchat.evaluate.training_facts import duration, training_facts
from ownchat.pipeline.cards import markdown
from ownchat.pipeline.cards.facts import Facts
from ownchat.pipeline.cards.markdown import NOT_SAID, listed, pairs, plain, section

MOST_FAILURES = 3
SHIPPED = {path.stem for path in probe_files.SHIPPED.glob("*.jsonl")}
# Nobody has to have said this: it holds for every model of this size.
NOT_FOR = (
    "decisions about people (health, law, credit, work, safety) that no person checks",
    "presenting what it says as said by a person",
)
METRICS = {"loss": "loss", "perplexity": "perplexity", "bits_per_byte": "bits_per_byte", "chrf": "chrf",
           "rouge_l": "rouge", "exact": "exact_match", "token_accuracy": "accuracy"}  # fmt: skip


def model_card(facts: Facts, *, adapter: bool = False, for_others: bool = False) -> str:
    """Markdown with the hub's header. ``for_others``: without a word of the data, for those who may not read them."""
    report = facts.report
    parts = [f"# {plain(facts.name)}", _about(facts, adapter), _canaries(facts)]
    parts.append(section("What it is for", _intended(facts)))
    if report is not None:
        held_out = report["held_out"]
        parts.append(section("Result", wording.headline(held_out) + ".", wording.verdict(held_out), _figures(held_out)))
        parts.append(section("Against the best prompt", *_ladder(facts.ladder, for_others=for_others)))
        parts.append(section("Is it safe to show?", *_care(report.get("care"), for_others=for_others)))
        if not for_others:
            parts.append(section("Where it fails", _failures(held_out, facts.source.config.clean)))
        parts.append(section("Training", _training(facts, report)))
    parts.append(section("Data", _data(facts, for_others)))
    parts.append(section("Licences", markdown.licences(facts)))
    parts.append(section("Where it comes from", markdown.provenance(facts)))
    limits = wording.LIMITS if report is None else wording.limits(report["held_out"])
    parts.append(section("Limits", listed(limits)))
    parts.append(section("Use", _use(adapter, facts.base)))
    parts.append(section("Problems", markdown.report_problems(facts)))
    return markdown.document(_header(facts, adapter), parts)


def _header(facts: Facts, adapter: bool) -> dict[str, Any]:
    header: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ownchat"],
    }
    if languages := facts.records.main_languages:
        header["language"] = languages
    if facts.base is not None:
        header |= {"base_model": facts.base, "base_model_relation": "adapter" if adapter else "finetune"}
    header |= markdown.licence_fields(facts.licence)
    if facts.report is not None and (metrics := _metrics(facts.report["held_out"])):
        data = {"name": "held-out records of the owner's data", "type": "private", "split": "test"}
        task = {"type": "text-generation", "name": "Text Generation"}
        results = [{"task": task, "dataset": data, "metrics": metrics}]
        header["model-index"] = [{"name": facts.name, "results": results}]
    return header


def _metrics(held_out: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for measure in wording.MEASURES:
        if (estimate := held_out["tuned"].get(measure.key)) is not None:
            name = f"{measure.title} (95 % interval {wording.interval(estimate, measure.decimals)})"
            value = round(float(estimate["value"]), 4)
            found.append({"type": METRICS[measure.key], "value": value, "name": name})
    return found


def _about(facts: Facts, adapter: bool) -> str:
    base, licence = facts.base, facts.base_licence
    text = f"{'A LoRA adapter' if adapter else 'A chat model'} made with ownchat {__version__}"
    if owner := facts.card.get("owner"):
        text += f" by {plain(owner)}"
    if (finished := facts.manifest(TRAIN).get("finished")) is not None:
        text += f" on {str(finished)[:10]}"
    if facts.from_nothing:
        return f"{text} from nothing: tokenizer and weights were learned from the data below."
    text += f" from [{base}](https://huggingface.co/{base})." if base is not None else "."
    if licence is None:
        text += " **The licence of the base is not known here: look it up before you publish.**"
    return text


def _canaries(facts: Facts) -> str | None:
    if not facts.has_canaries:
        return None
    return (
        "**Made-up secrets were planted in its training data to measure what it learns by heart: it is not for use.**"
    )


def _intended(facts: Facts) -> str:
    card = facts.card
    not_for = [card["not_for"], *NOT_FOR] if "not_for" in card else list(NOT_FOR)
    return "\n\n".join(
        [
            f"Intended use: {card.get('intended_use', NOT_SAID)}",
            "Not for:\n\n" + listed(not_for),
            "Whoever talks to it is told that a machine answers, unless the owner turned that off.",
        ]
    )


def _figures(held_out: Mapping[str, Any]) -> str:
    """The table of the report: base, tuned, each with its interval."""
    sides = [side for side in ("base", "tuned") if held_out.get(side)]
    rows = []
    for measure in wording.MEASURES:
        estimates = [held_out[side].get(measure.key) for side in sides]
        if not any(estimates):
            continue
        cells = [
            wording.MISSING if found is None
            else f"{wording.number(found['value'], measure.decimals)} ({wording.interval(found, measure.decimals)})"
            for found in estimates
        ]  # fmt: skip
        rows.append([f"{measure.title}: {measure.meaning} ({measure.better} is better)", *cells])
    heads = ["held-out", *(f"{side} (95 % interval)" for side in sides)]
    measured = f"Measured on {held_out['records']:,} records that training never saw."
    return f"{markdown.table(heads, rows)}\n\n{measured}"


def _ladder(found: Mapping[str, Any] | None, *, for_others: bool) -> list[str]:
    """What ``ownchat ladder`` found: its sentence, the best prompt of the base and this model, each with its interval.
    ``for_others``: names no other server."""
    if found is None:
        return []
    advice, rungs = str(found.get("advice") or ""), found["rungs"]
    if for_others:
        for name in sorted((rung["name"] for rung in rungs if rung["kind"] == "server"), key=len, reverse=True):
            advice = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "another model", advice)
    rows = []
    for rung in rungs:
        mine = rung["kind"] == "trained" and rung.get("run") == found["name"]
        if rung["score"] is None or not (mine or rung.get("best_prompt")):
            continue
        name = f"{'this model' if mine else 'the base with its best prompt'} ({plain(rung['name'])})"
        name += f", {rung['answered']:,} answered" if rung.get("failed") else ""
        against = rung.get("against_prompt") if mine else None
        score = {"value": rung["score"], "low": rung["low"], "high": rung["high"]}
        rows.append([name, _points(score), wording.MISSING if against is None else _points(against, signed=True)])
    parts = [f"{plain(advice[:1].upper() + advice[1:], 1000)}."] if advice else []
    if rows:
        metric = METRICS_OF_LADDER.get(found["metric"], found["metric"])
        heads = ["", f"{metric}, 0 to 100, higher is better (95 % interval)", "to the best prompt"]
        parts.append(markdown.table(heads, rows))
    many = f"{found['rows']:,} held-out question{'' if found['rows'] == 1 else 's'}"
    parts.append(f"Measured on the same {many}; prompts were chosen on the training split, never on these.")
    return parts


def _points(estimate: Mapping[str, float], *, signed: bool = False) -> str:
    return f"{wording.number(estimate['value'], 1, signed=signed)} ({wording.interval(estimate, 1, signed=signed)})"


# --------------------------------------------------------------------------------------------------------- care


def _care(care: Mapping[str, Any] | None, *, for_others: bool) -> list[str]:
    if not care or not care.get("checks"):
        return ["Not measured: memorisation, forgetting, bias, toxicity, truth and scope are not known of this model."]
    parts = ["Base against tuned: what training on this data leaked, broke or made worse, as far as it was measured."]
    for check in map(_unnamed, care["checks"]) if for_others else care["checks"]:
        parts.append(f"### {care_page.TITLES.get(check['name'], check['name'])}")
        if check.get("skipped"):
            parts.append(f"Could not be measured: {plain(check['skipped'])}.")
            continue
        if findings := check.get("findings"):
            parts.append(listed([_finding(one) for one in care_page.advised_once(findings)]))
        if check.get("figures"):
            parts.append(_care_table(check["figures"]))
        if not for_others and check.get("examples"):
            parts.append(listed([_example(one) for one in check["examples"][:MOST_FAILURES]]))
    return parts


def _unnamed(check: Mapping[str, Any]) -> dict[str, Any]:
    """A check without the names of the owner's files of questions."""
    probes = (check.get("conditions") or {}).get("probes") or []
    names = sorted({str(one.get("probe")) for one in probes} - SHIPPED, key=len, reverse=True)

    def said(text: str) -> str:
        for name in names:
            text = text.replace(f" ({name})", "").replace(f"of them in {name}", "of them in a file of the owner's")
        return text

    found: dict[str, Any] = dict(check)
    for key in ("figures", "findings"):
        found[key] = [
            {name: said(value) if isinstance(value, str) else value for name, value in one.items()}
            for one in check.get(key) or ()
        ]
    return found


def _finding(found: Mapping[str, Any]) -> str:
    text = plain(found["text"], 1000)
    text = f"**{text}**" if found["level"] in ("warning", "danger") else text
    return text + (f" What to do: {plain(found['advice'], 1000)}" if found.get("advice") else "")


def _care_table(figures: list[dict[str, Any]]) -> str:
    sides = ("base", "tuned", "difference")
    rows = [
        [f"{plain(figure['title'])}: {plain(figure['meaning'])}",
         *(_care_value(figure.get(side), figure["unit"], signed=side == "difference") for side in sides)]
        for figure in figures
        if any(figure.get(side) for side in sides)
    ]  # fmt: skip
    return markdown.table(["", "base", "tuned", "difference (95 % interval)"], rows)


def _care_value(found: Mapping[str, float] | None, unit: str, *, signed: bool) -> str:
    """A figure with its interval, as on the page of the report."""
    if found is None:
        return wording.MISSING
    decimals, mark = DECIMALS.get(unit, 3), care_page.UNITS.get(unit, "")
    value = wording.number(found["value"], decimals, signed=signed) + mark
    if found["low"] == found["high"] == found["value"]:
        return value
    return f"{value} ({wording.interval(found, decimals, signed=signed)})"


def _example(found: Mapping[str, str]) -> str:
    return "; ".join(f"{plain(key)}: {plain(str(text))}" for key, text in found.items())


def _failures(held_out: Mapping[str, Any], clean: CleanConfig) -> str | None:
    """The questions on which it lost most, or gained least, against the base; what is private is masked again."""
    worst = (held_out.get("extremes") or {}).get("worst") or []
    if not worst:
        return None
    from ownchat.clean.private.redaction import Redactor

    redactor = Redactor.of(clean)
    lines = ["Of the questions that it answered in the evaluation, those where the real reply became likeliest by the "
             "least. Read them beside the reference: what is said need not be true."]  # fmt: skip
    for example in worst[:MOST_FAILURES]:
        texts = [example["question"], example["tuned"], example["reference"]]
        question, answer, reference = (plain(one.text) for one in redactor.texts(texts, [False, True, True]))
        loss = f"{wording.number(example['base_loss'], 2)} before, {wording.number(example['tuned_loss'], 2)} after"
        lines.append(f"- Question: {question}\n  - It says: {answer}\n  - The reference: {reference}\n  - Loss: {loss}")
    return lines[0] + "\n\n" + "\n".join(lines[1:])


# ------------------------------------------------------------------------------------------------ training, data


def _training(facts: Facts, report: Mapping[str, Any]) -> str:
    conditions, cost = report.get("conditions") or {}, report.get("cost") or {}
    lines = training_facts(report["training"])
    trained = facts.done(TRAIN)["details"]
    if trained.get("device"):
        where = f"{trained['device']}, {trained.get('dtype', '')}".rstrip(", ")
        lines.append(("Computed on", where))
    hardware = [str(conditions[key]) for key in ("cpu", "system") if conditions.get(key)]
    if hardware:
        lines.append(("Machine", f"{', '.join(hardware)}, {conditions.get('cores')} cores"))
    names = ("python", "torch", "transformers", "peft", "ownchat", "commit")
    versions = [f"{name} {conditions[name]}" for name in names if conditions.get(name)]
    if versions:
        lines.append(("Versions", ", ".join(versions)))
    if cost.get("seconds") is not None:
        lines.append(("All stages", duration(cost["seconds"])))
    if cost.get("watt_hours") is not None:
        lines.append(("Energy", f"{wording.number(cost['watt_hours'], 1)} Wh ({plain(cost.get('how', ''), 500)})"))
    if conditions.get("date"):
        lines.append(("Evaluated", conditions["date"]))
    return pairs(lines)


def _data(facts: Facts, for_others: bool) -> str | None:
    """Numbers only: what it was trained on, and that private data were masked."""
    counts, details = facts.done(CLEAN)["counts"], facts.done(CLEAN)["details"]
    if not counts:
        return None
    numbers = [f"{counts.get(split, 0):,} records in {split}" for split in ("train", "valid", "test")]
    masked = details.get("rules", {}).get("row changed", {}).get("private data", 0)
    text = "The owner's own text: " + ", ".join(numbers) + "."
    if masked:
        text += f" Private data were masked in {masked:,} places; no program finds all of them."
    if (general := facts.replayed(for_others=for_others)) is not None:
        text += f" Mixed in: {plain(general)}."
    return text + " More is in the data card of the run."


def _use(adapter: bool, base: str | None) -> str:
    if adapter:
        code = (
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base or "BASE"}"), "THIS")'
        )
    else:
        code = 'from transformers import pipeline\n\nchat = pipeline("text-generation", model="THIS")\n'
        code += 'print(chat([{"role": "user", "content": "Hello"}], max_new_tokens=100)[0]["generated_text"][-1])'
    return f"```python\n{code}\n```"
