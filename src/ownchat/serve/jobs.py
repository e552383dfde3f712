"""``/v1/fine_tuning/jobs``: create, list, follow, pause, resume and cancel; of an owner, as files are."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Row

from ownchat.errors import UserError
from ownchat.serve import services as shared
from ownchat.serve.auth import needs
from ownchat.serve.catalogue import Entry
from ownchat.serve.errors import ApiError
from ownchat.serve.file_store import FileStore
from ownchat.serve.files import file_store
from ownchat.serve.job_store import CANCELLED, PAUSED, QUEUED, RUNNING, SUCCEEDED, VALIDATING, JobStore
from ownchat.serve.keys import Caller
from ownchat.serve.protocol.body import check_metadata, named, read, without_nul
from ownchat.serve.protocol.fine_tuning import JobRequest, Train
from ownchat.serve.runner import Runner
from ownchat.serve.services import Services

router = APIRouter(prefix="/v1/fine_tuning", tags=["fine-tuning"])

Limit = Annotated[int, Query(ge=1)]
Caller_ = Annotated[Caller, Depends(needs("train"))]
LONGEST_MARK = 256  # of an Idempotency-Key
MOST_LISTED = 1000
METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)


def job_store(request: Request) -> JobStore:
    """The jobs of the server that a request came to."""
    store: JobStore = request.app.state.jobs
    return store


def job_runner(request: Request) -> Runner:
    """What works on them."""
    runner: Runner = request.app.state.runner
    return runner


Jobs = Annotated[JobStore, Depends(job_store)]
Runs = Annotated[Runner, Depends(job_runner)]


@router.post("/jobs")
async def create(request: Request, caller: Caller_, jobs: Jobs, runner: Runs) -> JSONResponse:
    """Begin a job. The same request again, because its answer was lost, finds the same job."""
    services = shared.of(request)
    body, unknown = await read(request, JobRequest, strict=services.settings.strict)
    again = request.headers.get("idempotency-key")
    if again is not None and not 1 <= len(again) <= LONGEST_MARK:
        raise ApiError(400, f"an Idempotency-Key has 1 to {LONGEST_MARK} characters", code="invalid_value")
    values = await asyncio.to_thread(_checked, body, services, caller, file_store(request))
    row, made = await asyncio.to_thread(
        jobs.create, caller.owner, values, body_hash=hashlib.sha256(await request.body()).hexdigest(), again=again,
        is_retry=_count(request.headers.get("x-stainless-retry-count")) > 0,
    )  # fmt: skip
    if made:
        runner.wake()
    request.state.log["job"] = row.id
    return JSONResponse(shown(row), headers={"x-ownchat-warning": f"ignored: {named(unknown)}"} if unknown else {})


@router.get("/jobs")
def list_jobs(
    request: Request,
    caller: Caller_,
    jobs: Jobs,
    after: str | None = None,
    limit: Limit = 20,
) -> dict[str, Any]:
    """The caller's jobs, newest first; ``metadata[key]=value`` for those that have it, ``metadata=null`` for those
    without any."""
    labels = {
        match[1]: value for key, value in request.query_params.items() if (match := METADATA.fullmatch(key)) is not None
    }
    plain = request.query_params.get("metadata")
    asked = sum(key.startswith("metadata[") for key in request.query_params)
    if plain not in (None, "null") or asked > len(labels):
        raise ApiError(400, "write metadata[key]=value, or metadata=null", param="metadata", code="invalid_value")
    rows, more = jobs.list(
        caller.owner, after=after or None, limit=min(limit, MOST_LISTED), labels=labels, bare=plain == "null"
    )
    return {"object": "list", "data": [shown(row) for row in rows], "has_more": more}


@router.get("/jobs/{job_id}")
def retrieve(job_id: str, caller: Caller_, jobs: Jobs) -> dict[str, Any]:
    """One of them."""
    return shown(jobs.get(caller.owner, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: str, caller: Caller_, jobs: Jobs, runner: Runs) -> dict[str, Any]:
    """End it; what it learned so far goes to the server's trash."""
    row = jobs.change(
        caller.owner, job_id, CANCELLED, of=(VALIDATING, QUEUED, RUNNING, PAUSED), message="The job was cancelled"
    )
    runner.wake()
    return shown(row)


@router.post("/jobs/{job_id}/pause")
def pause(job_id: str, caller: Caller_, jobs: Jobs, runner: Runs) -> dict[str, Any]:
    """Save, and free the memory; another job may train meanwhile."""
    row = jobs.change(caller.owner, job_id, PAUSED, of=(VALIDATING, QUEUED, RUNNING), message="The job was paused")
    runner.wake()
    return shown(row)


@router.post("/jobs/{job_id}/resume")
def resume(job_id: str, caller: Caller_, jobs: Jobs, runner: Runs) -> dict[str, Any]:
    """Go on where it was paused, when it is its turn."""
    row = jobs.change(caller.owner, job_id, QUEUED, of=(PAUSED,), message="The job was resumed")
    runner.wake()
    return shown(row)


@router.get("/jobs/{job_id}/events")
def events(job_id: str, caller: Caller_, jobs: Jobs, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    """What happened, newest first."""
    job = jobs.get(caller.owner, job_id)
    rows, more = jobs.events(job.id, after=after or None, limit=min(limit, MOST_LISTED))
    data = [
        {"id": row.id, "object": "fine_tuning.job.event", "created_at": row.created, "level": row.level,
         "message": row.message, "type": row.type, "data": row.data}
        for row in rows
    ]  # fmt: skip
    return {"object": "list", "data": data, "has_more": more}


@router.get("/jobs/{job_id}/checkpoints")
def checkpoints(
    request: Request,
    job_id: str,
    caller: Caller_,
    jobs: Jobs,
    after: str | None = None,
    limit: Limit = 10,
) -> dict[str, Any]:
    """The checkpoints that were kept so far, newest first; each is a model that can be asked for."""
    job = jobs.get(caller.owner, job_id)
    data = _checkpoints(job, shared.of(request), jobs)
    if after:
        ids = [item["id"] for item in data]
        if after not in ids:
            raise ApiError(400, "'after' is not an id of this list", param="after", code="invalid_value")
        data = data[ids.index(after) + 1 :]
    page, more = data[:limit], len(data) > limit
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": more}


@router.api_route("/checkpoints/{checkpoint:path}/permissions", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/checkpoints/{checkpoint:path}/permissions/{id}", methods=["DELETE"], include_in_schema=False)
def permissions(checkpoint: str, _: Caller_) -> dict[str, Any]:
    """Sharing between OpenAI's projects, of which there are none here."""
    raise ApiError(403, "checkpoints are not shared between projects here", code="insufficient_permissions")


# ------------------------------------------------------------------------------------------------------------ inside


def shown(row: Row[Any]) -> dict[str, Any]:
    """A job as OpenAI's object."""
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": row.created,
        "finished_at": row.finished,
        "estimated_finish": row.estimated,
        "status": row.status,
        "error": row.error,
        "model": row.model,
        "fine_tuned_model": row.fine_tuned_model,
        "organization_id": f"org-{row.owner}",
        "training_file": row.training_file,
        "validation_file": row.validation_file,
        "result_files": row.result_files,
        "trained_tokens": row.trained_tokens,
        "seed": row.seed,
        "hyperparameters": {name: value for name, value in row.hyperparameters.items() if name != "beta"},
        "method": {"type": row.method, row.method: {"hyperparameters": row.hyperparameters}},
        "integrations": [],
        "metadata": row.metadata,
        "user_provided_suffix": row.suffix,
        "x_train": row.train,
    }


def _checked(body: JobRequest, services: Services, caller: Caller, files: FileStore) -> dict[str, Any]:
    """The columns of a new job; raises 400 for what cannot be done."""
    if body.kind == "reinforcement":
        raise ApiError(
            400, "the method 'reinforcement' is not offered: use supervised or dpo", param="method.type",
            code="unsupported_value",
        )  # fmt: skip
    if body.integrations:
        raise ApiError(400, "there are no integrations here", param="integrations", code="unsupported_value")
    try:
        entry: Entry = services.catalogue.find(body.model)
    except UserError as error:
        raise ApiError(400, f"{error.what}. {error.fix}".strip(" ."), param="model", code="model_not_found") from error
    if entry.located is None or entry.info.get("kind") == "checkpoint":
        raise ApiError(
            400, "this model cannot be trained here: choose a base or a finished model", param="model",
            code="model_not_available",
        )  # fmt: skip
    _check_file(files, caller, body.training_file, "training_file")
    if body.validation_file is not None:
        _check_file(files, caller, body.validation_file, "validation_file")
        if body.validation_file == body.training_file:
            raise ApiError(
                400, "validation on what was learned tells nothing: give another file, or none",
                param="validation_file", code="invalid_value",
            )  # fmt: skip
    found: dict[str, Any] = without_nul(
        {
            "model": body.model,
            "training_file": body.training_file,
            "validation_file": body.validation_file,
            "method": body.kind,
            "hyperparameters": body.wanted,
            "suffix": body.suffix,
            "train": (body.x_train or Train()).model_dump(exclude_none=True),
            "metadata": check_metadata(body.metadata),
            "seed": secrets.randbelow(2**31) if body.seed is None else body.seed,
        }
    )
    return found


def _check_file(files: FileStore, caller: Caller, id: str, param: str) -> None:
    try:
        row = files.get(caller.owner, id)
    except ApiError as error:
        raise ApiError(400, f"invalid {param}: {id[:64]}", param=param, code="file_not_found") from error
    if row.purpose != "fine-tune":
        raise ApiError(
            400, f"the file {row.id} was uploaded for the purpose {row.purpose}, not fine-tune", param=param,
            code="invalid_value",
        )  # fmt: skip


def _checkpoints(job: Row[Any], services: Services, jobs: JobStore) -> list[dict[str, Any]]:
    """Those that are on the disk, newest first."""
    measured = {row["step"]: row for row in jobs.metrics(job.id)}
    entries = [
        entry for entry in services.catalogue.list()
        if entry.info.get("kind") == "checkpoint" and entry.run is not None and entry.run.name == job.run
    ]  # fmt: skip
    found = []
    for entry in sorted(entries, key=lambda entry: -int(entry.info["step"])):
        step = int(entry.info["step"])
        if job.status != SUCCEEDED and step not in measured:
            continue  # written just now: its figures come with the next look
        figures = {name: value for name, value in measured.get(step, {}).items() if value is not None}
        figures.pop("total_steps", None)
        digest = hashlib.sha256(f"{job.id}/{step}".encode()).hexdigest()[:24]
        found.append(
            {"id": f"ftckpt_{digest}", "object": "fine_tuning.job.checkpoint", "created_at": entry.created,
             "fine_tuned_model_checkpoint": entry.id, "fine_tuning_job_id": job.id, "step_number": step,
             "metrics": {"step": step} | figures}
        )  # fmt: skip
    return found


def _count(header: str | None) -> int:
    return int(header) if header is not None and header.isascii() and header.isdigit() and len(header) < 6 else 0
