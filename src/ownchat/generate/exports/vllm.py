"""vLLM on an exported directory, in a process of its own: it pins other releases of what ownchat needs.

vLLM is found as the program ``vllm`` on the PATH, whose Python has it, or in this Python.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ownchat.errors import ModelError
from ownchat.generate.exports.llamacpp import Continuation

SECONDS = 1800.0

# Runs in vLLM's Python, which has no ownchat. Reads {"model", "messages", "texts"}, writes what VllmOffline answers.
PROGRAM = """
import json, sys
from pathlib import Path
from vllm import LLM, SamplingParams

asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
llm = LLM(model=asked["model"], dtype="float32", enforce_eager=True, max_model_len=asked["context"])
tokenizer = llm.get_tokenizer()
rendered = [
    tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for messages in asked["messages"]
]
tokens = {text: tokenizer.encode(text, add_special_tokens=False) for text in rendered}
settings = SamplingParams(temperature=0.0, max_tokens=asked["max_tokens"], logprobs=1, ignore_eos=False)
outputs = llm.generate([{"prompt_token_ids": ids} for ids in asked["prompts"]], settings)
answers = []
for output in outputs:
    made = output.outputs[0]
    ids = list(made.token_ids)
    logprobs = [step[id].logprob for step, id in zip(made.logprobs, ids)]
    answers.append({"ids": ids, "logprobs": logprobs, "ended": made.finish_reason == "stop"})
Path(sys.argv[2]).write_text(json.dumps({"rendered": rendered, "tokens": tokens, "answers": answers}))
"""


def vllm_python() -> str | None:
    """The Python that has vLLM; None where it is not installed."""
    program = shutil.which("vllm")
    if program is not None:
        first = Path(program).read_bytes().split(b"\n", 1)[0]
        if first.startswith(b"#!"):
            words = first[2:].decode().split()
            python = shutil.which(words[-1]) if words[:1] == ["/usr/bin/env"] else next(iter(words), "")
            if python and "python" in Path(python).name:  # pip writes a shell's line where the path is long
                return python
    return sys.executable if find_spec("vllm") is not None else None


class VllmOffline:
    """vLLM's offline API on a Hugging Face directory, asked once for all prompts, in float32.

    The same questions as :class:`~ownchat.generate.exports.llamacpp.LlamaCpp`; only what is among ``messages`` and
    ``prompts`` (their ids) can be asked. Raises :class:`~ownchat.errors.ModelError` when the process fails.
    """

    def __init__(
        self, directory: Path, python: str, messages: Sequence[Sequence[dict[str, Any]]],
        prompts: Sequence[Sequence[int]], *, context: int, max_tokens: int,
    ) -> None:  # fmt: skip
        self._python, self._where = python, directory
        self._messages, self._prompts = [list(m) for m in messages], [list(ids) for ids in prompts]
        self._asked = {"model": str(directory), "messages": self._messages, "prompts": self._prompts,
                       "context": context, "max_tokens": max_tokens}  # fmt: skip

    @cached_property
    def _answers(self) -> dict[str, Any]:
        with TemporaryDirectory(prefix="ownchat-") as room:
            program, asked, answered = (Path(room) / name for name in ("ask.py", "asked.json", "answered.json"))
            program.write_text(PROGRAM, encoding="utf-8")
            asked.write_text(json.dumps(self._asked), encoding="utf-8")
            command = [self._python, str(program), str(asked), str(answered)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            except subprocess.TimeoutExpired as error:
                raise ModelError(f"vLLM did not answer in {SECONDS:,} seconds", where=str(self._where)) from error
            if done.returncode != 0 or not answered.is_file():
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise ModelError(f"vLLM cannot run it: {reason}", where=str(self._where))
            return dict(json.loads(answered.read_text(encoding="utf-8")))

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The chat prompt that it makes of messages."""
        return str(self._answers["rendered"][self._messages.index(list(messages))])

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """Ids of a rendered chat prompt."""
        return list(self._answers["tokens"][text])

    def answer(self, ids: Sequence[int], max_tokens: int) -> Continuation:
        """The greedy continuation of a prompt."""
        found = self._answers["answers"][self._prompts.index(list(ids))]
        return Continuation(
            tuple(found["ids"][:max_tokens]), tuple(found["logprobs"][:max_tokens]), ended=found["ended"]
        )
