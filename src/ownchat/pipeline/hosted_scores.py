"""The report of a model at a service: it and its base answer the held-out questions there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ownchat.artifacts import CLEAN, HOSTED, REPORT, TRAIN, Report, commit, completed, read_json, stage_key
from ownchat.config import Config
from ownchat.errors import UserError
from ownchat.generate.answering import Answered, AnswerFunction
from ownchat.pipeline.first_stages import Say, tell

SECTIONS = ("evaluate",)
UNUSUAL = "some services want a deployment first: give it the model's own name, and run the same command again"


def evaluate(run: Path, job: dict[str, Any], config: Config, say: Say) -> dict[str, Any]:
    """Stage ``6-report``; returns the contents of ``report.json``. Answers are kept as they come: nothing is asked, and
    paid, twice. Raises :class:`~ownchat.errors.UserError` where a model cannot be asked."""
    from ownchat.data.records import read_records
    from ownchat.evaluate import held_out
    from ownchat.evaluate import report as reporting
    from ownchat.evaluate.answered import measure_answers

    output, trained = run / REPORT, run / TRAIN / HOSTED
    key = stage_key(config, SECTIONS, {"test": run / CLEAN}) + job["tuned"]
    if completed(output, key) is not None and (output / reporting.JSON).is_file():
        return reporting.recheck(run, config)
    start = time.monotonic()
    records = list(read_records(run / CLEAN / "test"))
    base = _answers(run, job, job["base"], "the base", config)
    tuned = _answers(run, job, job["tuned"], "the tuned model", config)
    names = held_out.names_of_labels(records, run / CLEAN / "train")
    result = measure_answers(base, tuned, records, config.evaluate, names=names)
    held_out.empty_report(output, trained)
    sent = {"examples": job["training"]["examples"], "validation_examples": 0}
    if job.get("validation"):
        sent["validation_examples"] = job["validation"]["examples"]
    contents = reporting.build(result, train=trained, run=run) | {
        "model": f"{job['tuned']} at {job['host']}",
        "run": str(run.resolve()),
        "hosted": {name: job[name] for name in ("url", "host", "base", "tuned", "id")} | sent,
    }
    contents["ledger"][TRAIN], contents["ledger_rules"][TRAIN] = reporting.ledger_totals(trained)
    contents = reporting.write(contents, output, train=trained, config=config, seconds=time.monotonic() - start)
    counts = {"records": result.records, "tokens": 0, "answers": len(result.answers)}
    done = Report("evaluate", output, counts=counts, seconds=time.monotonic() - start)
    commit(key, config, SECTIONS, done)
    tell(say, done, f"{counts['answers']} held-out questions answered by both")
    return contents


def _answers(run: Path, job: dict[str, Any], model: str, title: str, config: Config) -> AnswerFunction:
    """What asks a model there; a model that answers nothing at all is an error, and no report."""
    from ownchat.evaluate.report import LADDER_ANSWERS
    from ownchat.generate.answering import Arrived, answer_all, remembered
    from ownchat.generate.openai import OpenAIEngine
    from ownchat.monitor.progress import progress

    most = config.evaluate.answer_tokens

    def ask(prompts: Sequence[Sequence[dict[str, Any]]], arrived: Arrived) -> list[Answered]:
        engine = OpenAIEngine(job["url"], model)
        try:
            with progress(f"answers of {title}", len(prompts), "answers") as advance:
                found = answer_all(engine, prompts, max_tokens=most, progress=advance, arrived=arrived)
        finally:
            engine.close()
        return found

    # As the ladder names them, so that it asks nothing again.
    asked = remembered(ask, run / REPORT / LADDER_ANSWERS, f"{job['url']}#{model} {most}")

    def answer(prompts: Sequence[Sequence[dict[str, Any]]]) -> list[Answered]:
        found = asked(prompts)
        if found and all(one.error is not None for one in found):
            what = f"{title} ({model}) does not answer: {found[0].error}"
            raise UserError(what, where=job["host"], fix=f"run the same command again; {UNUSUAL}")
        return found

    return answer


def trained(run: Path, job: dict[str, Any]) -> Report:
    """The figures of the training for the report; what the service does not tell is left out."""
    from ownchat.monitor.events import read_lines

    folder = run / TRAIN / HOSTED
    steps = [row["step"] for row in read_lines(folder / "metrics.jsonl")]
    epochs = (job.get("hyperparameters") or {}).get("n_epochs")
    details = {
        "method": f"at {job['host']}",
        "seconds": job.get("job_seconds"),
        "steps": max(steps, default=None),
        "epochs": float(epochs) if isinstance(epochs, int | float) else None,
        "trained_tokens": job.get("trained_tokens"),
        "base": job["base"],
        "tuned": job["tuned"],
        "phases": {},
    }
    details = {name: value for name, value in details.items() if value is not None}
    counts = {"examples": job["training"]["examples"], "tokens": job.get("trained_tokens") or 0}
    return Report("train", folder, counts=counts, details=details, seconds=job.get("job_seconds") or 0.0)


def job_of(run: Path) -> dict[str, Any]:
    """What the run knows of its finished job."""
    found: dict[str, Any] = read_json(run / TRAIN / HOSTED / "job.json")
    return found
