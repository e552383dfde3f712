"""What stands in the sources, before anything is read: which files, of which format, and which belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ownchat.config import DataConfig
from ownchat.data.files import Found, open_file
from ownchat.data.readers import detect
from ownchat.data.remote import Location, size_of
from ownchat.errors import DataError, OwnchatError, printable

CHUNK_BYTES = 48_000_000  # files that one process reads at a time; a shard's order of magnitude


@dataclass
class Task:
    """Files that are read as one: a single one, or all mails, or all days of a Slack export."""

    format: str
    files: list[tuple[Location, str]]  # (place, name)
    size: int  # bytes as they are stored
    confidence: float = 1.0


@dataclass
class Plan:
    """The tasks in order of their first file, and what is not read."""

    tasks: list[Task] = field(default_factory=list)
    skipped: list[Found] = field(default_factory=list)
    unreadable: list[tuple[str, DataError]] = field(default_factory=list)
    archives: list[Found] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(task.size for task in self.tasks)


def make_plan(found: Iterable[Found], data: DataConfig, on_file: Callable[[], None] = lambda: None) -> Plan:
    """Look at the beginning of every file; files of a format that is read together become one task."""
    plan = Plan()
    together: dict[str, int] = {}  # format -> place of its task
    for one in found:
        on_file()
        if one.skipped:
            plan.skipped.append(one)
        elif one.members:
            plan.archives.append(one)
        else:
            try:
                format, confidence = detect(open_file(one.path, one.name, beginning_only=True), data.format)
            except Exception as error:  # not only UnreadableFile: a library may raise anything on damaged input
                plan.unreadable.append((one.name, as_data_error(error, one.name)))
                continue
            file, size = (one.path, one.name), size_of(one.path)
            if format.together is not None and format.name in together:
                task = plan.tasks[together[format.name]]
                task.files.append(file)
                task.size += size
                task.confidence = min(task.confidence, confidence)
                continue
            together[format.name] = len(plan.tasks)
            plan.tasks.append(Task(format.name, [file], size, confidence))
    return plan


def chunks(plan: Plan) -> list[list[Task]]:
    """The tasks in order, cut into stretches of about :data:`CHUNK_BYTES`: they do not depend on the machine."""
    made: list[list[Task]] = []
    size = 0
    for task in plan.tasks:
        if not made or size + task.size > CHUNK_BYTES:
            made.append([])
            size = 0
        made[-1].append(task)
        size += task.size
    return made


def as_data_error(error: Exception, name: str) -> DataError:
    """What a reader raised, as something to tell the user; raises it where the fault is ours."""
    if isinstance(error, DataError):
        return error
    if isinstance(error, OwnchatError):
        raise error
    text = printable(f"{type(error).__name__}: {error}")[:300]
    return DataError(f"the reader stopped: {text}", where=name, fix="the file may be damaged; open it, save it again")
