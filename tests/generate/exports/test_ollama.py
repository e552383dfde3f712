"""The Go template of a Modelfile writes what the chat template writes, and strange templates are refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ownchat.config import GenerateConfig
from ownchat.errors import ModelError
from ownchat.generate.exports.ollama import Shape, modelfile, shape_of
from ownchat.tokenizer.chatml import CHATML_TEMPLATE
from ownchat.tokenizer.render import PLAIN_TEMPLATE

STARTER = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful \"assistant\"<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BEGINNING = "{{ '<|endoftext|>' }}" + PLAIN_TEMPLATE
TEMPLATES = {"chatml": CHATML_TEMPLATE, "plain": PLAIN_TEMPLATE, "starter": STARTER, "beginning of text": BEGINNING}
CONVERSATIONS = [
    [("user", 'Say "hi" \\ to {{ all }} `them`\n')],
    [("system", "  Be kind. "), ("user", "Grüße 🙂")],
    [("user", "one"), ("assistant", "two\n\nthree"), ("user", "four")],
    [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "u"), ("assistant", "a"), ("user", "u")],
]
GO = """package main
import ("encoding/json"; "os"; "text/template")
type Message struct { Role, Content string }
func main() {
    var asked struct { Template string; Messages []Message }
    if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil { panic(err) }
    made := template.Must(template.New("").Option("missingkey=zero").Parse(asked.Template))
    if err := made.Execute(os.Stdout, map[string]any{"Messages": asked.Messages}); err != nil { panic(err) }
}
"""


def tokenizer_with(template: str, tiny_model: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = template
    return tokenizer


def render_go(template: str, messages: list[dict[str, str]]) -> str:
    """What Go's text/template makes of the few actions that are used here (its documentation, "Text and spaces")."""
    trimmed = re.sub(r"\s*\{\{- ", "{{ ", template)
    tokens = [token for token in re.split(r"(\{\{ .*? \}\})", trimmed) if token]

    def run(index: int, active: bool, number: int, message: dict[str, str] | None) -> tuple[str, int]:
        """Up to the ``else`` or ``end`` that closes this block."""
        made = ""
        while index < len(tokens):
            token = tokens[index]
            action = token[3:-3] if token.startswith("{{ ") else None
            if action is not None and (action == "end" or action.startswith("else")):
                return made, index
            text, index = step(index, action, active, number, message)
            made += text if active else ""
        return made, index

    def step(index: int, action: str | None, active: bool, number: int, message: Any) -> tuple[str, int]:
        if action is None:
            return tokens[index], index + 1
        if action.startswith('"'):
            return str(json.loads(action)), index + 1
        if action == "$m.Content":
            return message["content"] if active else "", index + 1
        if action == "range $i, $m := .Messages":
            made = ""
            for place, each in enumerate(messages):
                text, end = run(index + 1, True, place, each)
                made += text
            return made, end + 1
        assert action.startswith("if "), action
        made, taken = "", False
        while tokens[index] != "{{ end }}":
            holds = active and not taken and condition(tokens[index][3:-3].removeprefix("else "), number, message)
            text, index = run(index + 1, holds, number, message)
            made, taken = made + text, taken or holds
        return made, index + 1

    def condition(action: str, number: int, message: Any) -> bool:
        if action == 'if and (eq $i 0) (ne $m.Role "system")':
            return number == 0 and message["role"] != "system"
        found = re.fullmatch(r'if eq \$m\.Role "(\w+)"', action)
        assert found, action
        return bool(message["role"] == found[1])

    made, index = run(0, True, 0, None)
    assert index == len(tokens)
    return made


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_go_template_writes_the_same(name: str, tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name], tiny_model)
    shape = shape_of(tokenizer)
    asked = [[{"role": role, "content": text} for role, text in turns] for turns in CONVERSATIONS]
    wanted = [tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) for turns in asked]
    assert [shape.render(messages) for messages in asked] == wanted
    assert [render_go(shape.go(), messages) for messages in asked] == wanted
    if shutil.which("go") is None:
        return  # then Go itself is not asked
    (tmp_path / "main.go").write_text(GO)
    subprocess.run(["go", "build", "-o", tmp_path / "render", tmp_path / "main.go"], check=True)
    for messages, text in zip(asked, wanted, strict=True):
        question = json.dumps({"Template": shape.go(), "Messages": messages})
        done = subprocess.run([tmp_path / "render"], input=question, capture_output=True, text=True, check=True)
        assert done.stdout == text


def test_shape_of_the_starters_template(tiny_model: Path) -> None:
    found = shape_of(tokenizer_with(STARTER, tiny_model))
    around = {role: (f"<|im_start|>{role}\n", "<|im_end|>\n") for role in ("system", "user", "assistant")}
    default = '<|im_start|>system\nYou are a helpful "assistant"<|im_end|>\n'
    assert found == Shape(around, "", default, "<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "template, message",
    [
        (CHATML_TEMPLATE.replace("message['content'] +", "message['content'] | trim +"), "more than to write"),
        (CHATML_TEMPLATE.replace("message['content'] +", "message['content'] | upper +"), "as it is"),
        (PLAIN_TEMPLATE.replace("{{ '\n' }}", "{% if not loop.last %}{{ '\n' }}{% endif %}"), "more than to write"),
        ("{{ raise_exception('no') }}", "refuses"),
        (PLAIN_TEMPLATE.replace("message['role'].capitalize()", "loop.index | string"), "place to place"),
    ],
)
def test_other_templates_are_refused(template: str, message: str, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=message):
        shape_of(tokenizer_with(template, tiny_model))


def test_modelfile(tiny_model: Path) -> None:
    shape = shape_of(tokenizer_with(PLAIN_TEMPLATE, tiny_model))
    settings = GenerateConfig(temperature=0.7, top_k=5, seed=1, stop=["\n\nUser:"])
    text = modelfile(shape, "a-f16.gguf", system="Be brief.\nBe kind.", settings=settings, stops=["<e>"], context=512)
    assert text.startswith('FROM ./a-f16.gguf\nTEMPLATE """{{- range')
    assert 'SYSTEM """Be brief.\nBe kind."""\n' in text
    assert 'PARAMETER stop "<e>"\nPARAMETER stop "\\n\\nUser:"\nPARAMETER num_ctx 512\n' in text
    assert "PARAMETER temperature 0.7\nPARAMETER top_k 5\n" in text and "PARAMETER seed 1\n" in text
    with pytest.raises(ModelError, match='holds """'):
        modelfile(shape, "a.gguf", system='"""', settings=settings, stops=[], context=512)
