"""``ownchat prompt``: two prompts compared on held-out rows, and better ones searched on rows of the train split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ownchat.config import load_config
from ownchat.errors import ConfigError, RunError, UserError
from ownchat.generate import prompts
from ownchat.generate.answering import Answered
from ownchat.generate.prompts import Prompt
from ownchat.pipeline.lines import counted
from ownchat.pipeline.prompts import answerer, base_of, opened, records_of, settings_of, with_variables_of_either

if TYPE_CHECKING:  # they load numpy
    from ownchat.evaluate.answer_scores import Metric
    from ownchat.evaluate.optimise import Optimised
    from ownchat.evaluate.scores import Interval

PROPOSAL_TOKENS = 1_024
SHOWN = 3  # rows of a comparison whose answers are printed


# -------------------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Compared:
    """Two prompts on the same held-out rows: those that both answered. ``difference`` is second - first."""

    prompts: tuple[str, str]
    model: str
    run: str
    metric: Metric
    rows: int
    first: Interval | None
    second: Interval | None
    difference: Interval | None
    failed: tuple[int, int]
    seconds_per_answer: tuple[float, float]
    prompt_tokens: tuple[float, float]
    samples: tuple[dict[str, str], ...]
    verdict: str


def compare(
    names: tuple[str, str], *, run: str, model: str | None = None, rows: int = 32,
    variables: Mapping[str, str] | None = None,
) -> Compared:  # fmt: skip
    """Both prompts on the first ``rows`` questions of the run's test split.

    Examples are looked up in its train split. ``model`` none: the base of the run. Raises
    :class:`~ownchat.errors.UserError` where nothing is answered.
    """
    from ownchat.evaluate.answer_scores import difference, score
    from ownchat.evaluate.answers import questions
    from ownchat.evaluate.ladder import metric_of, rows_of
    from ownchat.evaluate.retrieve import Examples, last_question, pairs
    from ownchat.monitor.progress import progress

    both = [prompts.load(name) for name in names]
    both = with_variables_of_either(both, variables)
    train = records_of(run, "train")
    asked = rows_of(questions(records_of(run, "test"))[:rows])
    if not asked:
        raise RunError("no conversation of its test split ends in a reply", where=run, fix="choose another run")
    longest = load_config(settings_of(run))[0].evaluate.answer_tokens
    examples = Examples(pairs(train)) if any(prompt.retrieve for prompt in both) else None
    answers: list[list[Answered]] = []
    with opened(model or base_of(run)) as (engine, label), progress("answers", 2 * len(asked), "answers") as advance:
        for prompt in both:
            sent = []
            for row in asked:
                near = examples.nearest(last_question(row.messages), prompt.retrieve) if examples is not None else ()
                sent.append(prompts.apply(prompt, row.messages, retrieved=near[: prompt.retrieve]))
            answers.append(answerer(engine, prompt, longest, advance)(sent))
            if all(one.error is not None for one in answers[-1]):
                raise UserError(
                    f"no row was answered: {answers[-1][0].error}", where=f"{prompt.label} with {label}",
                    fix="try it on one question: ownchat prompt try",
                )  # fmt: skip
    metric = metric_of(train)
    right = [at for at in range(len(asked)) if all(given[at].error is None for given in answers)]
    texts = [[given[at].text for at in right] for given in answers]
    references, groups = [asked[at].reference for at in right], [asked[at].group for at in right]
    change = difference(metric, texts[0], texts[1], references, groups) if right else None
    done = [[one for one in given if one.error is None] for given in answers]
    return Compared(
        prompts=(both[0].label, both[1].label),
        model=label,
        run=run,
        metric=metric,
        rows=len(right),
        first=score(metric, texts[0], references, groups),
        second=score(metric, texts[1], references, groups),
        difference=change,
        failed=(_failed(answers[0]), _failed(answers[1])),
        seconds_per_answer=(_mean(one.seconds for one in done[0]), _mean(one.seconds for one in done[1])),
        prompt_tokens=(_mean(one.prompt_tokens for one in done[0]), _mean(one.prompt_tokens for one in done[1])),
        samples=tuple(
            {"question": last_question(asked[at].messages), "reference": asked[at].reference,
             "first": answers[0][at].text, "second": answers[1][at].text}
            for at in right[:SHOWN]
        ),
        verdict=_verdict(both[0].label, both[1].label, change, groups),
    )  # fmt: skip


def _failed(answers: Sequence[Answered]) -> int:
    return sum(one.error is not None for one in answers)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _verdict(first: str, second: str, change: Interval | None, groups: Sequence[str | None]) -> str:
    from ownchat.evaluate.scores import group_index
    from ownchat.evaluate.wording import FEW_GROUPS

    if change is None:
        return "No row was answered under both."
    count = int(group_index(groups).max()) + 1
    if count < FEW_GROUPS:
        many = counted(len(groups), "row") + " of " + counted(count, "group")
        return f"Too few rows to tell {first} from {second}: {many} ({FEW_GROUPS} groups are the least)."
    if change.above(0) or change.below(0):
        better, other = (second, first) if change.above(0) else (first, second)
        return f"{better} is better than {other} on held-out rows: the interval excludes zero."
    return f"No difference beyond chance between {first} and {second} on these rows."


# ------------------------------------------------------------------------------------------------------- optimising


def optimise(
    name: str, *, run: str, model: str | None = None, budget: int = 200, proposer: str | None = None, seed: int = 0
) -> tuple[Optimised, Prompt | None, str]:
    """Search a better prompt on the run's train split, and keep it as a new version with what was tried in its note.

    ``model`` none: the base of the run. ``proposer``: a model that writes instructions. Returns what was found, the
    version that was kept (None: nothing was better than the start), and the model's name. Raises what
    :func:`ownchat.evaluate.optimise.optimise` raises.
    """
    from ownchat.evaluate import optimise as search
    from ownchat.evaluate.ladder import metric_of
    from ownchat.monitor.progress import progress

    start = prompts.load(name)
    kept_as = prompts.check_name(name.partition("@")[0] if start.version is not None else Path(name).stem)
    if start.version is None and prompts.versions(kept_as):
        raise ConfigError(
            f'there is already a prompt "{kept_as}", of which the file would become a version', where=name,
            fix=f"name what is meant: ownchat prompt new NAME --file {quote(name)}, then ownchat prompt optimise NAME",
        )  # fmt: skip
    prompts.apply(start, [])  # a variable without a value is said before any work
    train = records_of(run, "train")
    longest = load_config(settings_of(run))[0].evaluate.answer_tokens
    with ExitStack() as stack:
        asked = model or base_of(run)
        engine, label = stack.enter_context(opened(asked))
        writer = None
        if proposer is not None:
            writer = engine if proposer == asked else stack.enter_context(opened(proposer))[0]
        advance = stack.enter_context(progress("optimise", budget, "answers"))
        found = search.optimise(
            answerer(engine, start, longest, advance), train, metric=metric_of(train), budget=budget, start=start,
            seed=seed, propose=None if writer is None else answerer(writer, Prompt(None), PROPOSAL_TOKENS, advance),
        )  # fmt: skip
    if found.prompt == start:
        return found, None, label
    made = replace(found.prompt, name=None, version=None)
    version = prompts.save(made, kept_as, note=_note(found, start.label, run, label))
    return found, prompts.load(f"{kept_as}@{version}"), label


def _note(found: Optimised, start: str, run: str, model: str) -> str:
    """What was tried, for the file of the prompt."""
    lines = [
        f"the best of {len(found.tried)} prompts from {start}, asked of {model}: {found.metric} {_value(found.best)} "
        f"(start {_value(found.start)}) on {found.rows} questions of the train split of {run}, on which it was chosen; "
        f"{found.asked} answers asked, {found.failed} failed.",
        *tried_lines(found),
    ]
    return "\n".join(lines)


def tried_lines(found: Optimised) -> list[str]:
    """Everything that was tried, those that came furthest first."""
    ranked = sorted(found.tried, key=lambda one: (-one.rows, -one.score))
    return [
        f"{one.score:6.1f} on {one.rows:3} questions{f', {one.failed} failed' if one.failed else ''}: {one.what}"
        for one in ranked
    ]


def _value(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.1f}"


def as_json(found: Optimised, kept_as: Prompt | None, model: str) -> dict[str, Any]:
    """The result of a search for ``--json``."""
    whole = asdict(found)
    tried = [{"what": one.what, "score": one.score, "rows": one.rows, "failed": one.failed,
              "system": one.prompt.system, "examples": len(one.prompt.examples), "retrieve": one.prompt.retrieve}
             for one in found.tried]  # fmt: skip
    return {**whole, "prompt": None if kept_as is None else kept_as.label, "model": model, "tried": tried}
