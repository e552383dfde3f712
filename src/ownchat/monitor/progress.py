"""What a person sees while they wait: a line that moves in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)  # progress is not the result: it must not land in a pipe

Advance = Callable[..., None]
LOG_SECONDS = 15.0


def say(text: str) -> None:
    """A line that a person should see at once: above the bar where one moves."""
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: float | None, unit: str = "") -> Iterator[Advance]:
    """Yield ``advance(amount=1, note="", of=None)``; shows share, note, time gone and left. ``of``: another total.

    In a terminal a bar; elsewhere (a log, CI) a plain line at most every 15 seconds.

    >>> with progress("reading", 10, "files") as advance:
    ...     advance(10)
    """
    if console.is_terminal:
        columns = (
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=28), TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total, note="", amount="")
            done = 0.0

            def advance(amount: float = 1, note: str = "", of: float | None = None) -> None:
                nonlocal done, total
                done, total = done + amount, of or total
                bar.update(task, advance=amount, total=total, note=note, amount=_amount(done, total, unit))

            yield advance
        return
    yield _logger(title, total, unit)


def _logger(title: str, total: float | None, unit: str) -> Advance:
    start = last = time.monotonic()
    done = 0.0

    def advance(amount: float = 1, note: str = "", of: float | None = None) -> None:
        nonlocal done, last, total
        done, total = done + amount, of or total
        now = time.monotonic()
        if now - last >= LOG_SECONDS:
            last = now
            left = f", {(now - start) * (total - done) / done:.0f} s left" if total and done else ""
            print(f"  {title}: {_amount(done, total, unit)}{left} {note}".rstrip(), file=sys.stderr, flush=True)

    return advance


def _amount(done: float, total: float | None, unit: str) -> str:
    of = f" of {total:,.0f}" if total else ""
    return f"{done:,.0f}{of} {unit}".rstrip()
