"""``ownchat train --on URL``: a real service on this machine (``ownchat serve``, a tiny base), and the real SDK."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from ownchat import artifacts
from ownchat.config import Config, load_config
from ownchat.data.records import SCHEMA, ShardWriter, message, record
from ownchat.errors import ConfigError, DataError, Interrupted, RunError, UserError
from ownchat.evaluate import gates, wording
from ownchat.evaluate.answered import measure_answers
from ownchat.generate.answering import Answered
from ownchat.pipeline import hosted, hosted_service, ladder, runs
from ownchat.pipeline.hosted_data import is_sent, prepare
from ownchat.pipeline.hosted_job import Job
from ownchat.pipeline.hosted_service import Service, parse_service
from ownchat.pipeline.run import evaluate
from ownchat.serve.training_file import validate

if TYPE_CHECKING:
    from conftest import Gateway

WAIT_SECONDS = 400.0  # for a machine that does other things, too
SENTENCES = ["oak stands", "rain falls", "bread rises", "ships sail", "bells ring", "snow melts"]


def written(folder: Path, number: int = 36) -> Path:
    folder.mkdir()
    rows = [
        f"What of {SENTENCES[n % 6]} {n * 37} times and {n * n + 5}?,It {SENTENCES[(n + 1) % 6]} by {n * 11} now {n}."
        for n in range(number)
    ]
    rows[0] = "Who asked?,Write to anna.keller@example.org and she answers."
    (folder / "faq.csv").write_text("question,answer\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def client(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> openai.OpenAI:
    monkeypatch.setenv("OPENAI_API_KEY", gateway.token)
    return openai.OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)


def begin(gateway: Gateway, folder: Path, **more: Any) -> tuple[hosted.Outcome | None, list[str]]:
    said: list[str] = []
    options: dict[str, Any] = {"on": f"{gateway.url}#starter", "say": said.append, "yes": True} | more
    return hosted.train(folder, **options), said


# ------------------------------------------------------------------------------------------------ before it is sent


def test_nothing_leaves_before_somebody_says_so(gateway: Gateway, client: openai.OpenAI, tmp_path: Path) -> None:
    folder, at_first = written(tmp_path / "unsent"), len(client.files.list().data)
    settings, origins = load_config(values={"train.epochs": 3.0, "model.lora_rank": 4})
    made, said = begin(gateway, folder, yes=False, ask=lambda: False, price=2.0, config=settings, origins=origins)
    page = "\n".join(said)
    assert made is None and "nothing was sent" in said[-1]
    run = artifacts.existing_run("unsent")
    lines = (run / "5-train" / "hosted" / "training.jsonl").read_text().splitlines()
    tokens = next(line for line in said if line.startswith("  tokens"))
    assert f"{len(lines)} to learn from" in page and "anna.keller" not in page + "".join(lines)
    assert "private data masked in" in page and "email 1" in page
    assert "epochs    3" in page and "estimated" in tokens and "about 0.0" in page
    assert "no effect model.lora_rank" in page, "a setting that does nothing there is told"
    with pytest.raises(ConfigError, match="nobody is there to be asked"):
        begin(gateway, folder, yes=False)
    assert artifacts.hosted_job(run) is None and len(client.files.list().data) == at_first
    assert runs.describe(run).status == "not trained"


@pytest.mark.parametrize(
    "on, base, what",
    [
        ("api.openai.com/v1#m", None, "has no https://"),
        ("http://example.org/v1#m", None, "readable for everybody"),
        ("http://127.0.0.1.example.org/v1#m", None, "readable for everybody"),
        ("https://example.org/v1", None, "no model is named"),
        ("https://example.org/v1#m", "other", "two models"),
        ("https://ann:secret@example.org/v1#m", None, "password"),
        ("https://:99999/v1#m", None, "no URL"),
    ],
)
def test_a_url_that_cannot_be(on: str, base: str | None, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        parse_service(on, base)
    assert "secret" not in str(caught.value)


def test_plain_http_where_it_is_allowed() -> None:
    assert parse_service("http://10.0.0.1/v1#m", None, allow_http=True) == ("http://10.0.0.1/v1", "m")
    assert parse_service("http://localhost:8000/v1", "m") == ("http://localhost:8000/v1", "m")


def test_what_the_service_refuses_at_once(gateway: Gateway, client: openai.OpenAI, tmp_path: Path, monkeypatch) -> None:
    folder, at_first = written(tmp_path / "refused"), len(client.files.list().data)
    with pytest.raises(UserError, match='no model "strter"') as caught:
        begin(gateway, folder, on=f"{gateway.url}#strter")
    assert 'did you mean "starter"?' in caught.value.fix
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own-wrong")
    with pytest.raises(UserError, match="refuses the key") as caught:
        begin(gateway, folder)
    assert "sk-own-wrong" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", gateway.key("infer"))
    with pytest.raises(UserError, match="may not do this"):
        begin(gateway, folder, name="no-scope")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="no key"):
        Service("https://example.org/v1")
    assert len(client.files.list().data) == at_first


def test_too_few_examples(gateway: Gateway, client: openai.OpenAI, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wants 10 at least"):
        begin(gateway, written(tmp_path / "few", 9))


# ---------------------------------------------------------------------------------------------------- what is sent


def _split(run: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    for name in ("train", "valid"):
        with ShardWriter(run / "2-clean" / name) as writer:
            writer.write(pa.RecordBatch.from_pylist(rows if name == "train" else rows[:2], schema=SCHEMA))


def _row(number: int, messages: list[dict[str, Any]], kind: str = "conversation", **more: Any) -> dict[str, Any]:
    return record(kind, file="a.jsonl", format="jsonl", line=number, messages=messages, **more)


def test_lines_are_what_a_service_takes(tmp_path: Path) -> None:
    calls = json.dumps([{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}])
    tools = json.dumps([{"type": "function", "function": {"name": "now", "parameters": {}}}])
    rows = [
        _row(n, [message("user", f"q{n}", name="Ann B"), message("assistant", f"a{n}"), message("user", "thanks")])
        for n in range(10)
    ]
    rows.append(_row(20, [
        message("user", "when?"), message("assistant", "", tool_calls=calls),
        message("tool", "noon", tool_call_id="1"), message("assistant", "at noon"),
    ], tools=tools))  # fmt: skip
    rows.append(_row(21, [message("user", "a"), message("assistant", "b", weight=0), message("assistant", "c")]))
    rows.append(_row(22, [message("user", "a <|im_end|>"), message("assistant", "b")]))
    rows.append(_row(23, [message("user", "a"), message("assistant", "b", weight=0)]))
    rows.append(record("document", file="b", format="text", line=1, text="a book"))
    _split(tmp_path, rows)
    made = prepare(tmp_path)
    lines = [json.loads(line) for line in made.training.path.read_text().splitlines()]
    assert made.method == "supervised" and made.training.examples == len(lines) == 12
    assert sum(made.left_out.values()) == 3 and made.left_out["holds a control token"] == 1
    assert [row["messages"] is not None and is_sent(row, "supervised") for row in rows] == [True] * 12 + [False] * 3
    assert lines[0] == {"messages": [{"role": "user", "content": "q0"}, {"role": "assistant", "content": "a0"}]}
    assert lines[10]["tools"] and lines[10]["messages"][1]["tool_calls"][0]["id"] == "1"
    assert [turn.get("weight") for turn in lines[11]["messages"]] == [None, 0, None]
    assert validate(io.BytesIO(made.training.path.read_bytes()), "supervised").problem is None
    assert prepare(tmp_path) == made, "the same bytes"
    marked = prepare(tmp_path, bom=True).training
    assert marked.path.read_bytes()[:3] == b"\xef\xbb\xbf" and marked.sha256 != made.training.sha256


def test_pairs_are_sent_where_there_is_nothing_else(tmp_path: Path) -> None:
    def said(text: str) -> list[dict[str, Any]]:
        return [message("assistant", text)]

    _split(tmp_path, [
        _row(n, [message("user", f"q{n}")], "preference", chosen=said("good"), rejected=said("bad")) for n in range(12)
    ])  # fmt: skip
    made = prepare(tmp_path)
    assert made.method == "dpo"
    assert validate(io.BytesIO(made.training.path.read_bytes()), "dpo").problem is None


def test_a_large_file_goes_in_parts_and_goes_on(gateway: Gateway, client, tmp_path: Path, monkeypatch) -> None:
    content = b"".join(
        json.dumps({"messages": [{"role": "user", "content": f"{n}"}]}).encode() + b"\n" for n in range(90)
    )
    (tmp_path / "large.jsonl").write_bytes(content)
    monkeypatch.setattr(hosted_service, "WHOLE_BYTES", 100)
    monkeypatch.setattr(hosted_service, "PART_BYTES", 1500)
    service, kept = Service(gateway.url), {}

    def keep(known: dict[str, Any]) -> None:
        kept.clear()
        kept.update(known)
        if len(known.get("parts", ())) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.upload(tmp_path / "large.jsonl", "large-1.jsonl", {}, keep)
    first, sent = kept["parts"][0], []
    id = service.upload(tmp_path / "large.jsonl", "large-1.jsonl", dict(kept), sent.append)
    assert service.content(id) == content and all(known["parts"][0] == first for known in sent if "parts" in known)
    assert service.upload(tmp_path / "large.jsonl", "large-1.jsonl", {"begun": True}, sent.append) == id, "not again"
    service.close()
    client.files.delete(id)


# ------------------------------------------------------------------------------------------------------- the job


def _job(run: Path, service: Service, **state: Any) -> Job:
    job = Job(run, service, lambda line: None, patience=0.2)
    job.keep(id="ftjob-1", status="running", **state)
    return job


def test_a_service_that_is_gone_leaves_the_job_to_be_followed(tmp_path: Path) -> None:
    service = Service("http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(UserError, match="cannot be reached; the job ftjob-1 goes on") as caught:
        _job(tmp_path, service).follow("ownchat train X")
    assert "follow it: ownchat train X" in caught.value.fix


def test_a_job_that_failed_says_why(tmp_path: Path) -> None:
    error = {"code": "invalid_training_file", "message": "line 3: no messages", "param": "training_file"}
    job = _job(tmp_path, Service("http://127.0.0.1:9/v1", retries=0), error=error)
    job.keep(status="failed")
    with pytest.raises(UserError, match=r"failed: invalid_training_file: line 3: no messages \(training_file\)"):
        job.follow("ownchat train X")
    assert not job.begun


def test_cancelled_from_elsewhere_and_here(gateway: Gateway, client: openai.OpenAI, tmp_path: Path) -> None:
    folder, place = written(tmp_path / "ended"), f"{gateway.url}#starter"
    with pytest.raises(RunError, match="has no job"):
        hosted.cancel(folder, on=place)

    def cancelling(line: str) -> None:
        if "job ftjob-" in line and " at " in line:
            client.fine_tuning.jobs.cancel(line.split()[2])

    with pytest.raises(UserError, match="was cancelled"):
        begin(gateway, folder, say=cancelling)
    state = artifacts.hosted_job(artifacts.existing_run("ended"))
    assert state is not None and state["status"] == "cancelled"
    assert runs.describe(artifacts.existing_run("ended")).status.startswith("cancelled at ")
    with pytest.raises(RunError, match="is over: cancelled"):
        hosted.cancel(folder, on=place)


def test_a_job_whose_answer_was_lost_is_ended_also_from_a_changed_folder(
    gateway: Gateway, client: openai.OpenAI, tmp_path: Path
) -> None:
    folder = written(tmp_path / "lost")

    def killed(line: str) -> None:
        if "job ftjob-" in line:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="sending was stopped"):
        begin(gateway, folder, say=killed)
    run = artifacts.existing_run("lost")
    path = run / "5-train" / "hosted" / "job.json"
    state = json.loads(path.read_text())
    id = state.pop("id")
    path.write_text(json.dumps(state | {"status": "sending"}))
    (folder / "faq.csv").write_text("question,answer\nWho?,Nobody but me.\n")
    hosted.cancel(folder, on=f"{gateway.url}#starter")
    assert client.fine_tuning.jobs.retrieve(id).status == "cancelled"
    assert json.loads(path.read_text())["id"] == id


# ------------------------------------------------------------------------------------------------------- scores


def _answering(texts: dict[str, str]) -> Callable[..., list[Answered]]:
    return lambda prompts: [Answered(texts[prompt[-1]["content"]], 0.1, 1, 1) for prompt in prompts]


def test_answers_alone_make_a_verdict_and_gates() -> None:
    questions = {f"q{n}": f"The answer number {n} is {n * n}." for n in range(12)}
    items = [_row(n, [message("user", q), message("assistant", a)]) for n, (q, a) in enumerate(questions.items())]
    result = measure_answers(
        _answering(dict.fromkeys(questions, "no")), _answering(questions), items, Config().evaluate
    )
    from dataclasses import asdict

    held_out = asdict(result.comparison) | {
        "answers_only": True, "answers": 12, "records": 12, "groups": 12, "answer_groups": 12, "labels": None,
        "slices": [],
    }  # fmt: skip
    assert wording.change(held_out) == "helped" and wording.headline(held_out).startswith("chrF of its answers rose")
    assert "12 questions" in wording.verdict(held_out)
    checked = gates.check(gates.parse(["chrf better", "exact at least 90 %", "loss better", "leak none"]), held_out)
    assert [each["passed"] for each in checked["checks"]] == [True, True, False, False]
    assert len(result.extremes.best) == 6 and result.extremes.best[0].base_loss is None
    worse = held_out | {"difference": {"chrf": {"value": -9.0, "low": -12.0, "high": -3.0}}}
    assert wording.change(worse) == "harmed" and "fell" in wording.headline(worse)


def test_a_question_without_an_answer_counts_for_neither() -> None:
    items = [_row(n, [message("user", f"q{n}"), message("assistant", "yes, of course")]) for n in range(4)]

    def failing(prompts: Any) -> list[Answered]:
        good = [Answered("yes", 0.1, 1, 1) for _ in prompts]
        return [Answered("", 0.1, 0, 0, "withheld"), *good[1:]]

    result = measure_answers(_answering({f"q{n}": "no" for n in range(4)}), failing, items, Config().evaluate)
    assert len(result.answers) == 3 and any("1 of 4 questions" in note for note in result.notes)
    nothing = measure_answers(_answering({}), _answering({}), [], Config().evaluate)
    assert nothing.comparison.tuned.chrf is None


# ---------------------------------------------------------------------------------------------------- the whole way


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_life_of_a_hosted_model(
    serving: Callable[..., Gateway], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = serving()
    client = openai.OpenAI(base_url=gateway.url, api_key=gateway.token)
    folder, home = written(tmp_path / "inbox"), tmp_path / "my-home"
    environment = os.environ | {"OWNCHAT_HOME": str(home), "OPENAI_API_KEY": gateway.token}
    sets = ["evaluate.answers=4", "evaluate.answer_tokens=8", "evaluate.draws=100"]
    command = [sys.executable, "-m", "ownchat", "train", str(folder), "--on", f"{gateway.url}#starter", "--epochs", "1",
               *(word for text in sets for word in ("--set", text))]  # fmt: skip

    def ownchat(*words: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "ownchat", *words] if words else [*command, "--yes"]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    refused = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert refused.returncode == 2 and "--yes" in refused.stderr and not client.files.list().data

    job_file = home / "runs" / "inbox" / "5-train" / "hosted" / "job.json"
    with subprocess.Popen([*command, "--yes"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, stdin=subprocess.DEVNULL) as running:  # fmt: skip
        until = time.monotonic() + WAIT_SECONDS
        while not (job_file.is_file() and '"id": "ftjob-' in job_file.read_text()):
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert "goes on at" in told and "--cancel" in told and "Traceback" not in told

    state = json.loads(job_file.read_text())
    job = state.pop("id")
    state["status"] = "sending"
    state["training"].pop("id")  # as if the answers of the service had been lost
    job_file.write_text(json.dumps(state))
    done = ownchat()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each.id for each in client.fine_tuning.jobs.list().data] == [job], "no second job"
    assert len([file for file in client.files.list().data if file.purpose == "fine-tune"]) == 2, "no second upload"

    run = home / "runs" / "inbox"
    report = json.loads((run / "6-report" / "report.json").read_text())
    tuned = json.loads(job_file.read_text())["tuned"]
    assert tuned.startswith("ft:starter:") and report["hosted"]["tuned"] == tuned
    assert report["held_out"]["tuned"]["loss"] is None and report["held_out"]["tuned"]["chrf"]["value"] >= 0
    assert report["recommendation"]["command"].startswith("ownchat ")
    assert report["ledger"]["5-train"]["row"]["kept"] == state["training"]["examples"] + state["validation"]["examples"]
    assert (run / "5-train" / "hosted" / "results.csv").read_text().startswith("step,")
    page = (run / "6-report" / "report.html").read_text()
    assert tuned in page and "its weights stay there" in page and "left this machine" in page
    mode = (run / "5-train" / "hosted" / "training.jsonl").stat().st_mode
    assert not mode & 0o077 and gateway.token not in done.stdout + done.stderr + job_file.read_text()

    again = ownchat()
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert runs.describe(run).status.startswith("finished at 127.0.0.1")
    said = ownchat("chat", "inbox", "--prompt", "Hello", "--max-tokens", "4")
    assert said.returncode == 0, said.stderr
    kept = run / "6-report" / "ladder-answers.jsonl"
    refused = ownchat("ladder", "inbox", "--full")
    assert refused.returncode == 2 and "on this machine only" in refused.stderr
    at = f"{gateway.url}#starter"
    climb = ["ladder", "inbox", "--price-in", "1", "--price-out", "2", "--price-out", f"{at}=4", "--json"]
    climbed = ownchat(*climb)
    assert climbed.returncode == 0, climbed.stdout + climbed.stderr
    assert "prompts are tried at 127.0.0.1" in climbed.stdout and "--budget 96" in climbed.stdout
    found = json.loads(climbed.stdout.splitlines()[-1])
    names = [rung["name"] for rung in found["rungs"]]
    assert names[:2] == ["plain prompt", "system prompt"] and names[-1].startswith("tuned at 127.0.0.1")
    last = found["rungs"][-1]
    assert last["score"] == report["held_out"]["tuned"]["chrf"]["value"], "the report's answers, asked once"
    assert all(rung["answered"] == 4 and rung["cost"] > 0 for rung in found["rungs"])
    assert found["rungs"][0]["difference"] is None and last["difference"] is not None and last["run"] == "inbox"
    assert "tuned at 127.0.0.1" in (run / "6-report" / "report.html").read_text()
    lines = kept.read_text()
    assert ownchat(*climb).returncode == 0 and kept.read_text() == lines, "nothing is asked twice"

    monkeypatch.setenv("OPENAI_API_KEY", gateway.token)
    sets = [*sets, "evaluate.require=[chrf at least 0, loss better]"]
    settings, origins = load_config(run / "config.yaml", sets=sets)
    measured = evaluate(str(run), config=settings, origins=origins, say=lambda line: None).report["gates"]
    assert [check["passed"] for check in measured["checks"]] == [True, False], "what was not measured does not pass"


def test_a_ladder_waits_for_the_job_and_trains_nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path))
    run = tmp_path / "runs" / "mail"
    artifacts.write_json(run / "request.json", {"source": "/data/mail", "key": "x"})
    job = {"url": "https://host/v1", "host": "host", "base": "small", "tuned": "ft:small:x", "status": "running"}
    artifacts.write_json(run / "5-train" / "hosted" / "job.json", job)
    with pytest.raises(RunError, match="at host is not over: running") as caught:
        ladder.ladder("mail")
    assert "ownchat train /data/mail" in caught.value.fix and "--on 'https://host/v1#small'" in caught.value.fix
    assert artifacts.free_run_name("mail") == "mail-2", "a model at a service is not overwritten"
