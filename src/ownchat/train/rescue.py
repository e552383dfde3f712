"""When memory runs out, the same mathematics in less of it.

The half-done step is dropped and made again, with the same documents in blocks of half as many tokens: half the
micro-batch, twice the accumulation. The loss is a sum over the global batch divided by a count that is known
beforehand, so only the order of the sums changes. When every block is one document already, activations are made
again in the backward pass instead of kept, and on a GPU offloaded. Then it ends with an error that says what to do.

Each rescue is a decision, saved with the step from which it holds. A resume from an earlier checkpoint makes the steps
before that one as they were made at first, and the others in the smaller blocks: bit for bit the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ownchat.errors import RunError
from ownchat.model.activations import Activations, possible, use_activations
from ownchat.model.out_of_memory import Guard, make_room
from ownchat.model.score import halved
from ownchat.monitor.events import Events
from ownchat.monitor.progress import say
from ownchat.train import decisions
from ownchat.train.decisions import Decisions

EVENT = "out_of_memory"
ORDER: tuple[Activations, ...] = ("keep", "recompute", "offload")


class OutOfMemory(Exception):
    """A step that was not finished; no weight has changed. ``items``, ``tokens``: of the block that failed."""

    def __init__(self, why: str, *, items: int, tokens: int) -> None:
        super().__init__(why)
        self.why, self.items, self.tokens = why, items, tokens


@dataclass(frozen=True)
class Rescued:
    """From this step on (the first is 1; a validation has the number of the step it follows) no more than this."""

    step: int
    part: Literal["train", "validate"]
    block_tokens: int
    activations: Activations


class Rescue:
    """What goes into one forward pass, by step, and less of it after memory ran out.

    ``directory``: of the phase, where ``decisions.json`` is. ``setting``: ``train.activations``; only ``auto`` lets
    activations change later.
    """

    def __init__(self, model: Any, directory: Path, choice: Decisions, *, block_tokens: int, setting: str) -> None:
        self._model, self._directory = model, directory
        self._begin = Rescued(0, "train", block_tokens, choice.activations)
        self._made = [Rescued(**row) for row in choice.rescues]
        self._may_change = possible(model) if setting == "auto" else ()
        self._used: Activations = "keep"
        self.guard = Guard() if model.device.type == "cpu" else None
        self.activations(0)  # what cannot be is said before anything is trained

    def block_tokens(self, step: int, part: Literal["train", "validate"] = "train") -> int:
        """Most tokens of a block. Validations need less memory than training, and have a limit of their own."""
        mine = [made.block_tokens for made in self._made if made.part == part and made.step <= step]
        return min([self._begin.block_tokens, *mine])

    def activations(self, step: int) -> Activations:
        """How activations are held in a step; the model is told."""
        wanted = max([self._begin, *(made for made in self._made if made.step <= step)], key=_saving).activations
        if wanted != self._used:
            use_activations(self._model, wanted)
            self._used = wanted
        return wanted

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was done, for the report."""
        return [asdict(made) for made in self._made]

    def step_failed(self, step: int, blocks: Sequence[Sequence[int]], error: OutOfMemory, events: Events) -> None:
        """Decide how ``step`` is made again; ``blocks``: the documents' lengths in the blocks that were too large.

        Raises :class:`~ownchat.errors.RunError` when nothing is left to try.
        """
        make_room()
        old, held = self.block_tokens(step), self.activations(step)
        later = [how for how in self._may_change if ORDER.index(how) > ORDER.index(held)]
        if error.items > 1:
            made = Rescued(step, "train", halved(old, blocks), held)
            action = f"blocks of {made.block_tokens:,} tokens from now on, they were {old:,}"
        elif later:
            made = Rescued(step, "train", old, later[0])
            action = _ACTIONS[later[0]]
        else:
            events.emit(EVENT, step=step, part="train", why=error.why, block_tokens=old, done="ended")
            raise self._nothing_left(step, error.tokens, held, error.why)
        say(f"out of memory in step {step} ({error.why}): {action}; the step is made again, same mathematics")
        self._keep(made, old, error.why, events)

    def validation_failed(self, step: int, old: int, new: int, why: str, events: Events) -> None:
        """Scoring needed more memory than there was; it goes on in blocks of ``new`` tokens."""
        say(f"out of memory in the validation after step {step} ({why}): blocks of {new:,} tokens, they were {old:,}")
        self._keep(Rescued(step, "validate", new, "keep"), old, why, events)

    def _keep(self, made: Rescued, old: int, why: str, events: Events) -> None:
        self._made.append(made)
        decisions.keep(self._directory, rescues=tuple(self.rows))
        events.emit(EVENT, **asdict(made), block_tokens_before=old, why=why)

    def _nothing_left(self, step: int, tokens: int, held: str, why: str) -> RunError:
        fixes = ["cut documents shorter (tokenizer.max_tokens)", "train an adapter (train.method=lora)"]
        fixes += ["take a smaller base (model.base)"]
        if not self._may_change and held == "keep" and len(possible(self._model)) > 1:
            fixes.insert(0, "let activations be made again (train.activations=auto)")
        return RunError(
            f"out of memory in step {step}: a document of {tokens:,} tokens does not fit alone, with activations on "
            f'"{held}" ({why}); the last checkpoint is whole',
            where=str(self._directory),
            fix="close other programs and run the same command again, or: " + ", ".join(fixes),
        )


def next_time(directory: Path) -> RunError:
    """A rescue cannot happen while other processes wait in the middle of a step; the next start obeys it."""
    return RunError(
        "out of memory, and the other processes are in the middle of the step: smaller blocks are noted for it",
        where=str(directory),
        fix="run the same command again (torchrun --max-restarts does): it goes on from the last checkpoint",
    )


_ACTIONS = {
    "recompute": "every block is one document, so activations are made again in the backward pass from now on",
    "offload": "every block is one document, so layers' inputs wait in the host's memory from now on",
}


def _saving(made: Rescued) -> int:
    return ORDER.index(made.activations)
