"""Instructions to try as system texts: those that follow from the data, and those that a model writes about them."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ownchat.data.records import Record
from ownchat.evaluate.answer_scores import Metric
from ownchat.generate.engine import Message
from ownchat.generate.prompt_text import escape
from ownchat.generate.prompts import Prompt

MOST_LABEL_CHARS = 6_000
MOST_SHOWN_CHARS = 400  # of a question or reply that a proposer sees
MOST_WRITTEN_CHARS = 4_000
SHOWN_PAIRS = 10
MOSTLY = 0.9  # of the records
LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sv": "Swedish",
    "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip

_PROPOSE = """\
Below are messages that people wrote, and the replies that they got. Write the instructions (a system prompt) for an \
assistant that is to reply to new messages in just this way.

Say what kind of messages come, what a good reply says and leaves out, how long it is, its tone and its form. Do not \
repeat single messages, names or numbers. Reply with the instructions and nothing else.

{pairs}"""

_REWRITE = """\
These are the instructions (a system prompt) of an assistant:

<instructions>
{instructions}
</instructions>

Below are messages and the replies that it should have given. Write better instructions, with which it would reply \
more like that. Keep what is right. Reply with the new instructions and nothing else.

{pairs}"""


@dataclass(frozen=True)
class Written:
    """A system text as a template (None: that of each conversation), and where it comes from."""

    what: str
    system: str | None


def from_data(items: Sequence[Record], metric: Metric, start: Prompt) -> list[Written]:
    """Instructions that the records themselves suggest, the simplest first.

    The system text that most of them have; short rules (labels, or language and usual length); both together; and
    replies that show the tone.
    """
    texts = []
    own = system_of(items)
    if own is not None:
        texts.append(Written("the system text of the data", escape(own)))
    found = rules(items, metric)
    if found:
        texts.append(Written("rules from the data", escape(found)))
    before = start.system or (escape(own) if own is not None else "")
    if before and found:
        texts.append(Written("the system text and rules from the data", f"{before}\n\n{escape(found)}"))
    if tone := tone_of(items, metric):
        parts = [part for part in (before, escape(found), escape(tone)) if part]
        texts.append(Written("rules and replies that show the tone", "\n\n".join(parts)))
    return texts


def system_of(items: Sequence[Record]) -> str | None:
    """The system text that most records have, if half of them have the same."""
    counts = Counter(
        (item["messages"][0]["content"] or "").strip()
        for item in items
        if item["messages"] and item["messages"][0]["role"] == "system"
    )
    text, count = counts.most_common(1)[0] if counts else ("", 0)
    return text if text and 2 * count >= len(items) else None


def rules(items: Sequence[Record], metric: Metric) -> str:
    """Short sentences about the replies; empty where nothing holds for nearly all of them."""
    replies = [item["messages"][-1]["content"].strip() for item in items]
    if metric == "accuracy":
        labels = [label for label, _ in sorted(Counter(replies).items(), key=lambda pair: (-pair[1], pair[0]))]
        listed = "\n".join(f"- {label}" for label in labels)
        if len(listed) > MOST_LABEL_CHARS:
            listed = listed[:MOST_LABEL_CHARS].rpartition("\n")[0]
        return f"Reply with exactly one of these labels, written as it stands here, and nothing else:\n{listed}"
    said = []
    language, count = Counter(item["language"] for item in items).most_common(1)[0]
    if language in LANGUAGES and count >= MOSTLY * len(items):
        said.append(f"Answer in {LANGUAGES[language]}.")
    words = sorted(len(reply.split()) for reply in replies)[len(replies) // 2]
    sentences = sorted(len(re.findall(r"[.!?。！？](?=\s|$)", reply)) or 1 for reply in replies)[len(replies) // 2]
    about = f"{words}" if words < 10 else f"{round(words, -1)}"
    said.append(
        f"Answer in {'one sentence' if sentences == 1 else f'about {sentences} sentences'}, {about} words or so. "
        "Say only what answers the message: no greeting, no explanation, unless the message asks for one."
    )
    return " ".join(said)


def tone_of(items: Sequence[Record], metric: Metric) -> str:
    """Three replies of middle length to sound like; empty for labels."""
    replies = sorted({item["messages"][-1]["content"].strip() for item in items}, key=lambda text: (len(text), text))
    if metric == "accuracy" or len(replies) < 3:
        return ""
    middle = len(replies) // 2
    shown = "\n".join(f'- "{_short(reply)}"' for reply in replies[middle - 1 : middle + 2])
    return f"Write as these replies do:\n{shown}"


def proposal(draw: random.Random, pairs: Sequence[tuple[str, str]]) -> list[Message]:
    """What a model is asked for instructions: ten pairs of the data, others each time."""
    return [{"role": "user", "content": _PROPOSE.format(pairs=_shown(draw, pairs))}]


def rewriting(draw: random.Random, pairs: Sequence[tuple[str, str]], instructions: str | None) -> list[Message]:
    """The same with instructions to improve."""
    text = _REWRITE.format(instructions=instructions or "Answer the message.", pairs=_shown(draw, pairs))
    return [{"role": "user", "content": text}]


def read_proposal(text: str) -> str | None:
    """The instructions in a model's reply; None: there are none that could be used.

    >>> read_proposal("```\\nBe brief and kind.\\n```"), read_proposal("  ")
    ('Be brief and kind.', None)
    """
    text = re.sub(r"^```\w*\n|\n?```$|</?instructions>", "", text.strip()).strip()
    return text if 10 <= len(text) <= MOST_WRITTEN_CHARS else None


def _shown(draw: random.Random, pairs: Sequence[tuple[str, str]]) -> str:
    chosen = draw.sample(list(pairs), min(SHOWN_PAIRS, len(pairs)))
    return "\n\n".join(f"Message: {_short(question)}\nReply: {_short(reply)}" for question, reply in chosen)


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN_CHARS else text[:MOST_SHOWN_CHARS].rstrip() + " ..."
