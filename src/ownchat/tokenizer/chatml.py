"""ChatML, the chat template of tokenizers that are learned here: ``<|im_start|>role``, the text, ``<|im_end|>``.

Tools and their calls are written as in Hermes and Qwen 2.5 (``<tools>``, ``<tool_call>``, ``<tool_response>``), which
vLLM's ``hermes`` parser and llama.cpp read. ``{% generation %}`` marks what is trained: an assistant's text, its calls
and the token that ends its turn.
"""

from __future__ import annotations

END_OF_TEXT, TURN, END_OF_TURN, PADDING = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
CONTROL_TOKENS = (END_OF_TEXT, TURN, END_OF_TURN, PADDING)  # ids 0 to 3

CHATML_TEMPLATE = (
    "{%- if tools %}"
    "{{- '<|im_start|>system\n' }}"
    "{%- if messages and messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\n\n' }}{%- endif %}"
    "{{- 'Functions that may be called:\n<tools>' }}"
    "{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}"
    "{{- '\n</tools>\nA call is written so:\n<tool_call>\n' }}"
    '{{- \'{"name": <name>, "arguments": <JSON object>}\' }}'
    "{{- '\n</tool_call><|im_end|>\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{%- generation %}"
    "{{- message['content'] or '' }}"
    "{%- for called in message['tool_calls'] or [] %}"
    "{%- set call = called['function'] or called %}"
    "{%- if message['content'] or not loop.first %}{{- '\n' }}{%- endif %}"
    "{{- '<tool_call>\n{\"name\": ' }}{{- call['name'] | tojson }}{{- ', \"arguments\": ' }}"
    "{%- if call['arguments'] is string %}{{- call['arguments'] }}"
    "{%- else %}{{- call['arguments'] | tojson }}{%- endif %}"
    "{{- '}\n</tool_call>' }}"
    "{%- endfor %}"
    "{{- '<|im_end|>' }}"
    "{%- endgeneration %}"
    "{{- '\n' }}"
    "{%- elif message['role'] == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>\n' + message['content'] + '\n</tool_response><|im_end|>\n' }}"
    "{%- elif not (tools and loop.first and message['role'] == 'system') %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
