"""The data card: what the model learned from, what was taken out and masked, and under which licence. Facts only.

After Gebru et al. 2021 (Datasheets for Datasets, https://arxiv.org/abs/1803.09010), as far as a program knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownchat.artifacts import CLEAN, IMPORT, REPORT
from ownchat.pipeline.cards import markdown
from ownchat.pipeline.cards.facts import Facts
from ownchat.pipeline.cards.markdown import NOT_SAID, listed, pairs, plain, section
from ownchat.pipeline.questions import STAGE as QUESTIONS

MOST_FILES = 30
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"))  # fmt: skip
STAGES = {
    IMPORT: "import",
    QUESTIONS: "questions written",
    CLEAN: "clean and split",
    "3-replay": "general rows",
    "4-tokens": "tokens",
}
FATES = ("in", "kept", "dropped", "unreadable", "split", "merged")


def data_card(facts: Facts, *, for_others: bool = False) -> str:
    """Markdown with the hub's header of a data set. ``for_others``: without names of files."""
    parts = [f"# Data of {plain(facts.name)}", _about(facts), section("Sources", _sources(facts, for_others))]
    parts.append(section("What it holds", _contents(facts, for_others)))
    parts.append(section("What became of it", _ledger(facts)))
    parts.append(section("Private data", _private(facts)))
    parts.append(section("Cleaning", _cleaning(facts)))
    parts.append(section("Splits", _splits(facts)))
    parts.append(section("Licences", markdown.licences(facts)))
    made = ("records as imported", "records after cleaning", "general rows", "training tokens")
    parts.append(section("Where it is", markdown.provenance(facts, only=made)))
    parts.append(section("What a program cannot know", listed(_unknown(facts))))
    parts.append(section("Problems", markdown.report_problems(facts)))
    return markdown.document(_header(facts), parts)


def _header(facts: Facts) -> dict[str, Any]:
    total = sum(facts.done(CLEAN)["counts"].get(split, 0) for split in ("train", "valid", "test"))
    header: dict[str, Any] = {
        "pretty_name": f"Data of {facts.name}",
        "tags": ["ownchat"],
        "task_categories": ["text-generation"],
        "size_categories": [next((name for most, name in SIZES if total < most), "n>1T")],
        "source_datasets": ["original"],
    }
    if languages := facts.records.main_languages:
        header |= {"language": languages, "multilinguality": "multilingual" if len(languages) > 1 else "monolingual"}
    if len(found := facts.data_licences) == 1:
        header |= markdown.licence_fields(found[0])
    elif found:
        header["license"] = [one.hub or "other" for one in found]
    return header


def _about(facts: Facts) -> str:
    owner = facts.card.get("owner")
    text = f"What the model [{plain(facts.name)}](MODEL_CARD.md) was trained and measured on"
    return text + (f", text of {plain(owner)}." if owner else "; the owner is not named (`evaluate.card`).")


def _sources(facts: Facts, for_others: bool) -> str | None:
    files = facts.done(IMPORT)["details"].get("files") or []
    if not files:
        return "The imported text is not here any more (or never was): its files are not known."
    rows = []
    for file in files[:MOST_FILES]:
        name = [] if for_others else [f"`{plain(file['file'])}`"]
        understood = "" if for_others else plain(file.get("understood as") or "")
        numbers = (f"{file.get(key, 0):,}" for key in ("rows", "records", "messages"))
        rows.append([*name, plain(str(file.get("format"))), *numbers, *([] if for_others else [understood])])
    heads = ["format", "rows", "records", "messages"]
    text = markdown.table(heads if for_others else ["file", *heads, "understood as"], rows)
    more = len(files) - MOST_FILES
    text += f"\n\nand {more:,} more files." if more > 0 else ""
    said = ", ".join(plain(one.name) for one in facts.data_licences)
    return text + f"\n\nLicence: {said or NOT_SAID}. The files themselves were not asked."


def _contents(facts: Facts, for_others: bool) -> str | None:
    found = facts.records
    if not found.total:
        return None
    kinds = ", ".join(f"{count:,} {kind}{'' if count == 1 else 's'}" for kind, count in found.kinds.items())
    lines = [("Records trained on", kinds)]
    if found.languages:
        known = list(found.languages.items())[:8]
        lines.append(("Languages", ", ".join(f"{plain(code)} {count:,}" for code, count in known)))
    lines.append(
        ("Written by a machine", f"{found.synthetic:,} records" if found.synthetic else "none, as far as known")
    )
    if (general := facts.replayed(for_others=for_others)) is not None:
        lines.append(("Mixed in", plain(general)))
    if facts.has_canaries:
        lines.append(("Planted", "made-up secrets, to measure what is learned by heart (`4-tokens/canaries.json`)"))
    if (trained := facts.done("4-tokens")["counts"].get("train_trained")) is not None:
        lines.append(("Tokens trained on", f"{trained:,}"))
    if facts.source.config.data.system:
        lines.append(("System message", "one was added to every conversation"))
    return pairs(lines)


def _ledger(facts: Facts) -> str | None:
    """Totals of each stage: what went in is what came out, by fate."""
    totals: Mapping[str, Any] = (facts.report or {}).get("ledger") or {
        stage: details for stage in STAGES if (details := facts.done(stage)["details"].get("ledger"))
    }
    rows = [
        [STAGES.get(stage, stage), f"{unit}s", *(f"{counts.get(fate, 0):,}" for fate in FATES)]
        for stage, units in totals.items()
        for unit, counts in units.items()
    ]
    if not rows:
        return None
    text = "Nothing is lost in silence: of every unit that went in there is one fate.\n\n"
    text += markdown.table(["stage", "unit", *FATES], rows)
    rules = {
        STAGES.get(stage, stage): _rules(by_fate)
        for stage, by_fate in ((facts.report or {}).get("ledger_rules") or {}).items()
    }
    lines = [f"{stage}: {said}" for stage, said in rules.items() if said]
    return text + ("\n\nWhat was taken out or changed, and by which rule:\n\n" + listed(lines) if lines else "")


def _rules(by_fate: Mapping[str, Mapping[str, int]]) -> str:
    parts = []
    for key, rules in by_fate.items():
        unit, _, fate = key.partition(" ")
        if fate != "kept":
            what = "changes" if fate == "changed" else f"{unit}s {fate}"  # a record can be changed more than once
            parts += [f"{plain(rule)}: {count:,} {what}" for rule, count in rules.items()]
    return "; ".join(parts)


def _private(facts: Facts) -> str:
    settings = facts.manifest(CLEAN).get("config", {}).get("clean", {})
    looked_for = [*(settings.get("private_types") or ())]
    if settings.get("private_deny"):
        looked_for.append("words of the owner's own")
    found = (facts.report or {}).get("private_data")
    if not looked_for:
        return "**Nothing was looked for: what is private in it was learned as it stands.**"
    text = f"Looked for: {', '.join(looked_for)}."
    if found is not None:
        by_type = ", ".join(f"{plain(name)} {count:,}" for name, count in found["by_type"].items())
        text += f" Masked: {found['places']:,} places in {found['records']:,} records" + (
            f" ({by_type})." if by_type else "."
        )
    else:
        masked = facts.done(CLEAN)["details"].get("rules", {}).get("row changed", {}).get("private data", 0)
        text += f" Masked: {masked:,} places."
    return text + " Names of customers and threads became hashes. No program finds all of it."


def _cleaning(facts: Facts) -> str | None:
    settings = facts.manifest(CLEAN).get("config", {}).get("clean")
    if not settings:
        return None
    steps = {
        "repair_encoding": "broken characters repaired", "system_lines": "lines of systems taken out",
        "bot_noise": "noise of bots taken out", "boilerplate": "boilerplate cut", "greetings": "bare greetings dropped",
        "exact_duplicates": "equal records dropped", "near_duplicates": "nearly equal records dropped",
    }  # fmt: skip
    done = [said for key, said in steps.items() if settings.get(key)]
    left = [f"not done: {said}" for key, said in steps.items() if not settings.get(key)]
    done.append(f"abusive language: {settings.get('toxicity', 'not looked for')}")
    return listed(done + left) + f"\n\nAll settings are in `config.yaml` and in `{CLEAN}/manifest.json` of the run."


def _splits(facts: Facts) -> str | None:
    found = facts.done(CLEAN)
    if not found["counts"]:
        return None
    splits = found["details"].get("splits") or {}
    rows = [
        [name, f"{found['counts'].get(name, 0):,}", f"{splits[name]['groups']:,}" if name in splits else "–"]
        for name in ("train", "valid", "test")
    ]
    text = markdown.table(["split", "records", "groups"], rows)
    text += "\n\nOne customer, one thread, and records that are nearly equal never stand in two splits."
    leaks = found["details"].get("leaks") or {}
    if leaks:
        text += f" Checked afterwards: {leaks.get('near_pairs', 0):,} near pairs across splits, " + (
            f"{leaks.get('equal_replies', 0):,} equal replies."
        )
    return text


def _unknown(facts: Facts) -> list[str]:
    return [
        "whether those who wrote it agreed to this use: "
        + ("see the licence above" if facts.data_licences else NOT_SAID),
        "for whom it speaks, and who is missing in it",
        f"what stands in it that is false; the report (`{REPORT}`) says what the model makes of it",
    ]
