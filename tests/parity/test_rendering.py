"""Our ids are transformers' own, and the mask is the one it makes of ``{% generation %}`` marks, for the template
families that models come with. Ours sees the template without the marks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ownchat.tokenizer.render import prompt_ids, render
from ownchat.tokenizer.stage import load_tokenizer

TURNS = [
    {"role": "user", "content": "How do I return 12 orders?"},
    {"role": "assistant", "content": "Within 30 days.\n\nFree of charge."},
    {"role": "user", "content": "Grüße aus 東京 🙂"},
    {"role": "assistant", "content": "Thank you!"},
    {"role": "user", "content": "And the pump? "},
    {"role": "assistant", "content": "  Close the valve, wait, open it again."},
]
SYSTEM = {"role": "system", "content": "Be brief."}
MARKS = r"{%-? (?:end)?generation -?%}"

# name: (its control tokens, the template with marks, whether it takes a system message)
TEMPLATES: dict[str, tuple[list[str], str, bool]] = {
    "ChatML": (
        [],
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        True,
    ),
    "ChatML with a system message of its own": (
        [],
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        False,
    ),
    "Llama 3": (
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "{{ '<|begin_of_text|>' }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|eot_id|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        True,
    ),
    "Mistral": (
        ["<s>", "</s>"],
        "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{% generation %}{{ ' ' + m['content'] + '</s>' }}{% endgeneration %}{% endif %}{% endfor %}",
        False,
    ),
    "Gemma": (
        ["<bos>", "<start_of_turn>", "<end_of_turn>"],
        "{{ '<bos>' }}{% for m in messages %}"
        "{% if m['role'] == 'assistant' %}{{ '<start_of_turn>model\n' }}"
        "{% generation %}{{ m['content'] + '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] + '<end_of_turn>\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        False,
    ),
    "Zephyr": (
        ["</s>"],
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '</s>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '</s>' }}{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        True,
    ),
}


@pytest.mark.parametrize("turns", [2, 4, 6])
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_and_mask_are_transformers_own(name: str, turns: int, tiny_model: Path) -> None:
    tokens, marked, takes_system = TEMPLATES[name]
    tokenizer: Any = load_tokenizer(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.chat_template = re.sub(MARKS, "", marked)
    talk = ([SYSTEM] if takes_system else []) + TURNS[:turns]
    theirs = tokenizer.apply_chat_template(
        talk, chat_template=marked, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = render(tokenizer, talk)
    assert ours.ids == theirs["input_ids"]
    assert ours.weights == theirs["assistant_masks"] and sum(ours.weights) > turns
    opened = tokenizer.apply_chat_template(talk[:-1], tokenize=True, return_dict=False, add_generation_prompt=True)
    assert prompt_ids(tokenizer, talk[:-1]) == opened
