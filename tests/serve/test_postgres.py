"""The same on a real PostgreSQL: several gateways, one database."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from ownchat.errors import UserError
from ownchat.serve.database import connect
from ownchat.serve.keys import Keys
from ownchat.serve.settings import Settings

if TYPE_CHECKING:
    from conftest import Gateway, Program

PLACES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin")]
PASSWORD = "only-for-this-test"


def _program(name: str) -> str | None:
    for place in PLACES:
        if (place / name).is_file() and (place / "postgres").is_file():
            return str(place / name)
    return None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that lives as long as the tests of this file."""
    psycopg = pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
    initdb, program = _program("initdb"), _program("postgres")
    if initdb is None or program is None:
        pytest.skip("PostgreSQL is not on this machine")
    as_other: dict[str, object] = {}
    folder = Path(tempfile.mkdtemp(prefix="ownchat-pg-", dir="/tmp"))  # short: the path of a socket has 107 bytes
    if os.getuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        as_other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    (folder / "password").write_text(PASSWORD)
    if as_other:
        os.chown(folder / "password", nobody.pw_uid, nobody.pw_gid)
    data = folder / "data"
    made = subprocess.run(
        [initdb, "-D", str(data), "-U", "ownchat", "--pwfile", str(folder / "password"), "-A", "scram-sha-256",
         "--no-sync", "-E", "UTF8", "--locale=C"],
        capture_output=True, text=True, cwd=folder, **as_other,
    )  # fmt: skip
    if made.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"initdb does not work here: {made.stderr.strip()[-200:]}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **as_other,
    )  # fmt: skip
    try:
        url = f"postgresql://ownchat:{PASSWORD}@127.0.0.1:{port}/postgres"
        for _ in range(300):
            with suppress(psycopg.OperationalError):  # it listens before it answers
                psycopg.connect(url).close()
                break
            time.sleep(0.1)
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # it waits for no client
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWNCHAT_API_KEY", raising=False)


def test_gateways_that_start_at_once_make_one_schema_and_one_key(postgres: str, tmp_path: Path) -> None:
    def start(number: int) -> str | None:
        opened = connect(Settings(home=tmp_path / str(number), database=postgres))
        try:
            return Keys(opened).first()
        finally:
            opened.close()

    with ThreadPoolExecutor(8) as threads:
        tokens = [token for token in threads.map(start, range(8)) if token is not None]
    assert len(tokens) == 1


def test_a_key_of_one_gateway_opens_another(postgres: str, tmp_path: Path) -> None:
    one, other = (connect(Settings(home=tmp_path / name, database=postgres)) for name in ("a", "b"))
    key, token = Keys(one).create("anna", ("infer",))
    caller = Keys(other).check(token)
    assert caller is not None and caller.owner == "anna"
    Keys(other).revoke(key.id)
    assert Keys(one).check(token) is None
    one.close()
    other.close()


def test_a_wrong_password_is_a_message_without_it(postgres: str, tmp_path: Path) -> None:
    wrong = postgres.replace(PASSWORD, "not-the-password")
    with pytest.raises(UserError, match="cannot be used") as refused:
        connect(Settings(home=tmp_path, database=wrong))
    assert "not-the-password" not in str(refused.value)


def test_a_server_that_is_not_there_is_a_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match="cannot be used"):
        connect(Settings(home=tmp_path, database=f"postgresql://a:b@127.0.0.1:{port}/x"))


def test_two_gateways_share_keys_and_stored_answers(
    postgres: str, serving: Callable[..., Gateway], serve_home: Path, tmp_path: Path
) -> None:
    one, other = (
        serving(home=shutil.copytree(serve_home, tmp_path / name), database=postgres) for name in ("one", "other")
    )
    anna, ben = one.key(owner="anna"), other.key(owner="ben")
    made = one.call("POST", "/v1/chat/completions", one.chat(store=True, metadata={"ticket": "7"}), token=anna)
    assert made.status == 200
    place = f"/v1/chat/completions/{made.json()['id']}"
    listed = other.call("GET", "/v1/chat/completions?metadata%5Bticket%5D=7", token=anna).json()
    assert [record["id"] for record in listed["data"]] == [made.json()["id"]]
    rated = other.call("POST", place, {"metadata": {"ticket": "7", "rating": "down"}}, token=anna)
    assert rated.status == 200 and one.call("GET", place, token=anna).json()["metadata"]["rating"] == "down"
    for method in ("GET", "DELETE"):  # somebody else's is not there, at neither of them
        assert other.call(method, place, token=ben).status == one.call(method, place, token=ben).status == 404
    assert other.call("DELETE", place, token=anna).status == 200
    assert one.call("GET", place, token=anna).status == 404


def test_a_gateway_without_its_database_is_not_ready(postgres: str, serving: Callable[..., Gateway]) -> None:
    gateway = serving(database=postgres)
    assert gateway.call("GET", "/readyz", token=None).status == 200
    gateway.services.database.engine.dispose()
    object.__setattr__(gateway.services.database, "engine", _unreachable())
    gateway.app.state.ready = (0.0, [])
    answer = gateway.call("GET", "/readyz", token=None)
    assert answer.status == 503 and answer.json()["because"] == ["database"]
    assert gateway.call("GET", "/healthz", token=None).status == 200
    refused = gateway.call("GET", "/v1/models", token="sk-own-" + "x" * 43)
    assert refused.status == 503 and "127.0.0.1" not in refused.body.decode() and refused.error["message"]


def _unreachable() -> Any:
    from sqlalchemy import create_engine

    return create_engine("postgresql+psycopg://a:b@127.0.0.1:1/x", connect_args={"connect_timeout": 1})


def test_one_gateway_works_on_the_jobs_and_the_other_takes_over(
    postgres: str, serving: Callable[..., Gateway], serve_home: Path, tmp_path: Path
) -> None:
    shutil.copytree(serve_home, tmp_path / "other")
    one, two = serving(database=postgres), serving(database=postgres, home=tmp_path / "other")
    first, second = one.app.state.runner, two.app.state.runner
    assert [runner.leads for runner in (first, second)] == [True, False]
    file = one.app.state.files
    came = file.incoming()
    came.write_text('{"messages": []}\n' * 3)
    id = file.add("operator", came, filename="a.jsonl", purpose="fine-tune", sha256="").id
    body = {"model": "starter", "training_file": id}
    job = two.call("POST", "/v1/fine_tuning/jobs", body).json()["id"]
    first.wake()
    until = time.monotonic() + 30
    while (found := two.call("GET", f"/v1/fine_tuning/jobs/{job}").json())["status"] != "failed":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "line 1: messages must be a list" in found["error"]["message"], "asked of the one, looked at by the other"
    one.server.should_exit = True
    one.thread.join(30)
    second.wake()
    while not second.leads:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_of_two_gateways_one_tells_a_receiver_and_the_other_goes_on(
    postgres: str, serving: Callable[..., Gateway], serve_home: Path, tmp_path: Path
) -> None:
    """What ends at the one is told by the leader, once; what did not arrive is told by whoever leads then."""
    came: list[str] = []
    plan = [204, 500]

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            came.append(self.headers["webhook-id"])
            self.send_response(plan.pop(0) if plan else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def told(number: int) -> None:
        until = time.monotonic() + 60
        while len(came) < number:
            assert time.monotonic() < until
            time.sleep(0.05)

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    urls = (f"http://127.0.0.1:{receiver.server_port}/",)
    one, two = (
        serving(home=shutil.copytree(serve_home, tmp_path / name), database=postgres, webhooks=urls)
        for name in ("one", "two")
    )
    file = one.app.state.files
    came_in = file.incoming()
    came_in.write_text('{"messages": []}\n' * 3)
    id = file.add("operator", came_in, filename="a.jsonl", purpose="fine-tune", sha256="").id
    for gateway in (one, two):
        gateway.app.state.runner.tick = lambda: False

    def cancelled() -> None:
        job = two.call("POST", "/v1/fine_tuning/jobs", {"model": "starter", "training_file": id}).json()["id"]
        assert two.call("POST", f"/v1/fine_tuning/jobs/{job}/cancel").status == 200

    cancelled()
    told(1)
    cancelled()
    told(2)
    one.server.should_exit = True
    one.thread.join(30)
    two.app.state.runner.wake()
    told(3)
    time.sleep(2.5)  # more than a look of each
    assert len(came) == 3 and came[0] != came[1] and came[1] == came[2], "only what failed is told again"
    receiver.shutdown()
    receiver.server_close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_another_gateway_ends_what_a_killed_one_began(
    postgres: str, program: Callable[..., Program], serve_home: Path, tmp_path: Path
) -> None:
    """Two processes on one folder and one database: the one that works on the jobs is killed while a job trains."""
    home = shutil.copytree(serve_home, tmp_path / "home")
    servers = [program(home, OWNCHAT_DATABASE=postgres) for _ in range(2)]
    lock = home / "server" / "lock"
    leader, other = servers
    assert lock.read_text() == str(leader.process.pid), "the first one works, the second one waits for its turn"

    def said(n: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]

    content = b"".join(json.dumps({"messages": said(n)}).encode() + b"\n" for n in range(30))
    client = openai.OpenAI(base_url=other.url, api_key=other.token, max_retries=0)
    file = client.files.create(file=("a.jsonl", content), purpose="fine-tune").id
    id = client.fine_tuning.jobs.create(
        model="starter", training_file=file, seed=1, hyperparameters={"n_epochs": 6, "batch_size": 4}
    ).id

    def told() -> list[str]:
        return [event.message for event in client.fine_tuning.jobs.list_events(id, limit=100)]

    def until(seen: Callable[[], bool], seconds: float = 250) -> None:
        end = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < end, told()
            time.sleep(0.1)

    until(lambda: any(text.startswith("Step ") for text in told()))
    leader.kill()
    until(lambda: lock.read_text() == str(other.process.pid), 60)
    until(lambda: client.fine_tuning.jobs.retrieve(id).status in ("succeeded", "failed"))
    job, messages = client.fine_tuning.jobs.retrieve(id), told()
    assert job.status == "succeeded" and len(job.result_files) == 1, messages
    for text in ("Fine-tuning job started", "The job has successfully completed"):
        assert messages.count(text) == 1
    steps = [text for text in messages if text.startswith("Step ")]
    assert len(set(steps)) == len(steps) == len(client.files.content(job.result_files[0]).read().splitlines()) - 1
    assert [model.id for model in client.models.list()].count(str(job.fine_tuned_model)) == 1
