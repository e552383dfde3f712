"""ownchat: the text you already have, turned into a chat model of your own.

Names are lazy: ``import ownchat`` loads neither torch nor anything else that is heavy.

>>> import ownchat
>>> sorted(ownchat.__all__)[:3]
['Config', 'Redactor', 'Request']
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# A bfloat16 product of a new shape leaves a kernel of 0.6 MB in the caches of oneDNN and of torch, by default 1,024 in
# each: blocks of ever other lengths filled them with half a gigabyte that nobody asks for again. 320 are enough for the
# tiles of 8,192 tokens, forward and backward. Read when the first product is made.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "320")

# public name -> (module, name there). Not "train": that is the folder with the loop.
_NAMES = {
    "Config": ("ownchat.config", "Config"),
    "load_config": ("ownchat.config", "load_config"),
    "train_model": ("ownchat.pipeline.run", "train"),
    "chat_engine": ("ownchat.generate.hf", "chat_engine"),
    "redact": ("ownchat.clean.private.redaction", "redact"),
    "Redactor": ("ownchat.clean.private.redaction", "Redactor"),
    "Request": ("ownchat.generate.engine", "Request"),
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'ownchat' has no attribute {name!r}")
    module, attribute = _NAMES[name]
    return getattr(import_module(module), attribute)
