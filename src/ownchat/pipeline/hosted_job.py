"""One job at a service, from the first byte sent to the name of the model; every step is kept before the next begins.

``5-train/hosted/job.json`` holds the ids, so that the same command goes on after a Ctrl-C, a kill or a lost network:
a file that arrived is not sent again, and a job that was made is found again.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ownchat import artifacts
from ownchat.artifacts import HOSTED, JOB, TRAIN, read_json, write_json
from ownchat.errors import Interrupted, RunError, UserError, printable
from ownchat.generate.openai import Busy, Failed, Unusable
from ownchat.monitor.events import JsonLines, read_lines
from ownchat.monitor.progress import progress
from ownchat.pipeline.first_stages import Say
from ownchat.pipeline.hosted_service import OVER, Keep, Service

PATIENCE_SECONDS = 600.0  # a service that does not answer for longer ends the command; the job goes on there
FIRST_LOOK, LONGEST_LOOK = 0.5, 10.0  # seconds between two looks at a job: more and more while nothing is new
MOST_WORDS = 300  # characters of an event on the screen
PARTS = ("training", "validation")


class Job:
    """The job of one run. ``state`` is what ``job.json`` holds."""

    def __init__(self, run: Path, service: Service, say: Say, *, patience: float = PATIENCE_SECONDS) -> None:
        self.folder, self.service, self.say, self.patience = run / TRAIN / HOSTED, service, say, patience
        path = self.folder / JOB
        self.state: dict[str, Any] = read_json(path) if path.is_file() else {}

    @property
    def begun(self) -> bool:
        """Was something sent, or about to be, that has not ended in vain?"""
        return bool(self.state) and self.state["status"] not in ("failed", "cancelled")

    def keep(self, **changes: Any) -> None:
        self.state |= changes
        write_json(self.folder / JOB, self.state)

    # ------------------------------------------------------------------------------------------------ sending

    def begin(self, state: dict[str, Any]) -> None:
        """A new request in the place of one that failed or was cancelled; files of the same content stay sent."""
        before = self.state.pop("before", [])
        if self.state:
            kept = ("id", "status", "error", "created")
            before.append({name: self.state[name] for name in kept if name in self.state})
            for part in PARTS:
                old, new = self.state.get(part), state.get(part)
                if old and new and old["sha256"] == new["sha256"] and "id" in old and self.service.has_file(old["id"]):
                    state[part] = new | {"id": old["id"]}
        for name in ("events.jsonl", "metrics.jsonl"):
            (self.folder / name).unlink(missing_ok=True)
        self.state = {"status": "sending"} | state | ({"before": before} if before else {})
        self.keep()

    def send(self) -> None:
        """What is still to be sent: files, then the job."""
        for part in PARTS:
            wanted = self.state.get(part)
            if wanted and "id" not in wanted and "id" not in self.state:
                file = self.folder / wanted["file"]
                if not file.is_file() or artifacts.fingerprint(file) != wanted["sha256"]:
                    raise RunError("it is not what you agreed to send", where=str(file),
                                   fix=f"remove {self.folder / JOB} and run the same command again")  # fmt: skip
                name = f"ownchat-{wanted['sha256'][:16]}-{wanted['file']}"
                id = self.service.upload(file, name, wanted, self._keep_part(part))
                self.keep(**{part: self.state[part] | {"id": id}})
                self.say(f"   hosted  {wanted['file']} sent ({id})")
        if "id" not in self.state:
            job = self._made()
            self.keep(id=job.id, **facts(job))  # one that is found again may be over
            self.say(f"   hosted  job {job.id} at {self.service.host}")

    def _keep_part(self, part: str) -> Keep:
        return lambda known: self.keep(**{part: known})

    def found(self) -> Any | None:
        """The job that was asked for, where the answer was lost."""
        return self.service.find_job(self._wanted(), self.state["mark"], self.state["asked"])

    def _wanted(self) -> dict[str, Any]:
        wanted: dict[str, Any] = self.state["request"] | {"training_file": self.state["training"]["id"]}
        if self.state.get("validation"):
            wanted["validation_file"] = self.state["validation"]["id"]
        return wanted

    def _made(self) -> Any:
        if "asked" in self.state and (found := self.found()) is not None:
            return found
        self.keep(asked=time.time())
        try:
            return self.service.create_job(self._wanted(), self.state["mark"], self.say)
        except (Failed, Busy):
            if (found := self.found()) is None:
                raise
            return found
        except Unusable:
            raise
        except UserError as error:  # refused for what it asks: the next one begins anew, with the files that are there
            self.keep(status="failed", error={"message": error.what})
            raise

    # ---------------------------------------------------------------------------------------------- following

    def follow(self, again: str) -> None:
        """Until the job is over. ``again``: the command that goes on. Raises
        :class:`~ownchat.errors.UserError` where it failed or was cancelled, and :class:`~ownchat.errors.Interrupted`
        when a person or a signal ends the looking; the job goes on then."""
        if self.state["status"] not in OVER:
            goes_on = f"the job {self.state['id']} goes on at {self.service.host}"
            try:
                self._look_until_over()
            except (KeyboardInterrupt, Interrupted) as error:
                raise Interrupted(f"{goes_on}\nTo follow it: {again}\nTo end it: {again} --cancel") from error
            except UserError as error:
                raise UserError(f"{error.what}; {goes_on}", where=error.where, fix=f"follow it: {again}") from error
        if self.state["status"] != "succeeded":
            raise self._ended_in_vain(again)
        if not self.state.get("tuned"):
            raise UserError("the job succeeded and names no model", where=self.service.host, fix="ask the service")

    def _look_until_over(self) -> None:
        seen = {row["id"] for row in read_lines(self.folder / "events.jsonl")}
        events, metrics = JsonLines(self.folder / "events.jsonl"), JsonLines(self.folder / "metrics.jsonl")
        wait, quiet_since = FIRST_LOOK, None
        with progress(f"training at {self.service.host}", None, "steps") as advance:
            at = 0
            while True:
                try:
                    job = self.service.job(self.state["id"])
                    new = self.service.events(self.state["id"], seen)
                    quiet_since = None
                except (Busy, Failed) as error:
                    if quiet_since is None:
                        quiet_since = time.monotonic()
                        self.say(f"   hosted  {error.what}; it is asked again for {self.patience / 60:.0f} minutes")
                    if time.monotonic() - quiet_since > self.patience:
                        raise
                    time.sleep(min(LONGEST_LOOK, self.patience / 10))
                    continue
                for event in new:
                    seen.add(event.id)
                    row = _event(event)
                    events.write(**row)
                    if (figures := _figures(row)) is not None:
                        metrics.write(**figures)
                        advance(max(0, figures["step"] - at), note=_loss(figures), of=row["data"].get("total_steps"))
                        at = max(at, figures["step"])
                    else:
                        advance(0)
                        self.say(f"   hosted  {printable(row['message'])[:MOST_WORDS]}")
                if job.status != self.state["status"]:
                    self.keep(**facts(job))
                if job.status in OVER:
                    return
                if job.status == "paused" and wait >= LONGEST_LOOK:
                    advance(0, note="paused")
                wait = FIRST_LOOK if new else min(LONGEST_LOOK, 1.3 * wait)
                time.sleep(wait)

    def _ended_in_vain(self, again: str) -> UserError:
        host, id = self.service.host, self.state["id"]
        if self.state["status"] == "cancelled":
            return UserError(f"the job {id} was cancelled", where=host, fix=f"begin a new one: {again}")
        error = self.state.get("error") or {}
        told = (
            ": ".join(printable(str(error[name])) for name in ("code", "message") if error.get(name))
            or "it gives no reason"
        )
        place = f" ({printable(str(error['param']))})" if error.get("param") else ""
        fix = f"mend what it says, and run the same command again; what was sent is in {self.folder}"
        return UserError(f"the job {id} failed: {told}{place}", where=host, fix=fix)

    # ------------------------------------------------------------------------------------------------ results

    def results(self) -> None:
        """Fetch the file of results, and make the figures of the steps anew from it."""
        for number, id in enumerate(self.state.get("result_files") or ()):
            try:
                content = plain_csv(self.service.content(id))
            except UserError as error:
                self.say(f"   hosted  the file of results is not to be had: {error.what}")
                continue
            artifacts.write_atomic(
                self.folder / ("results.csv" if not number else f"results-{number + 1}.csv"), content
            )
            if not number and (rows := figures_of(content)):
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                artifacts.write_atomic(self.folder / "metrics.jsonl", lines)


def plain_csv(content: bytes) -> bytes:
    """A file of results as text; OpenAI gives it in base64, others do not.

    >>> plain_csv(b"c3RlcCx0cmFpbl9sb3NzCjEsMi41Cg=="), plain_csv(b"step,train_loss\\n")
    (b'step,train_loss\\n1,2.5\\n', b'step,train_loss\\n')
    """
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"step"):
        return content
    try:
        return base64.b64decode(content, validate=False)
    except binascii.Error:
        return content


def figures_of(content: bytes) -> list[dict[str, Any]]:
    """The steps of a file of results, as ``metrics.jsonl`` has them.

    >>> figures_of(b"step,train_loss,valid_loss\\n1,2.5,\\n2,2.0,2.25\\n")
    [{'step': 1, 'loss': 2.5}, {'step': 2, 'loss': 2.0, 'validation_loss': 2.25}]
    """
    rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace")))
    found = []
    for row in rows:
        values = {name: value for name in (row or {}) if name and (value := _number(row[name])) is not None}
        if (figures := _figures({"data": values})) is not None:
            found.append(figures)
    return found


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _figures(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of a step in our words; None for what is no step."""
    data = row.get("data") or {}
    if not isinstance(data.get("step"), int | float):
        return None
    found: dict[str, Any] = {"step": int(data["step"])}
    validation = data.get("full_valid_loss") if data.get("full_valid_loss") is not None else data.get("valid_loss")
    for name, value in (("loss", data.get("train_loss")), ("validation_loss", validation)):
        if isinstance(value, int | float):
            found[name] = value
    return found if len(found) > 1 else None


def _loss(figures: Mapping[str, Any]) -> str:
    return f"loss {figures['loss']:.3f}" if "loss" in figures else ""


def _event(event: Any) -> dict[str, Any]:
    data = event.data if isinstance(getattr(event, "data", None), dict) else {}
    return {"time": event.created_at, "event": getattr(event, "type", None) or "message", "id": event.id,
            "level": event.level, "message": str(event.message), "data": data}  # fmt: skip


def facts(job: Any) -> dict[str, Any]:
    """What is kept of a job."""
    method = getattr(job, "method", None)
    of_method = getattr(method, getattr(method, "type", ""), None)
    chosen = getattr(of_method, "hyperparameters", None) or getattr(job, "hyperparameters", None)
    error = getattr(job, "error", None)
    return {
        "status": job.status,
        "tuned": job.fine_tuned_model,
        "trained_tokens": job.trained_tokens,
        "result_files": list(job.result_files or ()),
        "seed": job.seed,
        "job_seconds": (job.finished_at - job.created_at) if job.finished_at and job.created_at else None,
        "hyperparameters": {} if chosen is None else {k: v for k, v in chosen.to_dict().items() if v is not None},
        "error": None if error is None else {n: getattr(error, n, None) for n in ("code", "message", "param")},
    }
