"""``recipes/openai``: the scripts as they are, as processes, against a real server; nothing but their environment says
where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Gateway

RECIPES = Path(__file__).parents[2] / "recipes" / "openai"
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


def recipe(name: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "X_TRAIN", "MODEL"))}
    return subprocess.run(
        [sys.executable, str(RECIPES / name), *map(str, arguments)], env=kept | environment, capture_output=True,
        text=True, timeout=500,
    )  # fmt: skip


def where(gateway: Gateway) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": gateway.url, "OPENAI_API_KEY": gateway.key("train", "infer"), "MODEL": "starter",
    }  # fmt: skip


def chats(path: Path, count: int) -> Path:
    rows = [
        [{"role": "user", "content": f"Where is {PLACES[n % 12]} {n}?"}, {"role": "assistant", "content": f"Line {n}."}]
        for n in range(count)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_chat_model_is_tuned(serving: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway, training = serving(), chats(tmp_path / "training.jsonl", 30)
    plain = recipe("chat.py", training, "--ask", "Where is Ulm?", **where(gateway))
    assert plain.returncode == 0, plain.stdout + plain.stderr
    first, last = map(float, re.findall(r"^training loss: ([\d.]+) at step 1, ([\d.]+) at step", plain.stdout, re.M)[0])
    assert last < first
    assert "30 examples, 30 turns to learn" in plain.stdout and "info  Fine-tuning job started" in plain.stdout
    assert plain.stdout.index("Created fine-tuning job") < plain.stdout.index("The job has successfully completed")
    assert re.search(r"^checkpoint: ft:starter:anna:recipe:\w{8}:ckpt-step-\d+$", plain.stdout, re.M)
    assert re.search(r"^ft:starter:anna:recipe:\w{8} answers: '", plain.stdout, re.M)
    encoded = recipe("chat.py", training, "--epochs", "1", X_TRAIN='{"base64_results": true}', **where(gateway))
    assert encoded.returncode == 0, encoded.stdout + encoded.stderr
    assert f"training loss: {first:.3f} at step 1," in encoded.stdout, "read from base64"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rated_answers_are_learned(serving: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway = serving()
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"Where is order {n} for {place}?\n" for n, place in enumerate(PLACES * 2)))
    done = recipe("preferences.py", questions, **where(gateway))
    assert done.returncode == 0, done.stdout + done.stderr
    stored, rated = map(int, re.findall(r"^(\d+) answers stored, (\d+) rated$", done.stdout, re.M)[0])
    (pairs,) = re.findall(r"^(\d+) pairs uploaded: file-", done.stdout, re.M)
    assert stored == 48 and rated == 2 * int(pairs) >= 20
    assert "info  The job has successfully completed" in done.stdout
    assert re.search(r"^ft:starter:anna:rated:\w{8} answers: '", done.stdout, re.M)


def test_a_service_without_the_model_gets_no_file(serving: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway = serving()
    done = recipe("chat.py", chats(tmp_path / "training.jsonl", 12), **where(gateway) | {"MODEL": "of-elsewhere"})
    assert done.returncode == 1 and "has no model of-elsewhere" in done.stderr and "uploaded" not in done.stdout


def test_what_is_wrong_with_a_file_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    path = chats(tmp_path / "training.jsonl", 8)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write('{"messages": [{"role": "bot", "content": "Hi"}]}\n[]\n')
        handle.write('{"messages": [{"role": "assistant", "content": "Hi\u2028there", "weight": 0}]}\n')
        handle.write('{"messages": [{"role": ["user"], "content": "Hi"}]}\n')
    done = recipe("chat.py", path, OPENAI_API_KEY="none", OPENAI_BASE_URL="http://127.0.0.1:1/v1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for text in ("line 9: no such role: bot", "line 10: not {", "line 11: no answer of the assistant to learn",
                 "line 12: no such role: ['user']"):  # fmt: skip
        assert text in done.stderr
    few = recipe("chat.py", chats(path, 9), OPENAI_API_KEY="none", OPENAI_BASE_URL="http://127.0.0.1:1/v1")
    assert few.returncode == 1 and "9 examples; at least 10 are needed" in few.stderr
