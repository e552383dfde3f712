"""ownchat: the text you already have, turned into a chat model of your own.

Names are lazy: ``import ownchat`` loads neither torch nor anything else that is heavy.

>>> import ownchat
>>> sorted(ownchat.__all__)[:3]
['Config', 'Redactor', 'Request']
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

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
