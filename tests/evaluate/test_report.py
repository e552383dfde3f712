from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ownchat.config import Config, load_config, to_yaml
from ownchat.data.ledger import Ledger
from ownchat.evaluate import charts, gates
from ownchat.evaluate.page import ledger_tables, parse_settings
from ownchat.evaluate.page import render_report as page
from ownchat.evaluate.report import conditions, ledger_totals
from ownchat.evaluate.summary import summary

VOID = {"meta", "br", "hr", "img", "link", "input", "circle", "line", "path", "use", "rect"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, (tag, self.open, self.getpos())
            self.open.pop()

    def handle_data(self, data):
        self.words.append(data)

    def values(self, name: str) -> list[str | None]:
        return [value for _, other, value in self.attributes if other == name]


def test_page_is_well_formed_and_semantic(report, metrics, settings):
    parsed = Page(page(report, metrics, settings))
    assert ("html", "lang", "en") in parsed.attributes
    assert parsed.tags.count("h1") == 1
    assert parsed.tags.count("figure") == 2
    assert all(value in ("col", "row") for value in parsed.values("scope"))
    assert parsed.tags.count("th") == len(parsed.values("scope"))
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    referred = {value.lstrip("#") for value in parsed.values("href") + parsed.values("aria-labelledby")}
    assert referred <= set(ids)
    text = " ".join(" ".join(parsed.words).split())
    for expected in (
        "Held-out loss fell from 3.95 to 2.96", "How long does a full bathroom renovation take?", "3.801 to 4.102",
        "exact duplicate 4", "derived (measured 2.1 times faster)", "Xeon", "invents", "ownchat chat demo", "1,874",
    ):  # fmt: skip
        assert expected in text, expected


def test_pretraining_is_on_the_page(report, metrics, settings):
    texts = [{"prompt": "Chapter ", "text": "<b>one</b>\x1b[31m"}] * 3
    rows = [{"step": step, "samples": texts} for step in (0, 1200, 2400)]
    report["pretraining"] = {"bits_per_byte": [[0, 4.1], [1200, 2.3], [2400, 2.05]], "samples": rows}
    text = page(report, metrics, settings)
    parsed = Page(text)
    assert parsed.tags.count("figure") == 3
    ids = parsed.values("id")
    assert len(ids) == len(set(ids)) and "pretraining" in ids
    words = " ".join(" ".join(parsed.words).split())
    for expected in ("from 4.10 to 2.05 bits per byte", "Before the first step", "After step 1,200", "Sample 3"):
        assert expected in words, expected
    assert "<b>one" not in text and "\x1b" not in text
    without = page(report | {"pretraining": None}, metrics, settings)
    assert "from nothing" not in without


def test_page_loads_nothing_and_names_no_private_path(report, metrics, settings):
    text = page(report, metrics, settings)
    assert not re.search(r"https?:|//|@import|url\((?!#)", text)
    parsed = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(parsed.tags)
    assert not parsed.values("src") and not parsed.values("srcset")
    assert all(value.startswith("#") for value in parsed.values("href"))
    assert "/home/ana" not in text


EVIL = "</style><script>alert('x')</script><img src=x onerror=alert(1)> & \x00\x1b[2J"


def test_text_of_the_data_is_escaped_everywhere(report, metrics, settings):
    report["name"] = EVIL
    for answer in report["answers"]:
        answer |= dict.fromkeys(("question", "reference", "base", "tuned"), EVIL)
    report["ledger_rules"]["2-clean"]["row dropped"] = {EVIL: 4}
    report["held_out"]["notes"] = [EVIL]
    report["conditions"]["cpu"] = EVIL
    report["training"]["method"] = EVIL
    text = page(report, metrics, settings.replace("building company", EVIL))
    assert "<script" not in text and "<img" not in text
    assert text.count("&lt;script&gt;") >= 3 * 4 + 5
    parsed = Page(text)
    assert "script" not in parsed.tags and "img" not in parsed.tags


def test_page_is_the_same_each_time(report, metrics, settings):
    assert page(report, metrics, settings) == page(report, metrics, settings)


def test_page_without_answers_metrics_or_ledger(report, settings):
    report["answers"], report["ledger"], report["ledger_rules"] = [], {}, {}
    report["training"] = {"tokens_per_second": None, "seconds": None, "peak_memory_bytes": None}
    report["held_out"]["notes"] = ["chrF is missing: the data are documents, without questions to answer."]
    for side in ("base", "tuned", "difference"):
        report["held_out"][side]["chrf"] = None
    text = page(report, [], settings)
    Page(text)
    assert "without questions to answer" in text and "No metrics" in text and "no ledger" in text


def test_after_a_resume_the_later_value_counts_and_the_difference_starts_at_the_base(metrics):
    again = [*metrics, {"step": 8, "validation_loss": 1.25}]
    assert dict(charts.series(again, "validation_loss"))[8] == 1.25
    assert charts.difference_chart(metrics[1:]) == ""  # no step 0: nothing to subtract
    assert charts.loss_chart([]) == ""
    assert "kept" in charts.loss_chart(metrics, best_step=72)
    assert "kept" not in charts.loss_chart(metrics, best_step=None)


def test_charts_hold_text_and_follow_the_page(metrics):
    svg = charts.loss_chart(metrics, 72)
    assert "validation</text>" in svg
    assert not re.search(r"#[0-9a-f]{6}\b(?!\")", svg)  # every colour is one of the page's variables
    assert "var(--tuned)" in svg


def test_ledger_totals_are_those_of_the_ledger_that_was_written(tmp_path: Path):
    with Ledger(tmp_path) as ledger:
        ledger.enter("row", 6)
        ledger.enter("token", 30)
        ledger.fate("row", "a", "kept", "train", count=2)
        ledger.fate("row", "b", "dropped", "exact_duplicate", count=3)
        ledger.fate("row", "c", "split", "too_long", makes=2)
        ledger.fate("row", "d", "kept", "train", count=2, parents=["c"])
        ledger.event("row", "a", "changed", "encoding")
        ledger.fate("token", "a", "kept", "trained", count=30)
    totals, rules = ledger_totals(tmp_path)
    assert totals == ledger.totals
    assert rules == ledger.rules
    table = ledger_tables({"ledger": {"2-clean": totals}, "ledger_rules": {"2-clean": rules}})["2-clean"]
    assert table[0]["rules"] == "changed: encoding 1; dropped: exact duplicate 3; split: too long 1"


def test_settings_are_read_back_from_what_the_configuration_writes():
    config, origins = load_config(sets=["data.system='Say # hi: \"now\"'", "train.epochs=2"])
    rows = {row["key"]: row for row in parse_settings(to_yaml(config, origins))}
    assert len(rows) == len(origins)
    assert rows["train.epochs"] == {"key": "train.epochs", "value": "2.0", "origin": "given (--set)"}
    assert "Say # hi" in rows["data.system"]["value"]
    assert rows["evaluate.draws"]["value"] == str(Config().evaluate.draws)


def test_the_page_names_neither_private_words_nor_a_home(report, metrics):
    home = Path.home()
    sets = ["clean.private_deny=[Zebulon Quirk, Ann Otherwise]", f"model.base={home}/models/small", "train.epochs=2"]
    config, origins = load_config(sets=sets)
    text = page(report, metrics, to_yaml(config, origins))
    assert "Zebulon" not in text and "2 entries" in text
    assert "~/models/small" in text and f"{home}/models" not in text


@pytest.mark.parametrize("key", ["cpu", "cores", "torch", "transformers", "ownchat", "commit", "date"])
def test_conditions_are_named(key):
    found = conditions()
    assert key in found
    if key == "cores":
        assert found[key] >= 1


def words_of(text: str) -> str:
    return " ".join(" ".join(Page(text).words).split())


def test_everything_that_was_measured_is_on_the_page(full_report, metrics, settings, ladder):
    text = page(full_report, metrics, settings, ladder)
    words = words_of(text)
    for expected in (
        "Token accuracy", "41.2", "ROUGE-L", "Exact match",  # scores
        "Which label it gives", "“refund” for “where is my parcel” (1)", "Macro-F1", "+33.0 to +67.0",  # labels
        "The judge prefers the tuned model (30 pairs)", "83 % (66 to 93 %)", "2 of 32 pairs got no verdict",  # judge
        "embed-small", "0.740",
        "Against the best prompt", "four examples", "big-model", "3 failed", "not trained; --full trains it",  # ladder
        "1.12 s", "cost 1.84", "Train: LoRA beats the best prompt",
        "By topic", "prices", "3 records, few groups", "+28 %",  # slices
        "The 4 where the loss fell most", "The 4 where it fell least", "chrF of the answer +12.5",  # extremes
        "0.6 Wh", "busy hardware threads", "1 min 45 s", "64 %",  # cost
        "192 places in 120 records", "phone number", "62",  # private data
        "Not promoted: 1 of 2 requirements not met", "it is 27.1 (24.4 to 29.9)",  # gates
        "train for longer", "--epochs 4", "fell from 3.100 to 2.980",  # recommendation
    ):  # fmt: skip
        assert expected in words, expected
    assert words.rindex("What to do") > words.index("Settings and conditions")  # it ends with the recommendation


def test_what_a_report_does_not_have_leaves_its_section_out(report, metrics, settings):
    words = words_of(page(report, metrics, settings))
    for heading in ("Which label", "Judged by", "Against the best", "Where it gained", "What it took", "Private data",
                    "Requirements", "What to do", "Token accuracy", "The 4 where"):  # fmt: skip
        assert heading not in words, heading


def test_text_of_the_data_is_escaped_in_every_section(full_report, metrics, settings, ladder):
    held_out = full_report["held_out"]
    held_out["labels"]["names"] = [EVIL, "b", "c"]
    held_out["judge"]["model"] = held_out["embedding"]["model"] = EVIL
    for each in held_out["slices"]:
        each["name"] = EVIL
    for answers in held_out["extremes"].values():
        for answer in answers:
            answer |= dict.fromkeys(("question", "reference", "base", "tuned"), EVIL)
    full_report["gates"]["checks"][0] |= {"require": EVIL, "why": EVIL}
    full_report["recommendation"] = dict.fromkeys(("text", "command", "why"), EVIL)
    full_report["private_data"]["by_type"] = {EVIL: 3}
    full_report["cost"]["how"] = EVIL
    ladder |= {"advice": EVIL, "notes": [EVIL]}
    ladder["rungs"][0] |= {"name": EVIL, "note": EVIL}
    text = page(full_report, metrics, settings, ladder)
    parsed = Page(text)
    assert not {"script", "img"} & set(parsed.tags) and "<script" not in text
    assert "\x1b" not in text and "\x00" not in text
    assert text.count("&lt;script&gt;") >= 45
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))


def test_intervals_are_drawn_where_they_are(full_report, metrics, settings):
    """Slices share one scale: a higher gain lies further right, and zero is where it is for all."""
    from ownchat.evaluate import cells
    from ownchat.evaluate.sections import slices

    drawn = {row["name"]: row["svg"] for table in slices(full_report["held_out"]) for row in table["rows"]}
    zero = {re.search(r'class="zero" x1="([\d.]+)"', svg)[1] for svg in drawn.values()}
    middle = {name: float(re.search(r'<circle cx="([\d.]+)"', svg)[1]) for name, svg in drawn.items()}
    assert len(zero) == 1
    assert middle["phone.txt"] < float(zero.pop()) < middle["prices"] < middle["tickets-2024.csv"]
    assert 'class="unclear"' in drawn["phone.txt"] and 'class="tuned"' in drawn["prices"]
    bar = cells.bar({"value": 50.0, "low": 40.0, "high": 60.0}, cells.Scale(0.0, 100.0, 116))
    assert 'x="8.0" y="4" width="50.0"' in bar and "M48.0 11H68.0" in bar
    assert cells.bar(None, cells.Scale(0, 1)) == cells.forest(None, cells.Scale(0, 1)) == ""


def test_a_judge_that_failed_is_not_made_up_for(full_report, metrics, settings):
    judge = full_report["held_out"]["judge"]
    judge |= {"judged": 0, "failed": 32, "tuned": None, "base": None, "ties": None, "self_agreement": None}
    words = words_of(page(full_report, metrics, settings))
    assert "No pair of answers was judged" in words and "32 of 32 pairs got no verdict" in words
    assert "The judge prefers" not in words


def test_private_data_is_counted_from_the_ledger(tmp_path: Path):
    from ownchat.evaluate.report import private_data

    assert private_data(tmp_path) is None
    with Ledger(tmp_path) as ledger:
        ledger.enter("row", 3)
        ledger.fate("row", "a", "kept", "train", count=3)
        ledger.event("row", "a", "changed", "private data", count=3, detail="email 1, person 2")
        ledger.event("row", "b", "changed", "private data", count=1, detail="person 1")
        ledger.event("row", "b", "changed", "encoding")
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"config": {"clean": {"private_types": ["person"]}}}')
    assert private_data(tmp_path) == {"places": 4, "by_type": {"person": 3, "email": 1}, "records": 2}
    manifest.write_text('{"config": {"clean": {"private_types": [], "private_deny": []}}}')
    assert private_data(tmp_path) is None


def test_an_untrained_base_without_answers_has_dashes(full_report, metrics, settings):
    held_out = full_report["held_out"] | {"from_nothing": True}
    for side in ("base", "difference"):
        held_out[side] |= dict.fromkeys(("chrf", "rouge_l", "exact"))
        held_out["labels"][side] = {"accuracy": None, "macro_f1": None, "confusion": None}
    report = full_report | {"held_out": held_out}
    text = page(report, metrics, settings)
    assert text.count("Confusion table of the") == 1 and "names the right label" not in text
    assert "27.1" in text and "27.1" in summary(report)
    assert not gates.check(gates.parse(["chrf better", "accuracy better"]), held_out)["passed"]
