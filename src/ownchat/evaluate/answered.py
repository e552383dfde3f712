"""Base against tuned by their answers alone: for models behind a URL, whose probabilities nobody gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ownchat.config import EvaluateConfig
from ownchat.data.records import Record
from ownchat.evaluate.answers import Answer, questions
from ownchat.evaluate.comparison import compare_answers
from ownchat.evaluate.extremes import extremes
from ownchat.evaluate.held_out import Result, about_answers, ask_servers
from ownchat.evaluate.labels import compare_labels
from ownchat.evaluate.paired import record_scores
from ownchat.evaluate.replies import scorable
from ownchat.evaluate.retrieve import last_question
from ownchat.evaluate.scores import group_index
from ownchat.generate.answering import Answered, AnswerFunction

NO_LOSS = (
    "Loss, perplexity and bits per byte are missing: the service does not tell how likely a text is. What the model "
    "knows by heart, forgot or leans to was not measured for the same reason."
)


def asked_of(records: Sequence[Record], most: int) -> tuple[list[Record], list[str]]:
    """The questions of the test split that both models get, and what is to be said of the others."""
    items, notes = scorable(records)
    found = questions(items)
    plain = [item for item in found if not item["tools"]]
    if tools := len(found) - len(plain):
        notes.append(f"{tools:,} questions were passed over: they come with tools.")
    if not plain:
        notes.append("No answer is compared: no conversation of the test split ends in a reply.")
    elif not most:
        notes.append("No answer is compared: evaluate.answers is 0.")
    return plain[:most], notes


def measure_answers(
    base: AnswerFunction,
    tuned: AnswerFunction,
    records: Sequence[Record],
    settings: EvaluateConfig,
    *,
    names: Sequence[str] | None = None,
) -> Result:
    """Both answer the same questions of the test split, system message included; a question that one of them could
    not answer counts for neither. ``names``: of :func:`~ownchat.evaluate.labels.label_names`.
    """
    asked, notes = asked_of(records, settings.answers)
    prompts = [  # without speakers' names, as in what was trained on
        [{key: value for key, value in turn.items() if key != "name"} for turn in item["messages"][:-1]]
        for item in asked
    ]
    pairs = list(zip(asked, base(prompts), tuned(prompts), strict=True))
    both = [(item, first.text, second.text) for item, first, second in pairs if not (first.error or second.error)]
    notes += _unanswered([one for _, *answers in pairs for one in answers], len(asked), len(both))
    kept = [item for item, _, _ in both]
    of_base, of_tuned = [text for _, text, _ in both], [text for _, _, text in both]
    references = [(item["messages"][-1]["content"] or "").strip() for item in kept]
    groups = [item["group"] for item in kept]
    notes = [NO_LOSS, *notes, *about_answers(of_tuned, of_base)]
    answers = tuple(
        Answer(item["id"], last_question(item["messages"][:-1]), *texts)
        for item, *texts in zip(kept, references, of_base, of_tuned, strict=True)
    )
    judged, embedded = None, None
    if answers:
        judged, embedded, said = ask_servers(settings, kept, answers)
        notes += said
    labels = None
    if names is not None and answers:
        labels = compare_labels(names, references, of_base, of_tuned, groups, draws=settings.draws)
    count = int(group_index(groups).max()) + 1 if groups else 0
    none = np.zeros(0)
    return Result(
        comparison=compare_answers(of_base, of_tuned, references, groups, draws=settings.draws),
        base_prompt="system",
        base_prompt_losses={},
        records=len(kept),
        tokens=0,
        groups=count,
        answer_groups=count,
        answers=answers,
        notes=tuple(notes),
        scores=record_scores([], [], none, none, none),
        slices=[],
        extremes=extremes(answers, None),
        labels=labels,
        judge=judged,
        embedding=embedded,
        answers_only=True,
    )


def _unanswered(answers: Sequence[Answered], asked: int, both: int) -> list[str]:
    errors = [one.error for one in answers if one.error is not None]
    if not errors:
        return []
    return [f"{asked - both:,} of {asked:,} questions are left out, as one of the models did not answer: {errors[0]}."]
