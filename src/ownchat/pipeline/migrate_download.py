"""Files of a service onto the disk: as they come, resumed where they broke off, and known by their SHA-256."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownchat.artifacts import require_free_space
from ownchat.pipeline.service_errors import explained

PART = 1 << 20
MOST_BYTES = 12_000_000_000  # the largest upload that there is, in base64
ATTEMPTS = 3
PAUSE_SECONDS = 1.0
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Gone(Exception):
    """The service does not have the file (any more), or does not give it; the text says which."""


class BrokeOff(Exception):
    """It broke off, again and again: another time it may go on."""


@dataclass(frozen=True)
class Fetched:
    """A file that came: how long it is and what it is."""

    num_bytes: int
    sha256: str


def fetch(client: Any, id: str, path: Path, *, whole: bool = True) -> Fetched:
    """Bring a file's bytes to ``path``; what broke off before goes on where it was, if the service can. ``whole``: it
    has to be as long as the service says (of a file of results that may be its length before base64).

    Raises :class:`Gone`, :class:`BrokeOff`, and :class:`~ownchat.errors.UserError` for a key that is refused.
    """
    import openai

    if not _ID.fullmatch(id) or not id.strip("."):
        raise Gone("what the service calls it is no id of a file")
    aside = path.with_name(f"{path.name}.part")
    try:
        told = client.files.retrieve(id)
        size = getattr(told, "bytes", None)
        size = size if isinstance(size, int) and 0 < size <= MOST_BYTES else None
    except openai.NotFoundError as error:
        raise Gone("the service does not have it any more") from error
    except Exception as error:
        raise _of_file(error, client) from error
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        have = aside.stat().st_size if aside.is_file() else 0
        require_free_space(path.parent, max(0, (size or 0) - have))
        try:
            _receive(client, id, aside, have)
            break
        except openai.NotFoundError as error:
            raise Gone("the service does not have it any more") from error
        except openai.APIStatusError as error:
            if error.status_code != 416 or not have:
                raise _of_file(error, client) from error
            aside.unlink()  # longer than what is there now: from its beginning
        except _Broken as error:
            if attempt == ATTEMPTS - 1:
                raise BrokeOff("it broke off") from error
            time.sleep(PAUSE_SECONDS * 2**attempt)
        except OSError:
            raise  # of this machine: a full disk
        except Exception as error:
            raise _of_file(error, client) from error
    else:
        raise BrokeOff("it broke off")
    fetched = describe(aside)
    if whole and size and fetched.num_bytes < size:  # what there is stays aside, and goes on another time
        raise BrokeOff(f"{fetched.num_bytes:,} of {size:,} bytes came")
    os.replace(aside, path)
    return fetched


def describe(path: Path) -> Fetched:
    """What a file on the disk is."""
    with open(path, "rb") as handle:
        return Fetched(path.stat().st_size, hashlib.file_digest(handle, "sha256").hexdigest())


def decoded(path: Path) -> bytes | None:
    """The table in a result file that is written in base64, as OpenAI writes them; none: it is plain."""
    content = path.read_bytes()
    if content.startswith(b"step"):
        return None
    try:
        table = base64.b64decode(content.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return table if table.startswith(b"step") else None


class _Broken(Exception):
    """The connection ended before the file did."""


def _of_file(error: Exception, client: Any) -> Exception:
    """One file that is refused is told; a key that is refused, or a service that is away, ends all."""
    import openai

    if isinstance(error, openai.BadRequestError | openai.PermissionDeniedError):
        return Gone(f"the service does not give it (status {error.status_code})")
    if isinstance(error, openai.InternalServerError | openai.APITimeoutError):
        return BrokeOff("the service failed")
    return explained(error, str(client.base_url), "files", reading=True)


def _receive(client: Any, id: str, aside: Path, have: int) -> None:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.files.with_streaming_response.content(id, extra_headers=headers) as response:
        begins = response.headers.get("content-range", "").startswith(f"bytes {have}-")
        goes_on = have > 0 and response.status_code == 206 and begins
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | (0 if goes_on else os.O_TRUNC) | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            total = handle.seek(have if goes_on else 0)
            for part in _parts(response):
                total += len(part)
                if total > MOST_BYTES:
                    raise Gone(f"it is longer than {MOST_BYTES / 1e9:.0f} GB")
                handle.write(part)
            handle.flush()
            os.fsync(handle.fileno())


def _parts(response: Any) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes(PART)
    except Exception as error:  # of the HTTP client, which the SDK does not translate here
        raise _Broken from error
