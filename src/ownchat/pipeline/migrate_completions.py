"""Stored chat completions of a service as rows that ``ownchat train`` reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownchat.monitor.progress import progress
from ownchat.pipeline.service_errors import NotThere, explained

FILE = "completions.jsonl"
CAME = "completions.ids"  # beside its folder: what came, so that a row deleted here does not come again
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PAGE = 100
MOST_MESSAGES = 10_000  # of one conversation


@dataclass
class Exported:
    """``path``: the rows, none where none came; ``written`` of this time, ``there`` of before; ``left_out`` by
    reason."""

    path: str | None = None
    written: int = 0
    there: int = 0
    left_out: dict[str, int] = field(default_factory=dict)


def export(client: Any, folder: Path) -> Exported:
    """Append the stored completions that are not there yet, oldest first, a row for each answer of a completion.

    Raises :class:`~ownchat.errors.UserError` where they cannot be listed; a service that has none is told.
    """
    done, path = Exported(), folder / FILE
    note = folder.parent / CAME
    known = _known(path, note)
    seen: set[str] = set()
    with progress("stored answers", None) as advance:
        for item in _listed(client, done):
            id = item.get("id")
            if not isinstance(id, str) or id in seen:
                _leave(done, "the service lists it without an id of its own")
                break
            seen.add(id)
            if id in known:
                done.there += 1
                continue
            rows = list(_rows(client, id, item, done))
            if rows:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _append(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
                _append(note, json.dumps(id) + "\n")
                done.written += len(rows)
            advance()
    done.path = str(path) if path.is_file() else None
    return done


def _listed(client: Any, done: Exported) -> Iterator[dict[str, Any]]:
    try:
        for item in client.chat.completions.list(limit=PAGE, order="asc"):
            yield item.to_dict(mode="json", warnings=False)
    except Exception as error:
        problem = explained(error, str(client.base_url), "stored chat completions", reading=True)
        if isinstance(problem, NotThere):
            _leave(done, problem.what)
            return
        raise problem from error


def _rows(client: Any, id: str, item: dict[str, Any], done: Exported) -> Iterator[dict[str, Any]]:
    import openai

    asked: list[dict[str, Any] | None] = []
    try:
        for message in client.chat.completions.messages.list(id, limit=PAGE):
            asked.append(_message(message.to_dict(mode="json", warnings=False)))
            if len(asked) > MOST_MESSAGES:
                _leave(done, f"it has more than {MOST_MESSAGES:,} messages")
                return
    except openai.NotFoundError:
        _leave(done, "its messages are not there any more")
        return
    except Exception as error:
        raise explained(error, str(client.base_url), "messages of stored chat completions", reading=True) from error
    choices = item.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        said = _message(choice.get("message")) if isinstance(choice, dict) else None
        if said is None or not asked or None in asked:
            _leave(done, "it is not all text")
            continue
        if said["role"] != "assistant" or not (said["content"] or said.get("tool_calls")):
            _leave(done, "it has no answer")
            continue
        row = {"messages": [*asked, said], "id": id}
        tools = item.get("tools")
        if isinstance(tools, list) and tools:
            row["tools"] = tools
        for name in ("model", "created", "metadata"):
            if item.get(name) is not None:
                row[name] = item[name]
        yield row


def _message(given: Any) -> dict[str, Any] | None:
    """A message with what a conversation keeps; none where it is not text and calls of tools."""
    if not isinstance(given, dict) or given.get("role") not in ROLES:
        return None
    content = given.get("content")
    parts = content if isinstance(content, list) else given.get("content_parts") if content is None else None
    if isinstance(parts, list):
        shown = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        texts = [text for text in shown if isinstance(text, str)]
        if len(texts) != len(parts):
            return None
        content = "".join(texts)
    if not isinstance(content, str | None):
        return None
    more = {name: given[name] for name in ("name", "tool_calls", "tool_call_id") if given.get(name)}
    return {"role": given["role"], "content": content or "", **more}


def _known(path: Path, note: Path) -> set[str]:
    """Ids of what came, by the rows that are there and by the note, which then has all of them."""
    if not path.is_file():  # all of it was removed: it comes anew
        note.unlink(missing_ok=True)
        return set()
    there, came = _there(path), _came(note)
    if late := sorted(there - came):  # of a process that was killed before it noted them
        _append(note, "".join(json.dumps(id) + "\n" for id in late))
    return there | came


def _there(path: Path) -> set[str]:
    """Ids of the rows that are there. Half a row at the end, of a process that was killed, is cut off; a whole one that
    an editor left without its line end gets it."""
    ids, good = set(), 0
    with open(path, "rb+") as handle:
        for line in handle:
            try:
                row = json.loads(line)
            except ValueError:  # changed here: not ours to mend
                row = None
            if not line.endswith(b"\n"):
                if not isinstance(row, dict):
                    handle.truncate(good)
                    break
                handle.seek(0, os.SEEK_END)
                handle.write(b"\n")
            good += len(line)
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                ids.add(row["id"])
    return ids


def _came(note: Path) -> set[str]:
    """Ids of what came before, whether its rows are still there or not."""
    found = set()
    for line in note.read_text("utf-8", "replace").splitlines() if note.is_file() else ():
        try:
            found.add(str(json.loads(line)))
        except ValueError:  # half a line, of a process that was killed: its rows say the same
            continue
    return found


def _append(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as handle:
        handle.write(text.encode("utf-8", "replace"))


def _leave(done: Exported, why: str) -> None:
    done.left_out[why] = done.left_out.get(why, 0) + 1
