"""Which models a server has, and that each is in memory once, for as long as it is used and there is room."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ownchat.errors import ModelError, RunError, UserError
from ownchat.generate.engine import Request, Sampling
from ownchat.generate.export import merge_adapter
from ownchat.generate.hf import chat_engine
from ownchat.serve import pool as pool_module
from ownchat.serve.catalogue import Catalogue, UnknownModel
from ownchat.serve.errors import of_exception
from ownchat.serve.pool import Loaded, NotNow, Pool
from ownchat.serve.settings import Settings

MESSAGES = [{"role": "user", "content": "Can I return an order?"}]


def make_adapter(base: Path, directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(directory)
    return directory


def make_run(home: Path, name: str, base: Path, seed: int) -> Path:
    """A finished LoRA run with one checkpoint, as training leaves it."""
    stage = home / "runs" / name / "5-train"
    make_adapter(base, stage / "adapter", seed)
    merge_adapter(base, stage / "adapter", stage / "model")
    (stage / "model" / "ownchat.json").write_text(json.dumps({"system": f"You are {name}.", "base": str(base)}))
    checkpoint = stage / "sft" / "checkpoints" / "step-000008"
    make_adapter(base, checkpoint / "adapter", seed + 100)
    (checkpoint / "state.json").write_text("{}")
    (stage / "manifest.json").write_text("{}")
    return stage.parent


@pytest.fixture(scope="module")
def full_home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter's place taken by the tiny model, another base, two runs of the first and one of all weights."""
    home = tmp_path_factory.mktemp("pool-home")
    for name in ("SmolLM2-135M-Instruct", "other"):
        shutil.copytree(tiny_model, home / "models" / name)
        (home / "models" / name / "manifest.json").write_text("{}")
    (home / "models" / "gpt2-tokenizer").mkdir()
    (home / "models" / "gpt2-tokenizer" / "manifest.json").write_text("{}")
    base = home / "models" / "SmolLM2-135M-Instruct"
    make_run(home, "company-faq", base, 1)
    make_run(home, "beta", base, 2)
    whole = make_run(home, "whole", base, 3)
    shutil.rmtree(whole / "5-train" / "adapter")
    checkpoint = whole / "5-train" / "sft" / "checkpoints" / "step-000008"
    shutil.rmtree(checkpoint / "adapter")
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.3)
    model.save_pretrained(checkpoint / "model")  # no tokenizer in it, as in training
    (home / "runs" / "unfinished" / "5-train").mkdir(parents=True)
    (home / "runs" / ".hidden").mkdir()
    return home


@pytest.fixture
def home(full_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = shutil.copytree(full_home, tmp_path / "home")
    for note in home.glob("runs/*/5-train/model/ownchat.json"):
        found = json.loads(note.read_text())
        note.write_text(json.dumps(found | {"base": found["base"].replace(str(full_home), str(home))}))
    monkeypatch.setenv("OWNCHAT_HOME", str(home))
    return home


@pytest.fixture
def open_pool(home: Path) -> Iterator[Callable[..., Pool]]:
    opened: list[Pool] = []

    def make(**settings: Any) -> Pool:
        opened.append(Pool(Settings(**{"home": home, "engine": "llamacpp", "threads": 1, "slots": 2, **settings})))
        return opened[-1]

    yield make
    for pool in opened:
        pool.close()


def asked(tokenizer: Any, **more: Any) -> Request:
    """In ASCII: the random model writes halves of characters, of which llama.cpp's server tells no ids."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    bias = {id: -100.0 for id, token in enumerate(tokens) if not token.replace("Ġ", "").replace("Ċ", "").isascii()}
    return Request(sampling=Sampling(logit_bias=bias), **more)


def answer(loaded: Loaded, max_tokens: int = 12) -> list[int]:
    request = asked(
        loaded.tokenizer, ids=loaded.render(MESSAGES), max_tokens=max_tokens, adapter=loaded.adapter
    )  # fmt: skip
    return [id for delta in loaded.engine.stream(request) for id in delta.ids]


def expected(home: Path, id: str) -> list[int]:
    """The answer of the reference engine, from the files themselves."""
    base = home / "models" / "SmolLM2-135M-Instruct"
    stage = home / "runs" / id.partition(":")[0] / "5-train"
    checkpoint = stage / "sft" / "checkpoints" / "step-000008"
    match id.partition(":"):
        case ["starter", _, _]:
            engine = chat_engine(base)
        case ["whole", "", _]:
            engine = chat_engine(stage / "model")
        case ["whole", _, _]:
            engine = chat_engine(checkpoint / "model", tokenizer=base)
        case [_, "", _]:
            engine = chat_engine(base, adapter=stage / "adapter")
        case _:
            engine = chat_engine(base, adapter=checkpoint / "adapter")
    request = asked(engine.tokenizer, messages=MESSAGES, max_tokens=12)
    return [id for delta in engine.stream(request) for id in delta.ids]


# --------------------------------------------------------------------------------------------------- catalogue


def test_all_models_are_listed_the_starter_first(home: Path) -> None:
    entries = Catalogue(home, {"large": "http://127.0.0.1:1/v1#x"}).list()
    assert [entry.id for entry in entries] == [
        "starter", "other", "beta", "beta:ckpt-step-8", "company-faq", "company-faq:ckpt-step-8", "whole",
        "whole:ckpt-step-8", "large",
    ]  # fmt: skip
    kinds = {entry.id: entry.info["kind"] for entry in entries}
    assert kinds["starter"] == "base" and kinds["beta"] == "run" and kinds["large"] == "upstream"
    faq = Catalogue(home).find("company-faq:ckpt-step-8")
    assert faq.info == {"kind": "checkpoint", "base": "starter", "step": 8} and faq.run == home / "runs" / "company-faq"
    assert faq.located is not None and faq.located.system == "You are company-faq." and faq.created > 1e9
    assert Catalogue(home / "nothing").list() == []


@pytest.mark.parametrize(
    "id",
    [
        "", ".", "..", "../runs/beta", "/etc/passwd", "runs/beta", "unfinished", ".hidden", "file:///etc/passwd",
        "http://169.254.169.254/", "\\\\host\\share", "%2e%2e%2fbeta", "beta\x00", "x" * 10_000, "beta:ckpt-step-9",
        "beta:ckpt-step-", "beta:ckpt-step-08", "beta:", "βeta", "gpt2-tokenizer", "SmolLM2-135M-Instruct", "beta\n",
    ],
)  # fmt: skip
def test_names_that_are_none(id: str, home: Path) -> None:
    with pytest.raises(UnknownModel) as refused:
        Catalogue(home).find(id)
    assert len(str(refused.value)) < 400 and str(home) not in str(refused.value)


def test_a_link_out_of_the_folder_is_no_model(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    outside = shutil.copytree(home / "runs" / "beta", tmp_path / "outside")
    (home / "runs" / "link").symlink_to(outside)
    assert "link" not in [entry.id for entry in Catalogue(home).list()]
    with pytest.raises(UnknownModel):
        Catalogue(home).find("link")


def test_runs_below_their_requirements_are_not_promoted(home: Path) -> None:
    report = home / "runs" / "beta" / "6-report" / "report.json"
    report.parent.mkdir()
    for content, promoted in (
        ('{"gates": {"checks": [{"passed": true}]}}', True),
        ('{"gates": {"checks": [{"passed": true}, {"passed": false}]}}', False),
        ("{}", True),
        ("{", False),
        ("[]", False),
    ):
        report.write_text(content)
        assert Catalogue(home).find("beta").promoted is promoted, content
        assert Catalogue(home).find("beta:ckpt-step-8").promoted is promoted
    assert Catalogue(home).find("company-faq").promoted


def test_a_damaged_run_does_not_hide_the_others(home: Path) -> None:
    (home / "runs" / "beta" / "5-train" / "model" / "ownchat.json").write_text("{")
    shutil.rmtree(home / "runs" / "whole" / "5-train" / "sft" / "checkpoints" / "step-000008" / "model")
    ids = [entry.id for entry in Catalogue(home).list()]
    assert "beta" not in ids and "whole" in ids and "whole:ckpt-step-8" not in ids and "company-faq" in ids


def test_only_whole_runs_are_deleted_and_can_be_had_back(home: Path) -> None:
    catalogue = Catalogue(home, {"large": "http://127.0.0.1:1/v1#x"})
    for id in ("starter", "other", "beta:ckpt-step-8", "large"):
        with pytest.raises(RunError, match="not deleted here"):
            catalogue.delete(id)
    with pytest.raises(UnknownModel):
        catalogue.delete("../runs/beta")
    catalogue.delete("beta")
    with pytest.raises(UnknownModel):
        catalogue.find("beta")
    kept = list((home / "trash").iterdir())
    assert len(kept) == 1 and (kept[0] / "5-train" / "model" / "config.json").is_file()
    assert (home / "trash").stat().st_mode & 0o077 == 0
    os.replace(kept[0], home / "runs" / "beta")
    assert catalogue.find("beta").id == "beta"


def test_a_model_is_there_while_its_job_succeeds(home: Path) -> None:
    """Between two looks at the jobs it is done: at none of them it is missing."""

    def at(asked: Callable[[Catalogue], Any]) -> Any:
        done = False

        def look(now: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            found, done = then if done else now, True
            return found

        return asked(Catalogue(
            home, names=lambda: look({"beta": None}, {"beta": "ft:beta"}), coming=lambda: look({"beta": "ft:beta"}, {})
        ))  # fmt: skip

    name = "ft:beta:ckpt-step-8"
    assert name in [entry.id for entry in at(Catalogue.list)]
    assert at(lambda catalogue: catalogue.find(name)).id == name


# -------------------------------------------------------------------------------------------------------- pool


@pytest.mark.parametrize("engine", ["llamacpp", "hf"])
def test_a_checkpoint_that_was_taken_away_is_no_model(engine: str, home: Path, open_pool: Callable[..., Pool]) -> None:
    pool, catalogue = open_pool(engine=engine), Catalogue(home)
    entries = [catalogue.find(f"{run}:ckpt-step-8") for run in ("beta", "whole")]
    with pool.lease(entries[0]):
        pass
    for entry in entries:
        shutil.rmtree(home / "runs" / entry.id.partition(":")[0] / "5-train" / "sft" / "checkpoints" / "step-000008")
        with pytest.raises(UnknownModel, match="was taken away") as error, pool.lease(entry):
            pass
        assert of_exception(error.value).status == 404
    with pool.lease(catalogue.find("beta")) as loaded:
        assert answer(loaded) == expected(home, "beta")


@pytest.mark.parametrize("engine", ["llamacpp", "hf"])
def test_base_runs_and_checkpoints_share_one_engine(engine: str, home: Path, open_pool: Callable[..., Pool]) -> None:
    pool, catalogue = open_pool(engine=engine), Catalogue(home)
    ids = ["starter", "company-faq", "beta", "company-faq:ckpt-step-8", "beta:ckpt-step-8", "starter"]
    for id in ids:
        with pool.lease(catalogue.find(id)) as loaded:
            assert answer(loaded) == expected(home, id), id
            assert loaded.count(MESSAGES) == len(loaded.render(MESSAGES)) > 3
            assert loaded.context == 512 and len(loaded.fingerprint) == 16
            assert loaded.can_schema is (engine == "llamacpp")
            assert loaded.system == (None if id == "starter" else f"You are {id.partition(':')[0]}.")
    [held] = pool.loaded()
    assert held["adapters"] == 4 and held["users"] == 0 and held["backend"] == engine
    with pool.lease(catalogue.find("whole")) as one, pool.lease(catalogue.find("whole:ckpt-step-8")) as other:
        assert answer(one) == expected(home, "whole")
        assert answer(other) == expected(home, "whole:ckpt-step-8")
        assert one.fingerprint != other.fingerprint
    assert len(pool.loaded()) == 3


def test_fingerprints_tell_models_apart(home: Path, open_pool: Callable[..., Pool]) -> None:
    pool, catalogue = open_pool(), Catalogue(home)
    found = {}
    for entry in catalogue.list():
        with pool.lease(entry) as loaded:
            found[entry.id] = loaded.fingerprint
    assert found.pop("other") == found["starter"], "the same weights"
    assert len(set(found.values())) == len(found)


def test_many_threads_load_once(home: Path, open_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    pool, catalogue = open_pool(slots=3), Catalogue(home)
    opened = []
    real = pool_module.open_engine

    def counted(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments[0].model.name)
        return real(*arguments, **options)

    monkeypatch.setattr(pool_module, "open_engine", counted)
    ids = ["starter", "company-faq", "beta", "whole"] * 4
    wanted = {id: expected(home, id) for id in set(ids)}

    def one(id: str) -> bool:
        with pool.lease(catalogue.find(id)) as loaded:
            return answer(loaded) == wanted[id]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, ids))
    assert sorted(opened) == ["SmolLM2-135M-Instruct", "model"]


def test_an_adapter_more_waits_for_answers_that_are_being_written(home: Path, open_pool: Callable[..., Pool]) -> None:
    pool, catalogue = open_pool(), Catalogue(home)
    done = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        with pool.lease(catalogue.find("company-faq")) as loaded:
            first = loaded.engine

            def checkpoint() -> list[int]:
                with pool.lease(catalogue.find("beta:ckpt-step-8")) as other:
                    done.set()
                    assert other.engine is not first
                    return answer(other)

            later = thread.submit(checkpoint)
            time.sleep(0.2)
            assert not done.is_set() and answer(loaded) == expected(home, "company-faq")
        assert later.result(timeout=60) == expected(home, "beta:ckpt-step-8")
    with pool.lease(catalogue.find("company-faq")) as loaded:
        assert answer(loaded) == expected(home, "company-faq")


def test_a_bad_adapter_costs_the_others_nothing(home: Path, open_pool: Callable[..., Pool]) -> None:
    pool, catalogue = open_pool(), Catalogue(home)
    weights = home / "runs" / "beta" / "5-train" / "sft" / "checkpoints" / "step-000008" / "adapter"
    (weights / "adapter_model.safetensors").write_bytes(b"\x00" * 200)
    (home / "runs" / "company-faq" / "5-train" / "adapter" / "adapter_model.safetensors").write_bytes(b"not one")
    with pool.lease(catalogue.find("beta")) as loaded:  # its sibling is damaged, too
        first = loaded.engine
    for id in ("beta:ckpt-step-8", "company-faq"):
        with pytest.raises(ModelError, match="damaged"), pool.lease(catalogue.find(id)):
            pass
    with pool.lease(catalogue.find("beta")) as loaded:
        assert loaded.engine is first and answer(loaded) == expected(home, "beta")


def test_memory_bounds_what_is_loaded(home: Path, open_pool: Callable[..., Pool]) -> None:
    pool, catalogue = open_pool(), Catalogue(home)
    sizes = {}
    for id in ("starter", "other", "whole"):
        with pool.lease(catalogue.find(id)):
            sizes[id] = next(held["bytes"] for held in pool.loaded() if held["users"])
    room = sizes["starter"] + sizes["other"] + sizes["whole"] // 2  # for two of the three
    pool = open_pool(memory_bytes=room)
    for id in ("starter", "other", "starter", "whole"):
        with pool.lease(catalogue.find(id)) as loaded:
            answer(loaded, 2)
    assert {held["model"] for held in pool.loaded()} == {"SmolLM2-135M-Instruct", "model"}, "the oldest one went"
    assert sum(held["bytes"] for held in pool.loaded()) <= room

    came = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        with pool.lease(catalogue.find("starter")), pool.lease(catalogue.find("whole")):

            def other() -> None:
                with pool.lease(catalogue.find("other")):
                    came.set()

            waiting = thread.submit(other)
            time.sleep(0.2)
            assert not came.is_set() and len(pool.loaded()) == 2, "what is in use is never unloaded"
        waiting.result(timeout=60)
    pool = open_pool(memory_bytes=1000)
    with pytest.raises(ModelError, match="GB are for models"), pool.lease(catalogue.find("beta")):
        pass


@pytest.mark.parametrize("engine", ["llamacpp", "hf"])
@pytest.mark.parametrize("id", ["beta", "whole"])
def test_what_was_made_anew_under_its_name_is_another_model(
    id: str, engine: str, home: Path, open_pool: Callable[..., Pool]
) -> None:
    pool, catalogue = open_pool(engine=engine), Catalogue(home)
    with pool.lease(catalogue.find(id)) as loaded:
        before, adapters = (answer(loaded), loaded.fingerprint), pool.loaded()[0]["adapters"]
    catalogue.delete(id)
    run = make_run(home, id, home / "models" / "SmolLM2-135M-Instruct", 77)
    if id == "whole":
        shutil.rmtree(run / "5-train" / "adapter")
    with pool.lease(catalogue.find(id)) as loaded:
        assert answer(loaded) == expected(home, id) != before[0] and loaded.fingerprint != before[1]
    assert len(pool.loaded()) == 1 and pool.loaded()[0]["adapters"] == adapters, "the deleted weights are let go"


def test_memory_that_is_refused_changes_no_engine(
    home: Path, open_pool: Callable[..., Pool], capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("a machine with a GPU")
    pool, catalogue = open_pool(engine="auto", slots=64, memory_bytes=20_000_000), Catalogue(home)
    with pytest.raises(ModelError, match="GB are for models"), pool.lease(catalogue.find("starter")):
        pass
    assert "transformers" not in capsys.readouterr().err and pool.loaded() == []


@pytest.mark.parametrize("why", ["cancel", "deadline"])
@pytest.mark.parametrize("what", ["memory", "an adapter more", "a load"])
def test_nobody_waits_for_a_model_longer_than_somebody_waits_for_him(
    what: str, why: str, home: Path, open_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, going, cancel = Catalogue(home), threading.Event(), threading.Event()
    pool = open_pool()
    if what == "memory":
        with pool.lease(catalogue.find("starter")):
            pool = open_pool(memory_bytes=pool.loaded()[0]["bytes"] * 3 // 2)
    held, wanted = {"memory": ("starter", "other"), "an adapter more": ("starter", "beta:ckpt-step-8"),
                    "a load": ("starter", "beta")}[what]  # fmt: skip
    opened = threading.Event()
    if what == "a load":
        real = pool_module.open_engine

        def slow(*arguments: Any, **options: Any) -> Any:
            opened.set()
            assert going.wait(60)
            return real(*arguments, **options)

        monkeypatch.setattr(pool_module, "open_engine", slow)

    def hold() -> list[int]:
        with pool.lease(catalogue.find(held)) as loaded:
            opened.set()
            assert going.wait(60)
            return answer(loaded)

    with ThreadPoolExecutor(1) as thread:
        holder = thread.submit(hold)
        assert opened.wait(60)
        deadline = time.monotonic() + (0.3 if why == "deadline" else 60)
        if why == "cancel":
            threading.Timer(0.3, cancel.set).start()
        with pytest.raises(NotNow), pool.lease(catalogue.find(wanted), cancel, deadline):
            pass
        assert not holder.done()
        going.set()
        assert holder.result(timeout=60) == expected(home, held)
    with pool.lease(catalogue.find(wanted)) as loaded:
        assert loaded.entry.id == wanted and answer(loaded, 2)


def test_a_model_elsewhere_gets_messages(home: Path, open_pool: Callable[..., Pool]) -> None:
    upstreams = {"large": "http://127.0.0.1:9/v1#big"}
    pool = open_pool(upstreams=upstreams)
    with pool.lease(Catalogue(home, upstreams).find("large")) as loaded:
        assert loaded.tokenizer is None and loaded.adapter is None and loaded.context is None
        assert loaded.count([{"role": "user", "content": "x" * 300}]) == 108
        with pytest.raises(UserError, match="messages, not ids"):
            loaded.render(MESSAGES)
    assert [held["backend"] for held in pool.loaded()] == ["upstream"]


def test_after_closing_nothing_is_lent(home: Path, open_pool: Callable[..., Pool]) -> None:
    pool, catalogue = open_pool(), Catalogue(home)
    with pool.lease(catalogue.find("beta")):
        pass
    pool.close()
    assert pool.loaded() == []
    with pytest.raises(ModelError, match="is ending"), pool.lease(catalogue.find("beta")):
        pass
