"""``ownchat export``: what lies in 7-export, what is refused, and the upload to a server as the hub is one."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GenerationConfig

from ownchat import artifacts
from ownchat.config import Config, to_yaml
from ownchat.data.records import ShardWriter, record, to_batch
from ownchat.errors import ModelError, RunError, UserError
from ownchat.generate.export import merge_adapter
from ownchat.pipeline import cards, export_files
from ownchat.pipeline.export import Exported, export, source_of

ASKED = [f"Can I change delivery address number {n}?" for n in range(3)]


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run NAME ``inbox`` with an adapter, a test split of three conversations, and a system message."""
    monkeypatch.setenv("OWNCHAT_HOME", str(tmp_path / "home"))
    run = tmp_path / "home" / "runs" / "inbox"
    torch.manual_seed(1)
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), settings)
    tuned.save_pretrained(run / "5-train" / "adapter")
    merge_adapter(tiny_model, run / "5-train" / "adapter", run / "5-train" / "model")
    note = {"system": "Answer in one word.", "base": str(tiny_model)}
    artifacts.write_json(run / "5-train" / "model" / "ownchat.json", note)
    artifacts.write_json(run / "5-train" / "manifest.json", {"key": "k"})
    artifacts.write_atomic(run / "config.yaml", to_yaml(Config(), {}))
    rows = [
        record(
            "conversation", file="a.csv", format="csv", line=n + 1, messages=[
                {"role": "system", "content": note["system"]}, {"role": "user", "content": text},
                {"role": "assistant", "content": "Yes."},
            ],
        )
        for n, text in enumerate(ASKED)
    ]  # fmt: skip
    with ShardWriter(run / "2-clean" / "test") as writer:
        writer.write(to_batch(rows))
    return run


def quietly(*arguments: Any, **settings: Any) -> Exported:
    return export(*arguments, **settings, say=lambda _: None)


def test_gguf_is_made_once_and_again_for_another_model(run: Path) -> None:
    done = quietly("inbox", "gguf")
    assert done.path == run / "7-export" / "gguf-f16"
    assert {file.name for file in done.path.iterdir()} == {"inbox-f16.gguf", "manifest.json"}
    assert done.largest is not None and 0 < done.largest < 0.05 and "3 prompts" in done.parity
    (command,) = done.commands
    assert command == f"llama-server -m {done.path / 'inbox-f16.gguf'}"
    assert done.num_bytes == (done.path / "inbox-f16.gguf").stat().st_size
    assert oct((done.path / "inbox-f16.gguf").stat().st_mode)[-3:] == "600"
    written = (done.path / "inbox-f16.gguf").stat().st_mtime_ns
    lines: list[str] = []
    assert export("inbox", "gguf", say=lines.append) == done and "already" in lines[0]
    assert (done.path / "inbox-f16.gguf").stat().st_mtime_ns == written
    assert "2 prompts" not in quietly("inbox", "gguf", kind="q8_0", prompts=1).parity
    assert "2 prompts" in quietly("inbox", "gguf", kind="q8_0", prompts=2).parity  # more than were compared
    model = AutoModelForCausalLM.from_pretrained(run / "5-train" / "model")
    with torch.no_grad():
        model.model.norm.weight += 0.1
    model.save_pretrained(run / "5-train" / "model")
    assert quietly("inbox", "gguf").largest != done.largest
    assert {path.name for path in (run / "7-export").iterdir()} == {"gguf-f16", "gguf-q8_0"}


def test_what_differs_is_not_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownchat.generate.exports.weights.pairs", lambda values, heads: values)
    with pytest.raises(ModelError, match="nothing was kept"):
        quietly("inbox", "gguf")
    assert not any((run / "7-export").iterdir())


def test_ollama(run: Path) -> None:
    done = quietly("inbox", "ollama", kind="q8_0")
    assert {file.name for file in done.path.iterdir()} == {"inbox-q8_0.gguf", "Modelfile", "manifest.json"}
    text = (done.path / "Modelfile").read_text()
    assert "FROM ./inbox-q8_0.gguf\n" in text and 'SYSTEM """Answer in one word."""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text and "PARAMETER num_ctx 512" in text
    assert done.commands == (f"ollama create inbox -f {done.path / 'Modelfile'}", "ollama run inbox")


def test_vllm_directory_is_the_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    settings = Config.model_validate({"generate": {"temperature": 0.7, "top_p": 0.9}})
    artifacts.write_atomic(run / "config.yaml", to_yaml(settings, {}))
    done = quietly("inbox", "vllm")
    names = {file.name for file in done.path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names and "ownchat.json" not in names
    one, other = (AutoModelForCausalLM.from_pretrained(path) for path in (done.path, run / "5-train" / "model"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    sampling = GenerationConfig.from_pretrained(done.path)
    assert sampling.do_sample and sampling.temperature == 0.7 and sampling.top_p == 0.9 and sampling.eos_token_id == 2
    assert done.commands == (f"vllm serve {done.path} --served-model-name inbox --max-model-len 512",)


def test_vllm_is_asked_where_it_is(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program for vLLM's Python runs there; here against its interface on plain transformers, for want of vLLM."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "vllm.py").write_text(VLLM)
    (folder / "vllm").write_text(f"#!{sys.executable}\n")
    (folder / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    done = quietly("inbox", "vllm")
    assert "3 prompts" in done.parity and done.largest is not None and done.largest < 1e-3
    shutil.rmtree(run / "7-export")
    (folder / "vllm.py").write_text("raise ImportError('libcuda is missing')")
    with pytest.raises(ModelError, match="libcuda is missing"):
        quietly("inbox", "vllm")


def test_adapter(run: Path, tiny_model: Path) -> None:
    done = quietly("inbox", "vllm", adapter=True)
    assert done.path.name == "vllm-adapter" and "3 prompts" in done.parity
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {
        f.name for f in done.path.iterdir()
    }
    (command,) = done.commands
    assert command == f"vllm serve {tiny_model} --enable-lora --max-lora-rank 8 --lora-modules inbox={done.path}"
    settings = json.loads((run / "5-train" / "adapter" / "adapter_config.json").read_text())
    artifacts.write_json(run / "5-train" / "adapter" / "adapter_config.json", settings | {"use_dora": True})
    with pytest.raises(ModelError, match="DoRA"):
        export_files.serve_adapter_line(run / "5-train" / "adapter", done.path, "base", "inbox")
    (run / "5-train" / "adapter" / "adapter_model.safetensors").unlink()
    shutil.rmtree(run / "5-train" / "adapter")
    with pytest.raises(RunError, match="no adapter"):
        quietly("inbox", "hub", adapter=True)


@pytest.mark.parametrize("scaling", ["plain", "rslora"])
def test_adapter_in_llama_cpp(scaling: str, run: Path, tiny_model: Path) -> None:
    stored = run / "5-train" / "adapter" / "adapter_config.json"
    if scaling == "rslora":
        artifacts.write_json(stored, json.loads(stored.read_text()) | {"use_rslora": True})
        note = json.loads((run / "5-train" / "model" / "ownchat.json").read_text())
        merge_adapter(tiny_model, run / "5-train" / "adapter", run / "5-train" / "model")
        artifacts.write_json(run / "5-train" / "model" / "ownchat.json", note)
    done = quietly("inbox", "ollama", adapter=True)
    names = {"base-f16.gguf", "inbox-adapter.gguf", "Modelfile", "manifest.json"}
    assert done.path.name == "ollama-f16-adapter" and {file.name for file in done.path.iterdir()} == names
    assert done.largest is not None and done.largest < 0.05
    assert "FROM ./base-f16.gguf\nADAPTER ./inbox-adapter.gguf\n" in (done.path / "Modelfile").read_text()
    shutil.rmtree(run / "7-export")
    artifacts.write_json(stored, json.loads(stored.read_text()) | {"lora_alpha": 16})
    with pytest.raises(ModelError, match="nothing was kept"):
        quietly("inbox", "gguf", adapter=True)
    artifacts.write_json(stored, json.loads(stored.read_text()) | {"use_dora": True})
    with pytest.raises(ModelError, match="use_dora"):
        quietly("inbox", "gguf", adapter=True)


def test_an_adapter_of_another_model_is_refused(run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run / "5-train" / "model")
    with torch.no_grad():
        model.model.norm.weight += 0.1
    model.save_pretrained(run / "5-train" / "model")
    with pytest.raises(ModelError, match="base and adapter differ"):
        quietly("inbox", "vllm", adapter=True)


def test_a_directory_of_its_own(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out"):
        quietly(str(tiny_model), "gguf")
    done = quietly(str(tiny_model), "gguf", out=tmp_path / "out", prompts=2)
    assert "2 prompts" in done.parity and done.path == tmp_path / "out"
    (tmp_path / "out" / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="something else"):  # an export, but of another type
        quietly(str(tiny_model), "gguf", kind="q8_0", out=tmp_path / "out")
    assert (tmp_path / "out" / "letter.txt").is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="something else"):
        quietly("inbox", "gguf", out=tmp_path / "full")
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    with pytest.raises(RunError, match="something else"):  # a stage has a manifest, too
        quietly("inbox", "gguf", out=run / "5-train")
    assert (run / "5-train" / "model" / "model.safetensors").is_file()


def test_documents_alone_are_compared(run: Path) -> None:
    rows = [record("document", file="a.txt", format="text", line=1, text="The valve is closed. " * 40)]
    shutil.rmtree(run / "2-clean" / "test")
    with ShardWriter(run / "2-clean" / "test") as writer:
        writer.write(to_batch(rows))
    assert "1 prompt, " in quietly("inbox", "gguf").parity


def test_mistakes_of_a_person(run: Path) -> None:
    for arguments, message in [
        (("inbox", "gguf", "--type", "q5"), 'no type "q5".*'),
        (("inbox", "--to", "onnx"), "onnx"),
        (("nobody",), "no such run"),
        (("inbox", "--to", "hub"), "hf auth login"),
    ]:
        if message.startswith("no type"):
            arguments = ("inbox", "--type", "q5")
        done = program(run, *arguments, code=2)
        assert message.removesuffix(".*") in done.stderr, done.stderr


def test_model_card_holds_facts_and_no_text(run: Path) -> None:
    alone = cards.model_card(cards.Facts(source_of("inbox")), adapter=False, for_others=True)
    assert alone.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    artifacts.write_json(run / "6-report" / "report.json", REPORT)
    clean = {"counts": {"train": 10, "valid": 2, "test": 3}, "details": {"rules": {}}}
    artifacts.write_json(run / "2-clean" / "manifest.json", {"key": "k", "report": clean})
    base = run.parent / "SmolLM2"
    artifacts.write_json(base / "manifest.json", {"license": "apache-2.0", "model": "HuggingFaceTB/SmolLM2"})
    note = run / "5-train" / "model" / "ownchat.json"
    artifacts.write_json(note, {"system": "Answer in one word.", "base": str(base)})
    text = cards.model_card(cards.Facts(source_of("inbox")), adapter=True, for_others=True)
    assert "base_model: HuggingFaceTB/SmolLM2\nbase_model_relation: adapter\nlicense: apache-2.0\n" in text
    assert "Held-out loss fell from 3.95 to 2.96" in text and "2.962 (2.811 to 3.118)" in text
    assert "10 records in train" in text and "invents" in text
    assert "licence of the base is not known" in alone and "licence of the base" not in text
    for part in ("delivery address", "one word", str(run), "secret reply"):
        assert part not in text and part not in alone


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


REPORT: dict[str, Any] = {
    "held_out": {
        "base": {"loss": estimate(3.949, 3.801, 4.102), "perplexity": None, "bits_per_byte": None, "chrf": None},
        "tuned": {"loss": estimate(2.962, 2.811, 3.118), "perplexity": None, "bits_per_byte": None, "chrf": None},
        "difference": {"loss": estimate(-0.987, -1.071, -0.904), "chrf": None},
        "improvement": estimate(25.0, 22.8, 27.2),
        "records": 50, "tokens": 2614, "groups": 50, "answers": 32, "notes": [],
    },
    "training": {"tokens_per_second": 1874.2, "seconds": 192.4, "peak_memory_bytes": 10**9, "method": "lora"},
    "answers": [{"question": "secret question", "tuned": "secret reply"}],
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- the hub


class Hub(ThreadingHTTPServer):
    """As much of the hub as an upload meets: accounts, repositories, and commits of small files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, told in (headers or {}).items():
            self.send_header(name, told)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if not self._knows_them():
            return
        if self.path.startswith("/api/whoami"):
            self._answer({"name": "anna", "type": "user"})
            return
        name = self.path.split("/")[4].partition("?")[0]  # /api/models/anna/inbox
        if (made := self.server.repositories.get(name)) is None:
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            private = made.get("visibility") == "private"
            self._answer({"id": f"anna/{name}", "private": private, "siblings": [], "sha": "0" * 40})

    def _knows_them(self) -> bool:
        known = bool(self.headers["Authorization"] == "Bearer hf_good")
        if not known:
            self._answer({"error": "Invalid credentials"}, 401)
        return known

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else self._chunks()
        if not self._knows_them():
            return
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            self.server.repositories[wanted["name"]] = wanted
            self._answer({"url": f"{self.server.address}/anna/{wanted['name']}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.server.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            self._answer({"commitUrl": f"{self.server.address}/anna/inbox/commit/1", "commitOid": "1" * 40})
        else:
            self._answer({}, 200)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


@pytest.fixture
def server() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


def program(run: Path, *arguments: object, code: int = 0, stdin: str = "", **env: str) -> Any:
    home = {"OWNCHAT_HOME": str(run.parent.parent), "HF_HOME": str(run.parent.parent / "hf"), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "ownchat", "export", *map(str, arguments)],
        capture_output=True, text=True, input=stdin, env=os.environ | home | env,
    )  # fmt: skip
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def test_upload(run: Path, server: Hub) -> None:
    where = {"HF_ENDPOINT": server.address, "HF_HUB_DISABLE_XET": "1"}
    done = program(run, "inbox", "--to", "hub", code=2, HF_TOKEN="hf_good", **where)
    assert "nobody is here to ask" in done.stderr and "model.safetensors" in done.stdout
    assert server.repositories == {} and server.files == {}
    done = program(run, "inbox", "--to", "hub", "--yes", HF_TOKEN="hf_good", **where)
    assert done.stdout.splitlines()[-1] == f"{server.address}/anna/inbox/commit/1"
    assert server.repositories["inbox"].get("visibility") == "private", server.repositories
    folder = run / "7-export" / "hub"
    assert set(server.files) == {file.name for file in folder.iterdir()} - {"manifest.json"}
    assert all(content == (folder / name).read_bytes() for name, content in server.files.items())
    assert "README.md" in server.files and "ownchat.json" not in server.files
    home = str(run.parents[3]).encode()  # nothing tells where it was made
    assert not [name for name, content in server.files.items() if home in content]
    refused = program(run, "inbox", "--to", "hub", "--repo", "anna/x", "--yes", code=2, HF_TOKEN="hf_bad", **where)
    assert "hub: refused: " in refused.stderr and "401" in refused.stderr
    assert set(server.repositories) == {"inbox"}
    server.repositories["shown"], server.files = {"visibility": "public"}, {}
    public = ("inbox", "--to", "hub", "--repo", "anna/shown", "--yes")
    refused = program(run, *public, code=2, HF_TOKEN="hf_good", **where)
    assert "all can read it" in refused.stderr and server.files == {}, "meant to be private, and it is not"
    program(run, *public, "--public", HF_TOKEN="hf_good", **where)
    assert "README.md" in server.files


# The interface of vLLM that is asked (vllm.LLM, SamplingParams, RequestOutput), on plain transformers.
VLLM = """
from types import SimpleNamespace
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

class SamplingParams:
    def __init__(self, **settings): self.__dict__.update(settings)

class LLM:
    def __init__(self, model, dtype, enforce_eager, max_model_len):
        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)

    def get_tokenizer(self): return self.tokenizer

    def generate(self, prompts, settings):
        return [self._one(prompt["prompt_token_ids"], settings) for prompt in prompts]

    def _one(self, ids, settings):
        made, steps, sequence = [], [], list(ids)
        while len(made) < settings.max_tokens and (not made or made[-1] != 2):
            with torch.no_grad():
                logprobs = self.model(torch.tensor([sequence])).logits[0, -1].log_softmax(-1)
            best = int(logprobs.argmax())
            made.append(best), sequence.append(best)
            steps.append({best: SimpleNamespace(logprob=float(logprobs[best]))})
        reason = "stop" if made[-1] == 2 else "length"
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=made, logprobs=steps, finish_reason=reason)])
"""
