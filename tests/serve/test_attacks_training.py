"""What people try on the fine-tuning service: uploads, other owners' ids, names, training lines, and artefacts.

Held as those of test_attacks.py are, also under ``python -O`` (test_optimised.py). Forms, sizes and parts of uploads
are in test_files.py, single training lines in test_training_file.py.
"""

from __future__ import annotations

import itertools
import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import APIRoute

from ownchat.errors import UserError
from ownchat.model import starter
from ownchat.serve.job_settings import special_tokens
from ownchat.serve.job_store import model_name, run_name
from ownchat.serve.training_file import validate

if TYPE_CHECKING:
    from conftest import Answer, Gateway

BOUNDARY = "a-boundary"

CASES = itertools.count()


def chat(question: Any = "Hi?", answer: Any = "Hello", **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": said, **more}


def lines(*rows: dict[str, Any], ordinary: int = 12) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in (*[chat(f"{n}?") for n in range(ordinary)], *rows))


def send(gateway: Gateway, content: bytes, *, filename: bytes = b"a.jsonl", token: str = "") -> Answer:
    def part(head: bytes, body: bytes) -> bytes:
        return b"--" + BOUNDARY.encode() + b"\r\ncontent-disposition: form-data; " + head + b"\r\n\r\n" + body + b"\r\n"

    body = part(b'name="purpose"', b"fine-tune") + part(b'name="file"; filename="' + filename + b'"', content)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return gateway.call("POST", "/v1/files", body + f"--{BOUNDARY}--\r\n".encode(), headers=headers, token=token)


@pytest.fixture
def still(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The server with nobody who works on its jobs."""
    monkeypatch.setattr(gateway.app.state.runner, "tick", lambda: False)
    return gateway


# ------------------------------------------------------------------------------------------------------------ uploads


def zipped() -> bytes:
    """A megabyte of nothing in a kilobyte."""
    with BytesIO() as held:
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jsonl", lines() + b" " * 1_000_000)
        return held.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        zipped(),
        b"\x1f\x8b\x08\x00" + b"\x00" * 50,
        b'{"messages": "\xff\xfe"}\n',
        b"\xff\xfe" + '{"messages": []}\n'.encode("utf-16-le"),
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n',
        b'{"a": NaN}\n', b'{"a": -Infinity}\n', b'{"a": 01}\n', b"{} {}\n", b"[]\n", b"7\n", b'"text"\n', b"\n\n\n{\n",
        b"[" * 100_000 + b"]" * 100_000 + b"\n",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
        b"\x00" * 1000 + b"\n",
        pickle.dumps({"messages": []}),
    ],
    ids=lambda _: str(next(CASES)),  # not by content: an archive has the time in it
)  # fmt: skip
def test_what_is_no_json_lines_is_refused_at_the_upload(gateway: Gateway, content: bytes) -> None:
    answer = send(gateway, lines() + content)
    assert answer.status == 400 and answer.error["code"] == "invalid_file_format"
    assert re.search(r"Line 1[3-6] is not a dictionary", answer.error["message"])
    assert len(answer.error["message"]) < 400 and answer.error["message"].isprintable()
    assert not list((gateway.services.settings.home / "server").rglob(".incoming-*")), "nothing is left"


def test_a_huge_number_or_a_name_that_comes_twice_stops_nothing(still: Gateway) -> None:
    """What JSON leaves open is one value or a finding, never a fault."""
    for strange in (
        b'{"messages": [], "a": 1e999}',
        b'{"messages": 1, "messages": []}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ):
        assert send(still, lines() + strange + b"\r\n").status in (200, 400)
    assert send(still, b"\xef\xbb\xbf" + lines().replace(b"\n", b"\r\n")).status == 200, "BOM and CRLF are harmless"


@pytest.mark.parametrize(
    "filename",
    [
        b"../../../up.jsonl", b"..\\\\..\\\\up.jsonl", b"/etc/passwd", b"a\x00b.jsonl", b"\xff\xfe.jsonl", b"", b".",
        b"..", b"a" * 60_000, b"<img src=x onerror=alert(1)>.jsonl", b"%2e%2e%2fup.jsonl", "\u202egnp.jsonl".encode(),
        b"~/x", b"CON", b"file:///etc/passwd",
    ],
)  # fmt: skip
def test_a_files_name_is_a_label(gateway: Gateway, filename: bytes) -> None:
    answer = send(gateway, lines(), filename=filename)
    if answer.status != 200:
        assert answer.status in (400, 431) and answer.error["message"]
        return
    file = answer.json()
    shown = file["filename"]
    assert 1 <= len(shown) <= 255 and shown.isprintable() and "/" not in shown and "\\" not in shown
    assert shown not in (".", "..")
    home = gateway.services.settings.home
    assert (home / "server" / "files" / file["id"]).read_bytes() == lines(), "its place is its id"
    assert not list(home.parent.rglob("up.jsonl"))
    back = gateway.call("GET", f"/v1/files/{file['id']}/content")
    assert back.body == lines() and back.headers["content-type"] == "application/octet-stream"
    assert back.headers["content-disposition"].startswith("attachment")
    assert back.headers["x-content-type-options"] == "nosniff"
    assert gateway.call("DELETE", f"/v1/files/{file['id']}").status == 200


# ---------------------------------------------------------------------------------------------------------- other ids


def test_what_is_somebody_elses_is_as_if_it_were_not_there(still: Gateway) -> None:
    """Every route with an id, also one that will be added: the same answer as for an id that nobody has."""
    anna, eve = still.key("infer", "train", owner="anna"), still.key("infer", "train", owner="eve")
    file = send(still, lines(), token=anna).json()["id"]
    begun = {"bytes": 10, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    job = {"model": "starter", "training_file": file}
    completion = still.chat(store=True)
    response = {"model": "starter", "input": "Hi", "max_output_tokens": 16, "store": True}
    own = {
        "/v1/files/": (file, "file-" + "0" * 24),
        "/v1/uploads/": (still.call("POST", "/v1/uploads", begun, token=anna).json()["id"], "upload_" + "0" * 24),
        "/v1/fine_tuning/jobs/": (
            still.call("POST", "/v1/fine_tuning/jobs", job, token=anna).json()["id"], "ftjob-" + "0" * 24,
        ),
        "/v1/chat/completions/": (
            still.call("POST", "/v1/chat/completions", completion, token=anna).json()["id"], "chatcmpl-" + "0" * 32,
        ),
        "/v1/responses/": (still.call("POST", "/v1/responses", response, token=anna).json()["id"], "resp_" + "0" * 32),
    }  # fmt: skip
    routes: set[tuple[str, str]] = set()

    def walk(found: Any) -> None:
        for route in found:
            if isinstance(route, APIRoute):
                routes.update((method, route.path) for method in route.methods)
            walk(getattr(getattr(route, "original_router", None), "routes", ()))

    walk(still.app.routes)
    looked_at = 0
    for method, path in sorted(routes):
        prefix = next((prefix for prefix in own if path.startswith(prefix + "{")), None)
        if prefix is None:
            continue
        looked_at += 1
        answers = []
        for id in own[prefix]:
            address = re.sub(r"{[^}]*}", id, path, count=1)
            body: Any = {"POST": {"part_ids": ["part_x"], "metadata": {"rating": "up"}}}.get(method)
            if path.endswith("/parts"):
                part = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="data"; filename="a"\r\n\r\nx\r\n'
                headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
                sent = f"{part}--{BOUNDARY}--\r\n".encode()
                answer = still.call(method, address, sent, token=eve, headers=headers)
            else:
                answer = still.call(method, address, body, token=eve)
            answers.append((answer.status, json.dumps(answer.error).replace(id, "ID")))
        assert answers[0] == answers[1] and answers[0][0] == 404, (method, path, answers)
    assert looked_at >= 20, routes
    for prefix, (id, _) in own.items():
        if prefix != "/v1/uploads/":  # which nobody can retrieve
            assert still.call("GET", prefix + id, token=anna).status == 200, "and it is as it was"


# -------------------------------------------------------------------------------------------------------------- names


SUFFIXES = [
    "../../up", "..", "/etc", "a/b", "a\\b", "a:b", "a\nb", "a\r\nx: y", "$(touch x)", "`id`", "; rm -rf ~", "--force",
    "-x", "a b", "\u202e", "\u00e4\u00f6", "\u4e2d", "a\u0000b", "%2e%2e", "ft:x:y:z:1", ":ckpt-step-1", "<b>",
    "'\"", "." * 64,
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_is_a_part_of_a_name_and_nothing_else(still: Gateway, suffix: str) -> None:
    file = send(still, lines()).json()["id"]
    answer = still.call(
        "POST", "/v1/fine_tuning/jobs", {"model": "starter", "training_file": file, "suffix": suffix, "seed": 1}
    )
    if answer.status != 200:
        assert answer.status == 400 and answer.error["param"] == "suffix"
        return
    id = answer.json()["id"]
    row = still.app.state.jobs.get("operator", id)
    assert re.fullmatch(r"ft(-[a-z0-9]+)*-[0-9a-f]{8}", row.run) and row.run == run_name(id, row.suffix)
    assert re.fullmatch(
        r"ft:starter:operator:[A-Za-z0-9._-]*:[0-9a-f]{8}", model_name("starter", "operator", suffix, id)
    )
    assert still.call("POST", f"/v1/fine_tuning/jobs/{id}/cancel").status == 200


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "/etc", "file:///etc/passwd", "http://169.254.169.254/", "\\\\host\\share", "%2e%2e%2f",
        "starter\x00", "a" * 300, "st\u0430rter", "ft:starter:eve::x", "starter/../starter", ".", "", "models/starter",
        "HuggingFaceTB/SmolLM2-135M-Instruct", starter.NAME, "starter:ckpt-step-1", "-", "--base",
    ],
)  # fmt: skip
def test_a_base_is_one_of_the_catalogue_and_no_place(still: Gateway, name: str) -> None:
    """Neither a path nor a repository elsewhere: nothing is fetched because a client says so."""
    file = send(still, lines()).json()["id"]
    answer = still.call("POST", "/v1/fine_tuning/jobs", {"model": name, "training_file": file})
    assert answer.status == 400 and answer.error["param"] == "model"
    assert str(still.services.settings.home) not in answer.body.decode() and len(answer.body) < 2000


@pytest.mark.parametrize("id", ["../server.db", "..", "/etc/passwd", "file-", "file-x\x00", "a" * 5000, "%2e%2e"])
def test_a_file_of_a_job_is_no_path(still: Gateway, id: str) -> None:
    for param in ("training_file", "validation_file"):
        good = send(still, lines()).json()["id"]
        body = {"model": "starter", "training_file": good, param: id}
        answer = still.call("POST", "/v1/fine_tuning/jobs", body)
        assert answer.status == 400 and answer.error["param"] == param and len(answer.body) < 2000


# ----------------------------------------------------------------------------------------------------- training lines


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<s>", "</s>"])
def test_control_tokens_are_found_wherever_text_stands(serve_home: Path, token: str) -> None:
    special = [*special_tokens(serve_home / "models" / starter.NAME), "<s>", "</s>"]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": token})}}
    rows = [
        chat(f"Hi {token}"), chat(answer=f"{token}Hello"), chat([{"type": "text", "text": token}]),
        {"messages": [{"role": "system", "content": token}, *chat()["messages"]]},
        {"messages": [{"role": "user", "content": "Hi", "name": token}, chat()["messages"][1]]},
        {"messages": [chat()["messages"][0], {"role": "assistant", "tool_calls": [call]}]},
        {"prompt": token, "completion": "a"},
    ]  # fmt: skip
    for row in rows:
        ordinary = lines(ordinary=0 if "prompt" in row else 12)
        found = validate(BytesIO(ordinary + json.dumps(row).encode()), "supervised", special_tokens=special, least=1)
        assert found.problem is not None and f"contains an invalid token: {token}" in found.problem, row


# ---------------------------------------------------------------------------------------------------------- artefacts


class Touch:
    """Unpickled, it makes a file: what a pickle may do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def weights(model: Path) -> Path:
    (found,) = model.glob("*.safetensors")
    return found


def pickled(model: Path, marker: Path) -> None:
    weights(model).unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(marker)))


def renamed(model: Path, marker: Path) -> None:
    weights(model).write_bytes(pickle.dumps(Touch(marker)))


def long_header(model: Path, marker: Path) -> None:
    content = weights(model).read_bytes()
    weights(model).write_bytes((1 << 62).to_bytes(8, "little") + content[8:])


def overlapping(model: Path, marker: Path) -> None:
    content = weights(model).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    for tensor in header.values():
        if "data_offsets" in tensor:
            begin, end = tensor["data_offsets"]
            tensor["data_offsets"] = [0, end - begin]
    made = json.dumps(header).encode()
    weights(model).write_bytes(len(made).to_bytes(8, "little") + made + content[8 + size :])


def own_code(model: Path, marker: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (model / "config.json").write_text(json.dumps(config | {"auto_map": auto, "model_type": "evil"}))
    (model / "evil.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")


def own_template(model: Path, marker: Path) -> None:
    reach = "().__class__.__base__.__subclasses__()"
    template = f"{{% for c in {reach} %}}{{{{ c.__init__.__globals__ }}}}{{% endfor %}}"
    (model / "chat_template.jinja").write_text(template)
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


@pytest.mark.parametrize("spoil", [pickled, renamed, long_header, overlapping, own_code, own_template])
def test_a_model_that_is_an_attack_is_refused(
    serving: Callable[..., Gateway], tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    """Somebody put it among the models: nothing of it runs, and the others answer."""
    gateway, marker = serving(), tmp_path / "ran"
    models = gateway.services.settings.home / "models"
    evil = shutil.copytree(models / starter.NAME, models / "evil")
    spoil(evil, marker)
    answer = gateway.call("POST", "/v1/chat/completions", gateway.chat(model="evil"))
    assert answer.status in (400, 404, 500, 503), answer.body
    assert (
        answer.error["message"] and str(models) not in answer.body.decode() and "Traceback" not in answer.body.decode()
    )
    assert not marker.exists()
    assert gateway.call("POST", "/v1/chat/completions", gateway.chat()).status == 200


def test_a_run_that_leads_out_of_its_folder_is_no_model(serving: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway = serving()
    home = gateway.services.settings.home
    elsewhere = shutil.copytree(home / "models" / starter.NAME, tmp_path / "elsewhere")
    (home / "models" / "link").symlink_to(elsewhere)
    (home / "runs").mkdir(exist_ok=True)
    (home / "runs" / "link").symlink_to(tmp_path)
    assert [model["id"] for model in gateway.call("GET", "/v1/models").json()["data"]] == ["starter"]
    assert gateway.call("POST", "/v1/chat/completions", gateway.chat(model="link")).status == 404
    with pytest.raises(UserError):
        gateway.services.catalogue.find("link")
