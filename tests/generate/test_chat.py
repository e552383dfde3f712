"""The terminal chat with a real model: in this process, through pipes, and in a pseudo-terminal with real signals."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ownchat.config import GenerateConfig
from ownchat.errors import ModelError, RunError, UserError
from ownchat.generate.chat import ChatSession, Screen, Voice, chat
from ownchat.generate.hf import HfEngine, chat_engine
from ownchat.generate.locate import Located, locate

SHORT = GenerateConfig(max_tokens=12)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> HfEngine:
    return chat_engine(tiny_model)


def make_session(engine: HfEngine, settings: GenerateConfig = SHORT, **options: object) -> ChatSession:
    def count(messages: list) -> int:
        return len(engine.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    options = {"context": engine.context, "count_tokens": count} | options
    return ChatSession([Voice("answer", engine)], settings, Screen(interactive=False), **options)


def visible(text: str) -> str:
    """Text without control characters, by Unicode's own table."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def greedy(engine: HfEngine, messages: list[dict], max_tokens: int = 12) -> str:
    prompt = engine.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return engine.text(engine.answer_batch([prompt], max_tokens)[0])


# ------------------------------------------------------------------------------------------------- the session


def test_history_and_system_prompt_are_in_the_prompt(engine: HfEngine, capsys: pytest.CaptureFixture[str]) -> None:
    session = make_session(engine, system="Be brief.")
    session.handle("hello")
    session.handle("and now?")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    first = greedy(engine, messages)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "and now?"}]
    second = greedy(engine, messages)
    assert [message["content"] for message in session.histories[0]] == ["hello", first, "and now?", second]
    assert capsys.readouterr().out == visible(f"{first}\n{second}\n")


def test_commands(engine: HfEngine, capsys: pytest.CaptureFixture[str]) -> None:
    session = make_session(engine)
    assert session.handle("/system You sell pumps.") and session.system == "You sell pumps."
    session.handle("hello")
    session.handle("/system")
    assert "You sell pumps." in capsys.readouterr().err
    session.handle("/reset")
    assert session.histories == [[]] and session.system == "You sell pumps."
    session.handle("/system -")
    assert session.system is None
    session.handle("/help")
    assert all(command in capsys.readouterr().err for command in ["/save FILE"])
    assert session.handle("   ") and session.histories == [[]]
    assert session.handle(" /reset is what?") and session.histories[0][0]["content"] == "/reset is what?"
    assert session.handle("/quit") is False
    with pytest.raises(UserError, match=r'(?s)"/rest".*did you mean "/reset"'):
        session.handle("/rest")


def test_saved_conversations_can_be_trained_on(engine: HfEngine, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    session = make_session(engine, system="Be brief.")
    with pytest.raises(UserError, match="no conversation"):
        session.handle(f"/save {file}")
    session.handle("Grüße")
    session.handle(f"/save {file}")
    session.handle("and now?")
    session.handle(f"/save {file}")
    first, second = (json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines())
    assert [message["role"] for message in first] == ["system", "user", "assistant"]
    assert second[:3] == first and second[3] == {"role": "user", "content": "and now?"}
    assert first[2]["weight"] == 0, "cut at max_tokens: half an answer is not an example"
    with pytest.raises(UserError, match="cannot be written"):
        session.handle(f"/save {tmp_path}/none/chats.jsonl")


def test_whole_answers_carry_no_weight(engine: HfEngine) -> None:
    stopping = HfEngine(engine.model, engine.tokenizer, end_ids=range(320))
    session = make_session(stopping)
    session.handle("hello")
    assert session.histories[0][1] == {"role": "assistant", "content": ""}


def test_oldest_turns_leave_a_full_context_with_a_note(engine: HfEngine, capsys: pytest.CaptureFixture[str]) -> None:
    session = make_session(engine, GenerateConfig(max_tokens=5), system="Be brief.", context=160)
    for number in range(6):
        session.handle(f"question number {number}, not a short one at all")
    notes = capsys.readouterr().err
    assert "turns are left out" in notes and "turn is left out" in notes
    assert len(session.histories[0]) == 12, "the history itself is kept"
    head = [{"role": "system", "content": "Be brief."}]
    prompt, dropped = session._fit(head, [*session.histories[0], {"role": "user", "content": "last"}])
    assert dropped > 0 and len(prompt) == 14 - 2 * dropped
    assert prompt[0]["role"] == "system" and prompt[1]["role"] == "user" and prompt[-1]["content"] == "last"
    assert session._count_tokens(prompt) <= 155
    assert session._count_tokens([prompt[0], *session.histories[0][2 * dropped - 2 :], prompt[-1]]) > 155, (
        "no more than needed"
    )


def test_a_message_longer_than_the_context_is_refused_and_forgotten(engine: HfEngine) -> None:
    session = make_session(engine)
    session.handle("hello")
    with pytest.raises(UserError, match="do not fit"):
        session.handle("long " * 600)
    assert len(session.histories[0]) == 2
    session.handle("and now?")
    assert len(session.histories[0]) == 4


def test_a_stopped_answer_keeps_what_was_said(engine: HfEngine, capsys: pytest.CaptureFixture[str]) -> None:
    class StopsAfter(threading.Event):
        """Set after it was asked a number of times: a person who presses Ctrl-C at that token."""

        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 20

    session = make_session(engine, GenerateConfig(max_tokens=100))
    session.ask("hello", StopsAfter())
    question, answer = session.histories[0]
    whole = greedy(engine, [question], 100)
    assert 0 < len(answer["content"]) < len(whole) and whole.startswith(answer["content"])
    assert answer["weight"] == 0
    assert "(stopped)" in capsys.readouterr().err
    cancelled = threading.Event()
    cancelled.set()
    session._answer(session.voices[0], session.histories[0], {"role": "user", "content": "x"}, cancelled)
    assert len(session.histories[0]) == 2, "a question without any answer is taken back"


def test_control_characters_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(interactive=False).answer("\x1b]0;title\x07\x1b[31mred\x9b2J\rnext\n\ttab\x7f\x00 é🙂")
    assert capsys.readouterr().out == "]0;title[31mred2Jnext\n\ttab é🙂"


# -------------------------------------------------------------------------------------------------- for scripts


def test_one_prompt(tiny_model: Path, engine: HfEngine, capsys: pytest.CaptureFixture[str]) -> None:
    chat(tiny_model, settings=SHORT, prompt="hello")
    captured = capsys.readouterr()
    assert captured.out == visible(greedy(engine, [{"role": "user", "content": "hello"}]) + "\n")
    assert "12 tokens" in captured.err


def test_prompt_from_stdin(
    tiny_model: Path, engine: HfEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    chat(tiny_model, settings=SHORT, prompt="-")
    expected = greedy(engine, [{"role": "user", "content": "two\nlines"}])
    assert capsys.readouterr().out == visible(expected + "\n")
    with pytest.raises(UserError, match="empty"):
        chat(tiny_model, prompt=" ")


def test_every_line_of_stdin_is_a_turn(tiny_model: Path, tmp_path: Path) -> None:
    """Commands are for people: in a pipe they are text, which must not be able to write a file or end the session."""
    file = tmp_path / "out.jsonl"
    code = (
        "from ownchat.config import GenerateConfig; from ownchat.generate.chat import chat\n"
        f"chat({str(tiny_model)!r}, settings=GenerateConfig(max_tokens=12))"
    )
    turns = ["hello", f"/save {file}", "/quit", "and now?"]
    lines = "\n\n".join(turns) + "\n"
    done = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not file.exists()
    engine = chat_engine(tiny_model)
    history: list[dict[str, str]] = []
    expected = ""
    for turn in turns:
        history.append({"role": "user", "content": turn})
        history.append({"role": "assistant", "content": greedy(engine, history)})
        expected += history[-1]["content"] + "\n"
    assert done.stdout == visible(expected)


def test_models_are_found(make_run: Callable[..., Path], tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    run = make_run()
    train = run / "5-train"
    expected = Located(train / "model", train / "adapter", tiny_model, "Answer in one word.")
    assert locate(run) == locate(train / "model") == expected
    assert locate(tiny_model) == Located(tiny_model)
    (train / "manifest.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        locate(run)
    with pytest.raises(ModelError, match="no model here"):
        locate(tmp_path)


def test_a_run_starts_with_its_system_prompt(make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    tuned = chat_engine(run)
    question = {"role": "user", "content": "hello"}
    with_prompt = greedy(tuned, [{"role": "system", "content": "Answer in one word."}, question])
    without = greedy(tuned, [question])
    assert with_prompt != without
    chat(run, settings=SHORT, prompt="hello")
    assert capsys.readouterr().out == visible(with_prompt + "\n")
    chat(run, settings=SHORT, prompt="hello", system="")
    assert capsys.readouterr().out == visible(without + "\n")


@pytest.mark.parametrize("with_adapter", [True, False])
def test_compare_shows_base_and_tuned(
    make_run: Callable[..., Path], engine: HfEngine, capsys: pytest.CaptureFixture[str], with_adapter: bool
) -> None:
    run = make_run(with_adapter=with_adapter)
    question = [{"role": "user", "content": "hello"}]
    base, tuned = greedy(engine, question), greedy(chat_engine(run), question)
    assert base != tuned
    chat(run, settings=SHORT, prompt="hello", system="", compare=True)
    assert capsys.readouterr().out == visible(f"base:\n{base}\ntuned:\n{tuned}\n")


def test_compare_needs_a_base(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="base is not known"):
        chat(tiny_model, prompt="hello", compare=True)


def test_no_torch_until_a_model_is_needed() -> None:
    code = "import sys, ownchat.generate.chat; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


# ---------------------------------------------------------------------------------------------- in a terminal


class Terminal:
    """A chat in a pseudo-terminal of its own, where Ctrl-C is a real signal."""

    def __init__(self, code: str) -> None:
        self.seen = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and pass that on
            os.environ["TERM"] = "xterm"
            os.execv(sys.executable, [sys.executable, "-c", code])

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Everything up to the first match of ``pattern`` in what was not yet waited for."""
        end = time.monotonic() + seconds
        while (match := re.search(pattern, self.seen)) is None:
            if time.monotonic() > end or not self._read():
                raise AssertionError(f"{pattern!r} did not come; seen: {self.seen[-2000:]!r}")
        text, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return text

    def interrupt(self, pattern: str) -> None:
        """Ctrl-C until ``pattern`` comes: CPython's line editor can sleep through one that comes as it falls asleep."""
        alive = True
        for _ in range(4):
            if alive:
                self.type("\x03")
            end = time.monotonic() + 5
            while alive and time.monotonic() < end:
                if select.select([self.master], [], [], 0.1)[0]:
                    alive = self._read()
                if re.search(pattern, self.seen):
                    self.wait_for(pattern)
                    return
        raise AssertionError(f"{pattern!r} did not come; seen: {self.seen[-2000:]!r}")

    def exit_code(self) -> int:
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        if not select.select([self.master], [], [], 60)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def terminal(endless_model: Path) -> Iterator[Terminal]:
    session = Terminal(
        "from ownchat.config import GenerateConfig; from ownchat.generate.chat import chat\n"
        f"chat({str(endless_model)!r}, settings=GenerateConfig(max_tokens=90_000))"
    )
    yield session
    try:
        os.kill(session.pid, signal.SIGKILL)
        os.waitpid(session.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it ended by itself, as it should
    os.close(session.master)


def test_ctrl_c_stops_the_answer_only(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    terminal.wait_for("you> ")
    terminal.type("hello\r")
    terminal.wait_for("hello\r\n")
    terminal.wait_for("(?s).{60}")  # an answer without end has begun
    terminal.type("\x03")
    terminal.wait_for(r"\(stopped\)")
    terminal.wait_for("you> ")
    terminal.type("/nonsense\r")
    terminal.wait_for("unknown command")
    terminal.wait_for("you> ")
    terminal.type(f"/save {file}\r")
    terminal.wait_for("added to")
    terminal.wait_for("you> ")
    terminal.interrupt("once more")
    terminal.wait_for("you> ")
    terminal.type("/help\r")  # input in between: the next Ctrl-C is a first one again
    terminal.wait_for("/reset")
    terminal.wait_for("you> ")
    terminal.interrupt("once more")
    terminal.wait_for("you> ")
    with pytest.raises(AssertionError):
        terminal.interrupt("never printed: it leaves")
    assert terminal.exit_code() == 0
    question, answer = json.loads(file.read_text())["messages"]
    assert question["content"] == "hello" and answer["weight"] == 0 and len(answer["content"]) >= 10


def test_ctrl_d_leaves(terminal: Terminal) -> None:
    shown = terminal.wait_for("you> ")
    assert "loading" in shown and "/help" in shown
    terminal.type("\x04")
    assert terminal.exit_code() == 0
