"""ownchat: the text you already have, turned into a chat model of your own.

Names are lazy: ``import ownchat`` loads neither torch nor anything else that is heavy.

>>> import ownchat
>>> sorted(ownchat.__all__)[:3]
['Config', 'Request', 'chat_engine']
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "Config": "ownchat.config",
    "load_config": "ownchat.config",
    "train": "ownchat.pipeline.run",
    "chat_engine": "ownchat.generate.hf",
    "Request": "ownchat.generate.engine",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'ownchat' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)
