"""The life of a fine-tuned model by the official SDK: a real server, a real training of a tiny base, in a process."""

from __future__ import annotations

import base64
import csv
import errno
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from pydantic import BaseModel

from ownchat.artifacts import SPLITS, is_locked, locked
from ownchat.data.records import read_records
from ownchat.errors import RunError, system_error
from ownchat.model import starter
from ownchat.model.load import load_model
from ownchat.model.lora import load_adapter
from ownchat.model.score import score_documents
from ownchat.serve import job_process
from ownchat.serve.job_store import run_name
from ownchat.serve.protocol.fine_tuning import Train
from ownchat.serve.runner import Runner
from ownchat.tokenizer.store import TokenStore

PLACES = [
    "Aachen",
    "Bremen",
    "Celle",
    "Dresden",
    "Essen",
    "Fulda",
    "Gotha",
    "Halle",
    "Ilmenau",
    "Jena",
    "Kiel",
    "Lindau",
]
WAIT_SECONDS = 400.0  # for a machine that does other things, too


def rows(times: int = 3) -> list[dict[str, Any]]:
    """Different questions, one answer: what a small model learns at once."""
    return [
        {"messages": [
            {"role": "user", "content": f"Where is order {place} {number} {place[::-1]}?"},
            {"role": "assistant", "content": "ok ok ok"},
        ]}
        for place in PLACES for number in range(times)
    ]  # fmt: skip


def lines(examples: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in examples)


def pairs() -> list[dict[str, Any]]:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    return [
        {"input": {"messages": [{"role": "user", "content": f"{place} {number}?"}]},
         "preferred_output": said(f"ok {place}"), "non_preferred_output": said(f"no {number}")}
        for place in PLACES for number in range(2)
    ]  # fmt: skip


def sdk(gateway: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=gateway.token, max_retries=0)


def wait(
    client: openai.OpenAI,
    id: str,
    *statuses: str,
    seen: Callable[[Any], bool] = lambda job: True,
    path: list[str] | None = None,
) -> Any:
    """The job, once it has one of these statuses and ``seen`` says yes; ``path`` gets the statuses on the way."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        job = client.fine_tuning.jobs.retrieve(id)
        if path is not None and job.status not in path:
            path.append(job.status)
        if job.status in statuses and seen(job):
            return job
        if job.status in ("failed", "succeeded", "cancelled") or time.monotonic() > until:
            raise AssertionError(f"{job.status}, not {statuses}: {job.error} {messages(client, id)}")
        time.sleep(0.1)


def begin(client: openai.OpenAI, examples: Sequence[Any], **more: Any) -> str:
    upload = client.files.create(file=("training.jsonl", lines(examples)), purpose="fine-tune")
    if (validation := more.pop("validation", None)) is not None:
        file = client.files.create(file=("checks.jsonl", lines(validation)), purpose="fine-tune")
        more["validation_file"] = file.id
    extra = {"x_train": {"method": "full", **more.pop("x_train", {})}}
    return client.fine_tuning.jobs.create(
        model=more.pop("model", "starter"), training_file=upload.id, seed=1, extra_body=extra, **more
    ).id


def messages(client: openai.OpenAI, id: str) -> list[str]:
    """What the job told, oldest first."""
    return [event.message for event in client.fine_tuning.jobs.list_events(id, limit=100)][::-1]


def process_of(gateway: Any, id: str) -> int:
    (row,) = [row for row in gateway.app.state.jobs.active() if row.id == id]
    return int(row.pid or 0)


class Found(BaseModel):
    ok: bool


LONGER: dict[str, Any] = {
    "method": {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 20, "batch_size": 4, "learning_rate_multiplier": 40.0}},
    },
    "x_train": {"validate_every": 20, "patience": 100},
}


def losses(client: openai.OpenAI, job: Any) -> list[dict[str, str]]:
    """The rows of its result file."""
    (result,) = job.result_files
    assert client.files.retrieve(result).purpose == "fine-tune-results"
    return list(csv.DictReader(io.StringIO(client.files.content(result).read().decode())))


def has_begun(client: openai.OpenAI) -> Callable[[Any], bool]:
    """Whether a job has done a step."""
    return lambda job: any(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job.id))


@pytest.mark.slow
def test_the_life_of_a_model(serving: Callable[..., Any], tmp_path: Path) -> None:
    """Upload in chunks, train, follow, chat with the result; the same again paused, resumed and with the server
    restarted in its middle ends with the same losses."""
    gateway = serving(engine="llamacpp")
    client = sdk(gateway)
    path = tmp_path / "training.jsonl"
    path.write_bytes(lines(rows()))
    uploaded = client.uploads.upload_file_chunked(file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=900)
    assert uploaded.file is not None

    def create(**more: Any) -> Any:
        assert uploaded.file is not None
        settings = {"model": "starter", "training_file": uploaded.file.id, "seed": 1, "method": LONGER["method"]}
        return client.fine_tuning.jobs.create(
            **settings | more, extra_body={"x_train": {"method": "full"} | LONGER["x_train"]}
        )

    first, second = create(suffix="orders", metadata={"team": "support"}), create()
    statuses = [first.status]
    done = wait(client, first.id, "succeeded", path=statuses)
    assert [name for name in statuses if name != "queued"] == ["validating_files", "running", "succeeded"]
    told = messages(client, first.id)
    assert [text for text in told if not text.startswith(("Step", "Checkpoint"))] == [
        f"Created fine-tuning job: {first.id}",
        f"Validating training file: {uploaded.file.id}",
        "The training file has 36 examples",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Examples: 30 to learn from, 3 for validation, 3 held out for the report",
        told[6],
        f"New fine-tuned model created: {done.fine_tuned_model}",
        "The job has successfully completed",
    ]
    assert done.error is None and done.finished_at is not None and (done.trained_tokens or 0) > 1000
    assert done.hyperparameters.n_epochs == 20
    table = losses(client, done)
    assert float(table[-1]["train_loss"]) < 0.5 * float(table[0]["train_loss"])
    assert min(float(row["valid_loss"]) for row in table if row["valid_loss"]) < 0.5
    shares = {row["step"]: float(row["valid_mean_token_accuracy"]) for row in table if row["valid_loss"]}
    assert max(shares.values()) > 0.9 and not any(row["train_accuracy"] for row in table)

    model = done.fine_tuned_model
    assert model == f"ft:starter:operator:orders:{first.id[6:14]}"
    (last, *_) = kept = list(client.fine_tuning.jobs.checkpoints.list(first.id))
    assert last.id.startswith("ftckpt_") and last.metrics.train_loss is not None
    assert last.metrics.valid_mean_token_accuracy == shares[str(last.step_number)]
    assert last.metrics.full_valid_mean_token_accuracy == last.metrics.valid_mean_token_accuracy
    saved = [int(text.split()[-1]) for text in told if text.startswith("Checkpoint created at step")]
    assert [one.step_number for one in kept[:3]] == sorted(saved)[:-4:-1], "the last three"
    listed = [found.id for found in client.models.list()]
    assert {model, *(found.fine_tuned_model_checkpoint for found in kept)} <= set(listed)
    assert not [name for name in listed if name.startswith("ft-")], "a run of a job has one name"

    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Where is order Ulm 9?"}], "temperature": 0}
    base = client.chat.completions.create(model="starter", max_tokens=8, **asked).choices[0].message.content
    tuned = client.chat.completions.create(model=model, max_tokens=8, logprobs=True, **asked).choices[0]
    assert (tuned.message.content, tuned.finish_reason) == ("ok ok ok", "stop") and base != "ok ok ok"
    assert tuned.logprobs is not None and tuned.logprobs.content
    for name in (model, last.fine_tuned_model_checkpoint):
        stream = client.chat.completions.create(model=name, max_tokens=8, stream=True, **asked)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "ok ok ok"
    try:
        parsed = client.chat.completions.parse(model=str(model), max_tokens=64, response_format=Found, **asked)
        assert isinstance(parsed.choices[0].message.parsed, Found)
    except openai.LengthFinishReasonError as error:  # two layers may write spaces for ever, and nothing but JSON
        assert str(error.completion.choices[0].message.content).lstrip().startswith("{")

    wait(client, second.id, "running", seen=has_begun(client))
    assert client.fine_tuning.jobs.pause(second.id).status == "paused"
    until = time.monotonic() + WAIT_SECONDS
    while gateway.app.state.jobs.active():  # its process ends and frees the memory
        assert time.monotonic() < until
        time.sleep(0.1)
    early, *_ = client.fine_tuning.jobs.checkpoints.list(second.id)
    assert early.fine_tuned_model_checkpoint.startswith(f"ft:starter:operator::{second.id[6:14]}:ckpt-step-")
    said = client.chat.completions.create(model=early.fine_tuned_model_checkpoint, max_tokens=8, **asked)
    assert said.usage is not None and said.usage.completion_tokens, "before there is any model of the job"
    assert client.fine_tuning.jobs.resume(second.id).status == "queued"
    wait(client, second.id, "running", seen=lambda job: process_of(gateway, job.id) > 0)
    worker = process_of(gateway, second.id)
    gateway.server.should_exit = True
    gateway.thread.join(60)
    assert Path(f"/proc/{worker}").exists(), "what trains outlives the server"
    gateway = serving(home=gateway.services.settings.home, engine="llamacpp")
    client = sdk(gateway)
    again = wait(client, second.id, "succeeded")
    assert losses(client, again) == table, "to the last digit"
    assert again.trained_tokens == done.trained_tokens

    with pytest.raises(openai.NotFoundError):
        client.models.delete("ft:starter:operator:orders:nothing")
    assert client.models.delete(str(model)).deleted
    assert client.files.delete(done.result_files[0]).deleted
    assert model not in [found.id for found in client.models.list()]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"team": "support"})] == [first.id]


@pytest.mark.slow
def test_a_validation_file_is_validated_on_and_never_learned(serving: Callable[..., Any]) -> None:
    """And checkpoints are there, to be asked, while an adapter is still trained."""
    gateway = serving()
    client = sdk(gateway)
    held = [
        {"messages": [{"role": "user", "content": f"Where is order {place} 7 {place[::-1]}?"},
                      {"role": "assistant", "content": "ok ok ok"}]}
        for place in ("Minden", "Neuss", "Osnabrueck", "Passau", "Rostock", "Stade")
    ]  # fmt: skip
    learned = rows()
    id = begin(
        client, learned, validation=[*held, learned[0], learned[5]],
        hyperparameters={"n_epochs": 15, "batch_size": 4, "learning_rate_multiplier": 2.0},
        x_train={"method": "lora", "rank": 4, "validate_every": 60, "patience": 100},
    )  # fmt: skip

    def kept() -> list[Any]:
        return list(client.fine_tuning.jobs.checkpoints.list(id))

    wait(client, id, "running", seen=lambda job: bool(kept()))
    (first, *_) = kept()
    message = f"Checkpoint created at step {first.step_number}"
    wait(client, id, "running", "succeeded", seen=lambda job: message in messages(client, id))  # the server looks later
    name = first.fine_tuned_model_checkpoint
    assert name in [found.id for found in client.models.list()]
    asked: Any = [{"role": "user", "content": "Where is order Ulm 9?"}]
    answer = client.chat.completions.create(model=name, messages=asked, max_tokens=4, temperature=0)
    assert answer.model == name and answer.usage is not None and answer.usage.completion_tokens
    if (now := client.fine_tuning.jobs.retrieve(id)).status == "running":
        assert now.fine_tuned_model is None

    job = wait(client, id, "running", "succeeded", seen=lambda job: job.status == "succeeded")
    told = messages(client, id)
    assert "2 example(s) of the validation file are copies of what is learned, and left out of the validation" in told
    assert any(text.startswith("Examples: 36 to learn from, 5 for validation, 1 held out") for text in told), told
    run = gateway.services.settings.home / "runs" / run_name(id, None)
    sources = {
        split: Counter(record["source"]["file"] for record in read_records(run / "2-clean" / split))
        for split in (*SPLITS, "dropped")
    }
    assert sources == {
        "train": {"training.jsonl": 36}, "valid": {"validation.jsonl": 5}, "test": {"validation.jsonl": 1},
        "dropped": {"validation.jsonl": 2},
    }  # fmt: skip

    table = {row["step"]: row for row in losses(client, job)}
    checkpoints = kept()
    assert [one.step_number for one in checkpoints][1:] == [120, 60] and len(checkpoints) == 3
    assert name in [one.fine_tuned_model_checkpoint for one in checkpoints], "under the name it had before"
    for one in checkpoints:
        metrics, row = one.metrics, table[str(one.step_number)]
        assert metrics.step == one.step_number and metrics.valid_loss == float(row["valid_loss"])
        assert metrics.full_valid_loss == metrics.valid_loss and metrics.train_loss == float(row["train_loss"])
        assert metrics.valid_mean_token_accuracy == float(row["valid_mean_token_accuracy"])
    best = min(checkpoints, key=lambda one: one.metrics.valid_loss or 0.0)
    documents = [(np.asarray(ids), weights) for ids, weights in TokenStore(run / "4-tokens" / "valid")]
    model = load_adapter(load_model(gateway.services.settings.home / "models" / starter.NAME),
                         run / "5-train" / "adapter")  # fmt: skip
    likeliest: list[Any] = []
    scores = np.concatenate(score_documents(model, documents, likeliest=likeliest))
    assert best.metrics.valid_loss == pytest.approx(-scores.mean(), abs=1e-4)
    assert best.metrics.valid_mean_token_accuracy == pytest.approx(np.concatenate(likeliest).mean(), abs=1e-9)


# -------------------------------------------------------------------------------------------------------- processes


def idle(gateway: Any) -> None:
    """Wait until no process works for any job."""
    until = time.monotonic() + WAIT_SECONDS
    while any(row.pid is not None for row in gateway.app.state.jobs.active()):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_second_server_on_a_folder_is_refused(serving: Callable[..., Any]) -> None:
    gateway = serving()
    state = gateway.app.state
    other = Runner(state.jobs, state.files, gateway.services.catalogue, gateway.services.settings)
    with pytest.raises(RunError, match=rf"another server works on this folder \(process {os.getpid()}\)"):
        other.claim()
    gateway.server.should_exit = True
    gateway.thread.join(30)
    other.claim()  # the first one has ended
    other.close()


def test_a_process_is_known_by_its_number_and_its_beginning(tmp_path: Path) -> None:
    mine = job_process.started_at(os.getpid())
    assert mine and mine == job_process.started_at(os.getpid())
    assert job_process.adopted(os.getpid(), mine).alive
    assert not job_process.adopted(os.getpid(), "another beginning").alive, "the number is somebody else's by now"
    assert job_process.started_at(2**22 + 1) == ""
    assert job_process.holder(tmp_path) is None


def test_a_strangers_group_is_left_alone() -> None:
    """Numbers are used again, also on other machines that share the folder."""
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        here = job_process.started_at(child.pid)
        for started in ("other", "", f"{here}0", here.replace(here[:4], "ffff", 1)):
            process = job_process.adopted(child.pid, started)
            process.sweep()
            process.end()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.05)
        job_process.adopted(child.pid, here).sweep()
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


def test_what_a_training_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    leader = subprocess.Popen(["sh", "-c", f"sleep 60 & echo $! > {pid}; exec sleep 60"], start_new_session=True)
    process = job_process.adopted(leader.pid, job_process.started_at(leader.pid))
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.01)
    leader.kill()
    leader.wait()
    process.sweep()
    while job_process.started_at(int(pid.read_text())):
        time.sleep(0.01)


def test_a_run_is_held_by_its_own_training_only(tmp_path: Path) -> None:
    """The number in the lock may be of another machine, and the command another one."""
    with locked(tmp_path):
        assert is_locked(tmp_path)
        assert job_process.holder(tmp_path) is None
    program = "import sys; from pathlib import Path; from ownchat.artifacts import locked\n"
    program += "with locked(Path(sys.argv[1]) / sys.argv[2]): print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "ft-1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline()
    found = job_process.holder(tmp_path / "ft-1")
    assert found is not None and found.pid == child.pid and not found.is_elsewhere
    child.communicate(b"")


def test_a_mistake_is_told_in_its_words(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(
        "   import  1 file\r\nTraceback: secret text\nownchat: faq.jsonl: no record is left\nWhat to do: add data\n"
    )
    assert job_process.last_words(log) == "faq.jsonl: no record is left What to do: add data"
    assert not job_process.is_momentary(job_process.last_words(log))
    for number in (errno.ENOSPC, errno.EIO):
        log.write_text(f"ownchat: {system_error(OSError(number, os.strerror(number)), where='/home/you')}\n")
        assert job_process.is_momentary(job_process.last_words(log))
    log.write_text("Traceback (most recent call last):\n  private text\n")
    assert job_process.last_words(log) == ""


def test_files_that_nothing_can_be_learned_from_fail_the_job(serving: Callable[..., Any]) -> None:
    gateway = serving()
    client = sdk(gateway)
    few = begin(client, rows()[:7])
    wrong = begin(client, [*rows(), {"messages": [{"role": "bot", "content": "Hi"}]}])
    said = [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "ok"}]
    control = begin(client, [*rows(), {"messages": said}])
    for id, code, text in (
        (few, "invalid_n_examples", "Training file has 7 example(s), but must have at least 10 examples"),
        (wrong, "invalid_file_format", 'line 37: messages[0].role is "bot"'),
        (control, "invalid_file_format", "line 37: contains an invalid token: <|im_end|>"),
    ):
        job = wait(client, id, "failed")
        assert job.error is not None
        assert (job.error.code, job.error.param) == (code, "training_file")
        assert text in job.error.message
        (last, *_) = client.fine_tuning.jobs.list_events(id)
        assert (last.level, last.message) == ("error", job.error.message)
        assert not (gateway.services.settings.home / "server" / "jobs" / id / "data").exists()


def test_a_job_whose_file_was_deleted_before_anybody_looked_fails(serving: Callable[..., Any]) -> None:
    gateway = serving()
    client = sdk(gateway)
    work, gateway.app.state.runner.tick = gateway.app.state.runner.tick, lambda: False
    id = begin(client, rows())
    job = client.fine_tuning.jobs.retrieve(id)
    client.files.delete(job.training_file)
    gateway.app.state.runner.tick = work
    gateway.app.state.runner.wake()
    error = wait(client, id, "failed").error
    assert error is not None and error.code == "invalid_training_file"


@pytest.mark.long
def test_a_job_that_is_killed_ends_as_one_that_was_not(serving: Callable[..., Any]) -> None:
    gateway = serving()
    client = sdk(gateway)
    undisturbed, killed = begin(client, rows(), **LONGER), begin(client, rows(), **LONGER)
    expected = losses(client, wait(client, undisturbed, "succeeded"))
    wait(client, killed, "running", seen=has_begun(client))
    time.sleep(random.Random(0).random())
    os.kill(process_of(gateway, killed), signal.SIGKILL)
    done = wait(client, killed, "succeeded")
    assert losses(client, done) == expected
    assert any("goes on from the last checkpoint" in text for text in messages(client, killed))


@pytest.mark.long
def test_a_cancelled_job_leaves_its_place(serving: Callable[..., Any]) -> None:
    gateway = serving()
    client = sdk(gateway)
    cancelled, waiting = begin(client, rows(), **LONGER), begin(client, rows())
    wait(client, cancelled, "running", seen=has_begun(client))
    assert client.fine_tuning.jobs.retrieve(waiting).status == "queued"
    worker = process_of(gateway, cancelled)
    assert os.getpriority(os.PRIO_PROCESS, worker) == job_process.NICE
    assert os.getpgid(worker) == worker
    client.fine_tuning.jobs.cancel(cancelled)
    wait(client, waiting, "succeeded")
    home = gateway.services.settings.home
    run = run_name(cancelled, None)
    assert not (home / "runs" / run).exists() and list((home / "trash").glob(f"{run}-*"))
    assert not [found.id for found in client.models.list() if cancelled[6:14] in found.id]
    assert client.fine_tuning.jobs.retrieve(cancelled).fine_tuned_model is None


@pytest.mark.long
def test_preferences_are_learned_on_top_of_what_was_learned(serving: Callable[..., Any]) -> None:
    gateway = serving()
    client = sdk(gateway)
    first = wait(client, begin(client, rows(), **LONGER, suffix="orders"), "succeeded")
    method = {
        "type": "dpo",
        "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 3, "learning_rate_multiplier": 100.0}},
    }
    checks = [*pairs()[20:], *pairs()[3:5]]  # of which two are learned
    asked_for: dict[str, Any] = {"model": first.fine_tuned_model, "method": method, "suffix": "better"}
    second = wait(client, begin(client, pairs()[:20], validation=checks, **asked_for), "succeeded")
    assert any(text.startswith("Examples: 20 to learn from, ") for text in messages(client, second.id))
    assert "2 example(s) of the validation file are copies" in " ".join(messages(client, second.id))
    assert str(second.fine_tuned_model).startswith("ft:starter:operator:better:")
    assert second.method is not None and second.method.dpo is not None and second.method.dpo.hyperparameters is not None
    assert second.method.dpo.hyperparameters.beta == 0.2
    table = losses(client, second)
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    asked = [{"role": "user", "content": "Ulm 1?"}]
    answer = client.chat.completions.create(model=str(second.fine_tuned_model), messages=asked, max_tokens=8)  # type: ignore[arg-type]
    assert answer.choices[0].message.content


@pytest.mark.long
def test_a_training_that_refuses_tells_why(serving: Callable[..., Any]) -> None:
    gateway = serving()
    client = sdk(gateway)
    same = [rows()[0]] * 12  # one example, twelve times: three splits cannot be had of it
    job = wait(client, begin(client, same), "failed")
    assert job.error is not None and job.error.code == "training_failed"
    assert "three splits need" in job.error.message
    assert str(gateway.services.settings.home) not in job.error.message
    assert "11 example(s) of the training file stand there twice; the first is line 2" in messages(client, job.id)


@pytest.mark.long
def test_private_data_is_masked_where_that_is_asked_for(serving: Callable[..., Any]) -> None:
    gateway = serving()
    client = sdk(gateway)
    examples = rows()
    for number, row in enumerate(examples):
        row["messages"][0]["content"] += f" Write to anna{number}@example.org"
    id = begin(client, examples, x_train={"private": True, "base64_results": True}, hyperparameters={"n_epochs": 1})
    job = wait(client, id, "succeeded")
    assert any(text.startswith("Private data masked in ") for text in messages(client, id))
    content = base64.b64decode(client.files.content(job.result_files[0]).read())
    assert next(csv.DictReader(io.StringIO(content.decode())))["step"] == "1"
    shards = (gateway.services.settings.home / "runs" / run_name(id, None) / "2-clean").rglob("*.parquet")
    assert not any(b"@example.org" in path.read_bytes() for path in shards)


@pytest.mark.long
def test_the_page_runs(serving: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    gateway = serving()
    (tmp_path / "training.jsonl").write_bytes(lines(rows()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", gateway.url)
    monkeypatch.setenv("OPENAI_API_KEY", gateway.token)
    names: dict[str, Any] = {}
    exec(first, names)
    assert names["job"].status == "succeeded" and names["answer"].choices[0].message.content
    exec(second, names)
    (newest, _) = names["client"].fine_tuning.jobs.list()
    assert newest.x_train["rank"] == 8
    named = re.findall(r"`(\w+)`", re.findall(r"^\| `x_train` .*?\n\n", page, flags=re.M | re.S)[0])
    assert set(Train.model_fields) <= set(named)
    names["client"].fine_tuning.jobs.cancel(newest.id)
    idle(gateway)
