"""What a server is told when it starts. No FastAPI here: the command line reads this."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ownchat.errors import ConfigError

Backend = Literal["auto", "hf", "llamacpp"]

MEGABYTE = 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Settings:
    """One gateway's settings. Raises :class:`~ownchat.errors.ConfigError` for a value that cannot be.

    ``database``: a SQLAlchemy URL; ``None`` is SQLite in ``home/server/server.db``. ``upstreams``: served name to
    ``URL#MODEL`` of an OpenAI-compatible server, a vLLM for example. ``threads``: cores that compute; ``None``: all
    but one. ``slots``: answers that are made at the same time. ``memory_bytes``: models that are kept loaded take at
    most this much; ``None``: half of the machine's. ``queue`` and ``queue_tokens``: requests, and their tokens, that
    may wait. ``deadline_seconds``: of a whole answer, its wait included; ``first_token_seconds``: until its first
    token; ``idle_seconds``: between two tokens, and for a reader that takes none. ``allowed_hosts``: names (also
    ``*.example.org``) in the Host header beside ``localhost`` and addresses of digits. ``requests_per_minute`` and
    ``tokens_per_minute`` hold for each key; ``None``: no limit. ``retention_days``: stored answers are deleted after
    them; ``None``: never. ``webhooks``: addresses that are told how jobs end.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8000
    database: str | None = field(default=None, repr=False)  # may hold a password
    engine: Backend = "auto"
    upstreams: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    slots: int = 4
    memory_bytes: int | None = None
    strict: bool = False
    queue: int = 64
    queue_tokens: int = 200_000
    deadline_seconds: float = 600
    first_token_seconds: float = 300
    idle_seconds: float = 60
    upload_seconds: float = 60
    drain_seconds: float = 30
    max_body_bytes: int = 4 * MEGABYTE
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    metrics: bool = True
    retention_days: int | None = 30
    store_default: bool = False
    webhooks: tuple[str, ...] = field(default=(), repr=False)  # may hold tokens

    def __post_init__(self) -> None:
        at_least = {
            "port": 0, "slots": 1, "queue": 0, "queue_tokens": 1, "max_body_bytes": 1024, "threads": 1,
            "memory_bytes": 1, "requests_per_minute": 1, "tokens_per_minute": 1, "retention_days": 1,
        }  # fmt: skip
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{value} is too small", where=name, fix=f"give {least} or more")
        for name in ("deadline_seconds", "first_token_seconds", "idle_seconds", "upload_seconds", "drain_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{getattr(self, name)} is no time", where=name, fix="give seconds")
        if self.port > 65535:
            raise ConfigError(f"{self.port} is no port", where="port", fix="give one up to 65535")
        for origin in self.cors_origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or "*" in origin:
                raise ConfigError("not an origin", where=origin, fix="give the whole of it: https://chat.example.org")
        for url in self.webhooks:
            _check_webhook(url)
        variables: dict[str, str] = {}
        for name, target in self.upstreams.items():
            _check_upstream(name, target)
            if (other := variables.setdefault(key_variable(name), name)) != name:  # one would get the other's key
                raise ConfigError(
                    f"{other} and {name} have one key, {key_variable(name)}", where="--upstream", fix="rename one"
                )

    def allows_host(self, header: str) -> bool:
        """Whether a Host header is of this server.

        A page on the web can point a name of its own at this machine (DNS rebinding), but not an address of digits.
        """
        name = re.sub(r":\d*$", "", header.strip().lower())
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        if name == "localhost" or name == self.host.lower():
            return True
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            pass
        return any(_matches(name, pattern.lower()) for pattern in self.allowed_hosts)

    @property
    def num_threads(self) -> int:
        """Cores that compute: one is left for the gateway, else spinning workers starve it and each other."""
        if self.threads is not None:
            return self.threads
        return max(1, len(os.sched_getaffinity(0)) - 1)


def key_variable(name: str) -> str:
    """The variable of the environment with the key of the server behind the model ``name``.

    >>> key_variable("company-faq.gpu")
    'OWNCHAT_UPSTREAM_KEY_COMPANY_FAQ_GPU'
    """
    return "OWNCHAT_UPSTREAM_KEY_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def _matches(name: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    return name.endswith(pattern[1:]) and name != pattern[1:] if pattern.startswith("*.") else name == pattern


def _check_webhook(url: str) -> None:
    fix = "give http://HOST/PATH or https://HOST/PATH; what is sent is signed, so no password is needed"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is none, a name that no server can have
        raise ConfigError("not an address", where="--webhook", fix=fix) from None
    if not good or not url.isascii() or not url.isprintable() or " " in url or parts.fragment or "@" in parts.netloc:
        raise ConfigError("not an address that can be told", where=f"--webhook {parts.hostname or ''}".strip(), fix=fix)


def _check_upstream(name: str, target: str) -> None:
    url, _, model = target.partition("#")
    parts = urlsplit(url)
    if not NAME.fullmatch(name):
        raise ConfigError("not a name to serve", where=name, fix="use letters, digits, dots and dashes")
    if parts.scheme not in ("http", "https") or not parts.hostname or not model:
        raise ConfigError("not a server and its model", where=name, fix="give NAME=http://HOST:PORT/v1#MODEL")
