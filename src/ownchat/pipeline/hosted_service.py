"""A service that trains: files, jobs and what they tell, as OpenAI's API has them, through the official SDK.

The key is ``OPENAI_API_KEY`` of the environment and comes from nowhere else. Nothing here prints, but for
:meth:`Service.create_job`, which says what a service does not take.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ownchat.errors import ConfigError, UserError, nearest
from ownchat.generate.openai import parse_model
from ownchat.pipeline.service_errors import KEY, explained, words_of

OPENAI = "api.openai.com"
LAST_JOBS = date(2027, 1, 6)  # of OpenAI
WHOLE_BYTES = 100_000_000  # larger files go in parts
PART_BYTES = 48_000_000  # a part has 64 MB at most
RETRIES, TIMEOUT_SECONDS = 4, 120.0
UPLOAD_SECONDS = 600.0  # of one request that carries a file or a part of it
LISTED = 100  # jobs or files that one of ours is looked for among
OPTIONAL = ("metadata", "seed", "suffix")  # of a job: not every service takes them
OVER = ("succeeded", "failed", "cancelled")

Keep = Callable[[dict[str, Any]], None]


def parse_service(text: str, base: str | None, *, allow_http: bool = False) -> tuple[str, str]:
    """``URL#MODEL`` as the service's URL and the model to begin with; ``base``: the model, where it was named apart.

    >>> parse_service("https://api.openai.com/v1#gpt-4o-mini", None)
    ('https://api.openai.com/v1', 'gpt-4o-mini')
    """
    if "://" not in text:
        fix = f"write it whole: --on https://{text.strip('/') or 'HOST/v1'}" + ("" if "#" in text else "#MODEL")
        raise ConfigError(f'"{text}" has no https://', where="--on", fix=fix)
    url, model = parse_model(text)
    if model is not None and base is not None and model != base:
        raise ConfigError(f"two models are named, {model} and {base}", where="--on", fix="leave out --base")
    if (model := model or base) is None:
        raise ConfigError("no model is named", where="--on", fix=f"say which one is to be tuned: --on {url}#MODEL")
    if url.startswith("http://") and not (allow_http or is_loopback(host_of(url))):
        raise ConfigError(
            "http:// sends your text and your key readable for everybody on the way", where="--on",
            fix="use https://; in a network that is yours alone add --allow-http",
        )  # fmt: skip
    return url, model


def host_of(url: str) -> str:
    """
    >>> host_of("https://api.openai.com/v1"), host_of("http://127.0.0.1:8000/v1")
    ('api.openai.com', '127.0.0.1:8000')
    """
    return urlsplit(url).netloc


def is_loopback(host: str) -> bool:
    """
    >>> is_loopback("localhost:8000"), is_loopback("[::1]:80"), is_loopback("127.0.0.1.example.com")
    (True, True, False)
    """
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Service:
    """One service. Methods raise :class:`~ownchat.errors.UserError`; see
    :func:`~ownchat.pipeline.service_errors.explained`."""

    def __init__(self, url: str, *, retries: int = RETRIES) -> None:
        from openai import DefaultHttpxClient, OpenAI

        self.url, self.host = url, host_of(url)
        key = os.environ.get(KEY)
        if not key and not is_loopback(self.host):
            raise UserError("there is no key for this service", where=self.host, fix=f"set {KEY}")
        http = DefaultHttpxClient(follow_redirects=False, timeout=TIMEOUT_SECONDS)  # it goes to this host and no other
        self._client: Any = OpenAI(
            base_url=url, api_key=key or "none", max_retries=retries, timeout=TIMEOUT_SECONDS, http_client=http
        )  # fmt: skip

    def close(self) -> None:
        self._client.close()

    def ending(self, base: str) -> str | None:
        """Asks for the base model: on which day the service ends it, if it says so. Raises
        :class:`~ownchat.errors.UserError` where it has no such model, or refuses the key."""
        import openai

        try:
            found = self._client.models.retrieve(base)
        except openai.NotFoundError as error:
            known = self.models()
            if base in known:
                return None
            hint = nearest(base, known) or (f"it has {', '.join(known[:8])}" if known else "look at its list of models")
            raise UserError(f'it has no model "{base}"', where=self.host, fix=hint) from error
        except Exception as error:
            raise self._explained(error, "such model") from error
        ends = getattr(found, "shutdown_date", None)
        return str(ends) if ends else None

    def models(self) -> list[str]:
        try:
            return [str(model.id) for model in self._client.models.list()]
        except Exception as error:
            raise self._explained(error, "list of models") from error

    # -------------------------------------------------------------------------------------------------- files

    def upload(self, file: Path, name: str, known: dict[str, Any], keep: Keep) -> str:
        """The id of ``file`` at the service; ``known``: what an upload that broke off has kept by ``keep``."""
        if known.get("begun") and (found := self._file(name, file.stat().st_size)) is not None:
            return found  # its answer was lost
        keep(known | {"begun": True})
        try:
            if file.stat().st_size > WHOLE_BYTES:
                return self._in_parts(file, name, known | {"begun": True}, keep)
            with open(file, "rb") as content:
                # Sent again by the SDK, it could lie there twice; the same command looks for it first.
                sending = self._client.with_options(timeout=UPLOAD_SECONDS, max_retries=0).files
                return str(sending.create(file=(name, content), purpose="fine-tune").id)
        except Exception as error:
            raise self._explained(error, "files") from error

    def has_file(self, id: str) -> bool:
        import openai

        try:
            return str(self._client.files.retrieve(id).status) != "error"
        except openai.NotFoundError:
            return False
        except Exception as error:
            raise self._explained(error, "files") from error

    def content(self, id: str) -> bytes:
        """The bytes of a file."""
        try:
            return bytes(self._client.files.content(id).read())
        except Exception as error:
            raise self._explained(error, "such file") from error

    def _file(self, name: str, num_bytes: int) -> str | None:
        """A file of ours that is there already: its name has the hash of its content."""
        try:
            for number, found in enumerate(self._client.files.list(purpose="fine-tune", order="desc", limit=LISTED)):
                if found.filename == name and found.bytes == num_bytes and found.status != "error":
                    return str(found.id)
                if number + 1 == LISTED:
                    break
        except Exception as error:
            raise self._explained(error, "files") from error
        return None

    def _in_parts(self, file: Path, name: str, known: dict[str, Any], keep: Keep) -> str:
        """Parts that arrived are not sent again within the hour that an upload lives."""
        uploads = self._client.with_options(timeout=UPLOAD_SECONDS).uploads
        size, now = file.stat().st_size, datetime.now(UTC).timestamp()
        if known.get("expires", 0) < now + 60:
            begun = uploads.create(bytes=size, filename=name, mime_type="application/jsonl", purpose="fine-tune")
            known = known | {"upload": begun.id, "parts": [], "expires": begun.expires_at}
            keep(known)
        with open(file, "rb") as content:
            content.seek(PART_BYTES * len(known["parts"]))
            while data := content.read(PART_BYTES):
                part = uploads.parts.create(known["upload"], data=data)
                known = known | {"parts": [*known["parts"], part.id]}
                keep(known)
        return str(uploads.complete(known["upload"], part_ids=known["parts"]).file.id)

    # --------------------------------------------------------------------------------------------------- jobs

    def create_job(self, wanted: Mapping[str, Any], mark: str, say: Callable[[str], None]) -> Any:
        """A job; ``mark`` is this request's own name, by which :meth:`find_job` knows it when the answer is lost.

        What of :data:`OPTIONAL` the service refuses by name is left out, and said.
        """
        import openai

        sent = dict(wanted) | {"metadata": {"ownchat": mark}}
        once = self._client.with_options(max_retries=0).fine_tuning.jobs  # sent again, it could be two jobs
        while True:
            try:
                return once.create(**sent, extra_headers={"Idempotency-Key": mark})
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = next((name for name in OPTIONAL if name in sent and _is_about(error, name)), None)
                if refused is None:
                    raise self._explained(error, "fine-tuning jobs") from error
                del sent[refused]
                say(f"{self.host} takes no {refused} of a job: left out")
            except Exception as error:
                raise self._explained(error, "fine-tuning jobs") from error

    def find_job(self, wanted: Mapping[str, Any], mark: str, since: float) -> Any | None:
        """The job that :meth:`create_job` made with this mark; where the service keeps no marks, one of the same file
        and model that is not older than ``since`` (Unix seconds)."""
        try:
            for number, job in enumerate(self._client.fine_tuning.jobs.list(limit=LISTED)):
                marked = (getattr(job, "metadata", None) or {}).get("ownchat")
                same = job.training_file == wanted["training_file"] and job.created_at >= since - 60
                if marked == mark or (marked is None and same):
                    return job
                if number + 1 == LISTED:
                    break
        except Exception as error:
            raise self._explained(error, "fine-tuning jobs") from error
        return None

    def job(self, id: str) -> Any:
        try:
            return self._client.fine_tuning.jobs.retrieve(id)
        except Exception as error:
            raise self._explained(error, f"job {id}") from error

    def events(self, id: str, seen: set[str]) -> list[Any]:
        """What the job told and is not in ``seen``, oldest first."""
        found = []
        try:
            for event in self._client.fine_tuning.jobs.list_events(id, limit=100):  # the newest first
                if event.id in seen:
                    break
                found.append(event)
        except Exception as error:
            raise self._explained(error, f"job {id}") from error
        return found[::-1]

    def cancel(self, id: str) -> Any:
        try:
            return self._client.fine_tuning.jobs.cancel(id)
        except Exception as error:
            raise self._explained(error, f"job {id}") from error

    def _explained(self, error: Exception, what: str) -> UserError:
        return explained(error, self.url, what)


def _is_about(error: Any, name: str) -> bool:
    """Does a refusal name this parameter as one that is not known, and not its value as wrong?"""
    body = error.body if isinstance(error.body, dict) else {}
    text = words_of(error).lower()
    unknown = any(word in text for word in ("support", "unknown", "unrecognized", "extra", "permitted", "unexpected"))
    return unknown and (body.get("param") == name or name in text)


def closing(host: str, today: date) -> Iterator[str]:
    """What has to be known of a service's end before one pays for a training there."""
    if urlsplit(f"//{host}").hostname == OPENAI:
        when = "took" if today > LAST_JOBS else "takes"
        yield f"OpenAI {when} no new fine-tuning jobs after 6 January 2027, and none of an account that never had one;"
        yield "on 14 January 2027 gpt-4o, gpt-4o-mini, gpt-4.1, gpt-4.1-mini end, and what was tuned from them."
