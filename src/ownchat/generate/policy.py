"""What the owner lets a model say: the same for a chat in the terminal and for served answers. No torch here.

An answer is looked at while it is written, a sentence at a time (:mod:`ownchat.generate.withholding`). Private data
become placeholders. A sentence that is abusive or holds a denied word ends the answer before it: the refusal stands in
its place and the reason is ``content_filter``. What lists of words and patterns do not know passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal, get_args

from ownchat.config import CleanConfig, Config
from ownchat.config.sections import PolicyKey
from ownchat.errors import ConfigError, nearest
from ownchat.generate.engine import Delta, Message, Usage
from ownchat.generate.withholding import Answer, Watch

KEY = "generate.policy"
REFUSAL = "I cannot help with that here."
MOST_CHARACTERS = 2_000  # of a text that the owner gives
WARN_AFTER = 10  # answers, all of them held back
Scope = Callable[[str], float]  # how near a question is to what the model was trained on: 0 far to 1 near
Reason = Literal["deny", "toxicity", "out_of_scope"]  # why an answer is held back

WITHHELD: dict[str, str] = {
    "deny": "what it says is on the owner's list",
    "toxicity": "what it says is abusive",
    "out_of_scope": "the question is not about what it was trained on",
}


@dataclass(frozen=True)
class Policy:
    """The settings of ``generate.policy``, checked.

    ``disclosure`` is the owner's text, None the one made from facts of the run; with ``discloses`` false there is none.
    """

    disclosure: str | None = None
    discloses: bool = True
    private: bool = False
    toxicity: bool = False
    deny: tuple[str, ...] = ()
    out_of_scope: float | None = None
    refusal: str = REFUSAL

    @classmethod
    def of(cls, values: Mapping[Any, Any]) -> Policy:
        """From ``config.generate.policy``. Raises :class:`~ownchat.errors.ConfigError` that names the key.

        >>> Policy.of({"disclosure": False, "private": "on", "deny": ["Acme", "/inv-[0-9]+/"]}).deny
        ('Acme', '/inv-[0-9]+/')
        """
        known = get_args(PolicyKey)
        for key in values:
            if key not in known:
                raise ConfigError(
                    f'there is no setting "{key}"', where=KEY, fix=nearest(key, known) or ", ".join(known)
                )
        told = values.get("disclosure")
        refusal = values.get("refusal")
        return cls(
            disclosure=None if told is None or _is_switch(told) else _text(told, "disclosure"),
            discloses=_switch(told, "disclosure") if _is_switch(told) else True,
            private=_switch(values.get("private", False), "private"),
            toxicity=_switch(values.get("toxicity", False), "toxicity"),
            deny=_denied(values.get("deny")),
            out_of_scope=_threshold(values.get("out_of_scope")),
            refusal=REFUSAL if refusal is None else _text(refusal, "refusal"),
        )

    @property
    def filters(self) -> bool:
        """Whether answers are looked at at all."""
        return self.private or self.toxicity or bool(self.deny)


class Filter:
    """Holds answers to a :class:`Policy` and counts what it did; one serves many threads.

    ``counts``: answers ``seen``; of them held back for ``deny``, ``toxicity`` or ``out_of_scope``; private values
    ``masked``. ``scope`` tells how near a question is to the training data; a policy with ``out_of_scope`` needs one.
    ``clean``: what is private and what never is, as where the data were cleaned. ``warn`` is told once when the first
    :data:`WARN_AFTER` answers were all held back.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        scope: Scope | None = None,
        clean: CleanConfig | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        if policy.out_of_scope is not None and scope is None:
            raise ConfigError(
                "needs the questions that the model was trained on, and they are not here",
                where=f"{KEY}.out_of_scope",
                fix="use it with a run of ownchat train that still has its 2-clean, or leave it out",
            )
        self.policy, self.counts = policy, dict.fromkeys(("seen", *get_args(Reason), "masked"), 0)
        self._scope, self._warn, self._passed, self._lock = scope, warn, False, Lock()
        self._watch = Watch.of(policy.private, policy.toxicity, policy.deny, clean or CleanConfig())

    @classmethod
    def of(cls, config: Config, run: Path | None, *, warn: Callable[[str], object] | None = None) -> Filter:
        """The filter of a run, from its settings and its training data; ``run`` None: of a model without any."""
        policy, scope = Policy.of(config.generate.policy), None
        if policy.out_of_scope is not None and run is not None:
            from ownchat.generate.scope import Scope as TrainedOn

            scope = TrainedOn.of_run(run)
        return cls(policy, scope=scope, clean=config.clean, warn=warn)

    def question(self, messages: Sequence[Message]) -> str | None:
        """The refusal where the last question of a user is out of scope, else None; no model needs to be asked."""
        if self.policy.out_of_scope is None or self._scope is None:
            return None
        asked = [
            one["content"] for one in messages if one.get("role") == "user" and isinstance(one.get("content"), str)
        ]
        if not asked or self._scope(asked[-1]) >= self.policy.out_of_scope:
            return None
        self._count("seen")
        self._held_back("out_of_scope")
        return self.policy.refusal

    def filtered(self, deltas: Iterator[Delta], cancel: Event | None = None) -> Iterator[Delta]:
        """An answer as it may go out, piece by piece; ids and log-probabilities of what is withheld stay behind.

        An answer that is held back ends with the refusal and ``content_filter``. ``cancel`` is the event that the
        engine listens to: it is set then, and the usage is what the engine reports at its end; without it the
        iterator is closed and the usage is not known.
        """
        self._count("seen")
        if not self.policy.filters:
            yield from deltas
            self._passed = True
            return
        answer, last = Answer(self._watch), Delta("")
        try:
            for last in deltas:
                answer.add(last)
                text = answer.released(last.finish_reason, stopped=last.stopped)
                if answer.held_back is not None:
                    self._held_back(answer.held_back)
                    refusal = f"\n\n{self.policy.refusal}" if answer.shown else self.policy.refusal
                    usage = last.usage if last.finish_reason is not None else _stop(deltas, cancel)
                    yield answer.delta(text + refusal, Delta("", finish_reason="content_filter", usage=usage))
                    return
                self._passed = self._passed or last.finish_reason is not None
                piece = answer.delta(text, last)
                if piece.text or piece.ids or piece.finish_reason is not None:
                    yield piece
            if last.finish_reason is None:  # a server that ends without a word: what waits may be half a value
                self._passed = True
                yield answer.delta(answer.released("length"), Delta(""), ended=True)
        finally:
            self._count("masked", answer.masked)

    def reason_since(self, before: Mapping[str, int]) -> str:
        """In words why an answer was held back since ``counts`` were ``before``; empty where none was.

        >>> Filter(Policy()).reason_since({"deny": 0, "toxicity": 0, "out_of_scope": 0})
        ''
        """
        return ", ".join(said for kind, said in WITHHELD.items() if self.counts[kind] > before[kind])

    def _count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] += number

    def _held_back(self, kind: Reason) -> None:
        with self._lock:
            self.counts[kind] += 1
            of = {name: self.counts[name] for name in get_args(Reason)}
        if self._warn is not None and not self._passed and sum(of.values()) == WARN_AFTER:
            why = ", ".join(f"{name} {count}" for name, count in of.items() if count)
            self._warn(f"all of the first {WARN_AFTER} answers were held back ({why}): look at {KEY}")


def _stop(deltas: Iterator[Delta], cancel: Event | None) -> Usage | None:
    """End an engine's answer early; what it took, where it says so."""
    if cancel is None:
        if (close := getattr(deltas, "close", None)) is not None:
            close()
        return None
    cancel.set()
    usage = None
    for delta in deltas:
        usage = delta.usage
    return usage


# ------------------------------------------------------------------------------------------------ settings


def _is_switch(value: Any) -> bool:
    """``on`` and ``off`` are true and false in YAML, and texts in JSON and on a command line's quotes."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("on", "off"))


def _switch(value: Any, name: str) -> bool:
    if not _is_switch(value):
        raise ConfigError(f"{value!r} is neither on nor off", where=f"{KEY}.{name}", fix=f"write {name}: on")
    return value if isinstance(value, bool) else value.strip().lower() == "on"


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{value!r} is no text", where=f"{KEY}.{name}", fix=f'write {name}: "A sentence."')
    if len(value) > MOST_CHARACTERS:
        raise ConfigError(
            f"has {len(value):,} characters", where=f"{KEY}.{name}", fix=f"use {MOST_CHARACTERS:,} at most"
        )
    return value.strip()


def _denied(value: Any) -> tuple[str, ...]:
    where = f"{KEY}.deny"
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{value!r} is no list", where=where, fix="write deny: [word, two words, /expression/]")
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, str):
            raise ConfigError(f"entry {number} ({entry!r}) is no text", where=where, fix="put it into quotes")
    if value:
        from ownchat.clean.private.lists import compile_list

        for number, entry in enumerate(compile_list(value, where).expressions, start=1):
            if _fits_every_text(entry):
                raise ConfigError(
                    f"expression {number} (/{entry}/) fits every text, so every answer would be held back",
                    where=where,
                    fix="say what has to stand there",
                )
    return tuple(value)


def _fits_every_text(expression: str) -> bool:
    """Whether an expression fits the empty text, and with that every one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pc.match_substring_regex(pa.array([""]), expression)[0].as_py())


def _threshold(value: Any) -> float | None:
    if value is None or value is False or value == "off":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ConfigError(f"{value!r} is no number above 0, up to 1", where=f"{KEY}.out_of_scope",
                          fix="write out_of_scope: 0.5, or leave it out")  # fmt: skip
    return float(value)
