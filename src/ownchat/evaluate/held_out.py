"""Base against tuned on the test split: the loss of the same replies, and greedy answers to the same questions.

The base is scored twice, under its own default prompt and under the system message of the data, always on identical
reply tokens, and the better of the two counts: so a gain is never only the gain of a prompt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ownchat.artifacts import Report, commit, completed, read_json, stage_key, start_afresh
from ownchat.config import FROM_NOTHING, Config, EvaluateConfig
from ownchat.data.records import Record, read_records
from ownchat.errors import DataError
from ownchat.evaluate import report as reporting
from ownchat.evaluate.paired import RecordScores, record_scores
from ownchat.evaluate.preferences import Preferences, compare_pairs, pair_documents
from ownchat.evaluate.replies import is_trained, reply_bytes, scorable
from ownchat.evaluate.scores import Comparison, Scored, chrf_statistics, compare, group_index
from ownchat.monitor.progress import progress

SECTIONS = ("evaluate",)
WINDOW_TOKENS = 2048  # longest piece that is scored in one forward pass, where the model's context allows it

Document = tuple[list[int], list[int]]  # ids, weights
Prompt = Literal["default", "system"]


@dataclass(frozen=True)
class Answer:
    """One question of the test split with the answer that was given then and those of both models."""

    id: str
    question: str
    reference: str
    base: str
    tuned: str


@dataclass(frozen=True)
class Result:
    """Everything that was measured on the test split; pure data."""

    comparison: Comparison
    base_prompt: Prompt  # the prompt under which the base had the lower loss
    base_prompt_losses: dict[Prompt, float]  # nats per token under each prompt that was tried
    records: int
    tokens: int
    groups: int
    answers: tuple[Answer, ...]  # in the fixed order of :func:`questions`
    notes: tuple[str, ...]  # what was left out, and why
    scores: RecordScores  # of the tuned model
    preferences: Preferences | None = None  # where the test split has pairs
    from_nothing: bool = False  # the base is the untrained model
    preferences_only: bool = False  # and nothing else: the loss is that of replies that were wanted


def run(config: Config, inputs: dict[str, Path], output: Path) -> Report:
    """Stage ``6-report``: measure, and write ``report.html`` and ``report.json``.

    ``inputs``: ``test`` (``2-clean``), ``base`` (a model directory), ``train`` (``5-train``). Raises
    :class:`~ownchat.errors.DataError` when the test split holds nothing that can be scored.
    """
    key = stage_key(config, SECTIONS, inputs)
    if (done := completed(output, key)) is not None and (output / reporting.JSON).is_file():
        return done
    start = time.monotonic()
    records = list(read_records(inputs["test"] / "test"))
    model = inputs["train"] / "model"
    fits = reporting.training(inputs["train"]).get("validation_block_tokens", WINDOW_TOKENS)
    where = str(inputs["test"] / "test")
    result = measure(
        inputs["base"], model, records, config.evaluate, where=where, block_tokens=fits,
        from_nothing=config.model.base == FROM_NOTHING,
    )  # fmt: skip
    start_afresh(output)  # only now: a measurement that was interrupted leaves the report before
    contents = reporting.build(result, train=inputs["train"], run=output.parent)
    reporting.write(contents, output, train=inputs["train"], config=config)
    result.scores.save(output)
    report = Report(
        "evaluate",
        output,
        counts={"records": result.records, "tokens": result.tokens, "answers": len(result.answers)},
        details={"held_out": contents["held_out"]},
        seconds=time.monotonic() - start,
    )
    return commit(key, config, SECTIONS, report)


def load_report(output: Path) -> dict[str, Any]:
    """The contents of ``report.json`` of a finished stage."""
    return read_json(output / reporting.JSON)


def measure(
    base: Path,
    tuned: Path,
    records: Sequence[Record],
    settings: EvaluateConfig,
    *,
    where: str = "test",
    block_tokens: int = WINDOW_TOKENS,
    from_nothing: bool = False,
) -> Result:
    """Load both models one after the other, score and let them answer; see :class:`Result`.

    ``block_tokens``: most tokens in one forward pass as far as training knows; less when memory runs out.
    ``from_nothing``: the base is the model before it was trained, which has nothing to answer.
    """
    from ownchat.tokenizer.stage import context_tokens, load_tokenizer

    tokenizer = load_tokenizer(tuned)  # of the tuned model for both: identical tokens
    items, notes = scorable(records)
    if not items:
        raise DataError("no record of the test split can be scored", where=where, fix="import more conversations")
    items, documents, refused = renderable(tokenizer, items)
    if not items:
        raise DataError("the chat template refuses every record of the test split", where=where)
    if refused:
        notes.append(f"{refused:,} records of the test split are not scored: the chat template refuses them.")
    prompts: dict[Prompt, Sequence[Document]] = {"default": documents}
    if not from_nothing:
        prompts = base_prompts(tokenizer, items, documents)
    pairs, both = pair_documents(tokenizer, records)
    more = [both] if pairs else []
    versions = [*prompts.values(), *more]
    of_base, fits = _nll(base, "scoring the base", versions, min(block_tokens, WINDOW_TOKENS))
    base_nll = dict(zip(prompts, of_base, strict=False))
    of_tuned, _ = _nll(tuned, "scoring the tuned model", [documents, *more], fits)
    tuned_nll = of_tuned[0]
    preferences = compare_pairs(pairs, both, of_base[-1], of_tuned[-1], draws=settings.draws) if pairs else None
    tokens = np.array([sum(weights) for _, weights in documents], dtype=np.float64)
    losses = {name: float(values.sum() / tokens.sum()) for name, values in base_nll.items()}
    prompt = min(losses, key=lambda name: losses[name])  # chosen on the test split: favours the base, and is meant to

    asked, too_long = fitting(
        questions(items), settings.answers, lambda item: _prompts(tokenizer, item, prompt), context_tokens(tuned)
    )
    notes += [f"{too_long:,} questions were passed over: they are longer than the model's context."] if too_long else []
    answers: tuple[Answer, ...] = ()
    if asked:
        answers = _answer(None if from_nothing else base, tuned, tokenizer, asked, prompt, settings.answer_tokens)
    else:
        notes.append(_why_no_answers(items, settings.answers))
    references = [answer.reference for answer in answers]
    groups = [item["group"] for item in items]
    num_bytes = np.array([reply_bytes(item) for item in items], dtype=np.float64)
    comparison = compare(
        Scored(
            base_nll=base_nll[prompt],
            tuned_nll=tuned_nll,
            tokens=tokens,
            num_bytes=num_bytes,
            groups=groups,
            base_chrf=chrf_statistics([answer.base for answer in answers], references),
            tuned_chrf=chrf_statistics([answer.tuned for answer in answers], references),
            chrf_groups=[item["group"] for item in asked],
        ),
        draws=settings.draws,
    )
    num_groups = int(group_index(groups).max()) + 1
    each = record_scores([item["id"] for item in items], groups, tokens, num_bytes, tuned_nll)
    total = int(tokens.sum())
    alone = all(item["kind"] == "preference" for item in records)
    return Result(
        comparison, prompt, losses, len(items), total, num_groups, answers, tuple(notes), each, preferences,
        from_nothing, alone,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- what is scored, how


def rendered(tokenizer: Any, item: Record) -> Document:
    """Ids and weights of a record, exactly as in training."""
    from ownchat.tokenizer.tokens import render_record

    made = render_record(tokenizer, item)
    return list(made.ids), list(made.weights)


def renderable(tokenizer: Any, items: Sequence[Record]) -> tuple[list[Record], list[Document], int]:
    """The records that the template takes, their tokens, and how many it refused (the tokens stage dropped those)."""
    taken: list[Record] = []
    documents: list[Document] = []
    for item in items:
        try:
            documents.append(rendered(tokenizer, item))
            taken.append(item)
        except DataError:
            continue
    return taken, documents, len(items) - len(taken)


def has_system(item: Record) -> bool:
    return item["kind"] == "conversation" and item["messages"][0]["role"] == "system"


def without_system(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation without the system message at its start: the template then puts its own, if it has one."""
    return list(messages[1:] if messages[0]["role"] == "system" else messages)


def base_prompts(
    tokenizer: Any, items: Sequence[Record], documents: Sequence[Document]
) -> dict[Prompt, Sequence[Document]]:
    """The records under every prompt that the base may have: its default one, and the system message of the data.

    Only the first when no record has a system message; only the second when the template renders the replies
    differently without one, since losses on other tokens do not compare.
    """
    if not any(map(has_system, items)):
        return {"default": documents}
    bare = [item | {"messages": without_system(item["messages"])} if has_system(item) else item for item in items]
    default = [rendered(tokenizer, item) for item in bare]
    if list(map(trained_ids, default)) != list(map(trained_ids, documents)):
        return {"system": documents}
    return {"default": default, "system": documents}


def trained_ids(document: Document) -> list[int]:
    """The tokens that count.

    >>> trained_ids(([5, 6, 7], [0, 1, 1]))
    [6, 7]
    """
    return [id for id, weight in zip(*document, strict=True) if weight]


def windows(document: Document, limit: int) -> list[Document]:
    """Pieces of at most ``limit`` tokens in which every trained token stands once with weight 1.

    Each piece but the first starts with half a window that was scored before and now only gives context.

    >>> windows(([1, 2, 3, 4, 5, 6, 7], [1] * 7), 4)
    [([1, 2, 3, 4], [1, 1, 1, 1]), ([3, 4, 5, 6], [0, 0, 1, 1]), ([5, 6, 7], [0, 0, 1])]
    """
    ids, weights = document
    pieces = [(ids[:limit], weights[:limit])]
    context = limit // 2
    for start in range(limit, len(ids), limit - context):
        stop = start + limit - context
        pieces.append((ids[start - context : stop], [0] * context + weights[start:stop]))
    return pieces


def questions(items: Sequence[Record]) -> list[Record]:
    """Conversations that end in a reply to somebody, in the order of their ids.

    An id is a hash of the record's source, position and content, so the first of them are an even draw from the
    split that nobody can steer by hand, and the same one each time.
    """
    fit = [
        item
        for item in items
        if item["kind"] == "conversation"
        and any(message["role"] != "system" for message in item["messages"][:-1])
        and item["messages"][-1]["role"] == "assistant"
        and is_trained(item["messages"][-1])
        and (item["messages"][-1]["content"] or "").strip()
    ]
    return sorted(fit, key=lambda item: item["id"])


def fitting(
    candidates: Sequence[Record], most: int, prompts: Callable[[Record], Sequence[list[int]]], context: int | None
) -> tuple[list[Record], int]:
    """The first ``most`` whose prompts leave room for an answer, and how many were passed over on the way."""
    chosen: list[Record] = []
    too_long = 0
    for item in candidates:
        if len(chosen) == most:
            break
        if context is not None and max(map(len, prompts(item))) >= context:
            too_long += 1
        else:
            chosen.append(item)
    return chosen, too_long


def _prompts(tokenizer: Any, item: Record, base_prompt: Prompt) -> list[list[int]]:
    """The question as the base gets it and as the tuned model gets it."""
    from ownchat.tokenizer.render import prompt_ids

    messages = item["messages"][:-1]
    bases = without_system(messages) if base_prompt == "default" else messages
    tools = json.loads(item["tools"]) if item["tools"] else None
    return [prompt_ids(tokenizer, bases, tools), prompt_ids(tokenizer, messages, tools)]


def _why_no_answers(items: Sequence[Record], most: int) -> str:
    if most == 0:
        return "chrF is missing: evaluate.answers is 0."
    if all(item["kind"] == "document" for item in items):
        return "chrF is missing: the data are documents, without questions to answer."
    return "chrF is missing: no conversation of the test split ends in a reply."


# ----------------------------------------------------------------------------------------------------- the models


def _nll(
    directory: Path, title: str, versions: Sequence[Sequence[Document]], block_tokens: int
) -> tuple[list[np.ndarray], int]:
    """For each version of the records: nats of every record, summed over its trained tokens; and the tokens of a
    forward pass that memory was enough for.

    Loads the model, scores, and lets it go: two models at a time would need twice the memory.
    """
    from ownchat.model.load import load_model
    from ownchat.model.score import say_halved, score_documents

    def on_halved(old: int, new: int, why: str) -> None:
        nonlocal block_tokens
        block_tokens = new
        say_halved(old, new, why)

    model = load_model(directory, dtype="float32", packed=True)
    context = getattr(model.config, "max_position_embeddings", None)
    limit = WINDOW_TOKENS if context is None else min(context, WINDOW_TOKENS)
    cut = [[windows(document, limit) for document in documents] for documents in versions]
    totals = []
    with progress(title, sum(len(pieces) for documents in cut for pieces in documents), "pieces") as advance:
        for documents, records in zip(cut, versions, strict=True):
            scored = score_documents(
                model,
                [piece for pieces in documents for piece in pieces],
                block_tokens=block_tokens,
                progress=advance,
                on_halved=on_halved,
            )
            owner = np.repeat(np.arange(len(documents)), [len(pieces) for pieces in documents])
            counts = np.bincount(owner, [len(values) for values in scored], minlength=len(documents))
            assert counts.tolist() == [sum(weights) for _, weights in records], "a trained token was not scored"
            totals.append(-np.bincount(owner, [values.sum() for values in scored], minlength=len(documents)))
    return totals, block_tokens


def _answer(
    base: Path | None, tuned: Path, tokenizer: Any, asked: Sequence[Record], base_prompt: Prompt, max_tokens: int
) -> tuple[Answer, ...]:
    """Greedy answers of both models; the base under its better prompt, the tuned model under that of the data.
    ``base`` none: it has none."""
    prompts = [_prompts(tokenizer, item, base_prompt) for item in asked]
    base_texts = [""] * len(asked)
    if base is not None:
        base_texts = _greedy(base, tuned, [first for first, _ in prompts], max_tokens, "answers of the base")
    tuned_texts = _greedy(tuned, tuned, [second for _, second in prompts], max_tokens, "answers of the tuned model")
    return tuple(
        Answer(item["id"], _last_question(item["messages"][:-1]), item["messages"][-1]["content"].strip(), *texts)
        for item, *texts in zip(asked, base_texts, tuned_texts, strict=True)
    )


def _greedy(directory: Path, words: Path, prompts: list[list[int]], max_tokens: int, title: str) -> list[str]:
    from ownchat.generate.hf import chat_engine

    engine = chat_engine(directory, tokenizer=words)
    try:
        with progress(title, len(prompts), "answers") as advance:
            answers = engine.answer_batch(prompts, max_tokens, progress=advance)
        texts = [engine.text(ids).strip() for ids in answers]
    finally:
        engine.close()
    return texts


def _last_question(messages: Sequence[dict[str, Any]]) -> str:
    return next(((m["content"] or "").strip() for m in reversed(messages) if m["role"] != "system"), "")
