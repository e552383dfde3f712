"""Which models a server has, by the names that clients give; nothing is loaded here, and no name becomes a path.

``starter`` stands first, then other bases of ``models/`` by the name of their directory, finished runs by their name,
each followed by its checkpoints (``company-faq:ckpt-step-88``), then checkpoints of fine-tuning jobs that are not done,
then models behind other servers. A name is looked up in what the directories hold, so one with ``/`` or ``..`` in it is
simply not there.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownchat.artifacts import MANIFEST, REPORT, TOKENIZER, TRAIN, finished_model, locked, read_json
from ownchat.errors import ModelError, RunError, UserError, nearest
from ownchat.generate.locate import Located, locate
from ownchat.model.starter import NAME as STARTER_NAME

STARTER = "starter"
PHASES = ("prefer", "sft", "pretrain")  # the last one that ran has the checkpoints of the model that is served
TRASH = "trash"
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\:#?%]{1,128}")  # of a directory that becomes an id
_CHECKPOINT = re.compile(r"step-(\d{6,})")


class UnknownModel(ModelError):
    """There is no model of that name."""


@dataclass(frozen=True)
class Entry:
    """One model that can be asked for.

    ``created``: Unix seconds. ``adapter``: ``"base"`` for a model that is served without any. ``tokenizer``: where
    tokenizer and chat template are, if not with the model. ``run``: the run it is of. ``upstream``: ``URL#MODEL`` of
    another server; then there is no ``located``. ``promoted``: false for a run that does not meet the requirements its
    owner set. ``info``: what may be told about it: ``kind`` (base, run, checkpoint or upstream), ``base``, ``step``.
    """

    id: str
    created: int
    owned_by: str
    located: Located | None = None
    adapter: str | None = None
    upstream: str | None = None
    promoted: bool = True
    tokenizer: Path | None = None
    run: Path | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


class Catalogue:
    """The models under ``home`` and those behind ``upstreams`` (served name to ``URL#MODEL``). Threads may share it.

    ``names``: by a run's directory the name that clients know it by, None for one that is not to be served. ``coming``:
    the same of runs that are not done, of which there are only checkpoints.
    """

    def __init__(
        self,
        home: Path,
        upstreams: Mapping[str, str] | None = None,
        names: Callable[[], Mapping[str, str | None]] = dict,
        coming: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.home, self._upstreams, self._names, self._coming = home, dict(upstreams or {}), names, coming

    def list(self) -> Sequence[Entry]:
        """All of them, the starter first where it is on this machine."""
        found = [self._base(directory) for directory in self._bases()]
        found.sort(key=lambda entry: (entry.id != STARTER, entry.id))
        coming, names = self._coming(), self._names()  # in this order: what is done in between is in both
        for run in self._runs():
            if (entry := self._run(run, names)) is not None:
                found += [entry, *self._checkpoints(run, entry)]
        for run, name in self._unfinished(coming):
            found += self._early_checkpoints(run, name)
        found += [self._upstream(name) for name in sorted(self._upstreams)]
        seen: set[str] = set()  # the first of a name is served
        return [entry for entry in found if not (entry.id in seen or seen.add(entry.id))]  # type: ignore[func-returns-value]

    def find(self, id: str) -> Entry:
        """The model of that name; raises :class:`UnknownModel` with the nearest one."""
        name, is_checkpoint, _ = id.partition(":ckpt-step-")
        for directory in self._bases():
            if (STARTER if directory.name == STARTER_NAME else directory.name) == id:
                return self._base(directory)
        coming, names = self._coming() if is_checkpoint else {}, self._names()
        for run in self._runs():
            if names.get(run.name, run.name) != name or (entry := self._run(run, names)) is None:
                continue
            if id == entry.id:
                return entry
            for checkpoint in self._checkpoints(run, entry):
                if checkpoint.id == id:
                    return checkpoint
        for run, called in self._unfinished(coming):
            for checkpoint in self._early_checkpoints(run, called) if called == name else ():
                if checkpoint.id == id:
                    return checkpoint
        if id in self._upstreams:
            return self._upstream(id)
        hint = nearest(id[:200], [entry.id for entry in self.list()])
        raise UnknownModel(f'there is no model "{id[:64]}"', fix=hint or "GET /v1/models lists them")

    def delete(self, id: str) -> None:
        """Take a run out of service: its directory is moved to ``trash/``, from where its owner can move it back.

        Raises :class:`UnknownModel`, and :class:`~ownchat.errors.RunError` for a base, for a checkpoint, for a model
        behind another server and for a run that a process works on.
        """
        entry = self.find(id)
        if entry.info.get("kind") != "run" or entry.run is None:
            raise RunError(
                f"a {entry.info.get('kind')} is not deleted here", where=entry.id, fix="only whole runs can be deleted"
            )
        run, trash = entry.run, self.home / TRASH
        trash.mkdir(mode=0o700, exist_ok=True)
        with locked(run):
            os.replace(run, trash / f"{run.name}-{secrets.token_hex(4)}")

    # ------------------------------------------------------------------------------------------------ inside

    def _bases(self) -> Iterator[Path]:
        for directory in _directories(self.home / "models"):
            complete = (directory / MANIFEST).is_file() or (directory / ".complete").is_file()
            if complete and (directory / "config.json").is_file():  # others are tokenizers, or half fetched
                yield directory

    def _runs(self) -> Iterator[Path]:
        for run in _directories(self.home / "runs"):
            if finished_model(run) is not None:
                yield run

    def _unfinished(self, coming: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
        for run in _directories(self.home / "runs") if coming else ():
            if run.name in coming:
                yield run, coming[run.name]

    def _base(self, directory: Path) -> Entry:
        id = STARTER if directory.name == STARTER_NAME else directory.name
        return Entry(
            id=id,
            created=int((directory / "config.json").stat().st_mtime),
            owned_by="system",
            located=Located(directory),
            adapter="base",
            info={"kind": "base", "name": directory.name},
        )

    def _run(self, run: Path, names: Mapping[str, str | None]) -> Entry | None:
        """None for a run that is damaged, or not to be served: the others are served all the same."""
        if (id := names.get(run.name, run.name)) is None:
            return None
        try:
            located = locate(run)
            created = int((run / TRAIN / MANIFEST).stat().st_mtime)
        except (UserError, OSError):
            return None
        info = {"kind": "run", "base": _base_name(located.base)}
        return Entry(id, created, "owner", located, promoted=_promoted(run), run=run, info=info)

    def _checkpoints(self, run: Path, entry: Entry) -> Iterator[Entry]:
        """Those of the last phase; what is not whole is left out."""
        if (of_run := entry.located) is None:
            return
        for step, directory in _steps(run):
            base = of_run.base
            if (directory / "adapter" / "adapter_config.json").is_file() and _is_model(base):
                located = Located(of_run.model, directory / "adapter", base, of_run.system)
            elif _is_model(directory / "model"):
                located = Located(directory / "model", None, base, of_run.system)
            else:
                continue
            yield Entry(
                id=f"{entry.id}:ckpt-step-{step}",
                created=_written(directory),
                owned_by=entry.owned_by,
                located=located,
                promoted=entry.promoted,
                tokenizer=of_run.model,
                run=run,
                info={**entry.info, "kind": "checkpoint", "step": step},
            )

    def _early_checkpoints(self, run: Path, name: str) -> Iterator[Entry]:
        """Those of a run that has no model yet; it may take the older ones away at any moment."""
        for step, directory in _steps(run):
            adapter, model = directory / "adapter", directory / "model"
            base = _base_of(adapter)
            if base is not None and _is_model(base):
                located = Located(adapter, adapter, base)
            elif _is_model(model):
                located = Located(model)
            else:
                continue
            yield Entry(
                id=f"{name}:ckpt-step-{step}",
                created=_written(directory),
                owned_by="owner",
                located=located,
                tokenizer=run / TOKENIZER,
                run=run,
                info={"kind": "checkpoint", "base": _base_name(base), "step": step},
            )

    def _upstream(self, name: str) -> Entry:
        return Entry(name, 0, "upstream", upstream=self._upstreams[name], info={"kind": "upstream"})


@contextmanager
def still_there(entry: Entry) -> Iterator[None]:
    """Say of a failure that the model's files are gone, where they are."""
    try:
        yield
    except (UserError, OSError) as error:
        located = entry.located
        if located is None or (located.adapter or located.model).is_dir():
            raise
        what = f"{entry.id} was taken away" + (
            ": of a training the last checkpoints stay, and the best" if entry.info.get("kind") == "checkpoint" else ""
        )
        raise UnknownModel(what, fix="GET /v1/models lists what is there") from error


def _directories(root: Path) -> Sequence[Path]:
    """Directories whose names can be ids; a link is none: it may lead anywhere."""
    try:
        entries = list(os.scandir(root))
    except OSError:
        return []
    names = sorted(
        entry.name
        for entry in entries
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and _NAME.fullmatch(entry.name)
    )
    return [root / name for name in names]


def _steps(run: Path) -> Iterator[tuple[int, Path]]:
    """Whole checkpoints of the last phase that a run has begun, by their step."""
    phase = next((run / TRAIN / name for name in PHASES if (run / TRAIN / name / "checkpoints").is_dir()), None)
    for directory in sorted(_directories(phase / "checkpoints")) if phase is not None else ():
        match = _CHECKPOINT.fullmatch(directory.name)
        if match is not None and (directory / "state.json").is_file():
            yield int(match[1]), directory


def _is_model(directory: Path | None) -> bool:
    return directory is not None and (directory / "config.json").is_file()


def _base_of(adapter: Path) -> Path | None:
    """What an adapter stands on, as it says itself; None where there is none."""
    try:
        named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        return Path(named)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _base_name(base: Path | None) -> str | None:
    return None if base is None else STARTER if base.name == STARTER_NAME else base.name


def _written(directory: Path) -> int:
    """When a checkpoint was; 0 for one that was taken away just now."""
    try:
        return int((directory / "state.json").stat().st_mtime)
    except OSError:
        return 0


def _promoted(run: Path) -> bool:
    """Whether the run meets the requirements in its report; none: it does."""
    report = run / REPORT / "report.json"
    try:
        checks = (read_json(report).get("gates") or {}).get("checks", []) if report.is_file() else []
        return all(check["passed"] for check in checks)
    except (UserError, OSError, json.JSONDecodeError, AttributeError, KeyError, TypeError):
        return False  # nobody can say that it does
