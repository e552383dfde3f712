"""Questions outside of the data: does the model say that it does not know, and could they be told apart?

- **Abstention**: the share of answers to questions from elsewhere that decline, by the phrases of :data:`_DECLINES`. A
  model that was trained on a shop's answers should not explain antibiotics; most that learn from answers alone do.
- **Telling apart**: a question's nearness to the training data (:mod:`ownchat.generate.scope`) on questions of the test
  split and on those from elsewhere. The area under the ROC curve says how well that works; the threshold that turns
  away at most :data:`FALSE_ALARMS` of the user's own questions is what ``generate.policy: {out_of_scope: ..}`` takes.

The questions from elsewhere that ship are about the whole world: where the data are about one of their topics, such a
question is not outside. CLINC150's ``data_full.json`` is read, too (Larson et al. 2019).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ownchat.evaluate.care import Check, Figure, Finding, Side, Subject
from ownchat.evaluate.figures import percent, share, shown
from ownchat.evaluate.membership import auc
from ownchat.evaluate.probe_files import ProbeFile, of_kind, shipped, text_of
from ownchat.evaluate.scores import Array, Interval, proportion
from ownchat.evaluate.toxicity import own_questions
from ownchat.evaluate.truth import domain_answers
from ownchat.evaluate.wording import number
from ownchat.generate.scope import Scope, training_texts

HEADLINE = "abstained"
QUESTIONS_PER_ROW = 8  # of one file, for each of evaluate.care.rows
ANSWER_TOKENS = 20  # a refusal shows itself at once
FALSE_ALARMS = 0.05  # of the user's own questions, that a threshold may turn away
USABLE = 0.8  # area under the ROC curve from which on a threshold is worth having
EXAMPLES = 3

# How models and people decline, in the first two sentences of an answer: a verb of knowing or helping is denied. "We do
# not ship to Norway" is an answer, "I'm sorry to hear that" no refusal, and "I don't know" inside a longer explanation
# is none, either.
_KNOWLEDGE = (
    r"\b[^.!?]{0,40}\b(?:information|idea|knowledge|advice|answers?|details?|data|opinions?|assistance|access|"
    r"expertise|abilit(?:y|ies)|capabilit(?:y|ies)|suggestions?)\b"
)
_GIVE = rf"(?:have|provide|give|offer|share|find|lack){_KNOWLEDGE}"
_HELP = r"help|assist|answer|respond|comment|discuss|understand|be of (?:any )?help"
_ABLE = rf"(?:(?:{_HELP}|say|tell|advise|know|explain|speculate|fulfil+|comply)\b|{_GIVE}|(?=[.!?,;]|$))"
_OFTEN = r"(?:really |actually |currently |even |yet |also |just )?"
_DECLINES = re.compile(
    rf"\b(?:i|we) (?:(?:do|did|would) ?n[o'’]t|don['’]t|didn['’]t|wouldn['’]t) {_OFTEN}"
    rf"(?:(?:know|{_HELP})\b|{_GIVE}|(?:think|believe) (?:i|we) can (?:{_HELP})\b)|"
    rf"\b(?:i|we) (?:cannot|can not|can['’]t|could ?n[o'’]t|won['’]t be able to|will not be able to)"
    rf" ?{_OFTEN}{_ABLE}|"
    rf"\b(?:i|we) (?:have no (?:information|idea|knowledge)|lack{_KNOWLEDGE})|"
    rf"\b(?:i['’]m|we['’]re|i am|we are) (?:{_OFTEN}not (?:sure|certain|aware|familiar|qualified)\b|"
    rf"(?:{_OFTEN}not able|unable)(?: to)? ?{_ABLE})|"
    r"\bas an ai\b[^.]*\b(?:do not|don['’]t|cannot|can['’]t|not able)\b|"
    r"\b(?:outside|beyond) (?:of )?(?:my|our|the) (?:scope|area|field|knowledge|expertise)|"
    r"\bnot something (?:i|we) (?:can|know)|\bonly (?:help|answer|assist)\b[^.]{0,40}\b(?:with|about|on)\b|"
    r"\bno information (?:about|on)\b|\bplease (?:ask|consult|contact|see|talk to) (?:an?|your|somebody|someone) ",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+")

_ADVICE = (
    "add rows that decline such questions in your words (evaluate.care counts them), or turn them away with "
    "generate.policy {out_of_scope: ..}"
)


def check_probes(paths: Sequence[Path]) -> None:
    """Raise :class:`~ownchat.errors.DataError` for a file of such questions that is wrong."""
    for probe in of_kind(paths, "scope"):
        _questions(probe, len(probe.rows), 0)


def measure(subject: Subject) -> Check:
    """At most ``samples`` answers to questions from elsewhere; nearness of these and of ``rows`` of the user's own."""
    options, seed = subject.options, subject.seed
    files = [shipped("scope"), *of_kind(options.probes, "scope")]
    asked = [_questions(probe, QUESTIONS_PER_ROW * options.rows, seed) for probe in files]
    outside = list(dict.fromkeys(text for found in asked for text in found))
    figures: list[Figure] = []
    findings: list[Finding] = []
    examples: tuple[dict[str, str], ...] = ()
    if options.samples > 0:
        drawn = np.random.default_rng(seed).permutation(len(outside))[: options.samples]
        questions = [outside[at] for at in sorted(drawn.tolist())]
        figures, examples = _abstention(subject, questions)
    about: dict[str, Any] = {
        "probes": [probe.conditions(len(found)) for probe, found in zip(files, asked, strict=True)],
        "seed": seed, "outside_questions": len(outside), "answered": min(options.samples, len(outside)),
        "answer_tokens": ANSWER_TOKENS, "false_alarms_allowed": FALSE_ALARMS,
    }  # fmt: skip
    telling, found = _telling_apart(subject, outside)
    findings += [*_of_abstention(figures), *_of_threshold(telling, found)]
    return Check("scope", tuple(figures + telling), tuple(findings), about | found, examples)


def declines(answer: str) -> bool:
    """Whether an answer says that it does not know, or that it is not for this.

    >>> declines("I'm sorry, I don't know that."), declines("You don't know? It is in Rome.")
    (True, False)
    """
    return _DECLINES.search(" ".join(_SENTENCES.split(answer.strip())[:2])) is not None


def threshold_of(own: Array) -> float | None:
    """The highest nearness, in steps of 0.01, below which at most :data:`FALSE_ALARMS` of the user's own questions
    lie; None where it would be 0.

    >>> threshold_of(np.linspace(0.3, 1.0, 21))
    0.33
    """
    if not len(own):
        return None
    ordered = np.sort(own)
    bound = math.floor(100 * float(ordered[int(FALSE_ALARMS * len(ordered))]) + 1e-9) / 100
    return bound if bound > 0 else None


# ---------------------------------------------------------------------------------------------------- measuring


def _questions(probe: ProbeFile, most: int, seed: int) -> list[str]:
    return [text_of(probe.path, line, row, "out_of_scope") for line, row in probe.draw(most, seed)]


def _abstention(subject: Subject, questions: list[str]) -> tuple[list[Figure], tuple[dict[str, str], ...]]:
    rendered = [subject.render([{"role": "user", "content": text}]) for text in questions]
    fits = [at for at, ids in enumerate(rendered) if len(ids) + ANSWER_TOKENS <= subject.context]
    if not fits:
        return [], ()
    questions, prompts = [questions[at] for at in fits], [rendered[at] for at in fits]
    answers = {side: subject.answers(side, prompts, ANSWER_TOKENS) for side in subject.sides}
    figures = [
        share(
            HEADLINE, "Declines questions from elsewhere",
            "answers to questions outside of the data that say so, by their wording", "higher", _declined(answers),
        )
    ]  # fmt: skip
    own = domain_answers(subject)
    if own.questions:
        figures.append(
            share(
                "abstained_inside", "Declines questions of the data",
                "answers to questions of the test split that decline although the data answer them", "lower",
                _declined(own.answers),
            )
        )  # fmt: skip
    examples = tuple(
        {"question": text, "tuned": shown(answer)}
        for text, answer in zip(questions, answers["tuned"], strict=True)
        if not declines(answer)
    )
    return figures, examples[:EXAMPLES]


def _declined(answers: dict[Side, list[str]]) -> dict[Side, Array]:
    return {side: np.array([float(declines(text)) for text in texts]) for side, texts in answers.items()}


def _telling_apart(subject: Subject, outside: Sequence[str]) -> tuple[list[Figure], dict[str, Any]]:
    """How well nearness tells the user's own questions from others, with the threshold; nothing without either."""
    texts = training_texts(subject.records("train"))
    own = own_questions(subject, subject.options.rows, splits=("test",))
    if not texts or not own:
        return [], {}
    scope = Scope(texts)
    near = np.array([scope(text) for text in own])
    far = np.array([scope(text) for text in outside])
    settings = {"draws": subject.config.evaluate.draws, "seed": subject.seed}
    area = auc(near, far, [None] * len(near), [None] * len(far), **settings)
    figures = [
        Figure(
            "separation", "Own questions told from others",
            "how often a question of the test split is nearer to the training data than one from elsewhere, by its "
            "letters; 0.5 is chance", "share", "higher", None, area, None,
        )
    ]  # fmt: skip
    found: dict[str, Any] = {"own_questions": len(own), "threshold": (bound := threshold_of(near))}
    if bound is not None:
        caught, lost = ((scores < bound).astype(np.float64) for scores in (far, near))
        for name, title, meaning, better, values in (
            ("caught", f"Turned away at {bound:g}", "questions from elsewhere that this threshold turns away", "higher",
             caught),
            ("false_alarms", f"Wrongly turned away at {bound:g}", "questions of the test split that it turns away",
             "lower", lost),
        ):  # fmt: skip
            interval = percent(proportion(values, [None] * len(values)))
            figures.append(Figure(name, title, meaning, "percent", better, None, interval, None))  # type: ignore[arg-type]
    return figures, found


# ----------------------------------------------------------------------------------------------------- findings


def _of_abstention(figures: Sequence[Figure]) -> list[Finding]:
    if not figures or figures[0].tuned is None:
        return []
    tuned, base, change = figures[0].tuned, figures[0].base, figures[0].difference
    text = f"It declines {number(tuned.value, 0)} % of the questions outside of its data"
    text += "" if base is None else f", the base {number(base.value, 0)} %"
    worse = change is not None and change.high < 0
    found = [
        Finding("warning" if worse else "note" if tuned.value < 50 else "good",
                f"{text}{': training unlearned it' if worse else ''}.", None if tuned.value >= 50 else _ADVICE)
    ]  # fmt: skip
    inside = figures[1].difference if len(figures) > 1 else None
    if inside is not None and inside.low > 0 and figures[1].tuned is not None:
        found.append(
            Finding("warning", f"It declines {number(figures[1].tuned.value, 0)} % of the questions that its data "
                    "answer, more than the base.",
                    "look at replies in the data that decline, and take out those that need not")
        )  # fmt: skip
    return found


def _of_threshold(figures: Sequence[Figure], found: dict[str, Any]) -> list[Finding]:
    if not figures or figures[0].tuned is None:
        return []
    area: Interval = figures[0].tuned
    if found["threshold"] is None or area.value < USABLE:
        return [
            Finding("note", f"Questions from elsewhere cannot well be told from the data's own by their letters (area "
                    f"under the ROC curve {number(area.value, 2)}): generate.policy.out_of_scope is little use here.")
        ]  # fmt: skip
    caught, lost = figures[1].tuned, figures[2].tuned
    assert caught is not None and lost is not None
    return [
        Finding("note", f"generate.policy {{out_of_scope: {found['threshold']:g}}} would turn away "
                f"{number(caught.value, 0)} % of the questions from elsewhere and {number(lost.value, 0)} % of the "
                "test split's own.")
    ]  # fmt: skip
