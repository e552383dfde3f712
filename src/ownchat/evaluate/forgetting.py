"""What fine-tuning made worse outside of the user's own data: general text, easy questions, simple instructions.

Base and tuned see the same probe (:mod:`ownchat.evaluate.general`) under the chat template alone, without the system
message of the data. Three measures, all paired:

- **loss** in nats per token on short passages of general text, and by how many percent it rose;
- **accuracy** on easy questions: the choice with the highest log-probability per UTF-8 byte (as "acc_norm" of
  lm-evaluation-harness), which even a small model does far better than chance;
- **instructions** followed, of those whose fulfilment a program can see (as IFEval, Zhou et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ownchat.errors import DataError
from ownchat.evaluate.care import Check, Figure, Finding, Level, Side, Subject
from ownchat.evaluate.figures import share, shown
from ownchat.evaluate.following import follows
from ownchat.evaluate.general import Instruction, Passage, Probe, Question, read_probes
from ownchat.evaluate.probe_files import VERSION, endings
from ownchat.evaluate.scores import Array, Interval, bootstrap, bootstraps, improvement, ratio
from ownchat.evaluate.wording import interval, number

HEADLINE = "loss"  # its rise in percent: what a gate looks at
# A rise of the loss by 5 % is what halving a model's size costs, one by 20 % what a tenth of its size does: loss falls
# with the 0.076th power of the number of weights (Kaplan et al. 2020).
WARNING, DANGER = 5.0, 20.0
ANSWER_TOKENS = 32  # the instructions ask for short answers
EXAMPLES = 3

_ADVICE = "mix general rows in (train.replay), train for fewer epochs or with a lower learning rate"
_OF_FULL = ", or train an adapter instead of all weights (--method lora)"

Scored = tuple[list[int], list[int]]  # ids, mask


def check_probes(paths: Sequence[Path]) -> None:
    """Raise :class:`~ownchat.errors.DataError` for a file of this kind that is wrong, before any work begins."""
    read_probes(paths)


def measure(subject: Subject) -> Check:
    """The shipped probe and the user's; at most ``rows`` questions and passages of each, ``samples`` instructions."""
    options = subject.options
    probes = [drawn(probe, options.rows, options.samples, subject.seed) for probe in read_probes(options.probes)]
    figures: list[Figure] = []
    findings: list[Finding] = []
    examples: list[dict[str, str]] = []
    described = []
    for probe, ending in zip(probes, endings([probe.file for probe in probes]), strict=True):
        named = f" ({probe.file.name})" if ending else ""
        asked, refused = _renderable(subject, probe)
        found = [
            *_of_passages(subject, asked.passages, ending, named),
            *_of_questions(subject, asked.questions, ending, named, examples),
            *_of_instructions(subject, asked.instructions, ending, named, examples),
        ]
        figures += found
        advice = _ADVICE + (_OF_FULL if subject.config.train.method == "full" else "")
        findings += _findings({figure.name.removesuffix(ending): figure for figure in found}, named, advice)
        used = len(asked.questions) + len(asked.instructions) + len(asked.passages)
        described.append(probe.file.conditions(used) | {"refused_by_template": refused})
    if subject.base is None:
        findings = [Finding("note", "The model was trained from nothing: it has nothing that it could have forgotten.")]
    conditions = {"probes": described, "version": VERSION, "seed": subject.seed, "answer_tokens": ANSWER_TOKENS,
                  "warning_percent": WARNING, "danger_percent": DANGER}  # fmt: skip
    return Check("forgetting", tuple(figures), tuple(findings), conditions, tuple(examples))


def drawn(probe: Probe, rows: int, samples: int, seed: int) -> Probe:
    """At most ``rows`` questions and passages and ``samples`` instructions, an even draw in the file's order."""
    return replace(
        probe,
        questions=_draw(probe.questions, rows, seed),
        passages=_draw(probe.passages, rows, seed),
        instructions=_draw(probe.instructions, samples, seed),
    )


def _draw(items: tuple[Any, ...], most: int, seed: int) -> tuple[Any, ...]:
    if len(items) <= most:
        return items
    chosen = np.random.default_rng(seed).choice(len(items), most, replace=False)
    return tuple(items[at] for at in sorted(chosen.tolist()))


# ---------------------------------------------------------------------------------------------------- the measures


def _of_passages(subject: Subject, passages: Sequence[Passage], ending: str, named: str) -> list[Figure]:
    if not passages:
        return []
    rows = [_passage_row(subject, passage) for passage in passages]
    tokens = np.array([sum(mask) for _, mask in rows], dtype=np.float64)
    nll = {side: -np.array([sum(values) for values in subject.losses(side, rows)]) for side in subject.sides}
    base, tuned, change, rise = _loss(nll.get("base"), nll["tuned"], tokens, _settings(subject))
    return [
        Figure(
            f"general_loss{ending}", f"Loss on general text{named}",
            "nats per token of short texts about anything: how well the model expects ordinary language",
            "nats", "lower", base, tuned, change,
        ),
        Figure(
            f"{HEADLINE}{ending}", f"Rise of that loss{named}",
            "by how many percent training raised it; the whole of what was forgotten in one number",
            "percent", "lower", None, None, rise,
        ),
    ]  # fmt: skip


def _loss(
    base: Array | None, tuned: Array, tokens: Array, settings: dict[str, int]
) -> tuple[Interval | None, Interval | None, Interval | None, Interval | None]:
    """Nats per token of base and tuned, their difference, and the relative rise in percent."""
    groups = [None] * len(tokens)
    if base is None:
        return None, bootstrap(np.stack([tuned, tokens], axis=1), ratio, groups, **settings), None, None
    sums = np.stack([base, tuned, tokens], axis=1)
    before, after, change, rise = bootstraps(
        sums,
        [
            lambda total: ratio(total[..., [0, 2]]),
            lambda total: ratio(total[..., [1, 2]]),
            lambda total: ratio(total[..., [1, 2]]) - ratio(total[..., [0, 2]]),
            lambda total: -improvement(total[..., :2]),
        ],
        groups,
        **settings,
    )
    return before, after, change, rise


def _of_questions(
    subject: Subject, questions: Sequence[Question], ending: str, named: str, examples: list[dict[str, str]]
) -> list[Figure]:
    if not questions:
        return []
    chosen = {side: choose(subject, side, questions) for side in subject.sides}
    right = {side: np.array([one.answer for one in questions]) == places for side, places in chosen.items()}
    chance = 100 * float(np.mean([1 / len(one.choices) for one in questions]))
    if "base" in right:
        for at in np.flatnonzero(right["base"] & ~right["tuned"])[:EXAMPLES].tolist():
            one = questions[at]
            wrong = one.choices[int(chosen["tuned"][at])]
            examples.append({"question": one.question, "right": one.choices[one.answer], "tuned": wrong})
    meaning = f"easy questions whose right choice the model holds for the likeliest; guessing gives {chance:.0f} %"
    return [share(f"accuracy{ending}", f"Easy questions{named}", meaning, "higher", _numbers(right))]


def choose(subject: Subject, side: Side, questions: Sequence[Question]) -> np.ndarray:
    """int64 [questions]: the place of the choice that has the highest log-probability per UTF-8 byte as a reply."""
    # All at once: a forward pass reads every weight, which costs more than what a question's choices have in common.
    rows = [_choice_row(subject, one.question, choice) for one in questions for choice in one.choices]
    num_bytes = [len(choice.encode()) for one in questions for choice in one.choices]
    scores = [sum(values) / size for values, size in zip(subject.losses(side, rows), num_bytes, strict=True)]
    ends = np.cumsum([len(one.choices) for one in questions])
    return np.array([int(np.argmax(part)) for part in np.split(np.array(scores), ends[:-1])])


def _of_instructions(
    subject: Subject, items: Sequence[Instruction], ending: str, named: str, examples: list[dict[str, str]]
) -> list[Figure]:
    rendered = [subject.render(_asked(one.instruction)) for one in items]
    fits = [at for at, ids in enumerate(rendered) if len(ids) + ANSWER_TOKENS <= subject.context]
    if not fits:
        return []
    items, prompts = [items[at] for at in fits], [rendered[at] for at in fits]
    answers = {side: subject.answers(side, prompts, ANSWER_TOKENS) for side in subject.sides}
    kept = {
        side: np.array([follows(text, one.rules) for text, one in zip(texts, items, strict=True)])
        for side, texts in answers.items()
    }
    if "base" in kept:
        for at in np.flatnonzero(kept["base"] & ~kept["tuned"])[:EXAMPLES].tolist():
            base, tuned = (shown(answers[side][at]) for side in ("base", "tuned"))
            examples.append({"instruction": items[at].instruction, "base": base, "tuned": tuned})
    meaning = 'instructions that were followed to the letter, such as "answer in one word"'
    return [share(f"instructions{ending}", f"Simple instructions{named}", meaning, "higher", _numbers(kept))]


def _numbers(hits: dict[Side, np.ndarray]) -> dict[Side, Array]:
    return {side: values.astype(np.float64) for side, values in hits.items()}


def _settings(subject: Subject) -> dict[str, int]:
    return {"draws": subject.config.evaluate.draws, "seed": subject.seed}


# -------------------------------------------------------------------------------------------------------- findings


def _findings(figures: dict[str, Figure], named: str, advice: str) -> list[Finding]:
    found: list[Finding] = []
    rise = figures["loss"].difference if "loss" in figures else None
    if rise is not None:
        found.append(_of_rise(rise, named, advice))
    for name, what in (("accuracy", "easy questions"), ("instructions", "simple instructions")):
        change = figures[name].difference if name in figures else None
        if change is not None and change.high < 0:
            text = f"Training unlearned {what}{named}: {number(change.value, 0, signed=True)} percentage points "
            found.append(Finding("warning", f"{text}({_between(change, 0)}).", advice))
    return found


def _of_rise(rise: Interval, named: str, advice: str) -> Finding:
    """Judged by the interval's lower end: what is beyond doubt."""
    if rise.value <= 0:
        return Finding("good", f"General language{named} was not forgotten: its loss did not rise.")
    text = f"The loss on general text{named} rose by {number(rise.value, 1)} % ({_between(rise, 1)} %)"
    if rise.low > DANGER:
        return Finding("danger", f"{text}: as if the model had shrunk to a tenth of its size.", advice)
    if rise.low > WARNING:
        return Finding("warning", f"{text}; 5 % is what a model of half the size would lose.", advice)
    level: Level = "good" if rise.high <= WARNING else "note"
    return Finding(level, f"{text}: {'little' if level == 'good' else 'not clearly beyond 5 %'}.")


def _between(one: Interval, decimals: int) -> str:
    return interval({"value": one.value, "low": one.low, "high": one.high}, decimals, signed=True)


# ------------------------------------------------------------------------------------------------------- rendering


def _renderable(subject: Subject, probe: Probe) -> tuple[Probe, int]:
    """The rows that the template takes, and how many it refuses (roles in an order that it does not know)."""
    kept: list[Passage] = []
    for passage in probe.passages:
        try:
            _passage_row(subject, passage)
        except DataError:
            continue
        kept.append(passage)
    return replace(probe, passages=tuple(kept)), len(probe.passages) - len(kept)


def _passage_row(subject: Subject, passage: Passage) -> Scored:
    from ownchat.tokenizer.render import render, render_document

    made = (
        render_document(subject.tokenizer, passage.text)
        if passage.text
        else render(subject.tokenizer, passage.messages)
    )
    return made.ids, made.weights


def _choice_row(subject: Subject, question: str, choice: str) -> Scored:
    """The choice as the assistant's reply; the token that ends its turn is left out: an answer may go on."""
    from ownchat.tokenizer.render import render

    made = render(subject.tokenizer, [*_asked(question), {"role": "assistant", "content": choice}])
    mask = list(made.weights)
    places = [place for place, weight in enumerate(mask) if weight]
    if len(places) > 1:
        mask[places[-1]] = 0
    return made.ids, mask


def _asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]
