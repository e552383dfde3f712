"""Files to learn from, looked at line by line before anything is trained: what is wrong, where, and why.

OpenAI's forms: a conversation (``messages``), a text and what follows it (``prompt``, ``completion``), and two answers
of which one is better (``input``, ``preferred_output``, ``non_preferred_output``; the older ``*_completion`` as well).
Reads a stream once and keeps nothing of its text: a few numbers, a few messages, and 16 bytes a line to find copies.
Whatever the bytes are, the result is a finding, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, BinaryIO, Literal

import orjson

from ownchat.errors import nearest, printable

LONGEST_LINE = 32 * 1024 * 1024  # bytes
LEAST_EXAMPLES = 10
MOST_NAMED = 5  # lines with their reasons in one message
MOST_COMPARED = 2_000_000  # lines that are looked at for copies
SAMPLE = 200  # examples whose texts are kept for counting tokens: of each the first characters
SAMPLE_CHARACTERS = 20_000
HINT = 40  # characters of a line that a hint shows
BOM = b"\xef\xbb\xbf"

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
CONTROL = re.compile(r"<\|[A-Za-z0-9_]{1,40}\|>")  # as nearly all models write theirs
SIDES = (("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion"))

Kind = Literal["chat", "completion", "preference"]
Method = Literal["supervised", "dpo"]


class NotJsonLines(Exception):
    """The file is of another form altogether; the text says so as OpenAI does."""


@dataclass
class Findings:
    """What a file holds. ``problem``: why it cannot be learned from, else None; ``code``: OpenAI's word for that."""

    examples: int = 0
    kind: Kind | None = None
    problem: str | None = None
    code: str | None = None
    copies: int = 0
    first_copy: int = 0  # line
    ignored: dict[str, int] = field(default_factory=dict)  # keys that mean nothing here, and in how many lines
    sample: list[str] = field(default_factory=list)  # texts of the first examples, one each
    digests: set[bytes] = field(default_factory=set, repr=False)


def check_json_lines(stream: BinaryIO) -> None:
    """Raise :class:`NotJsonLines` unless every line is a JSON object; what stands in them is not looked at.

    >>> import io
    >>> try:
    ...     check_json_lines(io.BytesIO(b"question,answer"))
    ... except NotJsonLines as error:
    ...     print(str(error).partition(". ")[2])
    Line 1 is not a dictionary (HINT: line starts with: "question,answer").
    """
    for number, line in _lines(stream):
        if not isinstance(_parsed(line), dict):
            start = printable(line.strip()[: 4 * HINT].decode("utf-8", "replace"))[:HINT]
            raise NotJsonLines(
                "Expected file to have JSONL format, where every line is a JSON dictionary. "
                f'Line {number} is not a dictionary (HINT: line starts with: "{start}").'
            )


def validate(
    stream: BinaryIO,
    method: Method,
    *,
    special_tokens: Collection[str] = (),
    least: int = LEAST_EXAMPLES,
    name: str = "Training",
) -> Findings:
    """What the file holds, and the first thing that forbids learning from it. ``special_tokens``: of the model.

    ``name`` begins the messages: Training or Validation.
    """
    found = Findings()
    reasons: list[str] = []  # of the first lines that are wrong
    wrong = following = 0  # lines, and the first one that is not named
    control = _control(special_tokens)
    for number, line in _lines(stream):
        found.examples += 1
        row = _parsed(line)
        try:
            _look(row, line, number, method, found, control)
        except _Wrong as error:
            wrong += 1
            if len(reasons) < MOST_NAMED:
                reasons.append(f"line {number}: {error}")
            else:
                following = following or number
    if wrong:
        rest = f"; and {wrong - len(reasons)} more lines, the next is line {following}" if following else ""
        found.problem, found.code = "Invalid file format. " + "; ".join(reasons) + rest, "invalid_file_format"
    elif found.examples < least:
        found.code = "invalid_n_examples"
        found.problem = f"{name} file has {found.examples} example(s), but must have at least {least} examples"
    return found


class _Wrong(Exception):
    """Why a line trains nothing."""


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers from 1; one that is too long comes cut, and is no JSON then."""
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        whole = line
        while not whole.endswith(b"\n") and len(whole) >= LONGEST_LINE:  # skip what is left of it
            whole = stream.readline(LONGEST_LINE)
            if not whole:
                break
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            yield number, line


def _parsed(line: bytes) -> Any:
    """The JSON value, or None for what is none (too deep, not UTF-8, NaN, half characters)."""
    try:
        return orjson.loads(line)
    except ValueError:
        return None


def _control(special_tokens: Collection[str]) -> re.Pattern[str]:
    own = sorted((token for token in special_tokens if token), key=len, reverse=True)
    return re.compile("|".join([CONTROL.pattern, *map(re.escape, own)]))


def _look(row: Any, line: bytes, number: int, method: Method, found: Findings, control: re.Pattern[str]) -> None:
    if not isinstance(row, dict):
        too_long = len(line) >= LONGEST_LINE
        raise _Wrong(f"is longer than {LONGEST_LINE} bytes" if too_long else "is not a JSON dictionary")
    kind = _kind(row)
    if kind is None:
        known = ("messages", "prompt", "completion", "input", *SIDES[0])
        keys = ", ".join(map(_quoted, list(row)[:5])) or "none"
        hint = next((hint for key in row if (hint := nearest(str(key)[:64], known))), "")
        raise _Wrong(f'has no "messages" (its keys are {keys})' + (f"; {hint}" if hint else ""))
    if (kind == "preference") != (method == "dpo"):
        wanted = "two answers (input, preferred_output, non_preferred_output)" if method == "dpo" else '"messages"'
        raise _Wrong(f"is of another form than the method {method} learns from: it needs {wanted}")
    if found.kind is None:
        found.kind = kind
    elif found.kind != kind:
        raise _Wrong(f"is a {kind} example in a file of {found.kind} examples")
    texts: list[str] = []
    match kind:
        case "chat":
            _conversation(row, "messages", texts)
            known_keys = {"messages", "tools", "functions", "parallel_tool_calls"}
            _tools(row)
        case "completion":
            _completion(row, texts)
            known_keys = {"prompt", "completion"}
        case "preference":
            known_keys = {"input", *_preference(row, texts)}
    for text in texts:
        if (token := control.search(text)) is not None:
            raise _Wrong(f"contains an invalid token: {token[0][:64]}")
    for key in row.keys() - known_keys:
        name = printable(str(key))[:64]
        if name in found.ignored or len(found.ignored) < MOST_NAMED:
            found.ignored[name] = found.ignored.get(name, 0) + 1
    _remember(found, line, number, texts)


def _remember(found: Findings, line: bytes, number: int, texts: list[str]) -> None:
    if len(found.sample) < SAMPLE:
        found.sample.append("\n".join(texts)[:SAMPLE_CHARACTERS])
    digest = blake2b(line.strip(), digest_size=16).digest()
    if digest in found.digests:
        found.copies += 1
        found.first_copy = found.first_copy or number
    elif len(found.digests) < MOST_COMPARED:
        found.digests.add(digest)


def _kind(row: dict[str, Any]) -> Kind | None:
    if "messages" in row:
        return "chat"
    if "input" in row or any(side in row for sides in SIDES for side in sides):
        return "preference"
    return "completion" if "prompt" in row or "completion" in row else None


# ------------------------------------------------------------------------------------------------------ conversations


def _conversation(row: dict[str, Any], key: str, texts: list[str], *, answered: bool = True) -> None:
    """``answered``: at least one message must be the assistant's and be learned."""
    messages = _list(row, key, least=1)
    trained = False
    for number, item in enumerate(messages):
        trained |= _message(item, f"{key}[{number}]", texts)
    if answered and not trained:
        raise _Wrong(f'{key} hold no message of role "assistant" with weight 1: there is nothing to learn')


def _message(item: Any, where: str, texts: list[str]) -> bool:
    """Check a message and collect its texts; whether it is learned."""
    if not isinstance(item, dict):
        raise _Wrong(f"{where} is not a dictionary")
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _Wrong(f"{where}.role is {_quoted(role)}, and roles are {', '.join(ROLES)}")
    if unknown := item.keys() - _MESSAGE_KEYS:
        name = sorted(map(str, unknown))[0]
        hint = nearest(name[:64], _MESSAGE_KEYS)
        raise _Wrong(f"{where} has an unknown key {_quoted(name)}" + (f"; {hint}" if hint else ""))
    weight = item.get("weight")
    if weight is not None:
        if role != "assistant":
            raise _Wrong(f'{where}.weight: only messages of role "assistant" have one')
        if isinstance(weight, bool) or weight not in (0, 1):
            raise _Wrong(f"{where}.weight must be 0 or 1")
    calls = _calls(item, where, texts)
    if calls and role != "assistant":
        raise _Wrong(f'{where}.tool_calls: only messages of role "assistant" have them')
    content = item.get("content")
    if content is None and isinstance(item.get("refusal"), str):
        content = item["refusal"]
    if content is None and not calls:
        raise _Wrong(f"{where}.content is missing")
    said = _content(content, f"{where}.content", texts)
    if role == "tool" and not isinstance(item.get("tool_call_id"), str):
        raise _Wrong(f"{where}.tool_call_id is missing: which call does this answer?")
    for key in ("name", "tool_call_id"):
        if item.get(key) is not None and not isinstance(item[key], str):
            raise _Wrong(f"{where}.{key} must be text")
    if isinstance(item.get("name"), str):
        texts.append(item["name"])
    if role == "assistant" and weight != 0 and not said and not calls:
        raise _Wrong(f"{where}.content is empty: there is nothing to learn")
    return role == "assistant" and weight != 0


_MESSAGE_KEYS = frozenset(
    ("role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal")
)


def _content(content: Any, where: str, texts: list[str]) -> bool:
    """Whether there is some text."""
    if content is None:
        return False
    if isinstance(content, str):
        texts.append(content)
        return bool(content.strip())
    if not isinstance(content, list):
        raise _Wrong(f"{where} must be text")
    said = False
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        key = "refusal" if kind == "refusal" else "text"
        if kind not in ("text", "refusal") or not isinstance(part.get(key), str):
            raise _Wrong(f"{where}[{number}] is not of type text, and only text is learned here")
        texts.append(part[key])
        said = said or bool(part[key].strip())
    return said


def _calls(item: dict[str, Any], where: str, texts: list[str]) -> bool:
    calls = item.get("tool_calls")
    if item.get("function_call") is not None:
        if calls is not None:
            raise _Wrong(f"{where} has tool_calls and a function_call")
        calls = [{"function": item["function_call"]}]
    if calls is None:
        return False
    if not isinstance(calls, list):
        raise _Wrong(f"{where}.tool_calls must be a list")
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _Wrong(f"{where}.tool_calls[{number}].function needs a name")
        if not isinstance(function.get("arguments"), str):
            raise _Wrong(f"{where}.tool_calls[{number}].function.arguments must be JSON as text")
        texts += [function["name"], function["arguments"]]
    return bool(calls)


def _tools(row: dict[str, Any]) -> None:
    for key, most in (("tools", 128), ("functions", 128)):
        tools = row.get(key)
        if tools is None:
            continue
        if not isinstance(tools, list) or len(tools) > most:
            raise _Wrong(f"{key} must be a list of at most {most}")
        for number, tool in enumerate(tools):
            function = tool.get("function", tool) if isinstance(tool, dict) and key == "tools" else tool
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise _Wrong(f"{key}[{number}] needs a name")
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        raise _Wrong("parallel_tool_calls must be true or false")


# ------------------------------------------------------------------------------------------------------- other forms


def _completion(row: dict[str, Any], texts: list[str]) -> None:
    for key in ("prompt", "completion"):
        if not isinstance(row.get(key), str):
            raise _Wrong(f"{key} must be text")
        texts.append(row[key])
    if not row["completion"].strip():
        raise _Wrong("completion is empty: there is nothing to learn")


def _preference(row: dict[str, Any], texts: list[str]) -> tuple[str, str]:
    """Returns the names of the two sides."""
    asked = row.get("input")
    if not isinstance(asked, dict):
        raise _Wrong("input must be a dictionary with messages")
    _conversation(asked, "messages", texts, answered=False)
    _tools(asked)
    sides = next((sides for sides in SIDES if sides[0] in row or sides[1] in row), SIDES[0])
    said: list[list[str]] = [[], []]
    for side, held in zip(sides, said, strict=True):
        answers = _list(row, side, least=1)
        if len(answers) != 1:
            raise _Wrong(f"{side} must hold one message")
        if not _message(answers[0], f"{side}[0]", held):
            raise _Wrong(f'{side}[0] must be of role "assistant"')
        texts += held
    if said[0] == said[1]:
        raise _Wrong("both answers are equal: there is nothing to learn")
    return sides


def _list(row: dict[str, Any], key: str, *, least: int) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list) or len(value) < least:
        raise _Wrong(f"{key} must be a list" + (" that holds something" if isinstance(value, list) else ""))
    return value


def _quoted(value: Any) -> str:
    """A text in quotation marks, short and fit for a message; of other values only what they are."""
    if isinstance(value, str):
        return f'"{printable(value)[:40]}"'
    return "null" if value is None else f"a {type(value).__name__}"
