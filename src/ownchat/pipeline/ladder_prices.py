"""What answers cost, as ``ownchat ladder`` is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ownchat.errors import UserError, nearest

if TYPE_CHECKING:
    from ownchat.generate.answering import Answered


@dataclass(frozen=True)
class Prices:
    """Money: for a million tokens, by ``URL#MODEL`` (None: of all others), and for an hour of this machine.
    Either both of a model are known, or none: half a cost would look like a small one."""

    prompt: dict[str | None, float]
    completion: dict[str | None, float]
    hour: float | None = None

    @classmethod
    def read(cls, prompt: Sequence[str], completion: Sequence[str], hour: float | None) -> Prices:
        """From ``0.15`` and ``URL#MODEL=0.15``; raises :class:`~ownchat.errors.UserError`."""
        if hour is not None and not (math.isfinite(hour) and hour >= 0):
            raise UserError(f'"{hour}" is no price', where="--price", fix="money for an hour: --price 0.36")
        read, written = _prices(prompt, "--price-in"), _prices(completion, "--price-out")
        if bool(read) != bool(written):
            missing = "--price-out" if read else "--price-in"
            raise UserError("of the two prices one is missing", where=missing, fix=f"add {missing}")
        return cls(read, written, hour)

    def check(self, models: Sequence[str]) -> None:
        """Raise :class:`~ownchat.errors.UserError` for a price of no model, and a model with one price of two."""
        for name in [*self.prompt, *self.completion]:
            if name is not None and name not in models:
                fix = nearest(name, models) or "write it as for --model"
                raise UserError(f'a price for "{name}", which is not asked', where="ownchat ladder", fix=fix)
        for model in models:
            known = [table.get(model, table.get(None)) for table in (self.prompt, self.completion)]
            if known.count(None) == 1:
                missing = "--price-in" if known[0] is None else "--price-out"
                raise UserError("of the two prices one is missing", where=model, fix=f"add {missing} {model}=PRICE")

    def of_machine(self, answers: Sequence[Answered]) -> float | None:
        """For 1,000 answers of this machine, from its price for an hour."""
        seconds = [one.seconds for one in answers if one.error is None]
        if self.hour is None or not seconds:
            return None
        return 1000 * sum(seconds) / len(seconds) / 3600 * self.hour

    def of_server(self, answers: Sequence[Answered], model: str) -> float | None:
        """For 1,000 answers of a server; None where its prices are not given or it counts no tokens."""
        prompt, completion = (table.get(model, table.get(None)) for table in (self.prompt, self.completion))
        done = [one for one in answers if one.error is None]
        if prompt is None or completion is None or not any(one.completion_tokens for one in done):
            return None
        read, written = sum(one.prompt_tokens for one in done), sum(one.completion_tokens for one in done)
        return 1000 * (read * prompt + written * completion) / 1e6 / len(done)


def _prices(given: Sequence[str], option: str) -> dict[str | None, float]:
    found: dict[str | None, float] = {}
    for text in given:
        model, _, number = text.rpartition("=")
        try:
            price = float(number)
        except ValueError:
            price = math.nan
        found[model or None] = price
        if not (math.isfinite(price) and price >= 0):
            raise UserError(f'"{text}" is no price', where=option, fix=f"{option} 0.15, or {option} URL#MODEL=0.15")
    return found
