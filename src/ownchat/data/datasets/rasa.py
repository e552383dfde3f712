"""A bot made with Rasa: examples of what users say, stories, and the bot's responses become conversations.

YAML of Rasa 2 and 3 (``nlu``, ``stories``, ``rules``, ``responses``; https://rasa.com/docs/rasa/training-data-format)
and Markdown of Rasa 1 (``## intent:greet`` with examples, ``## story`` with ``* greet`` and ``- utter_greet``). Each
story is a conversation; each example of an intent that stories answer in one way is one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.datasets.yaml_tree import Node, parse, read_yaml
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.messages import checked
from ownchat.data.reading import Reading, dropped, row_id, unreadable
from ownchat.data.records import Record, message

_YAML = re.compile(
    r"^(?:nlu:\s*\n\s*-\s+(?:intent|lookup|synonym|regex)|(?:stories|rules):\s*\n\s*-\s+(?:story|rule)|"
    r"(?:responses|templates):\s*\n\s+utter_|intents:\s*\n\s*-\s)",
    re.MULTILINE,
)
_STORIES = re.compile(r"^## .*\n+(?:.*\n){0,4}?\* ?[\w/{]+.*\n\s+- \w+", re.MULTILINE)
_EXAMPLES = re.compile(r"^## intent:[ \t]*\S+[ \t]*\n+- ", re.MULTILINE)
_ENTITY = re.compile(r"\[([^\]\n]+)\](?:\([^)\n]*\)|\{[^}\n]*\})")
_PARTS = ("data", "core", "nlu", "domain", "tests", "stories", "rules", "responses")  # folders inside one bot


@dataclass
class _Story:
    file: str
    line: int
    steps: list[tuple[str, str]] = field(default_factory=list)  # ("user", intent), ("said", text), ("bot", action)


@dataclass
class _Bot:
    examples: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)  # intent: (text, file, line)
    responses: dict[str, list[str]] = field(default_factory=dict)
    stories: list[_Story] = field(default_factory=list)
    problems: list[Entry] = field(default_factory=list)


def recognise_rasa(file: InputFile) -> float:
    """How surely a file is a part of a Rasa bot."""
    if file.magic:
        return 0.0
    if file.suffix in (".yml", ".yaml") or file.sample.startswith(("version:", "nlu:", "stories:", "rules:")):
        return 0.9 if _YAML.search(file.sample) else 0.0
    return 0.9 if _EXAMPLES.search(file.sample) or _STORIES.search(file.sample) else 0.0


def read_rasa(file: InputFile, data: DataConfig) -> Reading:
    """One file of a bot alone."""
    return read_rasa_bot([file], data)


def read_rasa_bot(files: Sequence[InputFile], data: DataConfig) -> Reading:
    """All files of one or several bots; the folder tells which belong together. Each story and example is a row."""
    bots: dict[str, _Bot] = {}
    for file in files:
        _add(file, bots.setdefault(_folder(file.name), _Bot()))

    def records() -> Iterator[Record | Entry]:
        for bot in bots.values():
            yield from bot.problems
            yield from _stories(bot)
            yield from _examples(bot)

    count = {
        "stories": sum(len(bot.stories) for bot in bots.values()),
        "examples": sum(len(found) for bot in bots.values() for found in bot.examples.values()),
        "responses": sum(len(bot.responses) for bot in bots.values()),
    }
    understood = "a Rasa bot: " + ", ".join(f"{number} {name}" for name, number in count.items())
    return Reading("rasa", understood, records())


# ------------------------------------------------------------------------------------------------------- parsing


def _add(file: InputFile, bot: _Bot) -> None:
    if file.suffix in (".md", ".markdown") or _EXAMPLES.search(file.sample) or _STORIES.search(file.sample):
        _add_markdown(file, bot)
        return
    try:
        tree = parse(read_yaml(file))
    except ValueError as error:
        bot.problems.append(unreadable(file.name, 1, "invalid YAML", str(error)))
        return
    for intent in _listed(tree.get("nlu")):
        _add_examples(intent, file.name, bot)
    found = tree.get("responses") or tree.get("templates")  # the second name is that of Rasa 1
    for name, responses in found.pairs() if found is not None else ():
        texts = [text for one in responses.items if (text := _response(one))]
        bot.responses.setdefault(name, []).extend(texts)
    for kind in ("stories", "rules"):
        for story in _listed(tree.get(kind)):
            bot.stories.append(_story(story, file.name))


def _listed(node: Node | None) -> list[Node]:
    return node.items if node is not None and node.kind == "list" else []


def _response(node: Node) -> str:
    text = node.get("text")
    return text.text.strip() if text is not None else node.text.strip()


def _add_examples(node: Node, file: str, bot: _Bot) -> None:
    intent, examples = node.get("intent"), node.get("examples")
    if intent is None or examples is None:
        return
    found = bot.examples.setdefault(intent.text, [])
    if examples.kind == "list":  # the long form: [{text: ...}]
        found += [(text, file, one.line) for one in examples.items if (text := _plain(_response(one)))]
        return
    for number, line in enumerate(examples.text.split("\n"), 1):
        text = _plain(line.strip().removeprefix("-"))  # older files have no hyphen
        if text:
            found.append((text, file, examples.line + number))


def _story(node: Node, file: str) -> _Story:
    story = _Story(file, node.line)
    for step in _listed(node.get("steps")):
        for kind, value in step.pairs():
            if kind == "intent":
                said = step.get("user")
                story.steps.append(("said", _plain(said.text)) if said is not None else ("user", value.text))
            elif kind == "user" and step.get("intent") is None:
                story.steps.append(("said", _plain(value.text)))
            elif kind in ("action", "bot"):
                story.steps.append(("bot" if kind == "action" else "answer", value.text))
            elif kind == "or" and value.items and (first := value.items[0].get("intent")) is not None:
                story.steps.append(("user", first.text))
    return story


def _add_markdown(file: InputFile, bot: _Bot) -> None:
    """``## intent:name`` with "- example" lines, and ``## story`` with "* intent" and "- action" lines."""
    intent, story = "", None
    for number, line in file.lines():
        text = line.strip()
        if text.startswith("## "):
            intent = text[3:].removeprefix("intent:").strip() if text.startswith("## intent:") else ""
            is_other = re.match(r"## (?:synonym|lookup|regex):", text)
            story = None if intent or is_other else _Story(file.name, number)
            if story is not None:
                bot.stories.append(story)
        elif intent and text.startswith(("- ", "* ")):
            bot.examples.setdefault(intent, []).append((_plain(text[2:]), file.name, number))
        elif story is not None and text.startswith("*"):
            name, _, said = text[1:].strip().partition(":")
            name = re.split(r"[{\s]", name.strip())[0]
            story.steps.append(("said", _plain(said)) if said.strip() and "{" not in name else ("user", name))
        elif story is not None and text.startswith("-"):
            story.steps.append(("bot", text[1:].strip()))


def _plain(text: str) -> str:
    """An example without the marks of its entities.

    >>> _plain("to [Berlin](city) on [Monday]{\\"entity\\": \\"day\\"}")
    'to Berlin on Monday'
    """
    return _ENTITY.sub(r"\1", text).strip()


def _folder(name: str) -> str:
    folders = name.split("/")[:-1]
    while folders and folders[-1].lower() in _PARTS:
        folders.pop()
    return "/".join(folders)


# ------------------------------------------------------------------------------------------------- conversations


def _stories(bot: _Bot) -> Iterator[Record | Entry]:
    """Each story with examples and responses; those of the same intent take turns."""
    for number, story in enumerate(bot.stories):
        messages: list[dict[str, Any]] = []
        missing = ""
        for kind, value in story.steps:
            if kind in ("user", "said"):
                said = [value] if kind == "said" else [text for text, _, _ in bot.examples.get(value, ())]
                if not said:
                    missing = f'no example of the intent "{value}"'
                    break
                text, role = said[number % len(said)], "user"
            else:
                found = [value] if kind == "answer" else bot.responses.get(value, [])
                if not found:
                    if value.startswith("utter_"):
                        missing = f'no response "{value}"'
                        break
                    continue  # an action or a form that runs code: it says nothing by itself
                text, role = found[number % len(found)], "assistant"
            if messages and messages[-1]["role"] == role == "assistant":
                messages[-1]["content"] += f"\n{text}"
            else:
                messages.append(message(role, text))
        while messages and messages[-1]["role"] == "user":
            messages.pop()  # a question that code would answer
        place = (story.file, story.line)
        if not messages or not any(turn["role"] == "user" for turn in messages):
            entry = dropped(*place, "no answer" if not missing else "a part of the bot is missing")
            yield _with_detail(entry, missing) if missing else entry
        else:
            yield checked(messages, None, "", file=story.file, format="rasa", line=story.line)
            if missing:
                detail = f"{story.file}, line {story.line}: {missing}"
                yield Entry("row", row_id(*place), "cut", "a part of the bot is missing", detail=detail)


def _examples(bot: _Bot) -> Iterator[Record | Entry]:
    """Each example whose intent is answered at once, and always in the same way."""
    answers: dict[str, set[str]] = {}
    for story in bot.stories:
        for (kind, intent), (after, action) in zip(story.steps, story.steps[1:], strict=False):
            if kind == "user":
                answers.setdefault(intent, set()).add(action if after == "bot" else "")
    for intent, examples in bot.examples.items():
        actions = answers.get(intent, set()) - {""}
        if "/" in intent:  # a retrieval intent: faq/costs is answered by utter_faq/costs
            actions = {f"utter_{intent}"}
        texts = bot.responses.get(next(iter(actions)), []) if len(actions) == 1 else []
        for number, (text, file, line) in enumerate(examples):
            if not texts:
                rule = "answered in several ways" if len(actions) > 1 else "no story answers this intent"
                yield dropped(file, line, rule)
            else:
                messages = [message("user", text), message("assistant", texts[number % len(texts)])]
                yield checked(messages, None, "", file=file, format="rasa", line=line, offset=0)


def _with_detail(entry: Entry, detail: str) -> Entry:
    return Entry(
        entry.unit, entry.id, entry.fate, entry.rule, parents=entry.parents, detail=f"{entry.detail}: {detail}"
    )
