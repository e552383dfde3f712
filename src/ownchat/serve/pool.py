"""The engines of a server: each model in memory once, for as long as it is used and there is room.

A base, what was tuned from it with LoRA, and the checkpoints of that are one engine: the weights of the base are there
once, and every request says which adapter it wants. An adapter that the engine was not opened with is added by opening
it again when no answer is being written; requests for that base wait meanwhile, a second or so.

What is held goes by the place and the state of its files: a run that was deleted and trained anew under its name is
another model.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Condition, Event
from typing import Any

from ownchat.errors import UserError
from ownchat.generate.backend import NoRoom, Parts, open_engine, parts_of
from ownchat.generate.engine import BASE, Engine, LocalEngine, Message
from ownchat.generate.gguf_cache import state_of
from ownchat.model.control_groups import limited_groups, meminfo
from ownchat.serve.catalogue import Catalogue, Entry, still_there
from ownchat.serve.settings import Settings, key_variable

CHARACTERS_PER_TOKEN = 3  # of a text for a model elsewhere: few enough that the estimate is rarely too low
MOST_ADAPTERS = 16  # of finished runs that an engine is opened with before anybody asked for them
ASSUMED_BYTES = 8 << 30  # memory of a machine that does not say
LOOK_SECONDS = 0.25  # between two looks of somebody who waits
FILES = ("*.safetensors", "*.json", "*.jinja")  # that make a model, an adapter, a tokenizer


class NotNow(NoRoom):
    """A model cannot be lent at present; asked again later it may be."""


@dataclass(frozen=True)
class _Patience:
    """How long somebody waits; ``deadline`` is a ``time.monotonic()``."""

    cancel: Event | None
    deadline: float

    def wait(self, changed: Condition, what: str) -> None:
        """Wait for a change for a moment; raises :class:`NotNow` when nobody waits any more."""
        if self.cancel is not None and self.cancel.is_set():
            raise NotNow("nobody waits for the model any more")
        if (left := self.deadline - time.monotonic()) <= 0:
            raise NotNow(what, fix="ask again later")
        changed.wait(min(left, LOOK_SECONDS))


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to answer; valid inside :meth:`Pool.lease`.

    ``adapter`` is what its requests give as ``Request.adapter``. ``tokenizer`` and ``context`` are None for a model
    behind another server: that gets messages, not ids. ``fingerprint``: SHA-256 of its weights, 16 digits; empty for
    one elsewhere. ``can_schema``: whether answers can be held to a JSON schema.
    """

    engine: Engine
    entry: Entry
    tokenizer: Any = None
    context: int | None = None
    system: str | None = None
    adapter: str | None = None
    fingerprint: str = ""
    can_schema: bool = True

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
        """The prompt as ids, opened for the answer. Raises :class:`~ownchat.errors.UserError` for a model elsewhere."""
        if self.tokenizer is None:
            raise UserError("a model behind another server gets messages, not ids", where=self.entry.id)
        from ownchat.tokenizer.render import prompt_ids

        return prompt_ids(self.tokenizer, messages, tools)

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt; of a model elsewhere an estimate from the characters."""
        if self.tokenizer is None:
            return sum(8 + len(str(message.get("content") or "")) // CHARACTERS_PER_TOKEN for message in messages)
        return len(self.render(messages))


@dataclass
class _Held:
    """An engine, who uses it, and when it was used last."""

    key: str
    parts: Parts | None  # None: it is elsewhere
    engine: Engine | None = None  # None: being opened
    local: LocalEngine | None = None
    num_bytes: int = 0
    users: int = 0
    used: int = 0
    closing: bool = False  # it takes no new users: it will be opened again with more adapters
    stale: bool = False  # its files are others by now: it goes when its users are done
    tokenizers: dict[str, Any] = field(default_factory=dict)


class Pool:
    """Loads models when they are asked for and unloads those that nobody used for longest. Threads share it.

    Loading takes a place in memory that is estimated beforehand; what is in use is never unloaded.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue | None = None) -> None:
        self._settings = settings
        self._catalogue = Catalogue(settings.home, settings.upstreams) if catalogue is None else catalogue
        self._memory = settings.memory_bytes if settings.memory_bytes is not None else _half_of_the_memory()
        self._held: dict[str, _Held] = {}
        self._changed = Condition()
        self._clock = 0
        self._closed = False
        self._fingerprints: dict[tuple[Path, int, int], str] = {}

    @contextmanager
    def lease(self, entry: Entry, cancel: Event | None = None, deadline: float | None = None) -> Iterator[Loaded]:
        """The model of ``entry``, loaded; it stays so while the block runs. Blocks while a model loads.

        Who waits for others gives up when ``cancel`` is set, and at ``deadline`` (a ``time.monotonic()``; none: after
        the settings' ``deadline_seconds``). Raises :class:`NotNow` then, :class:`~ownchat.serve.catalogue.UnknownModel`
        for one whose files were taken away meanwhile (a training keeps its last checkpoints only), and
        :class:`~ownchat.errors.ModelError` for a model that cannot be loaded or does not fit the memory.
        """
        end = time.monotonic() + self._settings.deadline_seconds if deadline is None else deadline
        with still_there(entry):
            parts = _parts(entry)
            held = self._take(entry, parts, _Patience(cancel, end))
        try:
            with still_there(entry):
                loaded = self._loaded(held, entry, parts)
                if _parts(entry) != parts or _key(entry, parts) != held.key:
                    raise NotNow("the model was replaced just now", where=entry.id, fix="ask again")
            yield loaded
        finally:
            with self._changed:
                held.users -= 1
                if held.stale and held.users == 0:
                    self._drop(held)
                self._changed.notify_all()

    def loaded(self) -> list[dict[str, Any]]:
        """What is in memory: ``model`` (name of a directory or of a server), ``backend``, ``bytes``, ``users``,
        ``adapters`` (how many)."""
        with self._changed:
            return [
                {
                    "model": held.key if held.parts is None else held.parts.model.name,
                    "backend": "upstream" if held.local is None else held.local.backend,
                    "bytes": held.num_bytes,
                    "users": held.users,
                    "adapters": 0 if held.local is None else len(held.local.adapters),
                }
                for held in self._held.values()
                if held.engine is not None
            ]

    def close(self) -> None:
        """Unload everything; what is being written ends as ``cancelled``."""
        with self._changed:
            self._closed = True
            engines = [held.engine for held in self._held.values() if held.engine is not None]
            self._held.clear()
            self._changed.notify_all()
        for engine in engines:
            engine.close()

    # ------------------------------------------------------------------------------------------- one engine

    def _take(self, entry: Entry, parts: Parts | None, patience: _Patience) -> _Held:
        """The engine of ``entry``, with one more user."""
        key = _key(entry, parts)
        with self._changed:
            while True:
                if self._closed:
                    raise NotNow("the server is ending", where=entry.id)
                held = self._held.get(key)
                if held is None:
                    self._outdate(parts)
                    held = self._held[key] = _Held(key, self._with_siblings(parts))
                    break
                if held.engine is None or held.closing:  # another thread opens it
                    patience.wait(self._changed, "the model is still being loaded")
                    continue
                if not _missing(held, parts):
                    return self._use(held)
                held.closing = True
                break
        if held.engine is not None:
            self._reopen(held, parts, patience)
        self._open(held, entry, patience)
        return held

    def _outdate(self, parts: Parts | None) -> None:
        """Let go of engines of the same place that were opened from files that are no longer there."""
        for other in [held for held in self._held.values() if held.parts is not None]:
            if parts is not None and other.parts is not None and other.parts.model == parts.model:
                other.stale = True
                if other.users == 0 and other.engine is not None and not other.closing:
                    self._drop(other)

    def _drop(self, held: _Held) -> None:
        """Unload an engine that nobody uses."""
        if self._held.get(held.key) is held:
            del self._held[held.key]
        if held.engine is not None:
            held.engine.close()
        held.num_bytes = 0

    def _reopen(self, held: _Held, parts: Parts | None, patience: _Patience) -> None:
        """Close an engine that has to be opened with one adapter more, when its users are done."""
        try:
            if parts is not None:
                _check(parts)  # an adapter that does not fit must not cost the others their engine
            with self._changed:
                while held.users and not self._closed:
                    patience.wait(self._changed, "the model is in use, and has to be loaded anew for this answer")
        except BaseException:
            with self._changed:
                held.closing = False
                self._changed.notify_all()
            raise
        with self._changed:
            if held.engine is not None and not self._closed:
                held.engine.close()
            held.engine, held.local, held.num_bytes, held.closing = None, None, 0, False
            if held.parts is not None and parts is not None:
                kept = {name: path for name, path in held.parts.adapters.items() if name == _named(path)}
                adapters = {**kept, **parts.adapters}
                held.parts = replace(
                    held.parts, adapters=adapters, tokenizer=parts.tokenizer,
                    optional=frozenset(adapters) - set(parts.adapters),
                )  # fmt: skip

    def _open(self, held: _Held, entry: Entry, patience: _Patience) -> None:
        """Load outside of the lock, so that other models answer meanwhile."""
        engine: Engine | None = None
        local: LocalEngine | None = None
        try:
            if held.parts is None:
                from ownchat.generate.openai import OpenAIEngine

                engine = OpenAIEngine(entry.upstream or "", key_variable=key_variable(entry.id))
            else:
                engine = local = open_engine(
                    held.parts,
                    backend=self._settings.engine,
                    threads=self._settings.num_threads,
                    slots=self._settings.slots,
                    room=lambda num_bytes: self._make_room(held, num_bytes, patience),
                )
        except BaseException:
            with self._changed:
                if self._held.get(held.key) is held:
                    del self._held[held.key]
                self._changed.notify_all()
            raise
        with self._changed:
            if self._closed:
                engine.close()
                raise NotNow("the server is ending", where=entry.id)
            held.engine, held.local = engine, local
            held.num_bytes = 0 if local is None else local.num_bytes
            self._use(held)
            self._changed.notify_all()

    def _make_room(self, coming: _Held, num_bytes: int, patience: _Patience) -> None:
        """Unload what nobody used for longest until ``num_bytes`` fit; waits for answers that are being written."""
        if num_bytes > self._memory:
            name = coming.key if coming.parts is None else coming.parts.model.name
            raise NoRoom(
                f"{name} takes {num_bytes / 1e9:.1f} GB and {self._memory / 1e9:.1f} GB are for models",
                fix="allow more memory, fewer slots or a smaller model",
            )
        with self._changed:
            while sum(held.num_bytes for held in self._held.values() if held is not coming) + num_bytes > self._memory:
                idle = [
                    held
                    for held in self._held.values()
                    if held.local is not None and held.users == 0 and not held.closing and held is not coming
                ]
                if not idle:
                    if self._closed:
                        raise NotNow("the server is ending")
                    patience.wait(self._changed, "all memory for models is in use")
                    continue
                self._drop(min(idle, key=lambda held: held.used))
            coming.num_bytes = num_bytes

    def _use(self, held: _Held) -> _Held:
        self._clock += 1
        held.users, held.used = held.users + 1, self._clock
        return held

    # --------------------------------------------------------------------------------------- what it answers as

    def _loaded(self, held: _Held, entry: Entry, parts: Parts | None) -> Loaded:
        if held.engine is None:
            raise NotNow("the server is ending", where=entry.id)
        if held.local is None or entry.located is None or parts is None:
            return Loaded(held.engine, entry)
        directory = entry.tokenizer or entry.located.model
        name = _named(directory)
        with self._changed:
            tokenizer = held.tokenizers.get(name)
        if tokenizer is None:
            from ownchat.tokenizer.stage import load_tokenizer

            tokenizer = load_tokenizer(directory)
            with self._changed:
                old = [key for key in held.tokenizers if key.rpartition("@")[0] == str(directory)]
                for key in old:
                    del held.tokenizers[key]
                held.tokenizers[name] = tokenizer
        adapter: str | None = next(iter(parts.adapters), "")
        if adapter not in held.local.adapters:
            adapter = BASE if held.local.adapters else None
        return Loaded(
            engine=held.engine, entry=entry, tokenizer=tokenizer, context=held.local.context, adapter=adapter,
            system=entry.located.system, fingerprint=self._fingerprint(parts), can_schema=held.local.can_schema,
        )  # fmt: skip

    def _fingerprint(self, parts: Parts) -> str:
        """SHA-256 of the weights' files, of an adapter and of its base; each is read once."""
        total = hashlib.sha256()
        directories = [parts.model, *parts.adapters.values()]
        for file in (file for directory in directories for file in sorted(directory.glob("*.safetensors"))):
            stat = file.stat()
            key = (file, stat.st_size, stat.st_mtime_ns)
            if key not in self._fingerprints:
                with open(file, "rb") as handle:
                    self._fingerprints[key] = hashlib.file_digest(handle, "sha256").hexdigest()
            total.update(self._fingerprints[key].encode())
        return total.hexdigest()[:16]

    def _with_siblings(self, parts: Parts | None) -> Parts | None:
        """``parts`` and the adapters of other finished runs on the same base, which will be asked for next."""
        if parts is None:
            return None
        more: dict[str, Path] = {}
        for entry in self._catalogue.list():
            if entry.info.get("kind") != "run" or len(more) >= MOST_ADAPTERS:
                continue
            theirs = _parts(entry)
            if theirs is not None and theirs.model == parts.model:
                more |= {name: path for name, path in theirs.adapters.items() if name not in parts.adapters}
        return replace(parts, adapters={**parts.adapters, **more}, optional=frozenset(more))


def _named(directory: Path) -> str:
    """A directory in the present state of its files."""
    state = hashlib.sha256(repr(state_of(directory, FILES)).encode()).hexdigest()[:12]
    return f"{directory}@{state}"


def _key(entry: Entry, parts: Parts | None) -> str:
    """What an engine is held by; servers by the name that they are served as, which their key goes by."""
    return f"{entry.id}={entry.upstream}" if parts is None else _named(parts.model)


def _parts(entry: Entry) -> Parts | None:
    """What the engine of an entry is opened with; None for a model elsewhere."""
    if entry.located is None:
        return None
    adapter = entry.located.adapter
    parts = parts_of(entry.located, name="" if adapter is None else _named(adapter))
    return parts if entry.tokenizer is None else replace(parts, tokenizer=entry.tokenizer)


def _missing(held: _Held, parts: Parts | None) -> Mapping[str, Path]:
    """Adapters that an engine was not opened with."""
    if parts is None or held.local is None:
        return {}
    return {name: path for name, path in parts.adapters.items() if name not in held.local.adapters}


def _check(parts: Parts) -> None:
    from ownchat.generate.gguf_cache import check_adapter

    for adapter in parts.adapters.values():
        check_adapter(adapter, parts.model)


def _half_of_the_memory() -> int:
    """Half of what the machine, or the control group the process is in, has."""
    total = meminfo(Path("/proc/meminfo"), "MemTotal") or ASSUMED_BYTES
    return min([total, *(group.limit for group in limited_groups())]) // 2
