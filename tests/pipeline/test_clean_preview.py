"""The page of a preview: offline, escaped, masked, the same bytes each time, with its recipe beside it."""

import json
import re

import pytest
from rich.console import Console

from ownchat.clean.preview import StepView
from ownchat.clean.recipe import read_recipe
from ownchat.config import load_config
from ownchat.errors import DataError, UserError
from ownchat.pipeline.clean_preview import summary_table, write_clean_preview

ROWS = [
    [("user", "Bob joined the channel"), ("user", "Hi, I am Anna Berg, anna.berg@example.org"), ("assistant", "Fine.")],
    [("user", "hi"), ("assistant", "hello")],
    [("user", "<script>alert(1)</script> [bold] fÃ¼r?"), ("assistant", "Ja, das ist für Sie.")],
]


def preview(tmp_path, name, **keywords):
    source = tmp_path / "chats.jsonl"
    source.write_text("\n".join(json.dumps({"messages": [{"role": r, "content": c} for r, c in row]}) for row in ROWS))
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    page = tmp_path / name / "page.html"
    recipe = write_clean_preview(load_config()[0], source, page, console, **keywords)
    return page.read_text(encoding="utf-8"), recipe, console.export_text()


def test_the_page(tmp_path):
    page, recipe, printed = preview(tmp_path, "one")
    assert "Anna" not in page and "berg@" not in page and "alert(1)" in page and "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!#)|url\(|@import|https?://", page)
    for switch in ("clean.system_lines", "clean.greetings", "clean.private_types", "clean.toxicity"):
        assert switch in page and switch in printed
    assert '<mark class="p' in page and "<del>" in page and "<ins>für</ins>" in page
    assert "greetings only" in page and "3 → 2" in printed
    assert "fewer rows than three splits need" in page and "No splits" in printed and "not run" in printed
    assert read_recipe(recipe)["clean.greetings"] is True


def test_the_same_bytes(tmp_path):
    first, recipe, _ = preview(tmp_path, "one")
    second, again, _ = preview(tmp_path, "two")
    assert first == second and recipe.read_bytes() == again.read_bytes()


def test_private_data_is_shown_only_when_asked(tmp_path):
    page, _, _ = preview(tmp_path, "one", show_private=True)
    assert "Anna" in page and "shows private data" in page


COPIES = [
    [("user", f"Is part {number} of the manual about topic {number}?"), ("assistant", f"It is about topic {number}.")]
    for number in range(12)
]
COPIES += [COPIES[0], [COPIES[1][0], ("assistant", "It is about topic 1, Anna Berg said.")]]
COPIES += [
    [("user", "How long does a delivery take?"), ("assistant", "It takes 3 days for all two women of you.")],
    [("user", "how long does a delivery take please"), ("assistant", "It takes 5 days for all two women of you.")],
]


def test_the_steps_over_all_records(tmp_path):
    source = tmp_path / "chats.jsonl"
    source.write_text(
        "\n".join(json.dumps({"messages": [{"role": r, "content": c} for r, c in row]}) for row in COPIES)
    )
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"text": "Is part 7 of the manual about topic 7? It is."}) + "\n")
    sets = ["clean.contradictions=flag", "clean.off_topic=flag", "clean.mention_counts=true"]
    sets += ["clean.near_duplicates=true", f"clean.decontaminate=[{exam}]"]
    console = Console(record=True, width=140, file=open("/dev/null", "w"))  # noqa: SIM115
    write_clean_preview(load_config(sets=sets)[0], source, tmp_path / "page.html", console)
    page, printed = (tmp_path / "page.html").read_text(encoding="utf-8"), console.export_text()
    for step in ("decontaminate", "exact_duplicates", "contradictions", "near_duplicates", "off_topic"):
        assert f"clean.{step}" in page and f"clean.{step}" in printed
    assert "record dropped: exact duplicate <strong>1</strong>" in page and "16 → 15" in printed
    assert "record changed: contradiction <strong>2</strong>" in page and "contradiction · number" in page
    assert "<del>3</del> days" in page and "<ins>5</ins> days" in page
    assert "text of exam.jsonl" in page
    assert "Counting only" in page and "gender 2" in page and "Anna" not in page
    assert "Three splits" in page and "Splits: train " in printed


def test_nothing_to_show(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no record"):
        write_clean_preview(load_config()[0], tmp_path / "empty.jsonl", tmp_path / "p.html", Console(quiet=True))


def test_the_summary_fits_a_narrow_terminal(tmp_path):
    source = tmp_path / "chats.jsonl"
    source.write_text(
        "\n".join(json.dumps({"messages": [{"role": r, "content": c} for r, c in row]}) for row in COPIES)
    )
    console = Console(record=True, width=80, file=open("/dev/null", "w"))  # noqa: SIM115
    write_clean_preview(load_config()[0], source, tmp_path / "page.html", console)
    printed, page = console.export_text(), (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "…" not in printed
    for switch in ("repair_encoding", "exact_duplicates", "near_duplicates", "decontaminate", "private_types"):
        assert re.search(rf"clean\.{switch}\b", printed)
    assert "1 groups" not in printed + page and "1 group" in printed and "1 group" in page


def test_numbers_of_the_table_stay_whole(tmp_path):
    view = StepView("exact_duplicates", "exact_duplicates", True, (20_000, 19_999), (120_000, 119_998))
    console = Console(record=True, width=80, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table([view]))
    printed = console.export_text()
    for whole in ("clean.exact_duplicates", "20,000", "19,999", "120,000", "119,998"):
        assert whole in printed, printed


@pytest.mark.parametrize("show_private", [True, False])
def test_placeholders_of_dropped_records_are_coloured(tmp_path, show_private):
    row = {
        "messages": [
            {"role": "user", "content": "Is it so that nobody knows of this?"},
            {"role": "assistant", "content": "Ask Anna Berg."},
        ]
    }
    more = [{"messages": [{"role": r, "content": c} for r, c in one]} for one in COPIES]
    source = tmp_path / "chats.jsonl"
    source.write_text("\n".join(map(json.dumps, [row, row, *more])))
    page = tmp_path / "page.html"
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"text": "Is it so that nobody knows of this?"}) + "\n")
    sets = ["clean.private_deny=[Anna Berg]", f"clean.decontaminate=[{exam}]"]
    write_clean_preview(load_config(sets=sets)[0], source, page, Console(quiet=True), show_private=show_private)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\[[A-Z]+_1\]", text.split("<main>")[1])
    assert len(re.findall(r"Ask <mark class=\"p\d\">(person|custom)</mark>", text)) >= 2


def test_settings_are_looked_at_first(tmp_path):
    for sets, what in WRONG:
        with pytest.raises(UserError, match=what):
            write_clean_preview(load_config(sets=[sets])[0], tmp_path / "none", tmp_path / "p.html", Console())


WRONG = [
    ("clean.private_allow=['/(/']", "allow list, entry 1"),
    ("clean.private_deny=[fine, ' ']", "entry 2 is empty"),
    ("clean.decontaminate=[/nowhere/exam.csv]", "/nowhere/exam.csv: there is no such file"),
]


def test_a_name_known_from_another_turn_is_masked_on_the_page(tmp_path):
    """In its own turn nothing tells that it is a name; what the step masks must not stand beside its placeholder."""
    texts = ["My name is Rosie Mccann.", "Welcome, Rosie Mccann!", "Rosie Mccann's for March", "Booked."]
    talks = [texts] + [[f"Number {n}?", f"It is {n}."] for n in range(5)]
    roles = ["user", "assistant", "user", "assistant"]
    rows = [{"messages": [{"role": r, "content": c} for r, c in zip(roles, talk, strict=False)]} for talk in talks]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "clean.html"
    write_clean_preview(load_config()[0], tmp_path / "chats.jsonl", page, Console(quiet=True))
    assert "Mccann" not in page.read_text()
