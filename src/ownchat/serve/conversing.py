"""The Responses API's items as messages, and an answer as its object and its events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ownchat.serve.asking import Piece
from ownchat.serve.errors import ApiError
from ownchat.serve.protocol.chat import CalledFunction, ChatMessage, Part, ToolCall
from ownchat.serve.protocol.responses import CALL, MESSAGE, RESULT, Item, ResponseRequest
from ownchat.serve.running import Running
from ownchat.serve.tools import Call

Message = dict[str, Any]


def messages_of(given: str | Sequence[Item]) -> list[Message]:
    """Messages for a chat template. Calls that follow each other, or a message of the assistant, are one turn."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[Message] = []
    for item in given:
        if item.type == MESSAGE and item.role is not None:
            messages.append(ChatMessage(role=item.role, content=_words(item.content)).plain())
        elif item.type == CALL and item.name is not None:
            function = CalledFunction(name=item.name, arguments=item.arguments or "")
            call = ToolCall(id=item.call_id or "", function=function)
            made = ChatMessage(role="assistant", tool_calls=[call]).plain()
            if messages and messages[-1]["role"] == "assistant":
                last = messages.pop()
                made = {**last, "tool_calls": [*last.get("tool_calls", ()), *made["tool_calls"]]}
            messages.append(made)
        elif item.type == RESULT:
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _words(item.output)})
    if not messages:
        raise ApiError(400, "'input': there is no message in it", param="input", code="invalid_value")
    return messages


def items_of(given: str | Sequence[Item]) -> list[dict[str, Any]]:
    """The input as it is listed later: every item with an id, texts as parts."""
    items = [Item(role="user", content=given)] if isinstance(given, str) else given
    listed = []
    for item in items:
        shown: dict[str, Any] = {"id": item.id or _id("msg" if item.type == MESSAGE else "fc"), "type": item.type}
        if item.type == MESSAGE:
            kind = "output_text" if item.role == "assistant" else "input_text"
            part = {"type": kind, "text": _words(item.content)}
            more: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
            shown |= {"role": item.role, "content": [part | more], "status": "completed"}
        elif item.type == CALL:
            shown |= {"call_id": item.call_id, "name": item.name, "arguments": item.arguments, "status": "completed"}
        elif item.type == RESULT:
            shown |= {"call_id": item.call_id, "output": _words(item.output), "status": "completed"}
        else:
            shown |= {"summary": []}
        listed.append(shown)
    return listed


def _words(content: str | Sequence[Part] | None) -> str:
    return content if isinstance(content, str) else "\n".join(part.words for part in content or ())


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


class Response:
    """One answer as it grows: its object, and the events that tell of it."""

    def __init__(self, body: ResponseRequest, running: Running, *, store: bool, metadata: dict[str, str]) -> None:
        self.id = _id("resp")
        sampling = running.begun.sampling
        form = body.text.format if body.text is not None and body.text.format is not None else None
        choice: Any = body.tool_choice or "auto"
        self._object: dict[str, Any] = {
            "id": self.id, "object": "response", "created_at": int(time.time()), "completed_at": None,
            "status": "in_progress", "error": None, "incomplete_details": None, "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens, "model": body.model, "output": [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id, "temperature": sampling.temperature,
            "top_p": sampling.top_p, "top_logprobs": body.top_logprobs or 0,
            "text": {"format": form.model_dump(exclude_none=True, by_alias=True) if form else {"type": "text"}},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [
                {"description": None, **tool.model_dump(), "strict": bool(tool.strict)} for tool in body.tools or ()
            ],
            "truncation": "disabled", "usage": None, "metadata": metadata, "store": store, "background": False,
        }  # fmt: skip
        self._running = running
        self._number = 0
        self._message: dict[str, Any] | None = None  # that is being written
        self._tokens: list[dict[str, Any]] = []
        self._reason = "stop"

    # ---------------------------------------------------------------------------------------------- events

    def begin(self) -> list[dict[str, Any]]:
        """That it is there, and that it is being made."""
        return [self._event("response.created", response=self._shown()),
                self._event("response.in_progress", response=self._shown())]  # fmt: skip

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        """Keep a piece; the events that tell of it."""
        events = list(self._written(piece)) if piece.text or piece.logprobs else []
        for call in piece.calls:
            events += [*self._close_message(), *self._called(call)]
        if piece.finish_reason is not None:
            self._reason = piece.finish_reason
        return events

    def end(self) -> list[dict[str, Any]]:
        """What closes it; ``response.incomplete`` for an answer that was cut or held back."""
        if not self._object["output"]:
            events = [*self._open_message(), *self._close_message()]  # an empty answer is a message, too
        else:
            events = list(self._close_message())
        why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self._reason)
        status = "completed" if why is None else "incomplete"
        counted = (self._running.prompt_tokens, self._running.completion_tokens)
        self._object |= {
            "status": status,
            "completed_at": int(time.time()) if why is None else None,
            "incomplete_details": None if why is None else {"reason": why},
            "usage": {
                "input_tokens": counted[0], "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": counted[1], "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sum(counted),
            },
        }  # fmt: skip
        for item in self._object["output"]:
            if why is not None and item is self._object["output"][-1]:
                item["status"] = "incomplete"
        return [*events, self._event(f"response.{status}", response=self._shown())]

    def fail(self, message: str) -> dict[str, Any]:
        """What ends it when the engine does."""
        self._object |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        return self._event("response.failed", response=self._shown())

    def whole(self) -> dict[str, Any]:
        """The object."""
        return self._shown()

    # ---------------------------------------------------------------------------------------------- inside

    def _shown(self) -> dict[str, Any]:
        return {**self._object, "output": [dict(item) for item in self._object["output"]]}

    def _event(self, type: str, **fields: Any) -> dict[str, Any]:
        event = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._object["output"][-1]["id"], "output_index": len(self._object["output"]) - 1}

    def _added(self, item: dict[str, Any]) -> dict[str, Any]:
        self._object["output"].append(item)
        index = len(self._object["output"]) - 1
        return self._event("response.output_item.added", output_index=index, item=dict(item))

    def _item_done(self, item: dict[str, Any]) -> dict[str, Any]:
        item["status"] = "completed"
        index = len(self._object["output"]) - 1
        return self._event("response.output_item.done", output_index=index, item=dict(item))

    def _open_message(self) -> Iterator[dict[str, Any]]:
        self._message = {
            "id": _id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        yield self._added(self._message)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._message["content"] = [part]
        yield self._event("response.content_part.added", **self._place(), content_index=0, part=dict(part))

    def _written(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if self._message is None:
            yield from self._open_message()
        part = self._text()
        part["text"] += piece.text
        part["logprobs"] = [*part["logprobs"], *piece.logprobs]
        if piece.text or piece.logprobs:
            yield self._event(
                "response.output_text.delta", **self._place(), content_index=0, delta=piece.text,
                logprobs=list(piece.logprobs),
            )  # fmt: skip

    def _text(self) -> dict[str, Any]:
        if self._message is None:
            raise RuntimeError("no message is open")
        part: dict[str, Any] = self._message["content"][0]
        return part

    def _close_message(self) -> Iterator[dict[str, Any]]:
        if self._message is None:
            return
        part, place = self._text(), self._place()
        yield self._event(
            "response.output_text.done", **place, content_index=0, text=part["text"], logprobs=part["logprobs"]
        )
        yield self._event("response.content_part.done", **place, content_index=0, part=dict(part))
        yield self._item_done(self._message)
        self._message = None

    def _called(self, call: Call) -> Iterator[dict[str, Any]]:
        item = {
            "id": _id("fc"), "type": CALL, "status": "in_progress", "call_id": f"call_{secrets.token_hex(12)}",
            "name": call.name, "arguments": "",
        }  # fmt: skip
        yield self._added(item)
        place = self._place()
        yield self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
        item["arguments"] = call.arguments
        yield self._event("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments)
        yield self._item_done(item)
