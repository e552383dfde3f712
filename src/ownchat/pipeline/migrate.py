"""What an account has at a service of OpenAI's shape, brought here: fine-tuning jobs, their files, stored answers.

Only reads at the service. ``migration.json`` in the folder says what came (with SHA-256) and what did not and why; it
is written after each file, so a second time only what is missing is fetched, and nothing that was changed here since is
written over. A job that the service lists no more stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ownchat import artifacts
from ownchat.config import load_config
from ownchat.errors import ConfigError, RunError, UserError
from ownchat.monitor.progress import progress, say
from ownchat.pipeline import migrate_completions
from ownchat.pipeline.migrate_download import BrokeOff, Gone, decoded, describe, fetch
from ownchat.pipeline.migrate_job import RESULT, TRAINING, Job, job_of, sample_texts, settings_of
from ownchat.pipeline.service_errors import KEY, NotThere, explained
from ownchat.serve.job_settings import mean_tokens

NOTE = "migration.json"
METHODS = ("supervised", "dpo")
TIMEOUT_SECONDS = 60.0
MOST_JOBS = 100_000
PAGE = 100


@dataclass
class Moved:
    """A job as it is here. ``files``: ``{kind, id, path, bytes, sha256}``, or ``missing`` with the reason and
    ``again`` where another time may help. ``command``: what trains it here; none: ``why_not``."""

    job: Job
    files: list[dict[str, Any]]
    command: str | None = None
    why_not: str = ""


@dataclass
class Migration:
    """What was done: ``host`` is the service's, ``fetched`` counts files of this time, ``there`` those of before."""

    host: str
    folder: Path
    jobs: list[Moved] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fetched: int = 0
    there: int = 0
    completions: migrate_completions.Exported | None = None

    @property
    def unfinished(self) -> int:
        """Files that another time may bring."""
        return sum("again" in file for moved in self.jobs for file in moved.files)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        jobs = [{**asdict(moved), "closes": moved.job.closes(self.host)} for moved in self.jobs]
        return {
            "service": self.host, "folder": str(self.folder), "jobs": jobs, "notes": self.notes,
            "fetched": self.fetched, "there": self.there, "unfinished": self.unfinished,
            "completions": None if self.completions is None else asdict(self.completions),
        }  # fmt: skip


def migrate(folder: Path, *, url: str | None = None, completions: bool = False) -> Migration:
    """Bring everything into ``folder``. ``url``: the service; none: the SDK's own (``OPENAI_BASE_URL``, or OpenAI).

    The key is what ``OPENAI_API_KEY`` holds. Raises :class:`~ownchat.errors.UserError` for a service that refuses it,
    cannot be reached, has no such endpoint, or no jobs.
    """
    client = _client(url)
    host = urlsplit(str(client.base_url)).hostname or ""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with artifacts.owner_only(), artifacts.locked(folder):
            return _migrate(client, Migration(host, folder), completions=completions)
    except RunError as error:
        if "another process" not in error.what:
            raise
        raise RunError(error.what, where=str(folder), fix="wait for it, or choose another folder with --to") from error
    finally:
        client.close()


def _migrate(client: Any, done: Migration, *, completions: bool) -> Migration:
    note = _Note(done.folder, done.host)
    try:
        jobs = [job_of(given) for given in _listed(client, done.notes)]
    except NotThere as error:
        if not completions:
            raise
        jobs = []
        done.notes.append(f"no jobs: {error.what}")
    if not jobs and not completions:
        raise UserError(
            "there are no fine-tuning jobs for this key", where=str(client.base_url),
            fix="use a key of the project that has them",
        )  # fmt: skip
    with progress("fetching", sum(len(job.files) for job in jobs), "files") as advance:
        for job in jobs:
            done.jobs.append(_moved(client, job, done, note, advance))
    listed = {job.id for job in jobs}
    if gone := [id for id in note.jobs if id not in listed]:
        done.notes.append(f"{len(gone)} jobs of before are not listed any more; what came of them stays")
    if completions:
        done.completions = migrate_completions.export(client, done.folder / "completions")
    return done


def _client(url: str | None) -> Any:
    from openai import DefaultHttpxClient, OpenAI, OpenAIError

    from ownchat.generate.openai import parse_model

    if (url := url or os.environ.get("OPENAI_BASE_URL") or None) is not None:
        url, model = parse_model(url)
        if model is not None:
            raise ConfigError("a service is needed, not one of its models", where="--on", fix=f"write --on {url}")
    if not os.environ.get(KEY):
        raise UserError("no key is set", where=KEY, fix=f"export {KEY}=... : a key of the account at the service")
    try:  # what the service names elsewhere is not asked: redirects are not followed
        http = DefaultHttpxClient(follow_redirects=False, timeout=TIMEOUT_SECONDS)
        return OpenAI(base_url=url, timeout=TIMEOUT_SECONDS, http_client=http)
    except OpenAIError as error:
        raise UserError("the service's settings cannot be used", where=KEY, fix="check OPENAI_BASE_URL") from error


def _listed(client: Any, notes: list[str]) -> Iterator[dict[str, Any]]:
    """All jobs, page by page, newest first."""
    seen: set[str] = set()
    try:
        for item in client.fine_tuning.jobs.list(limit=PAGE):
            given = item.to_dict(mode="json", warnings=False)
            id = given.get("id")
            if not isinstance(id, str) or not id:
                notes.append("an entry of the list is no job, and is left out")
                continue
            if id in seen or len(seen) >= MOST_JOBS:
                notes.append("the service lists jobs again and again: what it has beyond these is not known")
                return
            seen.add(id)
            yield given
    except Exception as error:
        raise explained(error, str(client.base_url), "fine-tuning jobs", reading=True) from error


def _moved(client: Any, job: Job, done: Migration, note: _Note, advance: Callable[..., None]) -> Moved:
    place = done.folder / job.folder
    kinds: dict[str, int] = {}
    moved = Moved(job, [])
    for kind, id in job.files:
        kinds[kind] = kinds.get(kind, 0) + 1
        name = f"results/result-{kinds[kind]}.csv" if kind == RESULT else f"data/{kind}.jsonl"
        path = place / name
        entry: dict[str, Any] = {"kind": kind, "id": id}
        try:
            entry |= _brought(client, id, path, done, note)
        except Gone as reason:
            entry["missing"] = str(reason)
        except BrokeOff as reason:
            entry |= {"missing": str(reason), "again": True}
        moved.files.append(entry)
        note.put(job, moved.files)
        advance(note=job.folder)
    _with_settings(moved, place, note)
    return moved


def _brought(client: Any, id: str, path: Path, done: Migration, note: _Note) -> dict[str, Any]:
    """The file at ``path``: as it lies there, copied from another job that had it, or fetched."""
    known, relative = note.at(id), str(path.relative_to(done.folder))
    if path.is_file() and relative in known:
        done.there += 1
        found = describe(path)
        changed = {"changed_here": True} if found.sha256 != known[relative]["sha256"] else {}
        return {**known[relative], **changed}
    for other, entry in known.items():
        source = done.folder / other
        if source.is_file() and describe(source).sha256 == entry["sha256"]:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with artifacts.replacing(path) as aside:
                shutil.copyfile(source, aside)
            done.there += 1
            return {**entry, "path": relative}
    fetched = fetch(client, id, path, whole=path.parent.name != "results")
    done.fetched += 1
    entry = {"path": relative, "bytes": fetched.num_bytes, "sha256": fetched.sha256}
    if path.parent.name == "results" and (table := decoded(path)) is not None:
        artifacts.write_atomic(path, table)
        plain = describe(path)
        entry |= {"bytes": plain.num_bytes, "sha256": plain.sha256, "sha256_in_base64": fetched.sha256}
    return entry


def _with_settings(moved: Moved, place: Path, note: _Note) -> None:
    """Write the settings of a local run, unless somebody changed them here, and the command."""
    job, data, config = moved.job, place / "data", place / "train.yaml"
    if job.method not in METHODS:
        moved.why_not = f"the method {job.method or 'that it had'} has no counterpart here"
    elif not (data / f"{TRAINING}.jsonl").is_file():
        moved.why_not = "its training file did not come"
    else:
        words = ["ownchat", "train", str(data), "--config", str(config), "--name", job.folder]
        moved.command = shlex.join(words)
        tokens = mean_tokens(place, sample_texts(data / f"{TRAINING}.jsonl"))
        text = settings_of(job, data, moved.command, tokens)
        if note.may_write(job, config):
            artifacts.write_atomic(config, text)
            load_config(config)
            note.put(job, moved.files, settings=hashlib.sha256(text.encode()).hexdigest())
        else:
            say(f"{config} was changed here and stays as it is")


class _Note:
    """``migration.json``: what of which job lies where, as it came."""

    def __init__(self, folder: Path, host: str) -> None:
        self._path = folder / NOTE
        self._value: dict[str, Any] = {"service": host, "jobs": {}}
        if self._path.is_file():
            found = artifacts.read_json(self._path)
            good = isinstance(found, dict) and isinstance(found.get("jobs"), dict)
            if not good or not all(isinstance(job, dict) for job in found["jobs"].values()):
                raise RunError("not the note of a migration", where=str(self._path), fix="choose another folder: --to")
            if found.get("service") != host:
                raise RunError(
                    "this folder has the jobs of another service", where=str(folder), fix="choose another one with --to"
                )
            self._value = found

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """By their ids at the service."""
        jobs: dict[str, dict[str, Any]] = self._value["jobs"]
        return jobs

    def at(self, id: str) -> dict[str, dict[str, Any]]:
        """Where a file of the service lies, by path; that of files that came."""
        found = {}
        for job in self.jobs.values():
            for entry in job.get("files", ()):
                if entry.get("id") == id and "path" in entry:
                    found[entry["path"]] = {
                        name: value for name, value in entry.items() if name not in ("kind", "changed_here")
                    }
        return found

    def may_write(self, job: Job, config: Path) -> bool:
        """Whether the settings are not there yet, or are as they were written."""
        written = self.jobs.get(job.id, {}).get("settings")
        return not config.is_file() or describe(config).sha256 == written

    def put(self, job: Job, files: list[dict[str, Any]], **more: Any) -> None:
        """Write down how far a job is."""
        before = self.jobs.get(job.id, {})
        came = {entry["id"] for entry in files}
        later = [entry for entry in before.get("files", ()) if entry.get("id") not in came]  # not looked at again yet
        about = {name: value for name, value in asdict(job).items() if name not in ("id", "files")}
        self.jobs[job.id] = {**before, **about, "files": [*files, *later], **more}
        self._value["written"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        artifacts.write_atomic(self._path, json.dumps(self._value, indent=2, ensure_ascii=True) + "\n")
