"""Messages to token ids, and which of them are trained.

There is one template, the one in the tokenizer directory, and one place that renders it: training, evaluation,
preview and chat all come here, so that a model is asked in exactly the form in which it was taught.

The mask covers the assistant's text and its end-of-turn token, which has to be learned or answers never end.
Where a template marks replies with ``{% generation %}`` the marks are used; elsewhere the mask is the difference
between renderings of the conversation's prefixes, and a template whose prefixes are not prefixes is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ownchat.errors import DataError, ModelError

Message = dict[str, Any]  # at least role and content; see ownchat.data.records.MESSAGE

# For tokenizers that come without a template (GPT-2): it needs no token beyond the end of text that they have.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].capitalize() + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")

# Private-use characters that stand for control tokens quoted in somebody's text while the template is rendered.
_FIRST_SENTINEL = 0x10F000


@dataclass(frozen=True)
class Rendered:
    """``ids`` and ``weights``, equally long; weight 1: this token is trained (it is a target)."""

    ids: list[int]
    weights: list[int]


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Any] | None = None
) -> Rendered:
    """A whole conversation as ids and weights.

    The ids equal ``tokenizer.apply_chat_template(messages)``, except that control tokens quoted in the text (a user
    who writes ``<|im_end|>``) are encoded as text: nobody but the template ends a turn.

    Raises :class:`~ownchat.errors.DataError` for a conversation in which nothing is trained, and
    :class:`~ownchat.errors.ModelError` for a template whose replies cannot be found.
    """
    clean = [_plain(message) for message in messages]
    quoted, tools = _quote(tokenizer, clean), _quote(tokenizer, tools)
    text = _template(tokenizer, quoted, tools)
    ids, specials = _encode(tokenizer, text)
    weights = [0] * len(ids)
    marked = _marked(tokenizer, quoted, tools, text)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        span = next(marked, None) if marked is not None else None
        if message.get("weight") == 0:
            continue
        if span is not None:
            start, stop = _reply_tokens(tokenizer, text, ids, specials, *span)
            weights[start:stop] = [1] * (stop - start)
            continue
        before = _template(tokenizer, quoted[:number], tools, answer_next=True)
        through = _template(tokenizer, quoted[: number + 1], tools)
        if not text.startswith(before) or not text.startswith(through):
            raise ModelError(
                f"the chat template renders message {number + 1} differently once more messages follow it, "
                "so the trained part cannot be told apart",
                where="chat_template",
                fix="use a template with {% generation %} marks, or one that only ever appends",
            )
        start, stop = _reply_tokens(tokenizer, text, ids, specials, len(before), len(through))
        weights[start:stop] = [1] * (stop - start)
    if not any(weights):
        raise DataError("a conversation without one trained token: no assistant message has text and weight 1")
    return Rendered(ids, weights)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Any] | None = None
) -> list[int]:
    """The conversation so far, opened for the assistant's next turn."""
    quoted, tools = _quote(tokenizer, [_plain(message) for message in messages]), _quote(tokenizer, tools)
    return _encode(tokenizer, _template(tokenizer, quoted, tools, answer_next=True))[0]


def render_document(tokenizer: PreTrainedTokenizerBase, text: str) -> Rendered:
    """A document: every token of the text and the end of text are trained; an end of text before it is context.

    So that the first word, too, is predicted from something, and no word follows another document.
    """
    end = document_end(tokenizer)
    # verbose: it would warn of what is longer than the model's context, which is cut into windows later
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
    if not ids:
        raise DataError("a document without one token")
    return Rendered([end, *ids, end], [0] + [1] * (len(ids) + 1))


def document_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that separates documents: ``<|endoftext|>`` where the vocabulary has it, else the end token."""
    known = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    if isinstance(known, int) and "<|endoftext|>" in tokenizer.all_special_tokens:
        return known
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no end-of-text token", fix="set eos_token in tokenizer_config.json")
    return int(tokenizer.eos_token_id)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that ends an assistant's turn, found by rendering one."""
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = render(tokenizer, probe)
    return [id for id, weight in zip(rendered.ids, rendered.weights, strict=True) if weight][-1]


def _plain(message: Message) -> Message:
    """What a template may see: no empty fields, tool calls as values."""
    plain = {key: value for key, value in message.items() if value is not None and key not in ("weight", "time")}
    plain["content"] = message.get("content") or ""
    if plain.get("tool_calls") and isinstance(plain["tool_calls"], str):
        plain["tool_calls"] = json.loads(plain["tool_calls"])
    return plain


def _template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Any] | None,
    *,
    answer_next: bool = False,
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) if tools else None,
                tokenize=False,
                add_generation_prompt=answer_next,
            )
        )
    except Exception as error:  # templates raise whatever they like, jinja2's raise_exception included
        raise DataError(
            f"the model's chat template refuses this conversation: {error}",
            fix="roles must follow what the template expects (usually: system first, then user and assistant in turn)",
        ) from error


def _marked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Any] | None, text: str
) -> Iterator[tuple[int, int]] | None:
    """Where ``{% generation %}`` marks of the template put each reply in ``text``, the token that ends its turn
    included; None for a template without marks around every reply."""
    template = tokenizer.get_chat_template(tools=list(tools) if tools else None)
    if not _MARK.search(template):
        return None
    specials: dict[str, Any] = dict(tokenizer.special_tokens_map)
    marked: Any = render_jinja_template(
        [list(messages)],
        tools=list(tools) if tools else None,
        chat_template=template,
        return_assistant_tokens_mask=True,
        **specials,
    )
    (rendered,), (found,) = marked
    if rendered != text or len(found) != sum(message["role"] == "assistant" for message in messages):
        return None
    tokens = tuple(_control_tokens(tokenizer))
    spans = []
    for start, stop in found:  # the end of a turn is often left outside of the marks
        end = None if text.endswith(tokens, start, stop) else _pattern(tokens).match(text, stop)
        spans.append((start, stop if end is None else end.end()))
    return iter(spans)


@lru_cache(maxsize=4)
def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Text and id of every added token that the tokenizer would turn into control."""
    return {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special}


@lru_cache(maxsize=16)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(re.escape(token) for token in longest_first) or r"(?!)")


def _quote(tokenizer: PreTrainedTokenizerBase, value: Any) -> Any:
    """A value with a sentinel for every control token in any text of it: content, names, tool calls, tools."""
    if isinstance(value, str):
        tokens = tuple(_control_tokens(tokenizer))
        return _pattern(tokens).sub(lambda match: chr(_FIRST_SENTINEL + tokens.index(match[0])), value)
    if isinstance(value, dict):
        return {key: _quote(tokenizer, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_quote(tokenizer, item) for item in value]
    return value


def _unquote(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    tokens = tuple(_control_tokens(tokenizer))
    last = chr(_FIRST_SENTINEL + len(tokens))
    return "".join(tokens[ord(c) - _FIRST_SENTINEL] if chr(_FIRST_SENTINEL) <= c < last else c for c in text)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of a rendered text, and (end in the text, index in the ids) of every control token in it."""
    tokens = _control_tokens(tokenizer)
    found = list(_pattern(tuple(tokens)).finditer(text))
    if any(ord(character) >= _FIRST_SENTINEL for character in text):
        ids, start = [], 0
        specials = []
        for match in [*found, None]:
            piece = _unquote(tokenizer, text[start : match.start() if match else len(text)])
            if piece:
                ids += tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True, verbose=False)
            if match:
                specials.append((match.end(), len(ids)))
                ids.append(tokens[match[0]])
                start = match.end()
        return ids, specials
    ids = tokenizer.encode(text, add_special_tokens=False, verbose=False)  # who asks looks at the length
    wanted = set(tokens.values())
    places = [index for index, id in enumerate(ids) if id in wanted]
    if [tokens[match[0]] for match in found] != [ids[index] for index in places]:
        raise ModelError("control tokens of the template are not control tokens of the tokenizer", where="tokenizer")
    return ids, [(match.end(), index) for match, index in zip(found, places, strict=True)]


def _reply_tokens(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    ids: list[int],
    specials: list[tuple[int, int]],
    start: int,
    stop: int,
) -> tuple[int, int]:
    """First token of the reply whose text is ``text[start:stop]``, and the one after its end-of-turn token.

    Control tokens split a text before anything else does, so only the short header between the last of them and
    the reply has to be encoded again to know how many tokens it takes.
    """
    ends = [index for end, index in specials if start < end <= stop]
    if not ends:
        raise ModelError(
            "the chat template does not end the assistant's turn with a control token: answers would never end",
            where="chat_template",
            fix="add the end-of-turn token after the assistant's text",
        )
    after, index = next(((end, index + 1) for end, index in reversed(specials) if end <= start), (0, 0))
    header = tokenizer.encode(_unquote(tokenizer, text[after:start]), add_special_tokens=False)
    if ids[index : index + len(header)] != header:  # the reply's first characters joined the header's last token
        whole = zip(header, ids[index:], strict=False)
        header = header[: next((n for n, (a, b) in enumerate(whole) if a != b), len(header))]
    return index + len(header), ends[-1] + 1
