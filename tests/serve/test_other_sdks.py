"""Other releases of OpenAI's SDK, where they are on this machine: the variables below say where.

``OWNCHAT_OPENAI_PYTHON``: the interpreter of a virtual environment with another release of the Python SDK.
``OWNCHAT_OPENAI_NODE``: a folder with ``node_modules/openai``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ownchat.tokenizer.render import prompt_ids

HERE = Path(__file__).parent
PYTHON, NODE = os.environ.get("OWNCHAT_OPENAI_PYTHON", ""), os.environ.get("OWNCHAT_OPENAI_NODE", "")


@pytest.fixture
def environment(serving: Any, tiny_model: Path, teach: Any, tmp_path: Path) -> dict[str, str]:
    """Of a client of a server whose model was taught the object that the scripts' schema wants."""
    directory = shutil.copytree(tiny_model, tmp_path / "taught")
    asked = [{"role": "user", "content": "Can I change my delivery address?"}]
    teach(directory, prompt_ids(AutoTokenizer.from_pretrained(directory), asked), '{"city": "Oslo"}')
    gateway = serving(model=directory, engine="llamacpp", slots=2)
    return os.environ | {"OPENAI_BASE_URL": gateway.url, "OPENAI_API_KEY": gateway.token}


@pytest.mark.long
@pytest.mark.skipif(not PYTHON, reason="no other Python SDK here (set OWNCHAT_OPENAI_PYTHON)")
def test_another_release_for_python(environment: dict[str, str]) -> None:
    done = subprocess.run([PYTHON, HERE / "other_sdk.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "all well" in done.stdout, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.skipif(
    not NODE or shutil.which("node") is None, reason="no SDK for JavaScript here (set OWNCHAT_OPENAI_NODE)"
)
def test_the_sdk_for_javascript(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(Path(NODE, "node_modules"))
    script = shutil.copy(HERE / "other_sdk.mjs", tmp_path)  # packages are looked for beside the script
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "all well" in done.stdout, done.stdout + done.stderr
