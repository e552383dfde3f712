"""The terminal chat: a session with history and commands, and its loops for people and for scripts. No torch here."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ownchat.config import Config, GenerateConfig
from ownchat.errors import UserError, nearest
from ownchat.generate.backend import Backend
from ownchat.generate.disclosure import disclosure, run_of
from ownchat.generate.engine import Delta, Engine, Message, Request, Sampling
from ownchat.generate.locate import locate
from ownchat.generate.policy import Filter, Policy
from ownchat.generate.prompts import Prompt, apply, system_text
from ownchat.generate.voices import Voice, voices
from ownchat.monitor.progress import console

Messages = list[dict[str, Any]]

HELP = {
    "/reset": "forget the conversation; the system prompt stays",
    "/system TEXT": 'instructions for the model from now on; alone: show them; "-": none',
    "/save FILE": "add the conversation to FILE, one JSON line that ownchat train reads",
    "/help": "this",
    "/quit": "leave, as Ctrl-D does",
}
# What a model writes must not move the cursor, rename the window or ring: control characters but newline and tab.
CONTROL = dict.fromkeys(code for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t")


class Screen:
    """Answers on stdout, everything else on stderr: in a pipe only the answers arrive."""

    def __init__(self, *, interactive: bool) -> None:
        self.interactive = interactive

    def answer(self, text: str) -> None:
        """A piece of an answer, without control characters."""
        sys.stdout.write(text.translate(CONTROL))
        sys.stdout.flush()

    def label(self, label: str) -> None:
        """Whose answer follows."""
        if self.interactive:
            Console(highlight=False).print(Text(f"{label}:", style="bold green"))
        else:
            print(f"{label}:", flush=True)

    def note(self, text: str) -> None:
        """Something that is not an answer."""
        console.print(Text(text, style="dim"))


class ChatSession:
    """A conversation with one model, or with several that each keep their own history.

    ``count_tokens`` gives the length of a rendered prompt; ``context`` is the model's, in tokens; ``filter`` is what
    the owner lets it say; ``examples``: of a question, the turns that are shown before the conversation.
    """

    def __init__(
        self,
        voices: Sequence[Voice],
        settings: GenerateConfig,
        screen: Screen,
        *,
        count_tokens: Callable[[Messages], int],
        context: int | None,
        system: str | None = None,
        filter: Filter | None = None,
        examples: Callable[[str], Sequence[Message]] | None = None,
    ) -> None:
        self.voices, self.settings, self.screen, self.system = tuple(voices), settings, screen, system
        self.filter = Filter(Policy()) if filter is None else filter
        self.histories: list[Messages] = [[] for _ in self.voices]
        self._count_tokens, self._context, self._examples = count_tokens, context, examples

    # ------------------------------------------------------------------------------------------------- turns

    def handle(self, line: str, cancel: threading.Event | None = None) -> bool:
        """One line of input, a command or a message; false when the session is over.

        A line that begins with a space is never a command. Raises :class:`~ownchat.errors.UserError` for a command
        that does not exist or cannot be carried out, and for a message that does not fit.
        """
        if not line.strip():
            return True
        if line.startswith("/"):
            return self._command(line.strip())
        self.ask(line.strip(), cancel)
        return True

    def ask(self, text: str, cancel: threading.Event | None = None) -> None:
        """Let every voice answer ``text``; ``cancel`` ends the answers that are still to come."""
        for voice, history in zip(self.voices, self.histories, strict=True):
            if cancel is not None and cancel.is_set():
                return
            if len(self.voices) > 1:
                self.screen.label(voice.label)
            self._answer(voice, history, {"role": "user", "content": text}, cancel)

    def _answer(
        self, voice: Voice, history: Messages, question: dict[str, Any], cancel: threading.Event | None
    ) -> None:
        shown = [] if self._examples is None else [dict(turn) for turn in self._examples(question["content"])]
        prompt, dropped = self._fit([*self._instructions(), *shown], [*history, question])
        if dropped:
            turns = "turn is" if dropped == 1 else "turns are"
            self.screen.note(f"(the oldest {dropped} {turns} left out: the conversation exceeds the model's context)")
        request = Request(
            messages=[{"role": message["role"], "content": message["content"]} for message in prompt],
            max_tokens=self.settings.max_tokens,
            sampling=Sampling.of(self.settings),
            adapter=voice.adapter,
            logprobs=False,
        )
        before = dict(self.filter.counts)
        answer, last = "", Delta("")
        try:
            for last in self._allowed(voice.engine, request, cancel):
                answer += last.text
                self.screen.answer(last.text)
        finally:  # also where a server ends in the middle
            if answer or last.finish_reason is not None:
                self.screen.answer("\n")
        if last.finish_reason == "cancelled":
            self.screen.note("(stopped)")
            if not answer:
                return  # nothing was said: the question is taken back too
        if last.finish_reason == "length" and last.usage is not None:
            after = last.usage.completion_tokens or self.settings.max_tokens  # not every server counts
            self.screen.note(f"(cut at {after} tokens; generate.max_tokens allows more)")
        if last.finish_reason == "content_filter":
            self.screen.note(f"(withheld: {self.filter.reason_since(before) or 'by the server'})")
        reply: dict[str, Any] = {"role": "assistant", "content": answer}
        if last.finish_reason != "stop":
            reply["weight"] = 0  # half an answer in a saved conversation is context, not an example to learn
        history += [question, reply]

    def _allowed(self, engine: Engine, request: Request, cancel: threading.Event | None) -> Iterator[Delta]:
        """The answer as the owner's policy lets it out."""
        if (refusal := self.filter.question(request.messages or ())) is not None:
            return iter([Delta(refusal, finish_reason="content_filter")])
        return self.filter.filtered(engine.stream(request, cancel))

    def _instructions(self) -> Messages:
        return [{"role": "system", "content": self.system}] if self.system else []

    def _fit(self, head: Messages, rest: Messages) -> tuple[Messages, int]:
        """Both without the oldest turns of ``rest`` that leave no room for an answer, and how many turns went.

        Room is ``max_tokens``, but at most half of the context. ``head`` and the last turn always stay.
        """
        dropped = 0
        if self._context is None:
            return [*head, *rest], dropped
        room = self._context - min(self.settings.max_tokens, self._context // 2)
        while self._count_tokens([*head, *rest]) > room:
            starts = [index for index, message in enumerate(rest) if message["role"] == "user"]
            if len(starts) < 2:
                break
            rest, dropped = rest[starts[1] :], dropped + 1
        return [*head, *rest], dropped

    # ---------------------------------------------------------------------------------------------- commands

    def _command(self, line: str) -> bool:
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        match name:
            case "/quit" | "/exit":
                return False
            case "/help":
                self.screen.note("\n".join(f"{command:14}{what}" for command, what in HELP.items()))
            case "/reset":
                self.histories = [[] for _ in self.voices]
                self.screen.note("(the conversation starts anew)")
            case "/system" if argument:
                self.system = None if argument == "-" else argument
                self.screen.note("(no system prompt)" if self.system is None else "(system prompt set)")
            case "/system":
                self.screen.note(f"system prompt: {self.system}" if self.system else "(no system prompt)")
            case "/save":
                self._save(argument)
            case _:
                hint = nearest(name, [command.split()[0] for command in HELP])
                raise UserError(f'unknown command "{name}"', fix=hint or "/help lists the commands; a space before "
                                "the slash sends the line as a message")  # fmt: skip
        return True

    def _save(self, name: str) -> None:
        history = self.histories[-1]  # with --compare: the conversation with the tuned model
        if not name:
            raise UserError("/save needs the name of a file", fix="/save my-chats.jsonl")
        if not history:
            raise UserError("there is no conversation to save yet", fix="ask something first")
        path = Path(name).expanduser()
        line = json.dumps({"messages": [*self._instructions(), *history]}, ensure_ascii=False)
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(
                f"cannot be written: {error.strerror}", where=str(path), fix="choose another file"
            ) from error
        self.screen.note(f"(added to {path})")


# --------------------------------------------------------------------------------------------------- the loops


def chat(
    path: Path | str | None,
    *,
    model: str | None = None,
    settings: GenerateConfig | None = None,
    config: Config | None = None,
    compare: bool = False,
    prompt: str | None = None,
    system: str | None = None,
    kept: Prompt | None = None,
    look_up: Callable[[str], Sequence[tuple[str, str]]] | None = None,
    engine: Backend = "auto",
    dtype: str = "float32",
    threads: int | None = None,
) -> None:
    """Talk to the model at ``path``, a run's directory or a Hugging Face directory, or to ``model`` behind a URL
    (``URL#MODEL``); ``compare`` with both: the one behind the URL answers first.

    With ``prompt`` one answer goes to stdout (``"-"``: all of stdin is the question). Without, and with a terminal
    on stdin, a session; else every line of stdin is a turn. ``compare`` lets the base answer before the tuned
    model. ``system`` replaces the system prompt that the model was trained with, and so does the system text of
    ``kept``, a prompt whose examples, and those that ``look_up`` finds for a question, stand before the conversation;
    its parameters are the caller's to put into the settings. ``config``: all settings of the run, for its policy and
    what its users are told; none: ``settings`` among defaults. Raises :class:`~ownchat.errors.UserError`; only in a
    session they are shown and the session goes on.
    """
    settings = (GenerateConfig() if config is None else config.generate) if settings is None else settings
    config = Config() if config is None else config
    config = config.model_copy(update={"generate": settings})
    found = None if path is None else locate(path)
    if (found is None) == (model is None) and not (compare and model is not None):
        raise UserError("one model: a run, or --model URL#MODEL", where="chat", fix="for both of them: --compare")
    if kept is not None:
        apply(kept, [])  # a variable without a value is said before a model is loaded
        if kept.system is not None and system is not None:
            raise UserError(f"--system and the prompt {kept.label} both give a system message", fix="give one of them")
        system = system if kept.system is None else system_text(kept) or ""
    run = None if found is None else run_of(found)
    interactive = prompt is None and sys.stdin.isatty()
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal's encoding must not end a conversation
    screen = Screen(interactive=interactive)
    filter = Filter.of(config, run, warn=screen.note)  # what is wrong with it is told before the model is loaded
    if interactive and found is not None:
        screen.note(f"loading {found.model} ...")
    with voices(found, model, compare, engine, dtype, threads) as (answering, count_tokens, context):
        session = ChatSession(
            answering,
            settings,
            screen,
            count_tokens=count_tokens,
            context=context,
            system=found.system if system is None and found is not None else system,
            filter=filter,
            examples=None if kept is None else lambda question: _examples(kept, look_up, question),
        )
        told = disclosure(
            found, filter.policy, config.evaluate.card, name=None if found is not None else answering[0].label
        )
        if told is not None and (interactive or compare):  # a script reads answers, and whoever runs it knows
            screen.note(told)
        if prompt is not None:
            text = sys.stdin.read() if prompt == "-" else prompt
            if not text.strip():
                raise UserError("the prompt is empty", where="--prompt")
            session.ask(text.strip())
        elif interactive:
            _converse(session)
        else:
            for line in sys.stdin:
                if line.strip():  # a turn, never a command: a file's text must not be able to write files
                    session.ask(line.strip())


def _examples(
    kept: Prompt, look_up: Callable[[str], Sequence[tuple[str, str]]] | None, question: str
) -> list[Message]:  # fmt: skip
    """The prompt's own examples, and those that resemble the question, as turns."""
    found = [] if look_up is None else look_up(question)
    return apply(kept, [], retrieved=found)[0 if system_text(kept) is None else 1 :]


def _converse(session: ChatSession) -> None:
    """Read, answer, until Ctrl-D, ``/quit`` or two Ctrl-C in a row."""
    invitation = _invitation()
    session.screen.note("/help lists the commands; Ctrl-C stops an answer; Ctrl-D leaves")
    warned = False
    while True:
        try:
            line = input(invitation)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            if warned:
                return
            warned = True
            session.screen.note("(Ctrl-C once more, or Ctrl-D, leaves)")
            continue
        warned = False
        cancel = threading.Event()
        try:
            with _interrupt_sets(cancel):
                if not session.handle(line, cancel):
                    return
        except UserError as error:
            session.screen.note(str(error))
        except KeyboardInterrupt:  # a second Ctrl-C before the answer ended
            print()
            session.screen.note("(stopped)")


def _invitation() -> str:
    """The prompt; with colour where the terminal has it, marked so that readline can count columns."""
    try:
        import readline  # noqa: F401  input() then edits lines and remembers them
    except ImportError:
        return "you> "
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return "you> "
    return "\001\033[1;36m\002you> \001\033[0m\002"


@contextmanager
def _interrupt_sets(cancel: threading.Event) -> Iterator[None]:
    """While the block runs, the first Ctrl-C sets ``cancel``; a second one raises ``KeyboardInterrupt``."""

    def on_interrupt(number: int, frame: object) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
