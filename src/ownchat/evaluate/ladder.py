"""The ladder: what a prompt alone can do, and what training adds, on the same held-out questions.

The rungs stand in the order of what they take: plain prompt, best system prompt, examples looked up in the train split,
optimised prompt, LoRA, all weights, models behind a URL. Every choice (which system text, how many examples, which
prompt is the best) is made on rows of the train split; only the figures of what was chosen come from held-out rows.
Pure functions over answers: models are opened and trained by the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ownchat.data.records import Record
from ownchat.errors import UserError
from ownchat.evaluate.answer_scores import Metric, difference, metric_for, score
from ownchat.evaluate.answers import questions
from ownchat.evaluate.instructions import Written, from_data, system_of
from ownchat.evaluate.replies import is_trained
from ownchat.evaluate.retrieve import Examples, last_question, pairs
from ownchat.evaluate.scores import Interval
from ownchat.generate.answering import Answered, AnswerFunction
from ownchat.generate.engine import Message
from ownchat.generate.prompts import Prompt, apply

Kind = Literal["prompt", "trained", "server"]
Fits = Callable[[Sequence[Message]], bool]  # is there room for the answer? Raises UserError: cannot be rendered

CHOOSING = 16  # rows of the train split that prompts are chosen on; of labels, which are short, twice as many
FEWEST = 4  # with fewer rows nothing is chosen
EXAMPLES = (1, 2, 4, 8)
STANDARD = (
    Written("a standard text", "You are a helpful assistant."),
    Written("a standard text", "Answer briefly and to the point, in the language of the question."),
)
PLAIN = Prompt("")  # no system text, also not the one of the data
AS_IS = Prompt(None)  # the conversation as it stands


@dataclass(frozen=True)
class Row:
    """A question: the conversation up to the reply, the reply that was given, and whose it is."""

    messages: tuple[Message, ...]
    reference: str
    group: str | None


@dataclass(frozen=True)
class Rung:
    """What answered the held-out rows, and how. ``answers`` None: it did not, and ``note`` says why.

    ``prompt`` is what stood before the questions. ``chosen``: the score on the rows of the train split that prompts
    were chosen on. ``cost``: money for 1,000 answers, where prices are known.
    """

    name: str
    kind: Kind
    answers: tuple[Answered, ...] | None = None
    note: str = ""
    prompt: Prompt | None = None
    chosen: float | None = None
    cost: float | None = None
    run: str | None = None
    training_seconds: float | None = None


def rows_of(items: Sequence[Record]) -> list[Row]:
    """Conversations as questions, see :func:`~ownchat.evaluate.answers.questions`."""
    return [Row(tuple(item["messages"][:-1]), item["messages"][-1]["content"].strip(), item["group"]) for item in items]


def metric_of(train: Sequence[Record]) -> Metric:
    """``accuracy`` where the replies of the train split are labels, else ``chrf``."""
    replies = [turn for item in train for turn in item["messages"] or () if is_trained(turn)]
    return metric_for([(turn["content"] or "").strip() for turn in replies])


# --------------------------------------------------------------------------------------------------- prompts


class PromptSearch:
    """Chooses prompts for one model on rows of the train split, and asks it the held-out rows with what was chosen.

    ``train``: records of the train split. Some questions of it are chosen on; the other records, those of their groups
    aside, give examples there. ``fits`` none: nobody knows the context of the model.
    """

    def __init__(
        self, answer: AnswerFunction, train: Sequence[Record], metric: Metric, *, fits: Fits | None = None
    ) -> None:
        asked = questions(train)
        wanted = min(CHOOSING * (2 if metric == "accuracy" else 1), len(asked) // 3)
        self.answer, self.metric, self.fits = answer, metric, fits
        self.choosing = rows_of(asked[:wanted])
        taken = {row.group for row in self.choosing if row.group is not None}
        held_back = {item["id"] for item in asked[:wanted]}
        self.others = [item for item in train if item["id"] not in held_back and item["group"] not in taken]
        self._examples = Examples(pairs(self.others))
        self._all = Examples(pairs(train))
        self.fewer = 0  # held-out questions that got fewer examples than their prompt asks for
        self.failure = ""  # why a prompt has no score on the rows to choose on

    @property
    def can_choose(self) -> bool:
        """Are there enough rows?"""
        return len(self.choosing) >= FEWEST

    def plain(self) -> tuple[Prompt, float | None]:
        """No system text, no examples."""
        return PLAIN, self.on_train(PLAIN)

    def system(self) -> tuple[Prompt, float | None, str]:
        """The best system text: that of the data, rules that follow from the data, or a standard one."""
        shown = questions(self.others)
        texts = [*(from_data(shown, self.metric, AS_IS) if shown else []), *STANDARD]
        candidates = [(Prompt(text.system), text.what) for text in texts]
        several = any(row.messages[0]["role"] == "system" for row in self.choosing) and system_of(shown) is None
        if several:  # a text that most have is among them by itself: what is chosen can be kept, and says the same
            candidates.insert(0, (AS_IS, "the system text of the data"))
        return self._best(candidates)

    def examples(self, before: Prompt) -> tuple[Prompt, float | None, str]:
        """The best number of examples under ``before``; each is looked up for the question, the likest stands last."""
        counts = [count for count in EXAMPLES if count <= len(self._examples.pairs)]
        return self._best([(replace(before, retrieve=count), counted(count)) for count in counts])

    def on_train(self, prompt: Prompt) -> float | None:
        """The score on the rows that prompts are chosen on; None: it cannot be rendered, or nothing was answered."""
        try:
            answers = self.answer([self._messages(prompt, row, self._examples)[0] for row in self.choosing])
        except UserError as error:  # a template without system messages
            self.failure = error.what
            return None
        self.failure = next((one.error for one in answers if one.error is not None), self.failure)
        kept = [(row, one) for row, one in zip(self.choosing, answers, strict=True) if one.error is None]
        found = _score(self.metric, [row for row, _ in kept], [one.text for _, one in kept], draws=1)
        return None if found is None or 2 * len(kept) < len(answers) else found.value

    def held_out(self, prompt: Prompt, rows: Sequence[Row]) -> list[Answered]:
        """Answers to held-out rows; examples come from the whole train split."""
        asked: list[list[Message]] = []
        refused: dict[int, str] = {}
        self.fewer = 0
        for number, row in enumerate(rows):
            try:
                messages, shown = self._messages(prompt, row, self._all)
            except UserError as error:  # what is rare in the train split can stand in this one
                refused[number] = error.what
                continue
            asked.append(messages)
            self.fewer += shown < prompt.retrieve
        answers = iter(self.answer(asked))
        return [
            Answered("", 0.0, 0, 0, refused[number]) if number in refused else next(answers)
            for number in range(len(rows))
        ]

    def _best(self, candidates: Sequence[tuple[Prompt, str]]) -> tuple[Prompt, float | None, str]:
        scored = [(self.on_train(prompt), prompt, what) for prompt, what in candidates]
        known = [each for each in scored if each[0] is not None]
        if not known:
            return PLAIN, None, self.failure or "none could be asked"
        value, prompt, what = max(known, key=lambda each: each[0] or 0.0)  # of equal ones the first
        return prompt, value, what

    def _messages(self, prompt: Prompt, row: Row, examples: Examples) -> tuple[list[Message], int]:
        """The question under a prompt, and how many examples there was room for."""
        near = examples.nearest(last_question(row.messages), prompt.retrieve) if prompt.retrieve else []
        while True:
            messages = apply(prompt, row.messages, retrieved=near)
            if self.fits is None or self._fits(messages, near):
                return messages, len(near)
            near = near[:-1]  # the least like

    def _fits(self, messages: Sequence[Message], near: Sequence[object]) -> bool:
        """Also what cannot be rendered with examples (a template of strict turns) goes on with fewer."""
        assert self.fits is not None
        try:
            return self.fits(messages) or not near
        except UserError:
            if not near:
                raise
            return False


def counted(count: int) -> str:
    """
    >>> counted(1), counted(4)
    ('one example', '4 examples')
    """
    return "one example" if count == 1 else f"{count} examples"


# ---------------------------------------------------------------------------------------------------- figures


def measured(
    rungs: Sequence[Rung], rows: Sequence[Row], metric: Metric, *, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """The rungs as ``ladder.json`` has them: scores with intervals, paired differences to the plain prompt
    (``difference``) and to the best prompt (``against_prompt``), time, tokens, cost.

    A row that has no answer is left out of that rung's figures and counted in ``failed``; differences are of the rows
    that both have answered.
    """
    first, best = _named(rungs, "plain"), best_prompt(rungs)

    def between(before: Rung | None, after: Rung) -> dict[str, float] | None:
        return None if before is None or before is after else _as_json(paired(before, after, rows, metric, draws, seed))

    found = []
    for rung in rungs:
        have = [at for at, one in enumerate(rung.answers or ()) if one.error is None]
        answers = [rung.answers[at] for at in have] if rung.answers is not None else []
        interval = _score(metric, [rows[at] for at in have], [one.text for one in answers], draws=draws, seed=seed)
        count = max(1, len(answers))
        counts_tokens = any(one.completion_tokens for one in answers)
        found.append(
            {
                "name": rung.name,
                "kind": rung.kind,
                "score": None if interval is None else interval.value,
                "low": None if interval is None else interval.low,
                "high": None if interval is None else interval.high,
                "cost": rung.cost,
                "seconds_per_answer": sum(one.seconds for one in answers) / count if answers else None,
                "prompt_tokens": sum(one.prompt_tokens for one in answers) / count if counts_tokens else None,
                "completion_tokens": sum(one.completion_tokens for one in answers) / count if counts_tokens else None,
                "difference": between(first, rung),
                "against_prompt": between(best, rung),
                "best_prompt": rung is best,
                "answered": len(answers),
                "failed": len(rung.answers or ()) - len(answers),
                "note": rung.note,
                "chosen_on_train": rung.chosen,
                "prompt": None if rung.prompt is None else _prompt_json(rung.prompt),
                "run": rung.run,
                "training_seconds": rung.training_seconds,
            }
        )
    return found


def best_prompt(rungs: Sequence[Rung]) -> Rung | None:
    """The prompt of the base that was best on rows of the train split; of equal ones the simplest. Where nothing could
    be chosen it is the plain one."""
    prompts = [rung for rung in rungs if rung.kind == "prompt" and _answered(rung)]
    scored = [rung for rung in prompts if rung.chosen is not None]
    return max(scored, key=lambda rung: rung.chosen or 0.0) if scored else next(iter(prompts), None)


def paired(
    before: Rung, after: Rung, rows: Sequence[Row], metric: Metric, draws: int = 1000, seed: int = 0
) -> Interval | None:
    """``after`` - ``before`` on the rows that both answered; None: there are none."""
    both = list(zip(rows, before.answers or (), after.answers or (), strict=False))
    both = [each for each in both if each[1].error is None and each[2].error is None]
    if not both:
        return None
    kept, old, new = zip(*both, strict=True)
    references, groups = [row.reference for row in kept], [row.group for row in kept]
    texts = ([one.text for one in old], [one.text for one in new])
    return difference(metric, *texts, references, groups, draws=draws, seed=seed)


def _score(metric: Metric, rows: Sequence[Row], texts: Sequence[str], *, draws: int, seed: int = 0) -> Interval | None:
    if not rows:
        return None
    references, groups = [row.reference for row in rows], [row.group for row in rows]
    return score(metric, texts, references, groups, draws=draws, seed=seed)


def _answered(rung: Rung) -> bool:
    return any(one.error is None for one in rung.answers or ())


def _named(rungs: Sequence[Rung], word: str) -> Rung | None:
    return next((rung for rung in rungs if rung.kind == "prompt" and word in rung.name and _answered(rung)), None)


def _as_json(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"value": interval.value, "low": interval.low, "high": interval.high}


def _prompt_json(prompt: Prompt) -> dict[str, Any]:
    """``system`` null: the conversation's own."""
    return {"system": prompt.system, "examples": [list(pair) for pair in prompt.examples], "retrieve": prompt.retrieve}
