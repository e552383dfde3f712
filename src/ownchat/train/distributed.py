"""The processes that train together: which one this is, what the first one says, sums over all.

``torchrun``, or whatever sets its variables, starts one process for each GPU, on one machine or on many. Alone,
everything here does nothing. torch is loaded only in company, so that a mistake in the data is told before that.

Long waits (the first process imports, cleans, evaluates, writes) go through torchrun's store, by asking again and
again: collectives would give up after half an hour. All processes have to see the run directory.
"""

from __future__ import annotations

import heapq
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ownchat.errors import Interrupted, RunError, UserError
from ownchat.monitor.progress import say

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ownchat.tokenizer.store import Document, Item

POLL_SECONDS = 0.05
JOIN_SECONDS = 900.0  # for all processes to start: containers are pulled, libraries loaded
COLLECTIVE_SECONDS = 1800  # a process that does not come to a collective is lost
DIRECTORY_SECONDS = 60.0  # until a file on a shared disk shows everywhere: NFS holds directories for that long
OTHERS_ENDED, SIGNALLED = 1, 143  # exit codes of processes that only follow


class World:
    """This process among ``size``; ``local_size`` of them on this machine. Alone by default."""

    def __init__(
        self, rank: int = 0, size: int = 1, *, local_rank: int = 0, local_size: int = 1, store: Any = None
    ) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._store, self._messages, self._device = store, 0, "cpu"

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Does this process do what is done once: read data, write files, evaluate, talk?"""
        return self.rank == 0

    # ------------------------------------------------------------------------------------- through the store

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What ``make`` returns in the first process, plain JSON; the others wait for it as long as it takes."""
        if self.alone:
            return make()
        self._messages += 1
        key = f"said/{self._messages}"
        if self.first:
            self._store.set(key, json.dumps(make()))
        return json.loads(self._wait(key))

    def to_first(self, value: Any) -> list[Any]:
        """In the first process what every process gives, plain JSON, by rank; elsewhere nothing."""
        if self.alone:
            return [value]
        self._messages += 1
        key = f"given/{self._messages}"
        if not self.first:
            self._store.set(f"{key}/{self.rank}", json.dumps(value))
            return []
        return [value, *(json.loads(self._wait(f"{key}/{rank}")) for rank in range(1, self.size))]

    def _wait(self, key: str) -> bytes:
        while not self._store.check([key]):
            if self._store.check(["over"]):
                raise _Over(self._code())
            time.sleep(POLL_SECONDS)
        return self._store.get(key)

    def end(self, code: int) -> None:
        """Tell the processes that wait that this command is over."""
        self._store.set("over", str(code))

    def follow(self, seconds: float | None = None) -> int | None:
        """Wait until the command is over; its exit code, or None when that took too long."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._store.check(["over"]):
            if deadline is not None and time.monotonic() > deadline:
                return None
            time.sleep(POLL_SECONDS)
        return self._code()

    def _code(self) -> int:
        """What a process that only follows exits with: 130 would be told as an interrupt once more."""
        code = int(self._store.get("over"))
        return SIGNALLED if code == 130 else code

    def must_see(self, file: Path) -> None:
        """Raise :class:`~ownchat.errors.RunError` where a file of the first process does not show in time."""
        deadline = time.monotonic() + DIRECTORY_SECONDS
        while not file.exists():
            if time.monotonic() > deadline:
                raise RunError(
                    f"process {self.rank} does not see what the first process wrote: they need a shared file system",
                    where=str(file),
                    fix="set OWNCHAT_HOME to a folder that all machines see under the same path (NFS, Lustre)",
                )
            time.sleep(POLL_SECONDS)

    # ------------------------------------------------------------------------------------------- collectives

    def connect(self) -> None:
        """Make ready for sums: NCCL where there are GPUs, one for each process, else gloo."""
        if self.alone:
            return
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        if dist.is_initialized():
            return
        from datetime import timedelta

        if torch.cuda.is_available():
            if self.local_rank >= torch.cuda.device_count():
                raise RunError(
                    f"{self.local_size} processes and {torch.cuda.device_count()} GPUs on this machine",
                    fix="start as many processes as there are GPUs: torchrun --nproc-per-node=gpu",
                )
            torch.cuda.set_device(self.local_rank)
            self._device = "cuda"
        dist.init_process_group(
            "nccl" if self._device == "cuda" else "gloo",
            store=PrefixStore("group", self._store),
            rank=self.rank,
            world_size=self.size,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place: the same bits in each."""
        if not self.alone:
            import torch.distributed as dist

            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Is it so in any process?"""
        if self.alone:
            return flag
        import torch

        return bool(self.sum(torch.tensor(float(flag), device=self._device)) > 0)

    # --------------------------------------------------------------------------------- the model and its files

    def shard(self, model: Any, *, dtype: str, whole_base: bool = False) -> Any:
        """The model spread over the processes, to be used in its place; its own modules are changed."""
        if self.alone:
            return model
        from ownchat.train import sharding

        return sharding.shard(model, self, dtype=dtype, whole_base=whole_base)

    def save_adapter(self, wrapped: Any, directory: Path) -> None:
        """A standard PEFT adapter."""
        if self.alone:
            wrapped.save_pretrained(str(directory), safe_serialization=True)
            return
        from ownchat.train import sharding

        sharding.save_adapter(wrapped, directory, self)

    def save_model(self, model: Any, directory: Path, *, dtype: str) -> None:
        """A standard Hugging Face directory, with weights in ``dtype`` where they are spread."""
        if self.alone:
            model.save_pretrained(directory)
            return
        from ownchat.train import sharding

        sharding.save_model(model, directory, self, dtype=dtype)

    # ---------------------------------------------------------------------------------- steps and validations

    def passes(self, blocks: Sequence[Sequence[Item]], block_tokens: int) -> Sequence[Sequence[Item]]:
        """This process's blocks of a global batch: as many as in every other process, so some can be empty."""
        if self.alone:
            return blocks
        from ownchat.train import sharding

        return sharding.passes([item for block in blocks for item in block], self, block_tokens)

    def before_pass(self, model: Any, *, is_last: bool) -> None:
        """``is_last``: of this step."""
        if not self.alone:
            from ownchat.train import sharding

            sharding.before_pass(model, is_last=is_last)

    def empty_pass(self, model: Any) -> None:
        """Where the others have a block and this process has none."""
        if not self.alone:
            from ownchat.train import sharding

            sharding.empty_pass(model)

    def score(self, model: Any, documents: Sequence[Document], **settings: Any) -> list[np.ndarray]:
        """:func:`~ownchat.model.score.score_documents`, shared by the processes; all of them get all scores."""
        from ownchat.model.score import score_documents

        if self.alone:
            return score_documents(model, documents, **settings)
        from ownchat.train import sharding

        return sharding.score_together(self, model, documents, **settings)


ALONE = World()
_joined: World | None = None  # a process belongs to one world, as it has one rank


class _Over(Exception):
    """The first process ended; nothing is left to wait for."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def size() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def join() -> World:
    """The world of this process; the first call in company waits until all are there."""
    global _joined
    if _joined is None:
        _joined = ALONE if size() == 1 else _meet()
    return _joined


def _meet() -> World:
    """Meet in the store. After a restart it still holds what earlier processes left, so nothing in it is believed
    but answers to a number that was just drawn."""
    from datetime import timedelta

    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    rank, count = int(os.environ["RANK"]), size()
    store, *_ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
    deadline, mine = time.monotonic() + JOIN_SECONDS, uuid.uuid4().hex
    attempt = mine
    if rank == 0:
        answered: dict[int, bytes] = {}
        missing = set(range(1, count))
        while missing:
            for other in list(missing):
                if store.check([f"hello/{other}"]) and (drawn := store.get(f"hello/{other}")) != answered.get(other):
                    answered[other] = drawn
                    store.set(f"welcome/{drawn.decode()}", attempt)
                if store.check([f"here/{attempt}/{other}"]):
                    missing.discard(other)
            _not_too_late(deadline, f"process {min(missing)} of {count}" if missing else "")
    else:
        store.set(f"hello/{rank}", mine)
        while not store.check([f"welcome/{mine}"]):
            _not_too_late(deadline, "the first process")
        attempt = store.get(f"welcome/{mine}").decode()
        store.set(f"here/{attempt}/{rank}", "1")
    return World(
        rank,
        count,
        local_rank=int(os.environ.get("LOCAL_RANK", rank)),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        store=PrefixStore(attempt, store),
    )


def _not_too_late(deadline: float, who: str) -> None:
    if time.monotonic() > deadline:
        raise RunError(f"{who} has not started within {JOIN_SECONDS / 60:.0f} minutes", fix="look at its output")
    time.sleep(POLL_SECONDS)


@contextmanager
def together() -> Iterator[World]:
    """Around a command: when one process ends, all end, and only one of them says why.

    Processes but the first leave by ``SystemExit`` when the command is over, with the first one's exit code.
    """
    world = join()
    if world.alone:
        yield world
        return
    try:
        yield world
        if world.first:
            world.end(0)
        else:
            raise SystemExit(world.follow())
    except Exception as error:
        _leave(world, error)
    finally:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def _leave(world: World, error: Exception) -> NoReturn:
    lost = is_lost(error)
    if world.first:
        code = 130 if lost or isinstance(error, Interrupted) else 2 if isinstance(error, UserError) else 1
        _try_to_end(world, code)
        if lost:
            raise Interrupted(
                "another process of this training ended; the same command goes on from the last checkpoint"
            ) from None
        raise error
    if isinstance(error, _Over):
        raise SystemExit(error.code) from None
    if lost:
        raise SystemExit(OTHERS_ENDED) from None
    if isinstance(error, Interrupted):
        raise SystemExit(SIGNALLED) from None
    if isinstance(error, UserError):
        met = world.follow(seconds=5)
        if met is None:  # else the first process met the same, and tells it
            say(f"ownchat: process {world.rank} of {world.size}: {error}")
            _try_to_end(world, 2)
        raise SystemExit(2 if met is None else met) from None
    _try_to_end(world, 1)
    raise error


def _try_to_end(world: World, code: int) -> None:
    try:
        world.end(code)
    except Exception:  # the store went with the process that held it
        return


LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport", "Socket closed")


def is_lost(error: BaseException) -> bool:
    """Does this say that another process is gone?"""
    import torch.distributed as dist

    if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in LOST)


def deal(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Numbers of items for each process, nearly the same tokens for each: the longest first, to who has least.

    A pure function of the lengths, so that nobody has to be told.

    >>> deal([5, 9, 4, 2], 2)
    [[1, 3], [0, 2]]
    """
    dealt: list[list[int]] = [[] for _ in range(processes)]
    least = [(0, process) for process in range(processes)]
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        held, process = least[0]
        dealt[process].append(number)
        heapq.heapreplace(least, (held + int(lengths[number]), process))
    return dealt


def nobody(*_: object, **__: object) -> None:
    """Hears what only the first process tells: progress, signs of life."""
