"""Fine-tuning jobs as the API has them, without a training: what is refused, repeated, listed and changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from ownchat.artifacts import write_atomic
from ownchat.serve import job_settings
from ownchat.serve.job_events import COPIED, Watch, newest_step, result_file, stopped_at
from ownchat.serve.protocol.fine_tuning import Train
from ownchat.train import phases

CONTENT = b"".join(
    json.dumps(
        {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
    ).encode()
    + b"\n"
    for n in range(12)
)


@pytest.fixture
def still(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server with nobody who works on its jobs."""
    monkeypatch.setattr(gateway.app.state.runner, "tick", lambda: False)
    return gateway


def client(gateway: Any, owner: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=gateway.key("train", owner=owner), max_retries=0)


@pytest.fixture
def anna(still: Any, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with client(
        still, f"anna-{abs(hash(request.node.name))}"
    ) as found:  # each test has an owner, and so a list, of its own
        yield found


@pytest.fixture
def file(anna: openai.OpenAI) -> str:
    return anna.files.create(file=("faq.jsonl", CONTENT), purpose="fine-tune").id


def test_a_job_is_what_was_asked_for(anna: openai.OpenAI, file: str) -> None:
    made = anna.fine_tuning.jobs.create(
        model="starter", training_file=file, suffix="faq", seed=7, metadata={"team": "support"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}},
        extra_body={"x_train": {"rank": 8, "private": True}},
    )  # fmt: skip
    assert made.object == "fine_tuning.job" and made.id.startswith("ftjob-")
    assert (made.status, made.error, made.fine_tuned_model, made.finished_at) == ("validating_files", None, None, None)
    assert (made.model, made.training_file, made.validation_file, made.seed) == ("starter", file, None, 7)
    assert made.hyperparameters.n_epochs == 3 and made.hyperparameters.batch_size == "auto"
    assert made.method is not None and made.method.supervised is not None
    assert made.metadata == {"team": "support"} and made.result_files == [] and made.trained_tokens is None
    assert anna.fine_tuning.jobs.retrieve(made.id) == made
    (event,) = anna.fine_tuning.jobs.list_events(made.id)
    assert (event.level, event.message, event.type) == ("info", f"Created fine-tuning job: {made.id}", "message")
    assert list(anna.fine_tuning.jobs.checkpoints.list(made.id)) == []


def test_dpo_has_a_beta_and_an_old_client_its_own_place_for_numbers(anna: openai.OpenAI, file: str) -> None:
    made = anna.fine_tuning.jobs.create(
        model="starter", training_file=file, method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5}}}
    )
    assert made.method is not None and made.method.dpo is not None and made.method.dpo.hyperparameters is not None
    assert made.method.dpo.hyperparameters.beta == 0.5
    old = anna.fine_tuning.jobs.create(model="starter", training_file=file, hyperparameters={"n_epochs": 4})
    assert old.hyperparameters.n_epochs == 4 and 0 <= old.seed < 2**31


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"model": "../starter"}, "model"),
        ({"training_file": "file-nothing"}, "training_file"),
        ({"validation_file": "file-nothing"}, "validation_file"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"suffix": ""}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}, "method.dpo.hyperparameters.beta"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
        ({"extra_body": {"x_train": {"rnak": 8}}}, "x_train.rnak"),
        ({"extra_body": {"x_train": {"rank": 8.5}}}, "x_train.rank"),
    ],
)
def test_a_job_is_refused_with_the_field_that_is_wrong(
    anna: openai.OpenAI, file: str, changed: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        anna.fine_tuning.jobs.create(**{"model": "starter", "training_file": file} | changed)
    assert str(error.value.param).startswith(param)
    assert list(anna.fine_tuning.jobs.list()) == []


def test_a_file_for_something_else_trains_nothing(anna: openai.OpenAI) -> None:
    other = anna.files.create(file=("a.txt", b"text"), purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="not fine-tune"):
        anna.fine_tuning.jobs.create(model="starter", training_file=other)


def test_a_request_that_is_sent_again_makes_one_job(anna: openai.OpenAI, file: str) -> None:
    def create(**headers: str) -> str:
        return anna.fine_tuning.jobs.create(
            model="starter", training_file=file, extra_headers={key.replace("_", "-"): headers[key] for key in headers}
        ).id

    first = create()
    assert create(x_stainless_retry_count="1") == first
    other = create(x_stainless_retry_count="0")
    assert other != first, "the same again, on purpose"
    named = create(idempotency_key="abc")
    assert create(idempotency_key="abc") == named
    with pytest.raises(openai.BadRequestError) as error:
        anna.fine_tuning.jobs.create(
            model="starter", training_file=file, seed=1, extra_headers={"idempotency-key": "abc"}
        )
    assert error.value.code == "idempotency_error"
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: create(idempotency_key="at once"), range(4)))
    assert len(made) == 1


def test_jobs_are_listed_in_pages_and_by_their_metadata(anna: openai.OpenAI, file: str) -> None:
    made = [
        anna.fine_tuning.jobs.create(
            model="starter", training_file=file, **({"metadata": {"team": "a", "n": str(n)}} if n % 2 else {})
        ).id
        for n in range(5)
    ]
    page = anna.fine_tuning.jobs.list(limit=2)
    assert [job.id for job in page.data] == made[:-3:-1] and page.has_more
    assert [job.id for job in anna.fine_tuning.jobs.list(limit=2)] == made[::-1]
    assert [job.id for job in anna.fine_tuning.jobs.list(metadata={"team": "a"})] == [made[3], made[1]]
    assert [job.id for job in anna.fine_tuning.jobs.list(metadata={"team": "a", "n": "1"})] == [made[1]]
    for wrong in ({"metadata": "team"}, {"metadata[]": "true"}, {"metadata[team": "a"}, {f"metadata[{'k' * 65}]": "a"}):
        with pytest.raises(openai.BadRequestError, match="metadata"):
            anna.fine_tuning.jobs.list(extra_query=wrong)
    assert [job.id for job in anna.fine_tuning.jobs.list(extra_query={"metadata": "null"})] == [
        made[4],
        made[2],
        made[0],
    ]


def test_a_job_is_paused_resumed_and_cancelled(anna: openai.OpenAI, file: str) -> None:
    jobs = anna.fine_tuning.jobs
    id = jobs.create(model="starter", training_file=file).id
    with pytest.raises(openai.BadRequestError, match="validating_files cannot become queued"):
        jobs.resume(id)
    assert jobs.pause(id).status == "paused"
    with pytest.raises(openai.BadRequestError, match="paused cannot become paused"):
        jobs.pause(id)
    assert jobs.resume(id).status == "queued"
    done = jobs.cancel(id)
    assert done.status == "cancelled" and done.finished_at is not None
    for again in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError, match="is cancelled"):  # a 409 would be sent again by the SDK
            again(id)
    told = [event.message for event in jobs.list_events(id)]
    assert told[:3] == ["The job was cancelled", "The job was resumed", "The job was paused"]
    page = jobs.list_events(id, limit=1)
    assert page.has_more and [event.message for event in page] == told


def test_nobody_sees_the_job_of_another_owner(still: Any, anna: openai.OpenAI, file: str) -> None:
    id = anna.fine_tuning.jobs.create(model="starter", training_file=file).id
    with client(still, "bert") as bert:
        jobs = bert.fine_tuning.jobs
        asked: list[Callable[[str], Any]] = [
            jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list,
        ]  # fmt: skip
        for ask in asked:
            with pytest.raises(openai.NotFoundError):
                ask(id)
        assert id not in [job.id for job in jobs.list()]
        with pytest.raises(openai.BadRequestError):
            jobs.create(model="starter", training_file=file)
    with openai.OpenAI(base_url=still.url, api_key=still.key("infer"), max_retries=0) as reader:
        for call in (lambda: reader.fine_tuning.jobs.retrieve(id), lambda: reader.fine_tuning.jobs.list()):
            with pytest.raises(openai.PermissionDeniedError):
                call()


def test_rates_are_those_of_the_training() -> None:
    """A multiplier of 1 is the rate that ownchat train takes by itself."""
    for method in ("lora", "full"):
        assert job_settings.LEARNING_RATES["supervised", method] == phases.LEARNING_RATES[method]
        assert job_settings.LEARNING_RATES["dpo", method] == phases.PREFERENCE_LEARNING_RATES[method]["dpo"]


def test_what_a_job_asks_for_is_what_the_training_reads() -> None:
    from ownchat.config import load_config

    wanted = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 0.001, "beta": 0.3}
    given = Train(method="full", rank=4, minutes=2.5, private=True, patience=9)
    for method in ("supervised", "dpo"):
        found = job_settings.arguments(wanted, method, given, base="/a path/: odd", seed=5, tokens=50.2, threads=2)
        config, _ = load_config(sets=found[1::2])
        assert found[::2] == ["--set"] * (len(found) // 2)
        assert config.model.base == "/a path/: odd" and config.train.batch_tokens == 201
        assert (config.train.seed, config.train.minutes, config.train.patience, config.train.method) == (
            5,
            2.5,
            9,
            "full",
        )
        assert (config.model.lora_rank, config.model.lora_alpha, config.train.threads) == (4, 8, 2)
        assert config.clean.private_types and not config.clean.near_duplicates
        assert config.evaluate.care == {"checks": []} and not config.data.map
        if method == "dpo":
            assert (config.train.preference_epochs, config.train.preference_beta) == (3, 0.3)
            assert config.train.preference_learning_rate == pytest.approx(1e-9)
        else:
            assert (config.train.epochs, config.train.learning_rate) == (3, pytest.approx(5e-8))


@pytest.mark.parametrize("report", [True, False])
def test_a_validation_file_is_named_to_the_training(report: bool) -> None:
    from ownchat.config import CleanConfig, load_config

    given = Train(report=report)
    auto = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto")
    found = job_settings.arguments(
        auto, "supervised", given, base="starter", seed=5, tokens=50.0, threads=1, validation="validation.jsonl"
    )
    config, _ = load_config(sets=found[1::2])
    assert config.data.map == {"valid": "validation.jsonl"}
    assert config.clean.valid_share == CleanConfig().valid_share
    assert (config.clean.test_share == CleanConfig().test_share) == report


def test_small_rates_keep_their_digits() -> None:
    for rate, text in ((1e-12, "0.000000000001"), (1.234e-10, "0.0000000001234"), (2e-3, "0.002"), (2.0, "2.0")):
        assert job_settings._yaml(rate) == text


def test_a_training_that_goes_on_tells_nothing_twice(tmp_path: Any) -> None:
    folder = tmp_path / "5-train" / "sft"
    folder.mkdir(parents=True)
    events, metrics = folder / "events.jsonl", folder / "metrics.jsonl"
    events.write_text('{"time": 1.0, "event": "started", "step": 0, "total_steps": 4}\n')
    rows = [{"step": 0, "validation_loss": 5.0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 2, "validation_lo')
    watch = Watch(tmp_path)
    told = {event.key: event.message for event in watch.look()}
    assert told["sft/step/1"] == "Step 1/4: training loss=4.00"
    assert "sft/step/2" not in told, "its validation may follow"
    validated = {"step": 2, "validation_loss": 2.5, "validation_token_accuracy": 0.625}
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, validated])
    write_atomic(metrics, lines)  # as a training does that goes on from a checkpoint
    found = watch.look()
    assert {event.key: event.message for event in found} == {
        "sft/step/1": told["sft/step/1"],
        "sft/step/2": "Step 2/4: training loss=3.00, validation loss=2.50, full validation loss=2.50, "
        "validation token accuracy=0.62",
    }
    assert found[-1].data == {
        "step": 2, "total_steps": 4, "train_loss": 3.0, "valid_loss": 2.5, "full_valid_loss": 2.5,
        "valid_mean_token_accuracy": 0.625, "full_valid_mean_token_accuracy": 0.625,
    }  # fmt: skip
    assert result_file([dict(found[-1].data)], base64_encoded=False).splitlines() == [
        b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy", b"2,3.0,,2.5,0.625"
    ]  # fmt: skip
    assert watch.look() == []


def test_what_cleaning_left_out_is_told_by_its_rule(tmp_path: Any) -> None:
    from ownchat.clean.given import RULE

    assert RULE == COPIED
    report = {
        "counts": {"train": 9, "valid": 2, "test": 1},
        "details": {"rules": {"row dropped": {RULE: 3, "empty": 1}}},
    }
    (tmp_path / "2-clean").mkdir()
    (tmp_path / "2-clean" / "manifest.json").write_text(json.dumps({"report": report}))
    told = [(event.level, event.message) for event in Watch(tmp_path).look()]
    assert told == [
        ("warn", "3 example(s) of the validation file are copies of what is learned, and left out of the validation"),
        ("warn", "1 example(s) are not learned: empty"),
        ("info", "Examples: 9 to learn from, 2 for validation, 1 held out for the report"),
    ]


def test_what_either_of_two_files_lost_is_left_out(tmp_path: Any) -> None:
    clean = {"report": {"counts": {}, "details": {"rules": {"row dropped": {"empty": 1}}}}}
    imported = {
        "config": {"data": {"map": {"valid": "validation.jsonl"}}},
        "report": {"details": {"rules": {"row unreadable": {"no text": 2}}}},
    }
    for stage, manifest in (("1-data", imported), ("2-clean", clean)):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "manifest.json").write_text(json.dumps(manifest))
    told = [event.message for event in Watch(tmp_path).look()]
    assert told[:2] == ["2 example(s) are left out: no text", "1 example(s) are left out: empty"]


def rows_in(tmp_path: Any, events: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> Watch:
    folder = tmp_path / "5-train" / "sft"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("events", events), ("metrics", metrics)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Watch(tmp_path)


def test_the_end_is_estimated_from_the_trainings_own_clock(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started again reads many steps at once."""
    monkeypatch.setattr("ownchat.serve.job_events.time.time", lambda: 1000.0)
    begun = [{"time": 1.0, "event": "started", "step": 0, "total_steps": 100}]
    watch = rows_in(tmp_path, begun, [{"step": n, "loss": 1.0, "seconds": 3.0 * n} for n in range(1, 11)])
    watch.look()
    assert watch.estimate() == 1000 + 90 * 3
    rows_in(tmp_path, [*begun, {"time": 2.0, "event": "resumed", "step": 10, "total_steps": 100}], [])
    watch.look()
    assert watch.estimate() is None, "on another machine, perhaps"


def test_a_validation_behind_many_lines_belongs_to_its_step(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownchat.serve.job_events.MOST_AT_ONCE", 2)
    steps = [{"step": n, "loss": 1.0} for n in range(1, 5)]
    watch = rows_in(tmp_path, [], [*steps, {"step": 4, "validation_loss": None}])
    told = watch.look(over=True)
    while watch.num_read:
        told += watch.look(over=True)
    assert [event.data["step"] for event in told] == [1, 2, 3, 4]
    assert "valid_loss" in told[-1].data and told[-1].message.endswith("validation loss=?")
    assert not any("valid_loss" in event.data for event in told[:-1])


def test_how_far_a_training_came_and_why_it_ended_is_read_from_its_run(tmp_path: Any) -> None:
    assert (newest_step(tmp_path), stopped_at(tmp_path)) == (0, None)
    rows_in(tmp_path, [{"time": 1.0, "event": "started"}, {"time": 7.5, "event": "stopped"}], [])
    for step in ("step-000008", "step-000024", "step-000040"):
        (tmp_path / "5-train" / "sft" / "checkpoints" / step).mkdir(parents=True)
    for step in ("step-000008", "step-000024"):  # the third is half written
        (tmp_path / "5-train" / "sft" / "checkpoints" / step / "state.json").write_text("{}")
    assert (newest_step(tmp_path), stopped_at(tmp_path)) == (24, 7.5)
    rows_in(tmp_path, [{"time": 7.5, "event": "stopped"}, {"time": 9.0, "event": "resumed"}], [])
    assert stopped_at(tmp_path) is None


def tick(gateway: Any, times: int = 1) -> None:
    """Rounds of the runner in this thread."""
    for _ in range(times):
        type(gateway.app.state.runner).tick(gateway.app.state.runner)


def test_a_fault_of_ours_ends_the_job_and_holds_up_nobody(
    still: Any, anna: openai.OpenAI, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownchat.serve.runner.FAULT_SECONDS", 0.0)

    def _launch(row: Any) -> None:
        launched.append(row.id)

    launched: list[str] = []
    monkeypatch.setattr(still.app.state.runner, "_launch", _launch)
    base = still.services.settings.home / "models" / "broken"
    shutil.copytree(still.services.catalogue.find("starter").located.model, base)
    (base / "tokenizer.json").write_text('{"model": {}}')
    broken = anna.fine_tuning.jobs.create(model="broken", training_file=file).id
    whole = anna.fine_tuning.jobs.create(model="starter", training_file=file).id
    tick(still, 5)
    job = anna.fine_tuning.jobs.retrieve(broken)
    assert job.status == "failed" and job.error is not None and job.error.code == "server_error"
    assert anna.fine_tuning.jobs.retrieve(whole).status == "queued" and launched


def test_a_job_that_is_over_leaves_no_copy_of_its_file(still: Any, anna: openai.OpenAI, file: str) -> None:
    id = anna.fine_tuning.jobs.create(model="starter", training_file=file).id
    data = still.services.settings.home / "server" / "jobs" / id / "data"
    runner = still.app.state.runner
    (row,) = [row for row in still.app.state.jobs.active() if row.id == id]
    runner._validate(row)
    runner._sweep()
    assert (data / "training.jsonl").is_file(), "it waits for its turn"
    unknown = data.parent.with_name("ftjob-nobody") / "data"
    unknown.mkdir(parents=True)
    anna.fine_tuning.jobs.cancel(id)
    runner._sweep()
    assert not data.exists() and not unknown.exists()


def test_a_model_that_a_job_learns_from_is_not_deleted(still: Any, anna: openai.OpenAI, file: str) -> None:
    jobs = still.app.state.jobs
    id = anna.fine_tuning.jobs.create(model="starter", training_file=file).id
    answer = still.call("DELETE", "/v1/models/starter")
    assert answer.status == 400 and "learns from this model" in answer.error["message"]
    jobs.set(id, model="faq:ckpt-step-8")
    assert jobs.learns_from("faq") and not jobs.learns_from("fa")
    anna.fine_tuning.jobs.cancel(id)
    assert not jobs.learns_from("faq")
