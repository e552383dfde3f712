"""``ownchat migrate``: from a real server of ours, and from services that are broken or mean harm."""

from __future__ import annotations

import base64
import errno
import json
import os
import shlex
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from click.testing import Result
from openai import OpenAI
from typer.testing import CliRunner

from ownchat import artifacts
from ownchat.cli import app
from ownchat.config import load_config
from ownchat.errors import RunError, UserError
from ownchat.pipeline import migrate_download
from ownchat.pipeline.migrate import migrate
from ownchat.pipeline.migrate_job import job_of, settings_of
from ownchat.serve.job_store import RUNNING, SUCCEEDED

KEY = "sk-of-a-test-0123456789"
RESULT = b"step,train_loss\n1,2.5\n2,1.5\n"


def lines(number: int, word: str = "order") -> bytes:
    rows = [
        {"messages": [
            {"role": "user", "content": f"Where is {word} {row} {word[::-1]} {row * 7919}?"},
            {"role": "assistant", "content": f"The {word} {row} is on its way to you."},
        ]}
        for row in range(number)
    ]  # fmt: skip
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def pairs(number: int) -> bytes:
    rows = [
        {"input": {"messages": [{"role": "user", "content": f"What of {row} and {row * 31}?"}]},
         "preferred_output": [{"role": "assistant", "content": f"It is {row}."}],
         "non_preferred_output": [{"role": "assistant", "content": "No idea."}]}
        for row in range(number)
    ]  # fmt: skip
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(migrate_download, "PAUSE_SECONDS", 0.01)


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["migrate", "openai", *arguments])


# ------------------------------------------------------------------------------------------------- our own server


@pytest.fixture
def account(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server with three jobs: one that ended well, one of preferences, one whose file was deleted."""
    gateway = serving()
    state = gateway.app.state
    state.runner.tick = lambda: False  # what is trained is not looked at here
    client = OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)

    def upload(content: bytes) -> str:
        return client.files.create(file=("a.jsonl", content), purpose="fine-tune").id

    training, validation, chosen = upload(lines(40)), upload(lines(6, "parcel")), upload(pairs(12))
    own = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.8}
    first = client.fine_tuning.jobs.create(
        model="starter", training_file=training, validation_file=validation, seed=7, suffix="Orders/../x",
        method={"type": "supervised", "supervised": {"hyperparameters": own}},
    ).id  # fmt: skip
    client.fine_tuning.jobs.create(
        model="starter", training_file=chosen, seed=8,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}},
    )  # fmt: skip
    client.fine_tuning.jobs.create(model="starter", training_file=training, validation_file=chosen, seed=9)
    client.files.delete(chosen)
    state.jobs.set(first, status=RUNNING)
    with state.jobs.database.begin() as connection:
        values = {"status": SUCCEEDED, "fine_tuned_model": "ft:x", "trained_tokens": 1234, "finished": 1}
        assert state.jobs.finish_in(connection, first, tell=[], result_files=["file-result"], **values)
        state.files.add_made(connection, "operator", "file-result", base64.b64encode(RESULT), filename="r.csv")
    monkeypatch.setenv("OPENAI_API_KEY", gateway.token)
    return gateway


def test_jobs_come_with_their_files_and_settings(account: Any, tmp_path: Path) -> None:
    to = tmp_path / "mine"
    done = typed("--on", account.url, "--to", str(to), "--json")
    assert done.exit_code == 0, (done.stdout, done.exception)
    shown = json.loads(done.stdout.splitlines()[-1])
    assert (shown["fetched"], shown["there"], shown["unfinished"]) == (3, 1, 0), "one file is of two jobs"
    third, second, first = shown["jobs"]
    assert "1,234 tokens trained" in done.stdout and "succeeded" in done.stdout
    assert done.stdout.count("is NOT here: the service does not have it any more") == 2
    assert second["command"] is None and "its training file did not come" in done.stdout

    folder = to / first["job"]["folder"]
    assert first["job"]["folder"].endswith("-orders-x-" + first["job"]["folder"][-8:])
    assert (folder / "data" / "training.jsonl").read_bytes() == lines(40)
    assert (folder / "data" / "validation.jsonl").read_bytes() == lines(6, "parcel")
    assert (folder / "results" / "result-1.csv").read_bytes() == RESULT, "what was base64 is a table"
    for path in to.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    config, _ = load_config(folder / "train.yaml")
    assert (config.train.epochs, config.train.seed, config.data.map) == (3.0, 7, {"valid": "validation.jsonl"})
    assert 80 < config.train.batch_tokens < 250, "four examples"
    assert "learning_rate_multiplier was 1.8" in (folder / "train.yaml").read_text()
    assert f"  {first['command']}" in done.stdout.splitlines()
    note = json.loads((to / "migration.json").read_text())
    assert {len(entry["sha256"]) for job in note["jobs"].values() for entry in job["files"] if "path" in entry} == {64}
    assert account.token not in "".join(path.read_text() for path in to.rglob("*") if path.is_file())
    assert (to / third["job"]["folder"] / "data" / "training.jsonl").read_bytes() == lines(40)


def test_what_came_is_not_fetched_again_and_what_was_changed_stays(account: Any, tmp_path: Path) -> None:
    first = migrate(tmp_path / "mine", url=account.url)
    (mine,) = [moved for moved in first.jobs if len(moved.files) == 3]
    folder = first.folder / mine.job.folder
    (folder / "train.yaml").write_text("train: {epochs: 1}\n")
    (folder / "data" / "training.jsonl").write_bytes(lines(39))
    (folder / "data" / "validation.jsonl").unlink()
    again = migrate(tmp_path / "mine", url=account.url)
    assert (again.fetched, again.there) == (1, 3)
    assert (folder / "data" / "training.jsonl").read_bytes() == lines(39)
    assert (folder / "data" / "validation.jsonl").read_bytes() == lines(6, "parcel")
    assert load_config(folder / "train.yaml")[0].train.epochs == 1
    (mine,) = [moved for moved in again.jobs if len(moved.files) == 3]
    assert [file.get("changed_here") for file in mine.files] == [True, None, None]
    assert migrate(tmp_path / "mine", url=account.url).fetched == 0
    (client,) = [OpenAI(base_url=account.url, api_key=account.token)]
    client.files.delete(str(mine.files[0]["id"]))
    assert (folder / "data" / "training.jsonl").is_file() and migrate(tmp_path / "mine", url=account.url).fetched == 0


@pytest.mark.slow
@pytest.mark.usefixtures("speed_of_matrix_products")
def test_a_job_that_came_is_trained_by_its_command(
    account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = OpenAI(base_url=account.url, api_key=account.token)
    chosen = client.files.create(file=("p.jsonl", pairs(40)), purpose="fine-tune").id
    method: Any = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1}}}
    client.fine_tuning.jobs.create(model="starter", training_file=chosen, seed=8, method=method)
    done = migrate(tmp_path / "mine", url=account.url)
    monkeypatch.setenv("OWNCHAT_HOME", str(account.services.settings.home))
    by_method = {moved.job.method: moved for moved in done.jobs if moved.command and len(moved.files) != 2}
    for method, phase in (("supervised", "sft"), ("dpo", "prefer")):
        moved = by_method[method]
        program, *arguments = shlex.split(str(moved.command))
        assert program == "ownchat"
        less = ["--set", "evaluate.answers=0", "--set", "evaluate.care={checks: []}", "--set", "clean.private_types=[]"]
        trained = CliRunner().invoke(app, [*arguments, *less, "--set", "train.minutes=0.02"])
        assert trained.exit_code == 0, (trained.stdout, trained.exception)
        run = account.services.settings.home / "runs" / moved.job.folder
        assert (run / "5-train" / phase / "result.json").is_file()
        if method == "supervised":
            train, valid = (sum(1 for _ in _records(run / "2-clean" / split)) for split in ("train", "valid"))
            assert train > 30 and 0 < valid <= 6, "the validation file was held out"


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for path in folder.glob("*.parquet"):
        yield from pq.read_table(path).to_pylist()


def test_stored_answers_come_as_rows(serving: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    gateway = serving()
    monkeypatch.setenv("OPENAI_API_KEY", gateway.token)
    for number in range(3):
        body = gateway.chat(f"Hello {number}", store=True, metadata={"ticket": str(number)}, n=1 + number // 2)
        assert gateway.call("POST", "/v1/chat/completions", body).status == 200
    with pytest.raises(UserError, match="there are no fine-tuning jobs"):
        migrate(tmp_path / "mine", url=gateway.url)
    done = typed("--on", gateway.url, "--to", str(tmp_path / "mine"), "--completions")
    assert done.exit_code == 0, done.exception
    path = tmp_path / "mine" / "completions" / "completions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == ["Hello 0", "Hello 1", "Hello 2", "Hello 2"]
    assert {row["messages"][-1]["role"] for row in rows} == {"assistant"} and rows[1]["metadata"] == {"ticket": "1"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with open(path, "rb+") as handle:
        handle.truncate(path.stat().st_size - 5)  # as a process leaves it that is killed
    exported = migrate(tmp_path / "mine", url=gateway.url, completions=True).completions
    assert exported is not None and (exported.written, exported.there) == (0, 3)
    kept = path.read_text().splitlines()[1]
    path.write_text(kept)  # as an editor leaves it: rows deleted, no line end
    exported = migrate(tmp_path / "mine", url=gateway.url, completions=True).completions
    assert exported is not None and exported.written == 0 and path.read_text() == kept + "\n"
    looked = CliRunner().invoke(app, ["import", str(path.parent), "--preview", "--json"])
    assert looked.exit_code == 0, looked.exception


# ------------------------------------------------------------------------------------------------ other services


class Service(ThreadingHTTPServer):
    """A service with the jobs and files that a test gives it; ``cut``: how many bytes of a file come at first."""

    daemon_threads = True

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.cut: list[int] = []
        self.ranges = True
        self.short = 0  # answers that are half a file and say nothing of it
        self.endless = False
        self.answer: tuple[int, bytes, str] | None = None  # to everything
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: object) -> None:
        """What is cut off on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.server.asked.append((path, self.headers["Range"]))
        if self.server.answer is not None:
            self._send(*self.server.answer, {"Location": "http://127.0.0.1:1/elsewhere"})
        elif path == "/v1/fine_tuning/jobs":
            ids = [job["id"] for job in self.server.jobs]
            start = ids.index(query["after"][0]) + 1 if "after" in query and not self.server.endless else 0
            page = self.server.jobs[start : start + 2]
            more = self.server.endless or start + 2 < len(ids)
            self._json({"object": "list", "data": page, "has_more": more})
        elif (id := path.removeprefix("/v1/files/").removesuffix("/content")) not in self.server.files:
            self._json({"error": {"message": "no", "type": "x", "param": None, "code": None}}, 404)
        elif path.endswith("/content"):
            self._content(self.server.files[id])
        else:
            size = len(self.server.files[id])
            self._json(
                {"id": id, "object": "file", "bytes": size, "created_at": 1, "filename": "../../x", "purpose": "x"}
            )

    def _content(self, content: bytes) -> None:
        if self.server.short:
            self.server.short -= 1
            content = content[: len(content) // 2]
        start = int(str(self.headers["Range"])[6:-1]) if self.headers["Range"] and self.server.ranges else 0
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(rest[: self.server.cut.pop(0)] if self.server.cut else rest)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", {})

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    yield server
    server.shutdown()
    server.server_close()


def job(id: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": id, "object": "fine_tuning.job", "model": "gpt-4o-mini-2024-07-18", "status": "succeeded",
        "created_at": 1_760_000_000, "training_file": "file-a", "validation_file": None, "result_files": [],
        "hyperparameters": {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8}, "seed": 42,
        "trained_tokens": 10, "fine_tuned_model": f"ft:gpt-4o-mini-2024-07-18:acme:faq:{id}", **more,
    }  # fmt: skip


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_goes_on(service: Service, tmp_path: Path, ranges: bool) -> None:
    service.jobs, service.files["file-a"] = [job("ftjob-1")], lines(20_000)
    service.ranges, service.cut = ranges, [1_500_000, 10]
    done = migrate(tmp_path, url=service.url)
    assert (tmp_path / done.jobs[0].job.folder / "data" / "training.jsonl").read_bytes() == lines(20_000)
    asked = [begin for path, begin in service.asked if path.endswith("/content")]
    assert len(asked) == 3 and asked[0] is None and str(asked[1]).startswith("bytes=1")
    assert not list(tmp_path.rglob("*.part"))


def test_what_breaks_off_each_time_is_told_and_goes_on_the_next_time(service: Service, tmp_path: Path) -> None:
    service.jobs, service.files["file-a"] = [job("ftjob-1")], lines(20_000)
    service.cut = [1_100_000, 5, 5]
    done = typed("--on", service.url, "--to", str(tmp_path / "mine"))
    assert done.exit_code == 1 and "is NOT here: it broke off" in done.stdout
    assert "run the same command again" in done.stdout
    assert typed("--on", service.url, "--to", str(tmp_path / "mine")).exit_code == 0
    assert str(service.asked[-1][1]).startswith("bytes=1")
    (path,) = (tmp_path / "mine").rglob("training.jsonl")
    assert path.read_bytes() == lines(20_000)


def test_a_full_disk_is_said_and_nothing_is_lost(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.jobs = [job("ftjob-1"), job("ftjob-2", training_file="file-b")]
    service.files |= {"file-a": lines(20), "file-b": lines(30)}
    real, syncs = os.fsync, iter([None, None, None])

    def full_at_the_second(descriptor: int) -> None:
        if ".part" in os.readlink(f"/proc/self/fd/{descriptor}") and next(syncs, 1) is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if ".part" in os.readlink(f"/proc/self/fd/{descriptor}"):
            next(syncs), next(syncs)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        migrate(tmp_path, url=service.url)
    monkeypatch.setattr(os, "fsync", real)
    done = migrate(tmp_path, url=service.url)
    assert (done.fetched, done.there) == (1, 1)
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda _: type("", (), {"free": 5}))
    with pytest.raises(UserError, match="GB are needed"):
        migrate(tmp_path / "other", url=service.url)


def test_a_file_that_is_shorter_than_told_is_not_taken_for_whole(service: Service, tmp_path: Path) -> None:
    service.jobs, service.files["file-a"] = [job("ftjob-1")], lines(20)
    service.short = 1
    done = migrate(tmp_path, url=service.url)
    assert done.unfinished == 1 and not list(tmp_path.rglob("training.jsonl"))
    assert migrate(tmp_path, url=service.url).fetched == 1
    assert (tmp_path / done.jobs[0].job.folder / "data" / "training.jsonl").read_bytes() == lines(20)


HOSTILE = ["../../../etc/cron.d/x", "/etc/passwd", "..", "a/b", "a\x00b", "\n# x: y", "💥" * 50, "x" * 5000, "a:b\\c"]


def test_a_service_that_means_harm_writes_nowhere_else(service: Service, tmp_path: Path) -> None:
    to = tmp_path / "deep" / "mine"
    service.files["file-a"] = lines(12)
    service.files |= dict.fromkeys(HOSTILE, b"step\n")
    service.jobs = [job(id, user_provided_suffix=id, result_files=[id, 7], validation_file=id) for id in HOSTILE]
    wrong = {"seed": "\n  epochs: 99", "model": "x\ntrain: {epochs: 77}", "created_at": "now", "status": "a\x1b[31m\nb",
             "hyperparameters": {"n_epochs": "4\n", "batch_size": 10**40, "learning_rate_multiplier": True},
             "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": "1"}}}, "trained_tokens": -1}  # fmt: skip
    service.jobs += [job("ftjob-odd", **wrong), job(7), job("ftjob-rl", method={"type": "reinforcement"})]
    service.jobs.append(job("ftjob-list", method=[], hyperparameters=7, result_files={"a": 1}, training_file=None))
    done = typed("--on", service.url, "--to", str(to))
    assert done.exit_code == 0, (done.stdout, done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"] and list((tmp_path / "deep").iterdir()) == [to]
    folders = [path for path in to.iterdir() if path.is_dir()]
    assert len(folders) == len(HOSTILE) + 2, "what has no file has no folder"
    for folder in folders:
        assert folder.name.isascii() and len(folder.name) < 80 and {path.name for path in folder.iterdir()} <= {
            "data", "results", "train.yaml"}  # fmt: skip
        for config in folder.glob("train.yaml"):
            found, origins = load_config(config)
            given = {key for key, why in origins.items() if why != "default"}
            names = ("epochs", "seed", "batch_tokens", "preference", "preference_epochs", "preference_beta")
            assert given <= {f"train.{name}" for name in names}, "and the SDK takes '1' for a number"
            assert found.train.epochs in (2.0, 3.0)
    assert "\x1b" not in done.stdout and "what the service calls it is no id of a file" in done.stdout
    assert "an entry of the list is no job" in done.stdout and "has no counterpart here" in done.stdout
    assert all(path.startswith(("/v1/files/file-a", "/v1/fine_tuning")) for path, _ in service.asked)


def test_a_list_that_never_ends_does(service: Service, tmp_path: Path) -> None:
    service.jobs, service.files["file-a"] = [job("ftjob-1"), job("ftjob-2")], lines(12)
    service.endless = True
    done = migrate(tmp_path, url=service.url)
    assert len(done.jobs) == 2 and "again and again" in done.notes[0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b"{}", "application/json"), "refuses the key"),
        ((403, b"{}", "application/json"), "the key may not read fine-tuning jobs"),
        ((404, b"{}", "application/json"), "the service has no fine-tuning jobs"),
        ((200, b"<html>hello</html>", "text/html"), "not an OpenAI one"),
        ((200, b"[1, 2]", "application/json"), "not an OpenAI one"),
        ((200, b'{"data": ["a"]}', "application/json"), "not an OpenAI one"),
        ((302, b"", "text/html"), "it sends elsewhere"),
    ],
)
def test_a_service_that_cannot_be_used_is_one_message(
    service: Service, tmp_path: Path, answer: tuple[int, bytes, str], said: str
) -> None:
    service.answer = answer
    done = typed("--on", service.url, "--to", str(tmp_path))
    assert isinstance(done.exception, UserError), done.exception
    assert said in str(done.exception) and "What to do" in str(done.exception) and KEY not in str(done.exception)


def test_mistakes_are_one_message(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, said in (
        ("ftp://x", "no URL"), (f"{service.url}#model", "not one of its models"), ("http://a:b@x/v1", "password"),
        ("http://127.0.0.1:1/v1", "cannot be reached"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            migrate(tmp_path, url=url)
    with pytest.raises(UserError, match="there are no fine-tuning jobs"):
        migrate(tmp_path, url=service.url)
    service.jobs, service.files["file-a"] = [job("ftjob-1")], lines(12)
    migrate(tmp_path / "mine", url=service.url)
    note = tmp_path / "mine" / "migration.json"
    note.write_text(note.read_text().replace("127.0.0.1", "api.openai.com"))
    with pytest.raises(RunError, match="another service"):
        migrate(tmp_path / "mine", url=service.url)
    note.write_text("{")
    with pytest.raises(RunError, match="damaged"):
        migrate(tmp_path / "mine", url=service.url)
    with artifacts.locked(tmp_path / "mine"), pytest.raises(RunError, match="--to"):
        migrate(tmp_path / "mine", url=service.url)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="no key is set"):
        migrate(tmp_path, url=service.url)


def test_the_days_on_which_models_end_are_told_for_openai_only() -> None:
    days = {
        model: str(job_of({"id": "a", "model": model}).closes("api.openai.com"))
        for model in ("gpt-4o-2024-08-06", "gpt-4.1-nano-2025-04-14", "ft:gpt-4.1-mini-2025-04-14:acme::x", "other")
    }
    assert list(days.values()) == ["2027-01-14", "2026-10-23", "2027-01-14", "None"]
    assert job_of({"id": "a", "model": "gpt-4o"}).closes("127.0.0.1") is None


def test_small_betas_are_numbers_in_yaml(tmp_path: Path) -> None:
    own = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.00005, "n_epochs": "auto"}}}
    path = tmp_path / "train.yaml"
    path.write_text(settings_of(job_of(job("a", method=own, hyperparameters=None)), tmp_path, "x", 10.0))
    config, origins = load_config(path)
    assert config.train.preference_beta == 0.00005 and origins["train.preference_epochs"] == "default"
