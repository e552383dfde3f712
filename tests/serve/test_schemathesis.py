"""The server against OpenAI's own description of its API, asked by schemathesis: what fits it, what does not, no key.

The description (an excerpt of openai/openai-openapi, MIT) is read from ``OWNCHAT_OPENAPI``; without it this is skipped.
Where the server differs from it on purpose stands beside :data:`UNCHECKED`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Gateway

SLICE = Path(os.environ.get("OWNCHAT_OPENAPI", Path(__file__).parents[3] / "shared/reference/openai_slice.json"))
SERVED = (
    "/chat/completions", "/chat/completions/{completion_id}", "/chat/completions/{completion_id}/messages",
    "/completions", "/embeddings", "/models", "/models/{model}", "/moderations", "/responses",
    "/responses/{response_id}", "/responses/{response_id}/input_items",
)  # fmt: skip


TRAINED = (
    "/files", "/files/{file_id}", "/files/{file_id}/content", "/uploads", "/uploads/{upload_id}/parts",
    "/uploads/{upload_id}/complete", "/uploads/{upload_id}/cancel", "/fine_tuning/jobs",
    "/fine_tuning/jobs/{fine_tuning_job_id}", "/fine_tuning/jobs/{fine_tuning_job_id}/cancel",
    "/fine_tuning/jobs/{fine_tuning_job_id}/pause", "/fine_tuning/jobs/{fine_tuning_job_id}/resume",
    "/fine_tuning/jobs/{fine_tuning_job_id}/events", "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
)  # fmt: skip


REFUSALS = ("400", "401", "404", "405", "413", "415", "429")


def described(paths: tuple[str, ...] = SERVED) -> dict[str, Any]:
    """The description of what is served."""
    spec: dict[str, Any] = json.loads(SLICE.read_text(encoding="utf-8"))
    spec["paths"] = {path: spec["paths"][path] for path in paths}
    error = {"description": "refused", "content": {"application/json": {"schema": {"$ref": ERROR}}}}
    for operations in spec["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict) and "responses" in operation:
                # The description names successes only; the SDK knows these statuses.
                operation["responses"] |= dict.fromkeys(REFUSALS, error)
    return spec


ERROR = "#/components/schemas/ErrorResponse"


# Where the description is wider than the server, a request that fits it is refused with 400 and the field's name: texts
# alone (no images, sound or files), tools of the kind "function", no "suffix", no "dimensions", no moderation without a
# classifier. So "positive_data_acceptance" says nothing here; that a plain request is answered, the SDK's tests say.
UNCHECKED = ("positive_data_acceptance",)
LARGE = ("createChatCompletion", "createResponse")  # of thousands of variants each: these get a sample
# Of unions with dozens of members, those that are served: a request of all of them takes seconds to make up.
MEMBERS = {
    "InputItem": ("EasyInputMessage", "Item"),
    "Item": ("InputMessage", "OutputMessage", "FunctionToolCall", "FunctionCallOutputItemParam"),
    "InputContent": ("InputTextContent",),
    "Tool": ("FunctionTool",),
    "ToolChoiceParam": ("ToolChoiceOptions", "ToolChoiceFunction"),
}


def _only_what_is_served(spec: dict[str, Any]) -> None:
    for name, members in MEMBERS.items():
        schema = spec["components"]["schemas"][name]
        schema["oneOf"] = [one for one in schema["oneOf"] if one.get("$ref", "").rpartition("/")[2] in members]
        assert len(schema["oneOf"]) == len(members), name
        schema.pop("discriminator", None)


# Hypothesis parses the source of lambdas to print a strategy, in which Python 3.11 can fail deep in a recursion
# ("AST constructor recursion depth mismatch"); nobody reads what it prints.
LAUNCH = """
import runpy
from hypothesis.internal import lambda_sources
lambda_sources.lambda_description = lambda function: "lambda <unknown>"
runpy.run_module("schemathesis.cli", run_name="__main__")
"""


def ask(gateway: Gateway, spec: dict[str, Any], folder: Path, *choice: str) -> None:
    """Let schemathesis ask; fails with what it found. Making a request up may take as long as it does on a busy
    machine, an answer 300 s; a failure is not made smaller, which can take an hour."""
    (folder / "openapi.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, "run", "openapi.json", "--url", gateway.url,
         "-H", f"Authorization: Bearer {gateway.token}", "--checks", "all", "--exclude-checks", ",".join(UNCHECKED),
         "--request-timeout", "300", "--no-color", "--generation-deterministic", "--no-shrink",
         "--suppress-health-check", "too_slow,filter_too_much,data_too_large,large_base_example", *choice],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SLICE.is_file(), reason="OpenAI's description of its API is not here (set OWNCHAT_OPENAPI)")
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_nothing_differs_from_the_description(serving: Callable[..., Gateway], tmp_path: Path, large: bool) -> None:
    pytest.importorskip("schemathesis")
    gateway, spec = serving(slots=4, queue=100), described()
    flag = "--include-operation-id" if large else "--exclude-operation-id"
    choice = [part for operation in LARGE for part in (flag, operation)]
    if large:
        _only_what_is_served(spec)
        ask(gateway, spec, tmp_path, "--workers", "2", "--phases", "fuzzing", "--max-examples", "20", *choice)
    else:
        ask(gateway, spec, tmp_path, "--workers", "4", "--phases", "examples,coverage", *choice)


def _bytes_are_bytes(spec: dict[str, Any]) -> None:
    """The description has a file's content as JSON text; the SDK reads bytes."""
    content = spec["paths"]["/files/{file_id}/content"]["get"]["responses"]["200"]
    content["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SLICE.is_file(), reason="OpenAI's description of its API is not here (set OWNCHAT_OPENAPI)")
def test_files_and_jobs_are_as_described(serving: Callable[..., Gateway], tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    gateway, spec = serving(), described(TRAINED)
    _bytes_are_bytes(spec)
    ask(gateway, spec, tmp_path, "--workers", "2", "--phases", "examples,coverage,fuzzing", "--max-examples", "20")
