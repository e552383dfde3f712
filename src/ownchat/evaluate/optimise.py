"""A better prompt, searched on a part of the train split within a budget of answers.

Two searches, one after the other, each by successive halving (Jamieson and Talwalkar 2016): first of instructions, then
of examples under the best instruction. All candidates of a round answer the same questions, the better half goes on to
more of them, and what was answered is not asked again. The prompt that one starts from always goes on, so that the
result stands beside it on the same questions. Validation and test split are never seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from ownchat.data.records import Record
from ownchat.errors import ConfigError, DataError, UserError
from ownchat.evaluate.answer_scores import Metric, difference, score
from ownchat.evaluate.answers import questions
from ownchat.evaluate.instructions import Written, from_data, proposal, read_proposal, rewriting
from ownchat.evaluate.retrieve import Examples, last_question, pairs
from ownchat.evaluate.scores import Interval
from ownchat.generate.answering import Answered, AnswerFunction
from ownchat.generate.engine import Message
from ownchat.generate.prompt_text import escape
from ownchat.generate.prompts import Prompt, apply, system_text

LEAST_ROWS = 8  # of the train split: half of them to try on, half as examples
LEAST_BUDGET = 24
INSTRUCTIONS_SHARE = 0.4  # of the budget; the rest is for examples
PROPOSALS, REWRITES = 4, 2
RETRIEVED = (2, 4, 8)
DRAWN = (4, 4, 4, 2)  # sizes of random sets of examples
FEWEST_ALIVE = 3  # in the last round: the start and the best two


@dataclass(frozen=True)
class Tried:
    """A candidate: what it is, its score on the first ``rows`` development questions, and how many had no answer."""

    prompt: Prompt
    what: str
    score: float
    rows: int
    failed: int


@dataclass(frozen=True)
class Optimised:
    """The best prompt and everything that was tried, the start first.

    ``best``, ``start`` and ``gain`` (best - start) are scores on the same ``rows`` development questions, on which the
    best was chosen: they flatter it, and only held-out rows say what it is worth. ``asked`` counts every answer that
    was asked for, those of the proposer included; ``failed`` those that did not come, or were no instructions.
    """

    prompt: Prompt
    tried: tuple[Tried, ...]
    asked: int
    failed: int
    metric: Metric
    rows: int
    best: Interval | None
    start: Interval | None
    gain: Interval | None


def optimise(
    answer: AnswerFunction,
    train: Sequence[Record],
    *,
    metric: Metric,
    budget: int,
    start: Prompt,
    seed: int = 0,
    propose: AnswerFunction | None = None,
    progress: Callable[[int], object] | None = None,
) -> Optimised:
    """Search for a prompt that answers better than ``start``, with at most ``budget`` answers.

    ``train``: records of the train split; half of them are development questions, the others give examples, and a
    group stands on one side only. ``propose``: a model that writes instructions; none: only what can be derived from
    the data. With the same answers the same seed gives the same result. ``progress(n)``: n answers have come. Raises
    :class:`~ownchat.errors.DataError` for too few conversations, :class:`~ownchat.errors.ConfigError` for a budget too
    small to compare anything, and :class:`~ownchat.errors.UserError` where nothing is answered.
    """
    if budget < LEAST_BUDGET:
        raise ConfigError(
            f"{budget} answers are too few to compare prompts", where="--budget", fix=f"{LEAST_BUDGET} or more"
        )
    draw = random.Random(seed)
    development, shown = divide(questions(train), budget, draw)
    examples = Examples(pairs(shown))
    search = _Search(answer, development, examples, metric, progress)

    texts = [Written("the start", start.system), *from_data(shown, metric, start)]
    if propose is not None:
        number = PROPOSALS if budget >= 60 else REWRITES
        asked = [proposal(draw, examples.pairs) for _ in range(number)]
        texts += search.written(propose, asked, "written by the proposer")
    first = [_Candidate(replace(start, system=text.system), text.what) for text in _distinct(texts)]
    best = search.halve(first, int(budget * INSTRUCTIONS_SHARE) - search.asked)[0]

    second = _with_examples(best, examples, draw)
    if propose is not None:
        asked = [rewriting(draw, examples.pairs, system_text(best.prompt)) for _ in range(REWRITES)]
        known = {candidate.prompt.system for candidate in first}
        texts = _distinct(search.written(propose, asked, "rewritten by the proposer"), known)
        second = [*(_Candidate(replace(start, system=text.system), text.what) for text in texts), *second]
    finalists = [first[0], *([best] if best is not first[0] else []), *second]
    winner = search.halve(finalists, budget - search.asked)[0]
    return search.result(winner, first[0], [*first, *second])


def divide(items: Sequence[Record], budget: int, draw: random.Random) -> tuple[list[Record], list[Record]]:
    """Development questions, and records for examples; by group, unless there are hardly any groups.

    Raises :class:`~ownchat.errors.DataError` for too few records.
    """
    if len(items) < LEAST_ROWS:
        raise DataError(
            f"{len(items)} conversations of the train split end in a reply: too few to try prompts on",
            where="prompt optimise", fix=f"{LEAST_ROWS} are the least, a few hundred are better",
        )  # fmt: skip
    half = len(items) // 2
    wanted = min(half, budget)
    by_group: dict[object, list[Record]] = {}
    for number, item in enumerate(items):
        by_group.setdefault(number if item["group"] is None else item["group"], []).append(item)
    groups = list(by_group.values())
    draw.shuffle(groups)
    development: list[Record] = []
    rest: list[Record] = []
    for group in groups:
        side = development if len(development) < wanted and len(development) + len(group) <= half else rest
        side += group
    if len(development) < LEAST_ROWS // 2 or len(rest) < LEAST_ROWS // 2:
        rest = list(items)
        draw.shuffle(rest)
        development, rest = rest[:wanted], rest[wanted:]
    return development[:wanted], rest


def schedule(candidates: int, budget: int, rows: int) -> list[tuple[int, int]]:
    """Rounds of successive halving: how many candidates take part, and how many questions each has answered then.

    >>> schedule(8, 120, 100)
    [(8, 6), (4, 12), (3, 28)]
    """
    for first in range(min(rows, budget // max(candidates, 1)), 0, -1):
        plan, alive, upto, cost = [(candidates, first)], candidates, first, candidates * first
        while alive > FEWEST_ALIVE and upto < rows:
            alive, before, upto = max(FEWEST_ALIVE, (alive + 1) // 2), upto, min(2 * upto, rows)
            plan.append((alive, upto))
            cost += alive * (upto - before)
        if cost <= budget:
            plan[-1] = (alive, min(rows, upto + (budget - cost) // alive))
            return plan
    return []


@dataclass(eq=False)
class _Candidate:
    prompt: Prompt
    what: str
    answers: list[Answered] = field(default_factory=list)  # to the first development questions

    @property
    def failed(self) -> int:
        return sum(one.error is not None for one in self.answers)


class _Search:
    """What was asked and answered so far."""

    def __init__(
        self,
        answer: AnswerFunction,
        development: Sequence[Record],
        examples: Examples,
        metric: Metric,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.answer, self.examples, self.metric, self.progress = answer, examples, metric, progress
        self.messages: list[list[Message]] = [item["messages"][:-1] for item in development]
        self.references = [item["messages"][-1]["content"].strip() for item in development]
        self.groups = [item["group"] for item in development]
        self.asked = self.failed = 0

    def written(self, propose: AnswerFunction, asked: Sequence[list[Message]], what: str) -> list[Written]:
        """Instructions that a model wrote; what cannot be one is counted as failed."""
        texts = []
        for one in self._ask(propose, asked):
            text = read_proposal(one.text) if one.error is None else None
            if text is not None:
                texts.append(Written(what, escape(text)))
            elif one.error is None:
                self.failed += 1
        return texts

    def halve(self, candidates: Sequence[_Candidate], budget: int) -> list[_Candidate]:
        """Those that went furthest, the best first; the first candidate always goes on.

        Where the budget is too small for all, the first ones take part.
        """
        plan, begun = schedule(len(candidates), budget, len(self.references)), self.asked
        while not plan and len(candidates) > 2:
            candidates = candidates[:-1]
            plan = schedule(len(candidates), budget, len(self.references))
        alive, reached = list(candidates), 0
        for number, upto in plan:
            if number < len(alive):
                best = self._ranked(alive, reached)[:number]
                alive = [one for one in alive if one in (best if alive[0] in best else [alive[0], *best[:-1]])]
            reached = upto
            self._answer(alive, reached)
        left = (budget - self.asked + begun) // len(alive)  # some had answered before
        reached = min(len(self.references), reached + max(left, 0))
        self._answer(alive, reached)
        return self._ranked(alive, reached)

    def result(self, winner: _Candidate, start: _Candidate, candidates: Sequence[_Candidate]) -> Optimised:
        rows = min(len(winner.answers), len(start.answers))
        before, after = ([one.text for one in candidate.answers[:rows]] for candidate in (start, winner))
        tried = [
            Tried(one.prompt, one.what, self._value(one, len(one.answers)), len(one.answers), one.failed)
            for one in candidates
            if one.answers
        ]
        return Optimised(
            prompt=winner.prompt,
            tried=tuple(tried),
            asked=self.asked,
            failed=self.failed,
            metric=self.metric,
            rows=rows,
            best=self._score(winner, rows),
            start=self._score(start, rows),
            gain=difference(self.metric, before, after, self.references[:rows], self.groups[:rows]),
        )

    # --------------------------------------------------------------------------------------------------- inside

    def _ask(self, function: AnswerFunction, prompts: Sequence[Sequence[Message]]) -> list[Answered]:
        answers = function(prompts) if prompts else []
        self.asked += len(answers)
        self.failed += sum(one.error is not None for one in answers)
        if self.progress is not None:
            self.progress(len(answers))
        return answers

    def _answer(self, candidates: Sequence[_Candidate], upto: int) -> None:
        """Questions up to there, one call for all candidates, so that they share batches."""
        todo = [(candidate, row) for candidate in candidates for row in range(len(candidate.answers), upto)]
        answers = self._ask(self.answer, [self._prompt(candidate.prompt, row) for candidate, row in todo])
        for (candidate, _), one in zip(todo, answers, strict=True):
            candidate.answers.append(one)
        if answers and all(candidate.failed == len(candidate.answers) for candidate in candidates):
            raise UserError(
                f"none of {len(answers)} questions was answered: {answers[0].error}", where="prompt optimise",
                fix="look at the model with ownchat prompt try",
            )  # fmt: skip

    def _prompt(self, prompt: Prompt, row: int) -> list[Message]:
        messages = self.messages[row]
        retrieved = self.examples.nearest(last_question(messages), prompt.retrieve) if prompt.retrieve else ()
        return apply(prompt, messages, retrieved=retrieved)

    def _score(self, candidate: _Candidate, rows: int, draws: int = 1000) -> Interval | None:
        """On its first ``rows`` questions; an answer that failed is the empty text."""
        texts = [one.text for one in candidate.answers[:rows]]
        return score(self.metric, texts, self.references[:rows], self.groups[:rows], draws=draws)

    def _value(self, candidate: _Candidate, rows: int) -> float:
        found = self._score(candidate, rows, draws=1)
        return found.value if found is not None else 0.0

    def _ranked(self, candidates: Sequence[_Candidate], rows: int) -> list[_Candidate]:
        """The best on the first ``rows`` questions first; of equal ones the first, which is the simpler one."""
        return sorted(candidates, key=lambda candidate: -self._value(candidate, rows))


def _distinct(texts: Sequence[Written], known: Collection[str | None] = ()) -> list[Written]:
    kept: dict[str | None, Written] = {}
    for text in texts:
        if text.system not in known:
            kept.setdefault(text.system, text)
    return list(kept.values())


def _with_examples(best: _Candidate, examples: Examples, draw: random.Random) -> list[_Candidate]:
    """The best instruction with examples: looked up for each question, and the same ones for all."""
    made = [
        _Candidate(replace(best.prompt, examples=(), retrieve=count), f"{best.what}, {count} examples looked up")
        for count in RETRIEVED
        if count <= len(examples.pairs)
    ]
    for number, count in enumerate(DRAWN, 1):
        order = draw.sample(examples.pairs, len(examples.pairs))
        different = list(dict(reversed([(reply, question) for question, reply in order])).items())
        chosen = [(question, reply) for reply, question in reversed(different)][:count]  # no reply twice
        shown = tuple((escape(question), escape(reply)) for question, reply in chosen)
        what = f"{best.what}, {len(shown)} fixed examples (draw {number})"
        made.append(_Candidate(replace(best.prompt, examples=shown, retrieve=0), what))
    return made
