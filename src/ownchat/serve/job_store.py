"""Fine-tuning jobs, their events, and the models they made, as the database has them.

A job's ``status`` is what it is to be: whoever asks changes it here, by a comparison with what it was, and the runner
(:mod:`ownchat.serve.runner`) brings the processes in line. So nothing is lost when either of the two is killed.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    and_,
    func,
    insert,
    select,
    update,
)

from ownchat.serve import webhooks
from ownchat.serve.database import Database, metadata
from ownchat.serve.errors import ApiError

VALIDATING, QUEUED, RUNNING, PAUSED = "validating_files", "queued", "running", "paused"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
OVER = (SUCCEEDED, FAILED, CANCELLED)
STOPPED = (PAUSED, FAILED, CANCELLED)
AGAIN_SECONDS = 600  # so long a request that is sent again finds the job that the first one made
MOST_OPEN = 100  # jobs of an owner that are not over

Level = Literal["info", "warn", "error"]
_Number = BigInteger().with_variant(Integer, "sqlite")

_jobs = Table(
    "ownchat_jobs",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("model", String(256), nullable=False),  # as the client named it
    Column("training_file", String(128), nullable=False),
    Column("validation_file", String(128)),
    Column("method", String(16), nullable=False),
    Column("hyperparameters", JSON, nullable=False),  # "auto" until it runs, then what was taken
    Column("train", JSON, nullable=False),  # x_train
    Column("suffix", String(64)),
    Column("seed", BigInteger, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("body_hash", String(64), nullable=False),
    Column("again", String(64)),  # hash of an Idempotency-Key
    Column("validated", Boolean, nullable=False),
    Column("started", BigInteger),
    Column("finished", BigInteger),
    Column("estimated", BigInteger),
    Column("error", JSON),
    Column("trained_tokens", BigInteger),
    Column("fine_tuned_model", String(256)),
    Column("result_files", JSON, nullable=False),
    Column("run", String(128), nullable=False, unique=True),  # directory under runs/
    Column("command", JSON),  # arguments of ownchat train: the same ones go on
    Column("pid", BigInteger),
    Column("pid_started", String(64)),
    Column("stopping", Float),  # when the process was asked to end
    Column("attempts", Integer, nullable=False),
    Index("ownchat_jobs_of_owner", "owner", "seq"),
    Index("ownchat_jobs_by_status", "status"),
)
_events = Table(
    "ownchat_job_events",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("job", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("type", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Index("ownchat_job_events_of", "job", "seq"),
)


@dataclass(frozen=True)
class Event:
    """One event. ``key``: what it is about; the same one told again, after a crash, is there once."""

    key: str
    message: str
    level: Level = "info"
    created: float = field(default_factory=time.time)
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """``metrics`` where it has figures of a step."""
        return "metrics" if "step" in self.data else "message"


class JobStore:
    """The jobs of a server. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # ------------------------------------------------------------------------------------------- of an owner

    def create(
        self, owner: str, values: Mapping[str, Any], *, body_hash: str, again: str | None, is_retry: bool
    ) -> tuple[Row[Any], bool]:
        """A new job and True, or the one that the same request made already, and False.

        ``again``: what the client calls this request (``Idempotency-Key``); ``is_retry``: it says that it sent it
        before. Raises 400 for such a name with another request, and 429 for too many jobs.
        """
        mark = None if again is None else hashlib.sha256(f"{owner}\0{again}".encode()).hexdigest()
        now = int(time.time())
        with self.database.locked() as connection:
            mine = _jobs.c.owner == owner
            if mark is not None and (row := connection.execute(select(_jobs).where(_jobs.c.again == mark)).first()):
                if row.body_hash != body_hash:
                    raise ApiError(400, "this Idempotency-Key was sent with another request", code="idempotency_error")
                return row, False
            if is_retry:
                same = and_(mine, _jobs.c.body_hash == body_hash, _jobs.c.created >= now - AGAIN_SECONDS)
                if row := connection.execute(select(_jobs).where(same).order_by(_jobs.c.seq.desc())).first():
                    return row, False
            is_open = select(func.count()).select_from(_jobs).where(mine, _jobs.c.status.notin_(OVER))
            if connection.execute(is_open).scalar_one() >= MOST_OPEN:
                raise ApiError(
                    429, f"{MOST_OPEN} of your jobs are not over yet", code="rate_limit_exceeded",
                    headers={"x-should-retry": "false"},
                )  # fmt: skip
            id = f"ftjob-{secrets.token_hex(12)}"
            fixed = {
                "id": id, "owner": owner, "created": now, "status": VALIDATING, "validated": False, "attempts": 0,
                "result_files": [], "body_hash": body_hash, "again": mark, "run": run_name(id, values["suffix"]),
            }  # fmt: skip
            connection.execute(insert(_jobs).values(**values, **fixed))
            self.tell_in(connection, id, [Event("created", f"Created fine-tuning job: {id}")])
            return _one(connection, id), True

    def get(self, owner: str, id: str) -> Row[Any]:
        """That job; raises 404 where there is none, also where it is somebody else's."""
        with self.database.read() as connection:
            row = connection.execute(
                select(_jobs).where(_jobs.c.owner == owner, _jobs.c.id == id.replace("\x00", ""))
            ).first()
        if row is None:
            raise ApiError(
                404, f"Could not find fine tune: {id[:64]}", param="fine_tuning_job_id", code="fine_tune_not_found"
            )
        return row

    def list(
        self, owner: str, *, after: str | None, limit: int, labels: Mapping[str, str] | None, bare: bool
    ) -> tuple[Sequence[Row[Any]], bool]:
        """A page, newest first, and whether more follow. ``labels``: metadata to have; ``bare``: those without any."""
        before = None if after is None else self._seq(owner, after)
        found: list[Row[Any]] = []
        while len(found) <= limit:  # databases search their JSON in different words: a few hundred rows at a time
            wanted = _jobs.c.owner == owner
            if before is not None:
                wanted = and_(wanted, _jobs.c.seq < before)
            with self.database.read() as connection:
                rows = connection.execute(select(_jobs).where(wanted).order_by(_jobs.c.seq.desc()).limit(200)).all()
            if not rows:
                break
            before = rows[-1].seq
            found += [row for row in rows if _has(row.metadata, labels, bare)]
        return found[:limit], len(found) > limit

    def events(self, job: str, *, after: str | None, limit: int) -> tuple[Sequence[Row[Any]], bool]:
        """A page of events, newest first, and whether more follow."""
        wanted = _events.c.job == job
        with self.database.read() as connection:
            if after is not None:
                mine = and_(_events.c.job == job, _events.c.id == after.replace("\x00", ""))
                start = connection.execute(select(_events.c.seq).where(mine)).scalar()
                if start is None:
                    raise ApiError(400, "'after' is not an id of this list", param="after", code="invalid_value")
                wanted = and_(wanted, _events.c.seq < start)
            rows = connection.execute(
                select(_events).where(wanted).order_by(_events.c.seq.desc()).limit(limit + 1)
            ).all()
        return rows[:limit], len(rows) > limit

    def change(self, owner: str, id: str, to: str, *, of: Sequence[str], message: str) -> Row[Any]:
        """Give a job another status, from one of ``of``; raises 400 where it has another one by now.

        A 409 would be asked again by the SDK.
        """
        row = self.get(owner, id)
        values: dict[str, Any] = {"status": to}
        if to == CANCELLED:
            values["finished"] = int(time.time())
        with self.database.begin() as connection:
            mine = and_(_jobs.c.id == row.id, _jobs.c.status.in_(of))
            changed = connection.execute(update(_jobs).where(mine).values(**values)).rowcount
            if changed:
                self.tell_in(connection, row.id, [Event(secrets.token_hex(8), message)])
                if to in OVER:
                    webhooks.record_in(connection, row.id, to)
        if not changed:
            row = self.get(owner, id)
            raise ApiError(
                400, f"a job that is {row.status} cannot become {to}", param="fine_tuning_job_id", code="invalid_value"
            )
        return self.get(owner, id)

    # --------------------------------------------------------------------------------------- of the runner

    def active(self) -> Sequence[Row[Any]]:
        """Jobs that are to be worked on, and those that a process still works on; oldest first."""
        busy = _jobs.c.status.in_((VALIDATING, QUEUED, RUNNING)) | _jobs.c.pid.is_not(None)
        with self.database.read() as connection:
            return connection.execute(select(_jobs).where(busy).order_by(_jobs.c.seq)).all()

    def set(
        self, id: str, *, only: Sequence[str] | None = None, tell: Sequence[Event] = (), **values: Any
    ) -> Row[Any] | None:
        """Change columns, and tell events in the same transaction; None where its status is not of ``only``."""
        mine = _jobs.c.id == id if only is None else and_(_jobs.c.id == id, _jobs.c.status.in_(only))
        with self.database.begin() as connection:
            if not connection.execute(update(_jobs).where(mine).values(**values)).rowcount:
                return None
            self.tell_in(connection, id, tell)
            if values.get("status") in OVER:
                webhooks.record_in(connection, id, values["status"])
            return _one(connection, id)

    def finish_in(self, connection: Connection, id: str, *, tell: Sequence[Event], **values: Any) -> bool:
        """The end of a job that is running, as a part of a transaction; false where it is not (any more)."""
        mine = and_(_jobs.c.id == id, _jobs.c.status == RUNNING)
        if not connection.execute(update(_jobs).where(mine).values(**values)).rowcount:
            return False
        self.tell_in(connection, id, tell)
        webhooks.record_in(connection, id, values["status"])
        return True

    def resting(self) -> Sequence[Row[Any]]:
        """Jobs that were stopped or failed, and that no process is known to work on."""
        with self.database.read() as connection:
            still = and_(_jobs.c.status.in_(STOPPED), _jobs.c.pid.is_(None))
            return connection.execute(select(_jobs).where(still)).all()

    def unfinished(self) -> frozenset[str]:
        """Ids of jobs that are not over, or that a process still works on."""
        with self.database.read() as connection:
            needed = _jobs.c.status.notin_(OVER) | _jobs.c.pid.is_not(None)
            return frozenset(connection.execute(select(_jobs.c.id).where(needed)).scalars())

    def learns_from(self, model: str) -> bool:
        """Whether a job that is not over is to go on from this model, or from a checkpoint of it."""
        with self.database.read() as connection:
            names = connection.execute(select(_jobs.c.model).where(_jobs.c.status.notin_(OVER))).scalars().all()
        return any(name.partition(":ckpt-step-")[0] == model for name in names)

    def tell(self, id: str, events: Sequence[Event]) -> None:
        """Add events that are not there yet."""
        if events:
            with self.database.begin() as connection:
                self.tell_in(connection, id, events)

    def tell_in(self, connection: Connection, id: str, events: Sequence[Event]) -> None:
        """:meth:`tell` as a part of a transaction."""
        ids = [f"ftevent-{hashlib.sha256(f'{id}/{event.key}'.encode()).hexdigest()[:24]}" for event in events]
        if not ids:
            return
        known = set(connection.execute(select(_events.c.id).where(_events.c.id.in_(ids))).scalars())
        rows = [
            {"id": name, "job": id, "created": int(event.created), "level": event.level, "type": event.type,
             "message": event.message[:4000], "data": dict(event.data)}
            for name, event in dict(zip(ids, events, strict=True)).items() if name not in known
        ]  # fmt: skip
        if rows:
            connection.execute(insert(_events), rows)

    def metrics(self, id: str) -> Sequence[dict[str, Any]]:
        """The figures of a job's steps, in their order."""
        wanted = and_(_events.c.job == id, _events.c.type == "metrics")
        with self.database.read() as connection:
            rows = connection.execute(select(_events.c.data).where(wanted).order_by(_events.c.seq)).scalars().all()
        return sorted((dict(row) for row in rows), key=lambda row: row["step"])

    def models(self) -> dict[str, str | None]:
        """By the name of a run: the model that it is for clients; None where its job made none (yet)."""
        with self.database.read() as connection:
            rows = connection.execute(select(_jobs.c.run, _jobs.c.status, _jobs.c.fine_tuned_model)).all()
        return {row.run: row.fine_tuned_model if row.status == SUCCEEDED else None for row in rows}

    def coming_models(self) -> dict[str, str]:
        """By the name of a run that is not done: what its model will be called, and its checkpoints are already."""
        still = and_(_jobs.c.status.in_((QUEUED, RUNNING, PAUSED)), _jobs.c.started.is_not(None))
        columns = (_jobs.c.run, _jobs.c.command, _jobs.c.owner, _jobs.c.suffix, _jobs.c.id)
        with self.database.read() as connection:
            rows = connection.execute(select(*columns).where(still)).all()
        return {row.run: model_name(row.command["base"], row.owner, row.suffix, row.id) for row in rows}

    # ------------------------------------------------------------------------------------------------ inside

    def _seq(self, owner: str, id: str) -> int:
        with self.database.read() as connection:
            mine = and_(_jobs.c.owner == owner, _jobs.c.id == id.replace("\x00", ""))
            found = connection.execute(select(_jobs.c.seq).where(mine)).scalar()
        if found is None:
            raise ApiError(400, "'after' is not an id of this list", param="after", code="invalid_value")
        return int(found)


def run_name(id: str, suffix: str | None) -> str:
    """The directory of a job's run: of letters, digits and dashes only, whatever the suffix is.

    >>> run_name("ftjob-0123456789ab", "../My FAQ!")
    'ft-my-faq-01234567'
    """
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in (suffix or "").lower())
    middle = "-".join(part for part in kept.split("-") if part)
    return "-".join(["ft", *([middle] if middle else []), id.removeprefix("ftjob-")[:8]])


def model_name(base: str, owner: str, suffix: str | None, id: str) -> str:
    """``ft:{base}:{owner}:{suffix}:{8 characters}``, as OpenAI names models.

    >>> model_name("starter", "anna", None, "ftjob-0123456789ab")
    'ft:starter:anna::01234567'
    """
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in suffix or ""
    )
    return f"ft:{base}:{owner}:{kept}:{id.removeprefix('ftjob-')[:8]}"


def _one(connection: Connection, id: str) -> Row[Any]:
    return connection.execute(select(_jobs).where(_jobs.c.id == id)).one()


def _has(given: Mapping[str, str], labels: Mapping[str, str] | None, bare: bool) -> bool:
    if bare:
        return not given
    return all(given.get(key) == value for key, value in (labels or {}).items())
