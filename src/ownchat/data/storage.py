"""The client for S3 and for storage that speaks like it, and its errors as messages.

It is pyarrow's. The endpoint is ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, the region ``AWS_REGION`` or
``AWS_DEFAULT_REGION`` (else it is asked for), and credentials come from where every AWS tool finds them: the
environment, ``~/.aws``, the machine's role. They are never part of a URL and never written anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from ownchat.errors import UserError

CONNECT_SECONDS, ATTEMPTS = 5, 3  # then an error; the client gives up on a silent server after 3 s each time


class RemoteError(UserError):
    """Storage that refuses, is not reachable, or holds something else than when it was looked at."""


def client(bucket: str) -> Any:
    """pyarrow's client for a bucket, made once for each region."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = _endpoint()
    if not region:
        region = "us-east-1" if endpoint else _region(bucket)
    return _client(region, endpoint)


@cache
def _client(region: str, endpoint: tuple[str, str] | None) -> Any:
    from pyarrow import fs

    scheme, server = endpoint or ("https", None)
    return fs.S3FileSystem(
        region=region,
        scheme=scheme,
        endpoint_override=server,
        connect_timeout=CONNECT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


@cache
def _region(bucket: str) -> str:
    from pyarrow import fs

    return cast(str, fs.resolve_s3_region(bucket))


def _endpoint() -> tuple[str, str] | None:
    """Scheme and server of storage that is not Amazon's."""
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if text := os.environ.get(variable, ""):
            url = urlsplit(text)
            if url.scheme not in ("http", "https") or not url.netloc or "@" in url.netloc:
                fix = f"set {variable} to https://server or http://server:port, without a name or a password"
                raise RemoteError("this is no address of a server", where=variable, fix=fix)
            return url.scheme, (url.netloc + url.path).rstrip("/")
    return None


def _server() -> str:
    endpoint = _endpoint()
    return f"{endpoint[0]}://{endpoint[1]} (AWS_ENDPOINT_URL)" if endpoint else "Amazon's (no AWS_ENDPOINT_URL is set)"


def changed(url: str) -> RemoteError:
    """An object that is not the one any more that was looked at."""
    fix = "run the same command again when nobody writes there"
    return RemoteError("the object changed after it was looked at", where=url, fix=fix)


def no_bucket(url: str, bucket: str) -> RemoteError:
    """A bucket that the server does not know."""
    fix = f"check its name and the server, which is {_server()}"
    return RemoteError(f'there is no bucket "{bucket}"', where=url, fix=fix)


@contextmanager
def told(url: str, bucket: str) -> Iterator[None]:
    """What the client raises about ``url`` becomes one :class:`RemoteError`."""
    try:
        yield
    except OSError as error:
        raise refusal(error, url, bucket) from error


def refusal(error: OSError, where: str, bucket: str) -> RemoteError:
    """The client's error for people; of its text only the code is taken, which holds nothing of the credentials."""
    text = str(error)
    code = next(iter(re.findall(r"AWS Error ([A-Z_]+)", text)), "")
    status = next(iter(re.findall(r"HTTP status (\d+)", text)), "")
    if isinstance(error, FileNotFoundError) or code in ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND") or status == "404":
        return RemoteError("there is no such object (any more)", where=where, fix="look what is there, and run again")
    if status == "416":  # a range behind its end
        return changed(where)
    if code == "NO_SUCH_BUCKET" or ("Bucket '" in text and "not found" in text):
        return no_bucket(where, bucket)
    if code in ("NETWORK_CONNECTION", "REQUEST_TIMEOUT"):
        what = "does not answer" if "curlCode: 28" in text else "cannot be reached, or the connection broke"
        fix = "check the network and AWS_ENDPOINT_URL, then run the same command again"
        return RemoteError(f"the server {what}; it is {_server()}", where=where, fix=fix)
    if code == "ACCESS_DENIED" or status == "403":
        fix = "to read, s3:ListBucket and s3:GetObject are needed; to write, s3:PutObject"
        if _has_credentials():
            return RemoteError("access is denied with the credentials found", where=where, fix=fix)
        what = "access is denied, and neither the environment nor ~/.aws has credentials"
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or make a profile: aws configure"
        return RemoteError(what, where=where, fix=fix)
    if re.search("ACCESS_KEY|SIGNATURE|TOKEN|CLIENT|CREDENTIAL", code):
        what = f"the server does not take the credentials ({code.lower().replace('_', ' ')})"
        return RemoteError(what, where=where, fix="check the keys or the profile, and the clock; renew them if expired")
    if code in ("SLOW_DOWN", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "THROTTLING") or status.startswith("5"):
        return RemoteError(f"the server {_server()} is not well", where=where, fix="run the same command again later")
    detail = f"{code.lower().replace('_', ' ')} {f'(HTTP status {status})' if status else ''}".strip()
    fix = "check the bucket's region (AWS_REGION), the server (AWS_ENDPOINT_URL) and the credentials"
    return RemoteError(f"the storage refuses: {detail or type(error).__name__}", where=where, fix=fix)


def _has_credentials() -> bool:
    variables = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                 "AWS_SHARED_CREDENTIALS_FILE")  # fmt: skip
    folder = Path.home() / ".aws"
    return any(map(os.environ.get, variables)) or (folder / "credentials").exists() or (folder / "config").exists()
