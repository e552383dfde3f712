"""Probabilities that an engine has to ask itself for while it answers. No torch here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from ownchat.generate.engine import Delta

# (ids before, id, whether to wait for a slot) to a natural-log probability; none where there is no slot, or no wish
LogProb = Callable[[Sequence[int], int, bool], float | None]


def scored(deltas: Generator[Delta], prompt: Sequence[int], logprob: LogProb) -> Iterator[Delta]:
    """The deltas with all their log-probabilities; of several tokens that make one character only the last has its own.

    Asking for the others takes a slot beside that of the answer. Where none is free, the deltas from there on wait for
    one, at the latest for that of the answer itself, when it is over; meanwhile empty ones tell that it goes on.
    """
    waiting: deque[Delta] = deque()
    before = list(prompt)
    with closing(deltas):
        for delta in deltas:
            waiting.append(delta)
            while waiting and (whole := _whole(waiting[0], before, logprob, wait=False)) is not None:
                waiting.popleft()
                before += whole.ids
                yield whole
            if waiting:
                yield Delta("")
    for delta in waiting:
        found = _whole(delta, before, logprob, wait=True)
        before += delta.ids
        yield replace(delta, ids=(), logprobs=(), top=()) if found is None else found


def _whole(delta: Delta, before: Sequence[int], logprob: LogProb, *, wait: bool) -> Delta | None:
    missing = delta.ids[: len(delta.ids) - len(delta.logprobs)]
    if not missing or not delta.logprobs:
        return delta
    values: list[float] = []
    for number, id in enumerate(missing):
        value = logprob([*before, *missing[:number]], id, wait)
        if value is None:
            return None
        values.append(value)
    own = [((id, value),) for id, value in zip(missing, values, strict=True)]  # of those only themselves
    return replace(delta, logprobs=(*values, *delta.logprobs), top=(*own, *delta.top) if delta.top else ())
