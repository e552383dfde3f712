"""A Modelfile for Ollama: the chat template in Go's template language, end tokens, system message, sampling.

Ollama does not use the Jinja template of a GGUF file, it wants one in Go. It is not translated: the template is
rendered with marked contents, what stands around them is read off, and that this is all it does is tried on
conversations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ownchat.config import GenerateConfig
from ownchat.errors import ModelError

ROLES = ("system", "user", "assistant")
Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Shape:
    """A template that writes one message after the other: what stands around a content, by role.

    ``opening``: before all of them; ``default``: after it where the first message is no system message; ``answer``:
    what opens the assistant's turn.
    """

    around: dict[str, tuple[str, str]]
    opening: str
    default: str
    answer: str

    def render(self, messages: Messages) -> str:
        """What the template makes of messages."""
        default = "" if messages and messages[0]["role"] == "system" else self.default
        texts = [self.around[m["role"]][0] + m["content"] + self.around[m["role"]][1] for m in messages]
        return self.opening + default + "".join(texts) + self.answer

    def go(self) -> str:
        """The same as a Go template over Ollama's ``.Messages``; all text in quotes, so that no white space is lost."""
        lines = [_quoted(self.opening)] if self.opening else []
        lines.append("{{- range $i, $m := .Messages }}")
        if self.default:
            lines.append('{{- if and (eq $i 0) (ne $m.Role "system") }}' + _quoted(self.default) + "{{ end }}")
        for number, (role, (before, after)) in enumerate(self.around.items()):
            branch = "{{- if" if number == 0 else "{{- else if"
            content = _quoted(before) + "{{ $m.Content }}" + _quoted(after)
            lines.append(f'{branch} eq $m.Role "{role}" }}}}{content}')
        lines += ["{{- end }}", "{{- end }}" + _quoted(self.answer)]
        return "\n".join(lines)


def shape_of(tokenizer: Any) -> Shape:
    """The shape of a tokenizer's chat template.

    Raises :class:`~ownchat.errors.ModelError` for a template that is none: one that looks at what a message says, or
    treats the same role differently from place to place.
    """

    def render(messages: Messages, *, answer: bool = True) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, add_generation_prompt=answer
                )
            )
        except Exception as error:  # templates raise whatever they like
            raise _unknown(f"it refuses a conversation: {error}") from error

    probe = [{"role": role, "content": f"\ue000{role}\ue001"} for role in (*ROLES, "user")]
    whole = render(probe, answer=False)
    pieces = []
    for message in probe:
        before, found, whole = whole.partition(message["content"])
        if not found:
            raise _unknown(f"it does not write the {message['role']}'s text as it is")
        pieces.append(before)
    pieces.append(whole)
    # Between two contents stand the end of one turn and the beginning of the next: told apart by a shorter rendering.
    ends = [render(probe[: n + 1], answer=False).rpartition("\ue001")[2] for n in range(len(probe))]
    if any(not after.startswith(end) for after, end in zip(pieces[1:], ends, strict=True)) or pieces[-1] != ends[-1]:
        raise _unknown("it ends a turn differently when another follows")
    begins = [after.removeprefix(end) for after, end in zip(pieces[1:-1], ends[:-1], strict=True)]
    if begins[0] != begins[2] or ends[1] != ends[3]:
        raise _unknown("it treats the user's turns differently from place to place")
    user = (begins[0], ends[1])
    alone = render([probe[1]], answer=False)
    opening, _, _ = alone.partition(user[0] + probe[1]["content"])
    before_system = pieces[0]
    common = _common_prefix(before_system, opening)
    answer = render([probe[1]]).removeprefix(alone)
    for first in _openings(before_system, opening, common):
        shape = Shape(
            {"system": (before_system.removeprefix(first), ends[0]), "user": user, "assistant": (begins[1], ends[2])},
            first, opening.removeprefix(first), answer,
        )  # fmt: skip
        if all(shape.render(messages) == render(messages) for messages in _TRIALS):
            return shape
    raise _unknown("it does more than to write one message after the other")


def modelfile(
    shape: Shape, gguf: str, *, system: str | None, settings: GenerateConfig, stops: Sequence[str], context: int,
    adapter: str | None = None,
) -> str:  # fmt: skip
    """The text of a Modelfile for the file ``gguf`` (and an ``adapter``) beside it."""
    template = shape.go()
    for text in (template, system or ""):
        if '"""' in text:
            raise _unknown('it, or the system message, holds """, which ends a text in a Modelfile')
    values = {
        "num_ctx": context,
        "num_predict": settings.max_tokens,
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "min_p": settings.min_p,
        "repeat_penalty": settings.repetition_penalty,
    } | ({} if settings.seed is None else {"seed": settings.seed})
    lines = [f"FROM ./{gguf}", *([] if adapter is None else [f"ADAPTER ./{adapter}"]), f'TEMPLATE """{template}"""']
    lines += [f'SYSTEM """{system}"""'] if system else []
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in [*stops, *settings.stop]]
    lines += [f"PARAMETER {name} {value}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


_TRIALS: tuple[Messages, ...] = tuple(
    [{"role": role, "content": f" {role} {number}\n" if number % 2 else f"{role}"} for number, role in enumerate(roles)]
    for roles in (
        ("user",),
        ("system", "user"),
        ("user", "assistant", "user"),
        ("system", "user", "assistant", "user"),
        ("user", "assistant", "user", "assistant", "user"),
    )
)


def _openings(before_system: str, before_user: str, common: int) -> list[str]:
    """What may stand before all messages (a beginning-of-text token): at best nothing."""
    return [before_user] if before_system.startswith(before_user) else ["", before_system[:common]]


def _common_prefix(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _quoted(text: str) -> str:
    """A Go template action that writes a text exactly; JSON's escapes are Go's, too."""
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""


def _unknown(why: str) -> ModelError:
    return ModelError(
        f"Ollama needs the chat template in Go's language, and this one cannot be put so: {why}",
        where="chat_template",
        fix="export it --to gguf and write the TEMPLATE of a Modelfile yourself",
    )
