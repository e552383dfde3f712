"""``ownchat ladder``: opens the models, trains the run that is missing, and writes ``6-report/ladder.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ownchat import artifacts
from ownchat.artifacts import CLEAN, REPORT, TRAIN, read_json
from ownchat.config import FROM_NOTHING, Config, load_config
from ownchat.errors import DataError, UserError
from ownchat.generate.openai import OpenAIEngine, parse_model
from ownchat.pipeline.ladder_prices import Prices
from ownchat.pipeline.ladder_runs import run_of, trained_rungs
from ownchat.pipeline.lines import counted
from ownchat.pipeline.run import Say, elapsed_text, evaluate

if TYPE_CHECKING:
    from ownchat.data.records import Record
    from ownchat.evaluate.answer_scores import Metric
    from ownchat.evaluate.ladder import Fits, Row, Rung
    from ownchat.generate.answering import Answered, AnswerFunction, Arrived
    from ownchat.generate.hf import HfEngine
    from ownchat.generate.prompts import Prompt

NAME, ANSWERS, PROMPT = "ladder.json", "ladder-answers.jsonl", "ladder-prompt.yaml"
BUDGET = 96  # answers for the optimised prompt
FOR_SERVERS = 4  # examples that a model behind a URL gets: choosing would cost money
MOST_TRAIN = 100_000  # records that examples are looked up in


@artifacts.owner_only()
def ladder(
    name: str,
    *,
    rows: int | None = None,
    models: Sequence[str] = (),
    full: bool = False,
    budget: int = BUDGET,
    prices: Prices | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Score every rung on the same held-out questions; returns the contents of ``ladder.json``.

    ``name``: a run, or a folder, which is trained first, as is a run that is not finished. ``full``: train all weights
    as well, as NAME-full. ``models``: ``URL#MODEL``. ``rows``: questions; none: ``evaluate.answers``. ``budget``:
    answers for the search of a prompt; 0: none. Answers are kept beside the result: a rung more asks only what is new.

    Raises :class:`~ownchat.errors.UserError` for what cannot be compared. A server that fails is a rung that failed.
    """
    for model in models:
        parse_model(model)  # before any work
    prices = prices or Prices({}, {})
    prices.check(models)
    run = run_of(name, say)
    config, _ = load_config(run / "config.yaml")
    if config.model.base == FROM_NOTHING:
        raise UserError(
            "a model from nothing has no base that could be prompted", where=run.name,
            fix=f"its report compares it with the untrained model: ownchat evaluate {run.name}",
        )  # fmt: skip
    if not (run / REPORT / artifacts.MANIFEST).is_file():
        evaluate(str(run), config=config, say=say)  # begins the report anew, so it comes first
    trained = trained_rungs(run, config, full, say)
    with artifacts.locked(run):
        return _Climb(run, config, rows, budget, prices, say).all(trained, models)


class _Climb:
    """One ladder: the questions, and rungs as they are done."""

    def __init__(
        self, run: Path, config: Config, rows: int | None, budget: int, prices: Prices, say: Say
    ) -> None:  # fmt: skip
        from ownchat.data.records import read_records
        from ownchat.evaluate.ladder import metric_of, rows_of
        from ownchat.tokenizer.stage import load_tokenizer

        self.run, self.config, self.prices, self.budget, self.say = run, config, prices, budget, say
        self.model = run / TRAIN / "model"
        self.tokenizer = load_tokenizer(self.model)  # of the tuned model for both, as in the report
        self.train: list[Record] = list(islice(read_records(run / CLEAN / "train"), MOST_TRAIN))
        asked, self.notes = _asked(
            list(read_records(run / CLEAN / "test")), rows or config.evaluate.answers or 32, self.tokenizer, self.model,
            str(run / CLEAN / "test"),
        )  # fmt: skip
        self.rows: list[Row] = rows_of(asked)
        self.metric: Metric = metric_of(self.train)
        self.rungs: list[Rung] = []
        self.max_tokens = config.evaluate.answer_tokens
        self.behind: dict[str, str] = {}  # rungs of servers, and how a command names their models

    def all(self, trained: Sequence[tuple[str, Path | None, str]], models: Sequence[str]) -> dict[str, Any]:
        """Every rung, then the file."""
        base = Path(read_json(self.model / "ownchat.json")["base"])
        many = counted(len(self.rows), "question")
        self.say(f"{many} of the test split of {self.run.name}; every model answers the same ones")
        with self._local(base, "base") as (answer, fits):
            system = self._prompts(answer, fits)
        for name, directory, why in trained:
            self._trained_rung(name, directory, why)
        for model in models:
            self._server(model, system)
        return self._written()

    # ------------------------------------------------------------------------------------------------- rungs

    def _prompts(self, answer: AnswerFunction, fits: Fits) -> Prompt:
        """The rungs of prompts; returns the system prompt that was chosen."""
        from ownchat.evaluate.ladder import AS_IS, PromptSearch, best_prompt
        from ownchat.evaluate.ladder import counted as of_examples

        search = PromptSearch(answer, self.train, self.metric, fits=fits)

        def add(name: str, prompt: Prompt, chosen: float | None, note: str) -> None:
            answers = search.held_out(prompt, self.rows)
            if search.fewer:
                fewer = f"fewer examples in {counted(search.fewer, 'question')}: the context is full"
                note = f"{note}; {fewer}" if note else fewer
            self._add(name, "prompt", answers, note=note, prompt=prompt, chosen=chosen)

        if not search.can_choose:
            add("plain prompt", search.plain()[0], None, "")
            self.notes.append("The train split is too small to choose prompts on: only the plain one was asked.")
            return AS_IS
        plain = search.plain()
        add("plain prompt", *plain, "no system text, no examples")
        system, value, what = search.system()
        if value is None:
            self._add("system prompt", "prompt", None, note=f"could not be asked: {what}")
        else:
            add("system prompt", system, value, what)
        before = system if (value or 0.0) > (plain[1] or 0.0) else plain[0]
        few, shown, what = search.examples(before)
        if few.retrieve:
            under = "the system prompt" if before is system and system.system != "" else "no system text"
            add(of_examples(few.retrieve), few, shown, f"looked up by BM25, under {under}")
        if self.budget:
            start = best_prompt(self.rungs)
            self._optimised(search, start.prompt if start is not None and start.prompt is not None else before, add)
        return system

    def _optimised(self, search: Any, start: Prompt, add: Callable[..., None]) -> None:
        from ownchat.evaluate.optimise import optimise

        try:
            found = optimise(search.answer, search.others, metric=self.metric, budget=self.budget, start=start)
        except UserError as error:  # too few rows
            self._add("optimised prompt", "prompt", None, note=f"not searched: {error.what}")
            return
        if found.prompt == start:
            note = f"{found.asked} answers, nothing better found"
        else:
            note = f"{found.asked} answers, {len(found.tried)} prompts tried"
        add("optimised prompt", found.prompt, search.on_train(found.prompt), note)

    def _trained_rung(self, name: str, run: Path | None, why: str) -> None:
        if run is None:
            self._add(name, "trained", None, note=why)
            return
        from ownchat.evaluate.ladder import AS_IS
        from ownchat.evaluate.report import training
        from ownchat.generate.prompts import apply

        seconds = training(run / TRAIN).get("seconds")
        note = "" if seconds is None else f"trained in {elapsed_text(seconds)}"
        with self._local(run / TRAIN / "model", name) as (answer, _):
            answers = answer([apply(AS_IS, row.messages) for row in self.rows])
        self._add(name, "trained", answers, note=note, run=run.name, training_seconds=seconds)

    def _server(self, model: str, system: Prompt) -> None:
        """A model behind a URL: plain, and with the system prompt and examples."""
        from ownchat.evaluate.ladder import PLAIN, PromptSearch

        engine = OpenAIEngine(*parse_model(model))
        try:
            label = engine.model
        except UserError:
            label = model  # its name is not known
        taken = {rung.name for rung in self.rungs}
        label = label if label not in taken else model
        try:
            answer = self._answer(engine, label, f"{engine.url}#{label}")
            search = PromptSearch(answer, self.train, self.metric)
            few = replace(system, retrieve=min(FOR_SERVERS, len(self.train)))
            for name, prompt in ((label, PLAIN), (f"{label}, {few.retrieve} examples", few)):
                answers = search.held_out(prompt, self.rows)
                cost = self._money(answers, model)
                self._add(name, "server", answers, prompt=prompt, cost=cost)
                self.behind[name] = model
                if all(one.error is not None for one in answers):
                    break  # the next one would fail as well
        finally:
            engine.close()

    def _add(self, name: str, kind: Any, answers: Sequence[Answered] | None, **more: Any) -> None:
        """A rung that is done; when nothing was answered, its note says why."""
        from ownchat.evaluate.ladder import Rung

        if answers is not None and kind != "server":
            more["cost"] = self._local_money(answers)
        rung = Rung(name, kind, None if answers is None else tuple(answers), **more)
        errors = [one.error for one in answers or () if one.error is not None]
        if errors:
            share = "" if len(errors) == len(answers or ()) else f"{len(errors)} of {len(answers or ())}: "
            rung = replace(rung, note="; ".join(part for part in (rung.note, f"{share}{errors[0]}") if part))
        self.rungs.append(rung)
        self.say(f"  {name}: {_short(rung, self.rows, self.metric)}")

    # ------------------------------------------------------------------------------------------------ models

    @contextmanager
    def _local(self, directory: Path, title: str) -> Iterator[tuple[AnswerFunction, Fits]]:
        from ownchat.generate.hf import chat_engine

        engine = chat_engine(directory, tokenizer=self.model, threads=self.config.train.threads)
        whose = directory.parent if directory.parent.name == TRAIN else directory  # a stage knows its key
        try:
            yield self._answer(engine, title, artifacts.fingerprint(whose)), _fits(engine, self.max_tokens)
        finally:
            engine.close()

    def _answer(self, engine: Any, title: str, whose: str) -> AnswerFunction:
        """What asks a model: with progress, and nothing twice."""
        from ownchat.generate.answering import answer_all, remembered
        from ownchat.monitor.progress import progress

        def answer(prompts: Sequence[Sequence[dict[str, Any]]], arrived: Arrived) -> list[Answered]:
            with progress(f"answers of {title}", len(prompts), "answers") as advance:
                return answer_all(engine, prompts, max_tokens=self.max_tokens, progress=advance, arrived=arrived)

        return remembered(answer, self.run / REPORT / ANSWERS, f"{whose} {self.max_tokens}")

    # ------------------------------------------------------------------------------------------------- money

    def _local_money(self, answers: Sequence[Answered]) -> float | None:
        """For 1,000 answers of this machine, from its price for an hour."""
        seconds = [one.seconds for one in answers if one.error is None]
        if self.prices.hour is None or not seconds:
            return None
        return 1000 * sum(seconds) / len(seconds) / 3600 * self.prices.hour

    def _money(self, answers: Sequence[Answered], model: str) -> float | None:
        """For 1,000 answers, from a server's prices; None where they are not given or it counts no tokens."""
        prices = [table.get(model, table.get(None)) for table in (self.prices.prompt, self.prices.completion)]
        done = [one for one in answers if one.error is None]
        if prices[0] is None or prices[1] is None or not any(one.completion_tokens for one in done):
            return None
        read, written = sum(one.prompt_tokens for one in done), sum(one.completion_tokens for one in done)
        return 1000 * (read * prices[0] + written * prices[1]) / 1e6 / len(done)

    # ------------------------------------------------------------------------------------------------ result

    def _written(self) -> dict[str, Any]:
        from ownchat.evaluate import report
        from ownchat.evaluate.ladder import measured
        from ownchat.evaluate.ladder_advice import advise
        from ownchat.generate.prompts import name_from, to_yaml

        draws = self.config.evaluate.draws
        rungs = measured(self.rungs, self.rows, self.metric, draws=draws)
        advice = advise(self.rungs, self.rows, self.metric, draws=draws)
        found = {
            "name": self.run.name,
            "of_training": artifacts.fingerprint(self.run / TRAIN),
            "metric": self.metric,
            "rows": len(self.rows),
            "rungs": rungs,
            "advice": advice.text,
            "train": advice.train,
            "use": advice.rung,
            "command": None,
            "notes": self.notes,
            "conditions": report.conditions(),
        }
        used = next((rung for rung in self.rungs if rung.name == advice.rung), None)
        if used is not None and used.kind == "prompt" and used.prompt is not None:
            base = read_json(self.model / "ownchat.json")["base"]
            found["command"] = f"ownchat chat {quote(base)}"
            if used.prompt.system or used.prompt.retrieve or used.prompt.examples:
                file = self.run / REPORT / PROMPT
                artifacts.write_atomic(file, to_yaml(replace(used.prompt, note=f"ownchat ladder {self.run.name}")))
                found["command"] = f"ownchat prompt new {name_from(self.run.name)} --file {quote(str(file))}"
        elif used is not None and used.run is not None:
            found["command"] = f"ownchat chat {quote(used.run)}"
        elif used is not None:
            found["command"] = f"ownchat chat --model {quote(self.behind[used.name])}"
        artifacts.write_json(self.run / REPORT / NAME, found)
        if (self.run / REPORT / artifacts.MANIFEST).is_file():
            report.rewrite(self.run)
        return found


# -------------------------------------------------------------------------------------------------- small things


def _asked(
    test: Sequence[Record], most: int, tokenizer: Any, model: Path, where: str
) -> tuple[list[Record], list[str]]:  # fmt: skip
    """The first ``most`` questions of the test split, those of the report, and what was passed over on the way."""
    from ownchat.evaluate.answers import questions
    from ownchat.tokenizer.render import prompt_ids
    from ownchat.tokenizer.stage import context_tokens

    context = context_tokens(model)
    chosen: list[Record] = []
    passed = dict.fromkeys(("they come with tools", "the chat template refuses them", "they are longer than the "
                            "model's context"), 0)  # fmt: skip
    tools, refused, long = passed
    for item in questions(test):
        if len(chosen) == most:
            break
        if item["tools"]:
            passed[tools] += 1
            continue
        try:
            ids = prompt_ids(tokenizer, item["messages"][:-1])
        except UserError:
            passed[refused] += 1
            continue
        if context is not None and len(ids) >= context:
            passed[long] += 1
        else:
            chosen.append(item)
    notes = [f"{count:,} questions were passed over: {why}." for why, count in passed.items() if count]
    if not chosen:
        raise DataError(
            "no question to ask" + (f" ({notes[0]})" if notes else ""), where=where,
            fix="the ladder needs conversations that end in a reply; of documents the report compares losses",
        )  # fmt: skip
    if len(chosen) < most:
        notes.append(f"The test split has {len(chosen):,} questions, {most:,} were asked for.")
    return chosen, notes


def _fits(engine: HfEngine, max_tokens: int) -> Fits:
    from ownchat.tokenizer.render import prompt_ids

    def fits(messages: Sequence[dict[str, Any]]) -> bool:
        return engine.context is None or len(prompt_ids(engine.tokenizer, messages)) + max_tokens <= engine.context

    return fits


def _short(rung: Rung, rows: Sequence[Row], metric: Metric) -> str:
    """The rung in a line."""
    from ownchat.evaluate.ladder import measured

    (figures,) = measured([rung], rows, metric, draws=200)
    if figures["score"] is None:
        return rung.note
    return f"{figures['score']:.1f}" + (f" ({rung.note})" if rung.note else "")
