"""Prompts: what a model gets, what a file must be, and that a version stays as it is."""

from __future__ import annotations

import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from ownchat.errors import ConfigError
from ownchat.generate.prompt_text import MOST_CHARS, check_template, escape, render, used_variables
from ownchat.generate.prompts import (
    Prompt,
    apply,
    load,
    names,
    path_of,
    read,
    sampling,
    save,
    system_text,
    to_yaml,
    versions,
)

ASKED = [{"role": "user", "content": "Where is my parcel? {{company}}"}]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# ------------------------------------------------------------------------------------------------ what a model gets


def test_system_examples_and_question_stand_in_order() -> None:
    prompt = Prompt("For {{company}}.", (("Q of {{company}}", "A"),), retrieve=2, variables={"company": "Acme"})
    sent = apply(prompt, ASKED, retrieved=[("nearest", "1"), ("next", "2")])
    assert [(turn["role"], turn["content"]) for turn in sent] == [
        ("system", "For Acme."),
        ("user", "Q of Acme"), ("assistant", "A"),
        ("user", "next"), ("assistant", "2"),
        ("user", "nearest"), ("assistant", "1"),  # the most similar one stands next to the question
        ("user", "Where is my parcel? {{company}}"),  # a question is never a template
    ]  # fmt: skip
    assert apply(prompt, ASKED, variables={"company": "Other"})[0]["content"] == "For Other."
    assert system_text(prompt) == "For Acme."


def test_a_system_text_takes_the_place_of_the_conversations() -> None:
    row = [{"role": "system", "content": "Of the data.", "weight": None, "name": None, "time": "x"}, *ASKED]
    assert apply(Prompt("Mine."), row)[0] == {"role": "system", "content": "Mine."}
    assert apply(Prompt(None, (("q", "a"),)), row)[0] == {"role": "system", "content": "Of the data."}
    assert [turn["role"] for turn in apply(Prompt(""), row)] == ["user"]
    assert row[0]["weight"] is None, "the record is not changed"


def test_retrieved_examples_are_never_templates() -> None:
    sent = apply(Prompt("S"), ASKED, retrieved=[("{{ 7 * 7 }}", "{% for %}")])
    assert [turn["content"] for turn in sent[1:3]] == ["{{ 7 * 7 }}", "{% for %}"]


def test_a_variable_without_a_value_is_named() -> None:
    with pytest.raises(ConfigError, match="no value for city, product") as error:
        apply(Prompt("{{product}} in {{city}} of {{ company }}", variables={"company": "Acme"}), ASKED)
    assert "--var city=VALUE" in error.value.fix and "system" in error.value.where
    assert render("{{city | default('Bonn')}}", {}) == "Bonn"


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% for a in b recursive %}{{ loop(a) }}{% endfor %}",
        "{{ 'x' * 999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ name.__init__ }}",
        "{{ name['x'] }}",
        "{{ cycler() }}",
        "{{ lipsum(9999) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'x' as y %}",
        "{% extends 'base' %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set x = 'y' %}",
        "{{ name | replace('a', 'aaaaaaaaaa') }}",
        "{{ name | center(999999999) }}",
        "{{ name | attr('upper') }}",
        "{{ name ~ name }}",
        "{{ ['a', name] }}",
        "{% filter upper %}x{% endfilter %}",
    ],
)
def test_templates_only_substitute(text: str) -> None:
    """Nothing runs: what could loop, grow, call or look inside is refused before."""
    with pytest.raises(ConfigError):
        render(text, {"name": "abc", "b": "b"})
    with pytest.raises(ConfigError):
        save(Prompt(text), "bad")
    assert names() == []


def test_texts_are_bounded() -> None:
    made = 0

    class Counted(str):
        def __str__(self) -> str:
            nonlocal made
            made += 1
            return "x" * (MOST_CHARS // 2 + 1)

    with pytest.raises(ConfigError, match="more than 200,000 characters"):
        render("{{a}}" * 1000, {"a": Counted("x")})
    assert made == 2, "what is too much is never made"
    half = {"a": "x" * (MOST_CHARS // 2)}
    assert len(render("{{a}}{{a}}", half)) == MOST_CHARS
    with pytest.raises(ConfigError, match="examples of more than"):
        apply(Prompt(None, (("{{a}}", "{{a}}"),) * 50, variables=half), ASKED)


@pytest.mark.parametrize(
    "text",
    [
        "{{ " + "not " * 20_000 + "a }}",
        "{{ " + "not " * 200 + "a }}",
        "{% if a %}" * 5_000 + "{% endif %}" * 5_000,
        "{{ a" + "|lower" * 20_000 + " }}",
    ],
)
def test_texts_that_are_nested_deeply_are_refused(text: str) -> None:
    for function in (check_template, used_variables):
        with pytest.raises(ConfigError, match="nested too deeply"):
            function(text)
    with pytest.raises(ConfigError, match="nested too deeply"):
        render(text, {"a": "x"})


def test_texts_of_some_levels_are_made() -> None:
    text = "{% if a %}" * 10 + "{{ " + "not " * 20 + "a }}" + "{% endif %}" * 10 + "{{ a }}" * 500
    assert render(text, {"a": "x"}) == "True" + "x" * 500


@pytest.mark.parametrize(
    "text", ["{{ 7 }} {% for %} {# x #}", "{{{", "{{{{%{#", "a {", "{{ '{{' }}", 'JSON: {"a": {"b": 1}}', "%}", "\n"]
)
def test_escaped_text_comes_back(text: str) -> None:
    check_template(escape(text))
    assert render(escape(text), {}) == text
    assert render(escape(text) + escape(text), {}) == text + text


def test_parameters_become_sampling() -> None:
    given = sampling(Prompt("S", parameters={"temperature": 0.5, "top_k": 4, "stop": "END", "max_tokens": 9}))
    assert (given.temperature, given.top_k, given.stop) == (0.5, 4, ("END",))
    assert sampling(Prompt("S", parameters={"stop": ["a", "b"]})).stop == ("a", "b")


# ----------------------------------------------------------------------------------------------------------- files


def test_versions_are_kept_and_never_written_again(home: Path) -> None:
    assert names() == [] and versions("support") == []
    assert save(Prompt("One."), "support", note="the first") == 1
    before = path_of("support", 1).read_bytes()
    assert save(Prompt("Two."), "support") == 2
    assert path_of("support", 1).read_bytes() == before
    assert path_of("support", 1) == home / "prompts" / "support" / "v0001.yaml"
    assert (load("support").system, load("support").version, load("support@1").system) == ("Two.", 2, "One.")
    first = load("support@1")
    assert (first.note, first.label) == ("the first", "support@1")
    assert "by: " in before.decode() and "made: " in before.decode()
    for path in (home / "prompts", home / "prompts" / "support", path_of("support", 1)):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert sorted(file.name for file in (home / "prompts" / "support").iterdir()) == ["v0001.yaml", "v0002.yaml"]


def test_a_version_that_appears_meanwhile_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    from ownchat.generate import prompts

    save(Prompt("One."), "support")
    monkeypatch.setattr(prompts, "versions", lambda name: [])  # as if another process had been faster
    assert save(Prompt("Two."), "support") == 2
    assert read(path_of("support", 1)).system == "One."


@pytest.mark.parametrize(
    "text",
    [
        "one line", "two\nlines", "ends with newline\n", "trailing space \nx", "\n leading", "tabs\tin\n\tit",
        "# no comment", "key: value", "'quotes' \"both\"", "emoji 🙂 東京\nGrüße", "- a\n- b\n", "  indented\nthen not",
        "yes", "1.5", "carriage\r\nreturn", "x" * 300,
    ],
)  # fmt: skip
def test_files_hold_any_text(text: str) -> None:
    prompt = Prompt(escape(text), ((text + "q", text + "a"),), 3, {"name": text}, {"temperature": 0.25, "stop": ["\n"]})
    save(prompt, "any")
    found = load("any")
    assert (found.system, found.examples, found.retrieve) == (prompt.system, prompt.examples, 3)
    assert (dict(found.variables), dict(found.parameters)) == (dict(prompt.variables), dict(prompt.parameters))


def test_files_are_for_people() -> None:
    text = to_yaml(Prompt("You answer.\nBriefly.\n", (("Hi", "Hello."),), note="why"))
    assert text == (
        "note: why\nsystem: |\n  You answer.\n  Briefly.\nexamples:\n- question: Hi\n  answer: Hello.\n"
    )  # fmt: skip


def test_no_system_text_is_not_that_of_the_conversation(tmp_path: Path) -> None:
    for system in ("", None):
        (tmp_path / "p.yaml").write_text(to_yaml(Prompt(system, retrieve=4)))
        assert read(tmp_path / "p.yaml") == Prompt(system, retrieve=4)


def test_a_file_has_a_separator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("system: From a file.\nretrieve: 2\n")
    assert load(tmp_path / "mine.yaml").system == "From a file."
    monkeypatch.chdir(tmp_path)
    assert (load("./mine.yaml").retrieve, load("./mine.yaml").label) == (2, "mine.yaml")
    (tmp_path / "text.md").write_text("You are {{not}} a template.\n")
    assert apply(load("./text.md"), ASKED)[0]["content"] == "You are {{not}} a template."


@pytest.mark.parametrize("name", ["", ".", "..", "a.b", "-x", "a b", "x" * 65, "@1", "ä", "a\n"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a prompt's name"):
        load(name)
    with pytest.raises(ConfigError, match="cannot be a prompt's name"):
        save(Prompt("S"), name)


def test_slashes_are_no_name() -> None:
    for name in ("a/b", "../x", "/etc/passwd"):
        with pytest.raises(ConfigError, match="cannot be a prompt's name"):
            save(Prompt("S"), name)
    with pytest.raises(ConfigError, match="no such file"):
        load("a/b")


def test_what_is_not_there_is_said_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as error:
        load("support")
    assert "ownchat prompt new support" in error.value.fix
    save(Prompt("S"), "support")
    with pytest.raises(ConfigError) as error:
        load("suport")
    assert 'did you mean "support"?' in error.value.fix
    for wanted in ("support@2", "support@", "support@x", "support@0", "support@-1", "support@99999999999"):
        with pytest.raises(ConfigError, match="has no version") as error:
            load(wanted)
        assert "support@1" in error.value.fix


@pytest.mark.parametrize(
    "text, words",
    [
        ("system: 'open\nmore: x\n", "line"),
        ("system: a\n  b: c\n", "line 2"),
        ("system: \tx: [", "line"),
        ("sistem: a\n", 'unknown key "sistem"'),
        ("just text\n", "lines such as system"),
        ("", "lines such as system"),
        ("note: nothing else\n", "nothing to say"),
        ("system: [a]\n", "system must be a text"),
        ("system: a\nretrieve: -1\n", "retrieve is 0 to"),
        ("system: a\nretrieve: many\n", "retrieve is 0 to"),
        ("system: a\nexamples: x\n", "examples must be a list"),
        ("system: a\nexamples:\n- question: q\n", "example 1"),
        ("system: a\nexamples:\n- question: q\n  answer: a\n- question: q\n  answer: 5\n", "example 2"),
        ("system: a\nvariables: [a]\n", "variables must be"),
        ("system: a\nvariables: {'a b': c}\n", "cannot be a variable"),
        ("system: a\nvariables: {a: [b]}\n", "variable a must be a text"),
        ("system: a\nparameters: {temperatur: 1}\n", 'unknown parameter "temperatur"'),
        ("system: a\nparameters: {temperature: hot}\n", "temperature must be a number"),
        ("system: a\nparameters: {temperature: -1}\n", "out of range"),
        ("system: a\nparameters: {temperature: .nan}\n", "out of range"),
        ("system: a\nparameters: {max_tokens: 0}\n", "max_tokens must be 1"),
        ("system: a\nparameters: {stop: [1]}\n", "stop must be"),
        ("system: '{{ a'\n", "line 1 of the text"),
        ("system: |\n  fine\n  {{ a.b }}\n", "line 2 of the text"),
        ("system: a\nvariables: {a: 0x" + "f" * 5000 + "}\n", "variable a must be a text"),
        ("system: a\nnote: [b]\n", "note must be a text"),
        ("system: &a b\nnote: *a\n", "line 2: an alias"),
        ("when: 2026-02-31\nsystem: a\n", "not readable"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        read(path)
    assert str(path) in error.value.where


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00system: a")
    with pytest.raises(ConfigError, match="not readable"):
        read(tmp_path / "bytes.yaml")
    (tmp_path / "large.yaml").write_text("system: " + "x" * 1_000_001)
    with pytest.raises(ConfigError, match="too large"):
        read(tmp_path / "large.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="not readable"):
        read(tmp_path / "folder.yaml")
    bomb = "a: &a [x, x]\n" + "".join(f"{k}: &{k} [{', '.join([f'*{j}'] * 9)}]\n" for j, k in pairwise("abcdefghi"))
    (tmp_path / "bomb.yaml").write_text(bomb + "system: *i\n")
    with pytest.raises(ConfigError, match="line 2: an alias"):
        read(tmp_path / "bomb.yaml")
    os.truncate(tmp_path / "large.yaml", 0)
