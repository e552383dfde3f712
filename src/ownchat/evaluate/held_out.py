"""Base against tuned on the test split: the loss of the same replies, and greedy answers to the same questions.

The base is scored twice, under its own default prompt and under the system message of the data, always on identical
reply tokens, and the better of the two counts: so a gain is never only the gain of a prompt.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ownchat.artifacts import MANIFEST, Report, commit, completed, fingerprint, read_json, stage_key
from ownchat.config import FROM_NOTHING, Config, EvaluateConfig
from ownchat.data.records import Record, read_records
from ownchat.errors import DataError
from ownchat.evaluate import benchmarks, care, embedding, judge
from ownchat.evaluate import report as reporting
from ownchat.evaluate.answer_scores import goes_in_circles
from ownchat.evaluate.answers import Answer, answer, fitting, prompts_of, questions, why_no_answers
from ownchat.evaluate.comparison import Comparison, Scored, Side, compare
from ownchat.evaluate.documents import Document, Prompt, base_prompts, renderable, windows
from ownchat.evaluate.extremes import Extremes, extremes
from ownchat.evaluate.labels import Labels, compare_labels, label_names
from ownchat.evaluate.paired import RecordScores, record_scores
from ownchat.evaluate.preferences import Preferences, compare_pairs, pair_documents
from ownchat.evaluate.replies import reply_bytes, scorable
from ownchat.evaluate.scores import group_index
from ownchat.evaluate.slices import Slice, slices
from ownchat.monitor.progress import progress

SECTIONS = ("evaluate",)
WINDOW_TOKENS = 2048  # longest piece that is scored in one forward pass, where the model's context allows it
CIRCLING_SHARE = 0.1  # of the answers, from which on it is said
LABEL_RECORDS = 5_000  # of the train split, by which it is seen whether replies are labels


@dataclass(frozen=True)
class Result:
    """Everything that was measured on the test split; pure data."""

    comparison: Comparison
    base_prompt: Prompt  # the prompt under which the base had the lower loss
    base_prompt_losses: dict[Prompt, float]  # nats per token under each prompt that was tried
    records: int
    tokens: int
    groups: int
    answer_groups: int  # of the questions that were answered, which are fewer
    answers: tuple[Answer, ...]  # in the fixed order of :func:`questions`
    notes: tuple[str, ...]  # what was left out, and why
    scores: RecordScores  # of the tuned model
    slices: list[Slice]
    extremes: Extremes
    preferences: Preferences | None = None  # where the test split has pairs
    labels: Labels | None = None  # where replies are labels
    judge: judge.Judged | None = None  # where the settings name one
    embedding: embedding.Embedded | None = None
    from_nothing: bool = False  # the base is the untrained model
    preferences_only: bool = False  # and nothing else: the loss is that of replies that were wanted
    answers_only: bool = False  # of models behind a URL: nobody knows a loss


def run(config: Config, inputs: dict[str, Path], output: Path) -> Report:
    """Stage ``6-report``: measure, and write ``report.html`` and ``report.json``.

    ``inputs``: ``test`` (``2-clean``), ``base`` (a model directory), ``train`` (``5-train``). A report whose judge or
    model of embeddings could not be asked at all is made anew. Raises :class:`~ownchat.errors.DataError` when the test
    split holds nothing that can be scored.
    """
    judge.check(config.evaluate)
    probes = {f"probe {number}": path for number, path in enumerate(care.options(config).probes)}
    key = stage_key(config, SECTIONS, inputs | probes)
    done = completed(output, key)
    if done is not None and (output / reporting.JSON).is_file() and not _unheard(load_report(output)["held_out"]):
        return done
    start = time.monotonic()
    records = list(read_records(inputs["test"] / "test"))
    model = inputs["train"] / "model"
    trained = reporting.training(inputs["train"])
    fits = trained.get("validation_block_tokens", WINDOW_TOKENS)
    where = str(inputs["test"] / "test")
    from_nothing = config.model.base == FROM_NOTHING
    result = measure(
        inputs["base"], model, records, config.evaluate, where=where, block_tokens=fits,
        from_nothing=from_nothing, names=names_of_labels(records, inputs["test"] / "train"),
    )  # fmt: skip
    base = None if from_nothing else inputs["base"]
    with care.Subject(
        config=config, base=base, tuned=model, run=output.parent, seed=config.train.seed, block_tokens=fits,
        answered=result.answers, dtype=trained.get("dtype", "float32"),
    ) as subject:  # fmt: skip
        looked_at = care.measure(subject)
    empty_report(output, inputs["train"])  # only now: a measurement that was interrupted leaves the report before
    contents = reporting.build(result, train=inputs["train"], run=output.parent) | {"care": looked_at}
    reporting.write(contents, output, train=inputs["train"], config=config, seconds=time.monotonic() - start)
    result.scores.save(output)
    report = Report(
        "evaluate",
        output,
        counts={"records": result.records, "tokens": result.tokens, "answers": len(result.answers)},
        details={"held_out": {key: value for key, value in contents["held_out"].items() if key != "extremes"}},
        seconds=time.monotonic() - start,
    )
    return commit(key, config, SECTIONS, report)


def load_report(output: Path) -> dict[str, Any]:
    """The contents of ``report.json`` of a finished stage."""
    return read_json(output / reporting.JSON)


def empty_report(output: Path, train: Path) -> None:
    """Empty it but for what this measurement does not make: answers of the ladder, which cost time or money and are
    found again by the model that gave them; and what was measured of the model of this very training."""
    output.mkdir(parents=True, exist_ok=True)
    (output / MANIFEST).unlink(missing_ok=True)  # first: from now on it is not complete
    kept = {reporting.LADDER_ANSWERS}
    if benchmarks.of_training(output, train) is not None:
        kept.add(benchmarks.NAME)
    ladder = output / reporting.LADDER
    if ladder.is_file() and read_json(ladder).get("of_training") == fingerprint(train):
        kept |= {reporting.LADDER, reporting.LADDER_PROMPT}
    for path in output.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def names_of_labels(records: Sequence[Record], train: Path) -> list[str] | None:
    """The labels of test and train split: a few test records alone would not show that they are labels."""
    if label_names([*records, *islice(read_records(train), LABEL_RECORDS)]) is None:
        return None
    return label_names([*records, *read_records(train)])  # data are often sorted by label: all of them


def _unheard(held_out: dict[str, Any]) -> bool:
    """Was a judge or a model of embeddings to be asked, and could its server not be used?"""
    return any((held_out.get(server) or {}).get("unusable") for server in ("judge", "embedding"))


def measure(
    base: Path,
    tuned: Path,
    records: Sequence[Record],
    settings: EvaluateConfig,
    *,
    where: str = "test",
    block_tokens: int = WINDOW_TOKENS,
    from_nothing: bool = False,
    names: Sequence[str] | None = None,
) -> Result:
    """Load both models one after the other, score and let them answer; see :class:`Result`.

    ``block_tokens``: most tokens in one forward pass as far as training knows; less when memory runs out.
    ``from_nothing``: the base is the model before it was trained, which has nothing to answer. ``names``: of
    :func:`~ownchat.evaluate.labels.label_names`, where the replies are labels.
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
    of_base = _score(base, "scoring the base", [*prompts.values(), *more], min(block_tokens, WINDOW_TOKENS))
    of_tuned = _score(tuned, "scoring the tuned model", [documents, *more], of_base.block_tokens)
    preferences = compare_pairs(pairs, both, of_base.nll[-1], of_tuned.nll[-1], draws=settings.draws) if pairs else None
    tokens = np.array([sum(weights) for _, weights in documents], dtype=np.float64)
    losses = {name: float(nll.sum() / tokens.sum()) for name, nll in zip(prompts, of_base.nll, strict=False)}
    prompt = min(losses, key=lambda name: losses[name])  # chosen on the test split: favours the base, and is meant to
    chosen = list(prompts).index(prompt)
    base_nll, tuned_nll = of_base.nll[chosen], of_tuned.nll[0]
    if of_tuned.in_pieces:
        notes.append(
            f"{of_tuned.in_pieces:,} records are longer than {of_tuned.window:,} tokens: they are scored in pieces "
            "that overlap."
        )

    asked, too_long = fitting(
        questions(items), settings.answers, lambda item: prompts_of(tokenizer, item, prompt), context_tokens(tuned)
    )
    notes += [f"{too_long:,} questions were passed over: they are longer than the model's context."] if too_long else []
    answers: tuple[Answer, ...] = ()
    if asked:
        answers = answer(None if from_nothing else base, tuned, tokenizer, asked, prompt, settings.answer_tokens)
    else:
        notes.append(why_no_answers(items, settings.answers, too_long))
    references = [given.reference for given in answers]
    base_texts, tuned_texts = [given.base for given in answers], [given.tuned for given in answers]
    notes += about_answers(tuned_texts, [] if from_nothing else base_texts)
    groups, asked_groups = [item["group"] for item in items], [item["group"] for item in asked]
    num_bytes = np.array([reply_bytes(item) for item in items], dtype=np.float64)
    comparison = compare(
        Scored(
            base=Side(base_nll, of_base.hits[chosen], None if from_nothing else base_texts),
            tuned=Side(tuned_nll, of_tuned.hits[0], tuned_texts),
            tokens=tokens,
            num_bytes=num_bytes,
            groups=groups,
            references=references,
            answer_groups=asked_groups,
        ),
        draws=settings.draws,
    )
    judged, embedded = None, None
    if answers and not from_nothing:  # an untrained model has nothing to compare
        judged, embedded, said = ask_servers(settings, asked, answers)
        notes += said
    labels = None
    if names is not None:
        of_base_texts = None if from_nothing else base_texts
        labels = compare_labels(names, references, of_base_texts, tuned_texts, asked_groups, draws=settings.draws)
    per_token = {
        item["id"]: (float(before), float(after))
        for item, before, after in zip(items, base_nll / tokens, tuned_nll / tokens, strict=True)
    }
    return Result(
        comparison=comparison,
        base_prompt=prompt,
        base_prompt_losses=losses,
        records=len(items),
        tokens=int(tokens.sum()),
        groups=int(group_index(groups).max()) + 1,
        answer_groups=len(set(group_index(asked_groups).tolist())),
        answers=answers,
        notes=tuple(notes),
        scores=record_scores([item["id"] for item in items], groups, tokens, num_bytes, tuned_nll),
        slices=slices(items, base_nll, tuned_nll, tokens, groups, draws=settings.draws),
        extremes=extremes(answers, per_token, has_base=not from_nothing),
        preferences=preferences,
        labels=labels,
        judge=judged,
        embedding=embedded,
        from_nothing=from_nothing,
        preferences_only=all(item["kind"] == "preference" for item in records),
    )


def about_answers(tuned: Sequence[str], base: Sequence[str]) -> list[str]:
    """What to say of all answers of a report; ``base``: none where there is none to compare with."""
    return empty_answers(tuned, "tuned model") + empty_answers(base, "base") + circling_answers(tuned, base)


def empty_answers(texts: Sequence[str], whose: str) -> list[str]:
    """What to say of answers that are nothing, or nothing but white space."""
    empty = sum(not text.strip() for text in texts)
    return (
        [f"The {whose} gave no answer to {empty:,} of {len(texts):,} questions; no answer scores 0."] if empty else []
    )


def circling_answers(tuned: Sequence[str], base: Sequence[str]) -> list[str]:
    """What to say of answers that say the same words again and again, where the base's do so less."""
    count, before = (sum(map(goes_in_circles, texts)) for texts in (tuned, base))
    if count <= before or count < CIRCLING_SHARE * len(tuned):
        return []
    beside = f" (of the base: {before:,})" if base else ""
    return [
        f"{count:,} of {len(tuned):,} answers{beside} go in circles: they say the same words again and again. It is "
        "what too short a training leaves, or too little data. (Greedy answers: a temperature above 0 has fewer.)"
    ]


def ask_servers(
    settings: EvaluateConfig, asked: Sequence[Record], answers: Sequence[Answer]
) -> tuple[judge.Judged | None, embedding.Embedded | None, list[str]]:
    """The judge's and the embeddings' figures, where the settings name them, and what to say of failures."""
    base, tuned = [given.base for given in answers], [given.tuned for given in answers]
    judged, embedded, notes = None, None, []
    if settings.judge:
        with progress("asking the judge", 2 * len(asked), "verdicts") as advance:
            judged, error = judge.judge(settings.judge, asked, base, tuned, progress=advance)
        notes.append(judge.note(judged, error))
    if settings.embedding:
        references, groups = [given.reference for given in answers], [item["group"] for item in asked]
        with progress("embedding answers", len(asked), "questions") as advance:
            embedded, error = embedding.embedding(
                settings.embedding, references, base, tuned, groups, draws=settings.draws, progress=advance
            )
        notes.append(embedding.note(embedded, error, len(asked)))
    return judged, embedded, [note for note in notes if note is not None]


@dataclass(frozen=True)
class _Pass:
    """One model's scores of each version of the records, one entry a record."""

    nll: list[np.ndarray]  # nats, summed over the record's trained tokens
    hits: list[np.ndarray]  # how many of these tokens the model held for the likeliest
    block_tokens: int  # of a forward pass that memory was enough for
    window: int  # tokens of a piece at most
    in_pieces: int  # records of the first version that are longer


def _score(directory: Path, title: str, versions: Sequence[Sequence[Document]], block_tokens: int) -> _Pass:
    """Loads the model, scores, and lets it go: two models at a time would need twice the memory."""
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
    totals: list[np.ndarray] = []
    right: list[np.ndarray] = []
    with progress(title, sum(len(pieces) for documents in cut for pieces in documents), "pieces") as advance:
        for documents, records in zip(cut, versions, strict=True):
            likeliest: list[np.ndarray] = []
            scored = score_documents(
                model,
                [piece for pieces in documents for piece in pieces],
                block_tokens=block_tokens,
                progress=advance,
                on_halved=on_halved,
                likeliest=likeliest,
            )
            owner = np.repeat(np.arange(len(documents)), [len(pieces) for pieces in documents])
            counts = np.bincount(owner, [len(values) for values in scored], minlength=len(documents))
            assert counts.tolist() == [sum(weights) for _, weights in records], "a trained token was not scored"
            totals.append(-np.bincount(owner, [values.sum() for values in scored], minlength=len(documents)))
            right.append(np.bincount(owner, [hits.sum() for hits in likeliest], minlength=len(documents)))
    return _Pass(totals, right, block_tokens, limit, sum(len(pieces) > 1 for pieces in cut[0]))
