"""What the official SDK raises at a service, in a person's words: real answers of a real server."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openai import DefaultHttpxClient, OpenAI

from ownchat.errors import UserError
from ownchat.generate.openai import Busy, Failed, Unusable
from ownchat.pipeline.hosted_service import Service
from ownchat.pipeline.migrate import migrate
from ownchat.pipeline.service_errors import MOST_WORDS, NotThere, explained, words_of

KEY = "sk-of-a-test-0123456789"


class Refusing(ThreadingHTTPServer):
    """Gives the same answer to everything; status 0: hangs up. ``KEY`` in it is the key that the request had."""

    daemon_threads = True
    status, body = 200, b"{}"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Refusing

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self.server.status:
            self.close_connection = True
            return
        body = self.server.body.replace(b"KEY", self.headers["Authorization"].removeprefix("Bearer ").encode())
        self.send_response(self.server.status)
        for name, value in (
            ("Content-Type", "application/json" if body[:1] in b"{[" else "text/html"),
            ("Content-Length", str(len(body))),
            ("Location", "http://127.0.0.1:1/elsewhere"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Refusing()
    yield server
    server.shutdown()
    server.server_close()


def told(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": None}}).encode()


def listed(url: str) -> Any:
    http = DefaultHttpxClient(follow_redirects=False)
    with OpenAI(base_url=url, api_key=KEY, max_retries=0, http_client=http) as client:
        return list(client.fine_tuning.jobs.list())


AGAIN = "run the same command again"
CASES: list[tuple[int, bytes, type[UserError], str, str]] = [
    (401, told("wrong key KEY"), Unusable, "the service refuses the key (401)", "set OPENAI_API_KEY"),
    (403, told("KEY lacks a scope"), Unusable, "the key may not read jobs (403): [key] lacks a scope", "right to read"),
    (404, told("no route"), NotThere, "the service has no jobs (404)", "check the URL"),
    (429, told("quota of KEY"), Busy, "the service has had enough requests (429): quota of [key]", AGAIN),
    (500, told("oh"), Failed, "the service answers with error 500: oh", AGAIN),
    (503, b"<html>away</html>", Failed, "the service answers with error 503", AGAIN),
    (408, told("slow"), Failed, "the service answers with error 408: slow", AGAIN),
    (409, told("not now"), Failed, "the service answers with error 409: not now", AGAIN),
    (400, told("no \x1b[31mKEY"), UserError, "the service answers with error 400: no [31m[key]", "mend what it says"),
    (422, told("odd"), UserError, "the service answers with error 422: odd", "mend what it says"),
    (302, b"", UserError, "error 302 (it sends elsewhere, which is not followed)", "check the URL"),
    (307, told("KEY"), UserError, "error 307 (it sends elsewhere, which is not followed)", "check the URL"),
    (200, b"<html>KEY</html>", UserError, "the service's answer is not an OpenAI one", "check the URL"),
    (200, b'{"data": ["KEY"]}', UserError, "the service's answer is not an OpenAI one", "check the URL"),
    (200, b"[1, 2]", UserError, "the service's answer is not an OpenAI one", "check the URL"),
    (0, b"", Failed, "the service cannot be reached", AGAIN),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "what", "fix"), CASES)
def test_each_error_has_its_kind_and_its_words(
    refusing: Refusing, status: int, body: bytes, kind: type[UserError], what: str, fix: str
) -> None:
    refusing.status, refusing.body = status, body
    with pytest.raises(Exception) as raised:
        for job in listed(refusing.url):
            job.to_dict()  # what is no job is seen here
    found = explained(raised.value, refusing.url, "jobs", reading=True)
    assert type(found) is kind
    assert what in found.what and fix in found.fix and found.where == f"127.0.0.1:{refusing.server_port}"
    assert KEY not in str(found)


def test_who_trains_is_told_how_a_key_may(refusing: Refusing) -> None:
    refusing.status, refusing.body = 403, told("no")
    with pytest.raises(Exception) as raised:
        listed(refusing.url)
    found = explained(raised.value, refusing.url, "jobs")
    assert found.what == "the key may not do this (403): no" and "--scope train" in found.fix


def test_a_url_without_its_end_is_named(refusing: Refusing) -> None:
    refusing.status = 404
    for url, hint in ((refusing.url, False), (refusing.url.removesuffix("/v1"), True)):
        with pytest.raises(Exception) as raised:
            listed(url)
        assert ("end in /v1" in explained(raised.value, url, "jobs").fix) is hint


def test_long_words_are_cut_after_the_key_is_taken_out(refusing: Refusing) -> None:
    """A key that stands where the words are cut off is not shown by half."""
    refusing.status, refusing.body = 400, told("a" * (MOST_WORDS - 8) + "KEY" + "b" * MOST_WORDS)
    with pytest.raises(Exception) as raised:
        listed(refusing.url)
    words = words_of(raised.value)
    assert len(words) == MOST_WORDS and words.endswith("a[key]bbb") and KEY[:8] not in words


def test_what_is_no_error_of_the_service_stays_what_it_is() -> None:
    ours = UserError("the file is empty")
    assert explained(ours, "http://a/v1", "jobs") is ours
    with pytest.raises(OSError, match="full"):
        raise explained(OSError(errno.ENOSPC, "full"), "http://a/v1", "jobs")


def test_both_commands_say_the_same(refusing: Refusing, tmp_path: Path) -> None:
    for status, kind in ((401, Unusable), (404, NotThere), (302, UserError)):
        refusing.status, refusing.body = status, told("KEY")
        service = Service(refusing.url, retries=0)
        with pytest.raises(UserError) as there:
            service.find_job({"training_file": "a"}, "mark", 0.0)
        service.close()
        with pytest.raises(UserError) as here:
            migrate(tmp_path, url=refusing.url)
        assert type(there.value) is type(here.value) is kind and str(there.value) == str(here.value)
