"""``ownchat train PATH --on URL#MODEL``: the same way, but a service trains: import and clean here, the job there.

Nothing is asked of the service before a person (or ``--yes``) has said that the files may leave; the test split is
never among them, its questions are sent when the result is scored.
"""

from __future__ import annotations

import glob
import re
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.artifacts import HOSTED, TRAIN, owner_only
from ownchat.clean.recipe import check_settings
from ownchat.config import Config, Origins, load_config, to_yaml, with_derived
from ownchat.data.remote import Source, existing
from ownchat.errors import ConfigError, Interrupted, RunError, printable
from ownchat.evaluate import gates, judge
from ownchat.evaluate.cost import metered
from ownchat.evaluate.recommendation import train_command
from ownchat.generate.policy import Policy
from ownchat.pipeline import hosted_plan, hosted_scores
from ownchat.pipeline.first_stages import Say, cleaned, imported
from ownchat.pipeline.hosted_data import Part, Prepared, prepare
from ownchat.pipeline.hosted_job import PARTS, PATIENCE_SECONDS, Job, facts
from ownchat.pipeline.hosted_service import OVER, Service, host_of, parse_service
from ownchat.pipeline.run import REQUEST, Outcome, refuse_other_request, run_for
from ownchat.pipeline.settings import keep_evaluation
from ownchat.pipeline.system_prompt import keep_prompt, with_prompt

SECTIONS = ("data", "clean", "train")
WITH_MARK = ".azure.com"  # hosts whose files begin with a byte order mark


@owner_only()
def train(
    source: Source | str,
    *,
    on: str,
    name: str | None = None,
    config: Config | None = None,
    origins: Origins | None = None,
    price: float | None = None,
    yes: bool = False,
    allow_http: bool = False,
    again: str | None = None,
    patience: float = PATIENCE_SECONDS,
    say: Say = print,
    ask: Callable[[], bool] | None = None,
) -> Outcome | None:
    """Import, clean, show what would leave, send it once that is agreed to, follow the job, score the result.

    ``on``: ``URL#MODEL``; the key is ``OPENAI_API_KEY`` of the environment. ``price``: of a million training tokens.
    ``yes``: nobody is asked. ``again``: the command that goes on, for messages. ``ask``: asks whether to send; none: in
    the terminal. None comes back where the answer is no. Called again with the same, it goes on where it was.

    Raises :class:`~ownchat.errors.UserError`; nothing was sent then, unless the message says so.
    """
    run, key, url, base, config, origins, source = _request(source, on, name, config, origins, allow_http)
    folder = run / TRAIN / HOSTED
    with artifacts.locked(run), metered(run):
        refuse_other_request(run, key, config, force=False)  # a training here that was interrupted
        artifacts.write_json(run / REQUEST, {"source": str(_place(source)), "key": key})
        if note := keep_prompt(config, run):
            say(f"           {note}")
        before = artifacts.completed(folder, key)
        state = artifacts.hosted_job(run)
        if before is None and (state is None or state["status"] in ("failed", "cancelled")):
            artifacts.write_atomic(run / "config.yaml", to_yaml(config, origins))
            cleaned(imported(source, run, config, say), run, config, say)
            prepared = prepare(run, bom=host_of(url).partition(":")[0].endswith(WITH_MARK))
            wanted = hosted_plan.request(url, base, run.name, prepared, config, origins)
            for line in hosted_plan.lines(run, wanted, prepared, config, price):
                say(line)
            if not (yes or (ask or _ask(prepared.training.path))()):
                say(f"nothing was sent; the files are in {folder}")
                return None
            _begin(Job(run, Service(url), say), wanted, prepared, say)
        if before is None:
            _work(run, key, config, again or train_command(run), patience, say)
        else:
            keep_evaluation(run, config, origins)
        told = _report_key(run)
        report = hosted_scores.evaluate(run, hosted_scores.job_of(run), config, say)
    return Outcome(run, report, worked=told != _report_key(run))


@owner_only()
def evaluate(
    run: Path, *, config: Config | None = None, origins: Origins | None = None, say: Say = print
) -> Outcome:  # fmt: skip
    """Score it again, with the evaluation settings given; the same questions of the same models are not asked again."""
    if config is None:
        config, origins = load_config(run / "config.yaml")
    gates.parse(config.evaluate.require)
    judge.check(config.evaluate)
    with artifacts.locked(run):
        keep_evaluation(run, config, origins or {})
        report = hosted_scores.evaluate(run, hosted_scores.job_of(run), config, say)
    return Outcome(run, report, worked=True)


@owner_only()
def cancel(
    source: Source | str, *, on: str, name: str | None = None, config: Config | None = None,
    origins: Origins | None = None, allow_http: bool = False, say: Say = print,
) -> None:  # fmt: skip
    """End the job of this source and these settings. Raises :class:`~ownchat.errors.UserError` where there is none."""
    run, _, url, base, _, _, _ = _request(source, on, name, config, origins, allow_http)
    run, state = _open_job(run, url, base)
    none = RunError(f"it has no job at {host_of(url)}", where=run.name, fix="ownchat runs shows what there is")
    if not _is_open(state):
        if "id" not in state:
            raise none
        raise RunError(f"the job {state['id']} is over: {state['status']}", where=run.name, fix="ownchat runs shows it")
    service = Service(url)
    try:
        if "id" not in state:  # asked for, and the answer was lost
            lost = Job(run, service, say).found()
            if lost is None:
                raise none
            state["id"] = lost.id
        found = service.cancel(state["id"])
    finally:
        service.close()
    if not artifacts.is_locked(run):  # else whoever follows it sees it
        with artifacts.locked(run):
            job = Job(run, service, say)
            job.keep(id=state["id"], **facts(found))
    say(f"the job {state['id']} at {service.host}: {found.status}; its files stay there until you delete them there")


# ------------------------------------------------------------------------------------------------------ inside


def _request(
    source: Source | str, on: str, name: str | None, config: Config | None, origins: Origins | None, allow_http: bool
) -> tuple[Path, str, str, str, Config, Origins, Source]:
    """Run, key of the request, URL, model, settings, source; what is wrong is told before any work."""
    if config is None:
        config, origins = load_config()
    given = str((origins or {}).get("model.base", "default")).startswith("given")
    url, base = parse_service(on, config.model.base if given else None, allow_http=allow_http)
    source = existing(source)
    check_settings(config)
    gates.parse(config.evaluate.require)
    Policy.of(config.generate.policy)
    judge.check(config.evaluate)
    config, origins = with_prompt(config, origins or {})
    config, origins = with_derived(config, origins, {"model.base": (base, "--on")})
    run, key = run_for(source, name, config, on=f" on {url}")
    return run, key, url, base, config, origins, source


def _open_job(run: Path, url: str, base: str) -> tuple[Path, dict[str, Any]]:
    """The run whose job is to end: this one, or, where the source has changed since, one of the same name with a job
    there that is not over."""
    state = artifacts.hosted_job(run) or {}
    if _is_open(state):
        return run, state
    first = re.sub(r"-\d+$", "", run.name)
    for other in sorted(run.parent.glob(f"{glob.escape(first)}*")):
        if re.fullmatch(re.escape(first) + r"(-\d+)?", other.name) and (found := artifacts.hosted_job(other)):
            same = found.get("url") == url and found.get("base") == base
            if same and _is_open(found):
                return other, found
    return run, state


def _is_open(state: dict[str, Any]) -> bool:
    """Was a job asked for that is not known to be over?"""
    return bool({"id", "asked"} & state.keys()) and state["status"] not in OVER


def _place(source: Source) -> Source:
    return source.resolve() if isinstance(source, Path) else source


def _ask(file: Path) -> Callable[[], bool]:
    """A question in the terminal; without one nothing leaves."""

    def ask() -> bool:
        if not sys.stdin.isatty():
            raise ConfigError(
                "nothing was sent: nobody is there to be asked", where="--on",
                fix=f"look at {file}, then run the same command with --yes",
            )  # fmt: skip
        return input("send it? [y/N] ").strip().lower() in ("y", "yes")

    return ask


def _begin(job: Job, wanted: hosted_plan.Request, prepared: Prepared, say: Say) -> None:
    """The first request to the service: does it know the model and the key?"""
    try:
        if (ends := job.service.ending(wanted.base)) is not None:
            ends = printable(ends)
            say(f"   hosted  {job.service.host} ends {wanted.base} on {ends}, and with it what is tuned from it")
        state: dict[str, Any] = {
            "url": wanted.url,
            "host": job.service.host,
            "base": wanted.base,
            "mark": f"ownchat-{secrets.token_hex(16)}",
            "created": time.time(),
            "method": prepared.method,
            "request": wanted.body,
        }
        for name, part in zip(PARTS, (prepared.training, prepared.validation), strict=True):
            if part is not None:
                state[name] = _as_json(part)
        job.begin(state)
    finally:
        job.service.close()


def _as_json(part: Part) -> dict[str, Any]:
    return {"file": part.path.name, "examples": part.examples, "bytes": part.num_bytes, "sha256": part.sha256}


def _work(run: Path, key: str, config: Config, again: str, patience: float, say: Say) -> None:
    """Send what is still to be sent, follow the job, keep its result."""
    state = artifacts.hosted_job(run) or {}
    service = Service(state["url"])
    job = Job(run, service, say, patience=patience)
    try:
        try:
            job.send()
        except (KeyboardInterrupt, Interrupted) as error:
            raise Interrupted(f"sending was stopped; to go on: {again}") from error
        job.follow(again)
        job.results()
    finally:
        service.close()
    report = hosted_scores.trained(run, job.state)
    artifacts.commit(key, config, SECTIONS, report)
    say(f"   hosted  {job.state['tuned']} is trained")


def _report_key(run: Path) -> str:
    path = run / artifacts.REPORT / artifacts.MANIFEST
    return str(artifacts.read_json(path)["key"]) if path.is_file() else ""
