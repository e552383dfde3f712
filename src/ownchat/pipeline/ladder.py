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
from ownchat.errors import UserError
from ownchat.generate.openai import OpenAIEngine, parse_model
from ownchat.pipeline import cards
from ownchat.pipeline.hosted_data import is_sent
from ownchat.pipeline.ladder_prices import Prices
from ownchat.pipeline.ladder_rows import asked, label_tokens, replies_of, room_in, taken_here, taken_there
from ownchat.pipeline.ladder_runs import run_of, trained_rungs
from ownchat.pipeline.lines import counted
from ownchat.pipeline.run import Say, elapsed_text, evaluate

if TYPE_CHECKING:
    from ownchat.data.records import Record
    from ownchat.evaluate.answer_scores import Metric
    from ownchat.evaluate.ladder import Fits, Row, Rung
    from ownchat.generate.answering import Answered, AnswerFunction, Arrived
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
    budget: int | None = None,
    prices: Prices | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Score every rung on the same held-out questions; returns the contents of ``ladder.json``.

    ``name``: a run, or a folder, which is trained first, as is a run that is not finished. ``full``: train all weights
    as well, as NAME-full. ``models``: ``URL#MODEL``. ``rows``: questions; none: ``evaluate.answers``. ``budget``:
    answers for the search of a prompt; 0: no search; none: :data:`BUDGET`, and no search where the run was trained at a
    service, which is asked for everything then, and paid. Answers are kept beside the result: a rung more asks only
    what is new.

    Raises :class:`~ownchat.errors.UserError` for what cannot be compared. A server that fails is a rung that failed.
    """
    for model in models:
        parse_model(model)  # before any work
    prices = prices or Prices({}, {})
    there = artifacts.hosted_job(artifacts.run_directory(name)) or {}
    prices.check([*models, *(f"{there['url']}#{there[which]}" for which in ("base", "tuned") if which in there)])
    run = run_of(name, say)
    config, _ = load_config(run / "config.yaml")
    if config.model.base == FROM_NOTHING:
        raise UserError(
            "a model from nothing has no base that could be prompted", where=run.name,
            fix=f"its report compares it with the untrained model: ownchat evaluate {run.name}",
        )  # fmt: skip
    if not (run / REPORT / artifacts.MANIFEST).is_file():
        evaluate(str(run), config=config, say=say)  # begins the report anew, so it comes first
    job = artifacts.hosted_job(run) if artifacts.is_hosted(run) else None
    if job is not None and full:
        raise UserError(
            f"it was trained at {job['host']}: all weights are trained on this machine only", where="--full",
            fix=f"ownchat ladder {run.name}",
        )  # fmt: skip
    trained = [] if job is not None else trained_rungs(run, config, full, say)
    if budget is None:
        budget = BUDGET if job is None else 0
    with artifacts.locked(run):
        return _Climb(run, config, rows, budget, prices, say, job).all(trained, models)


class _Climb:
    """One ladder: the questions, and rungs as they are done."""

    def __init__(
        self, run: Path, config: Config, rows: int | None, budget: int, prices: Prices, say: Say,
        job: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        from ownchat.data.records import read_records
        from ownchat.evaluate.ladder import metric_of, rows_of

        self.run, self.config, self.prices, self.budget, self.say = run, config, prices, budget, say
        self.job = job  # of a run that was trained at a service: base and tuned are there
        self.model = run / TRAIN / "model"
        self.base = f"{job['url']}#{job['base']}" if job else str(read_json(self.model / "ownchat.json")["base"])
        train = read_records(run / CLEAN / "train")
        if job:  # nothing that was not sent there before
            train = (row for row in train if is_sent(row, job["method"]))
        self.train: list[Record] = list(islice(train, MOST_TRAIN))
        chosen, self.notes = asked(
            list(read_records(run / CLEAN / "test")), rows or config.evaluate.answers or 32,
            taken_there if job else taken_here(self.model), str(run / CLEAN / "test"),
        )  # fmt: skip
        self.rows: list[Row] = rows_of(chosen)
        self.metric: Metric = metric_of(self.train)
        self.rungs: list[Rung] = []
        self.max_tokens = config.evaluate.answer_tokens
        if self.metric == "accuracy" and job is None:  # what the report asked a service for is not asked again
            labels = {row.reference for row in self.rows} | replies_of(self.train)
            self.max_tokens = min(self.max_tokens, label_tokens(self.model, labels))
        self.behind: dict[str, str] = {}  # rungs of servers, and how a command names their models

    def all(self, trained: Sequence[tuple[str, Path | None, str]], models: Sequence[str]) -> dict[str, Any]:
        """Every rung, then the file."""
        many = counted(len(self.rows), "question")
        self.say(f"{many} of the test split of {self.run.name}; every model answers the same ones")
        if self.job is not None:
            self.say(f"prompts are tried at {self.job['host']}, on texts that were sent there to train on: its answers "
                     "may cost")  # fmt: skip
            if not self.budget:
                self.notes.append(f"No prompt was searched at {self.job['host']}: --budget {BUDGET} asks it for "
                                  f"{BUDGET} answers more.")  # fmt: skip
        with self._local(Path(self.base), "base") if self.job is None else self._there("base") as (answer, fits):
            system = self._prompts(answer, fits)
        if self.job is not None:
            self._tuned_there(self.job)
        for name, directory, why in trained:
            self._trained_rung(name, directory, why)
        for model in models:
            self._server(model, system)
        return self._written()

    # ------------------------------------------------------------------------------------------------- rungs

    def _prompts(self, answer: AnswerFunction, fits: Fits | None) -> Prompt:
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

    def _tuned_there(self, job: dict[str, Any]) -> None:
        """What the service made, as the report asked it: those answers are not asked again."""
        from ownchat.evaluate.ladder import AS_IS
        from ownchat.generate.prompts import apply

        seconds = job.get("job_seconds")
        note = "" if seconds is None else f"trained in {elapsed_text(seconds)}"
        with self._there("tuned") as (answer, _):
            answers = answer([apply(AS_IS, row.messages) for row in self.rows])
        self._add(f"tuned at {job['host']}", "trained", answers, note=note, run=self.run.name, training_seconds=seconds)

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
                cost = self.prices.of_server(answers, model)
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
            more["cost"] = self._cost(answers, tuned=kind == "trained")
        rung = Rung(name, kind, None if answers is None else tuple(answers), **more)
        errors = [one.error for one in answers or () if one.error is not None]
        if errors:
            share = "" if len(errors) == len(answers or ()) else f"{len(errors)} of {len(answers or ())}: "
            rung = replace(rung, note="; ".join(part for part in (rung.note, f"{share}{errors[0]}") if part))
        self.rungs.append(rung)
        self.say(f"  {name}: {_short(rung, self.rows, self.metric)}")

    def _cost(self, answers: Sequence[Answered], tuned: bool) -> float | None:
        if self.job is None:
            return self.prices.of_machine(answers)
        return self.prices.of_server(answers, f"{self.job['url']}#{self.job['tuned' if tuned else 'base']}")

    # ------------------------------------------------------------------------------------------------ models

    @contextmanager
    def _local(self, directory: Path, title: str) -> Iterator[tuple[AnswerFunction, Fits]]:
        from ownchat.generate.hf import chat_engine

        # The tuned model's tokenizer for both, as in the report.
        engine = chat_engine(directory, tokenizer=self.model, threads=self.config.train.threads)
        whose = directory.parent if directory.parent.name == TRAIN else directory  # a stage knows its key
        try:
            yield self._answer(engine, title, artifacts.fingerprint(whose)), room_in(engine, self.max_tokens)
        finally:
            engine.close()

    @contextmanager
    def _there(self, which: str) -> Iterator[tuple[AnswerFunction, None]]:
        """``base`` or ``tuned`` of the service; how much it reads nobody tells."""
        assert self.job is not None
        engine = OpenAIEngine(self.job["url"], self.job[which])
        try:
            yield self._answer(engine, f"{which} at {self.job['host']}", f"{self.job['url']}#{self.job[which]}"), None
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
            found["command"] = f"ownchat chat {'--model ' if self.job else ''}{quote(self.base)}"
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
        if (self.run / REPORT / cards.MODEL_CARD).is_file():  # none of a model that a service keeps
            cards.write(self.run)
        return found


# -------------------------------------------------------------------------------------------------- small things


def _short(rung: Rung, rows: Sequence[Row], metric: Metric) -> str:
    """The rung in a line."""
    from ownchat.evaluate.ladder import measured

    (figures,) = measured([rung], rows, metric, draws=200)
    if figures["score"] is None:
        return rung.note
    return f"{figures['score']:.1f}" + (f" ({rung.note})" if rung.note else "")
